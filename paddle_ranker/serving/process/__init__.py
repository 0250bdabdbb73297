"""Processes, ports and connections."""
