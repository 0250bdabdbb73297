"""Paddle Serving's protocols."""
