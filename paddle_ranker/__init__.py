"""Semantic-search ranking on PaddlePaddle: train a ranker, measure it, speed it up, serve it."""

__version__ = "0.1.0"
