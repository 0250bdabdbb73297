"""Texts to ids, and ids to batches."""
