"""Logits and probabilities of pairs: scorers, rankers, files, and the engines that compute."""
