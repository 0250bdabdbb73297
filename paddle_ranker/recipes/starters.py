"""The ways to pretrain a starter encoder that this project's recipes add; their registry imports it, by its name."""

from pretraining import starter

__all__ = ["starter"]
