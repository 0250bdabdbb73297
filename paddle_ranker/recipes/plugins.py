"""What this project's own recipes add to the package's registries; imported where a registry does not know a name.

The one module of the package that imports recipes, and nothing imports it: `paddle_ranker.registry` knows its name.
"""

from multimodal_entailment import kind, plugin
from pretraining import starter

__all__ = ["kind", "plugin", "starter"]
