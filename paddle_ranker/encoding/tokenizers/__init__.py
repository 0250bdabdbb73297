"""Tokenizers that give the ids of PaddleNLP's Python tokenizers, many times faster."""
