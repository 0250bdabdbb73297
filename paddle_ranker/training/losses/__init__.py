"""Ranking losses; the module imported here adds them to `loss_registry.LOSSES`, the place to add a new loss."""

from paddle_ranker.training.losses import ranking_losses as ranking_losses
