"""Ranking losses. A new one is added in `ranking_losses`, which registers them in `loss_registry.LOSSES`."""

from paddle_ranker.training.losses import ranking_losses as ranking_losses
