"""Benchmarks of speed and quality beside other systems (peers); most modules are commands that print a table."""
