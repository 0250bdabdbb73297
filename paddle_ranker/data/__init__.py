"""Rows of every role and format."""
