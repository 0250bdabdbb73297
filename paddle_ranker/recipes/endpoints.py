"""The served models that this project's recipes add; their registry imports it, by its name."""

from multimodal_entailment import plugin

__all__ = ["plugin"]
