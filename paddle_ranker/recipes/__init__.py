"""The recipes of this project; nothing else in this package knows of them.

In a checkout they are top-level folders. In an installed wheel setup.py puts them here:
`python -m paddle_ranker.recipes.ernie_matching.train_pairwise`.

What a recipe adds to a registry stands in a module of its own: its commands in `commands.py`, a kind of model in
`kind.py`, slots and endpoints of the server in `plugin.py`, a way to pretrain a starter in `starter.py`.
"""

from __future__ import annotations

from pathlib import Path

RECIPES = ("ernie_matching", "cross_encoder", "pretraining", "multimodal_entailment")


def package_of(recipe: str) -> str:
    """Return the package of a recipe: inside this one in a wheel, a top-level folder in a checkout."""
    return f"{__name__}.{recipe}" if (Path(__file__).parent / recipe).is_dir() else recipe
