"""In an installed wheel: the recipes, `python -m paddle_ranker.recipes.ernie_matching.train_pairwise`.

In a checkout they are the top-level folders; setup.py puts them here.

The modules here import what the recipes add to registries. Nothing else in this package imports a recipe.
"""
