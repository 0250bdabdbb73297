"""The kinds of models that this project's recipes add; their registry imports it, by its name."""

from multimodal_entailment import kind

__all__ = ["kind"]
