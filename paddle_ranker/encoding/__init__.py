"""Texts to ids, and ids to batches."""

POOLINGS = ("max", "mean_top_k")  # of the logits of windows over a long title
TOP_K = 2  # windows of mean_top_k, where nothing else is said
