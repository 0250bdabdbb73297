"""Kinds of characters (letters, marks, punctuation) by a fixed version of Unicode, independent of Python's."""
