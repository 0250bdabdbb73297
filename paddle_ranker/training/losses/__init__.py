"""Ranking losses; the module imported here adds them to `registry.LOSSES`, the place to add a new loss."""

from paddle_ranker.training.losses import ranking as ranking
