"""Clients of the conformance table, each run by the Python that has it."""
