"""Characters of all scripts, alike on every Python: their kinds by a fixed version of Unicode, classes and folding."""
