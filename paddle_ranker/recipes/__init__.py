"""In an installed wheel: the recipes, `python -m paddle_ranker.recipes.ernie_matching.train_pairwise`.

In a checkout they are the top-level folders; setup.py puts them here.
"""
