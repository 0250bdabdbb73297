"""Ranking losses. Add a new loss to `ranking_losses`, which registers all losses in `loss_registry.LOSSES`."""

from paddle_ranker.training.losses import ranking_losses as ranking_losses
