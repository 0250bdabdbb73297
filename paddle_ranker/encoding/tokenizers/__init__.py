"""Tokenizers: the ids of PaddleNLP's Python tokenizers, many times faster."""
