"""Ranking losses by name; to add one is to add it to `registry.LOSSES`, as the module imported here does."""

from paddle_ranker.training.losses import ranking as ranking
