"""The commands of this project's recipes; their registry imports it, by its name."""

from cross_encoder import commands as cross_encoder
from ernie_matching import commands as ernie_matching
from multimodal_entailment import commands as multimodal_entailment
from pretraining import commands as pretraining

__all__ = ["cross_encoder", "ernie_matching", "multimodal_entailment", "pretraining"]
