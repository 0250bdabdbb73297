"""Texts to ids, and ids to batches."""

POOLINGS = ("max", "mean_top_k")  # ways to pool the logits of windows over a long title
TOP_K = 2  # default number of windows for mean_top_k
