"""The lists of this project's recipes and guests; no other module of this package names them.

In a checkout recipes are top-level folders. In an installed wheel they are in this folder, where setup.py puts them:
`python -m paddle_ranker.recipes.ernie_matching.train_pairwise`.

A recipe adds items to registries in separate modules: its commands in `commands.py`, a kind of model in `kind.py`, the
server's slots (models or indexes that it holds) and endpoints in `plugin.py`, a way to pretrain a starter in
`starter.py`, a kind of index in `indexes.py`, experiment trackers in `trackers.py`, types of fields and their readers
in `contents.py`, what scores by stored titles in `stores.py`, by stored states of indexes in `states.py`, and exported
parts in int8 in `quantized.py`. A guest is
a folder of this package that adds items likewise: without it and its line here, everything else works.
"""

from __future__ import annotations

from pathlib import Path

RECIPES = ("ernie_matching", "cross_encoder", "recall", "pretraining", "multimodal_entailment")
GUESTS = (
    "paddle_serving",
    "mcp",
    "scale",
    "milvus",
    "integrations",
    "tracking",
    "tuning",
    "tracing",
    "remote_models",
    "pictures",
    "recordings",
    "pages",
    "layouts",
    "tables",
    "stored_titles",
)


def package_of(recipe: str) -> str:
    """Return the package of a recipe or guest; a recipe is in this folder in an installed wheel, else top-level."""
    if recipe in GUESTS:
        return f"paddle_ranker.{recipe}"
    return f"{__name__}.{recipe}" if (Path(__file__).parent / recipe).is_dir() else recipe
