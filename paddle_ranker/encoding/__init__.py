"""Encode texts as token ids, and form batches of token ids."""
