"""Measures of ranking quality, how sure they are, and fits of one line."""
