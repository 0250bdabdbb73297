"""The kinds of characters (letters, marks, punctuation) by one version of Unicode, whatever version Python has."""
