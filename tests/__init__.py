"""The tests, and what several of them share."""
