"""The cross-encoder, trained on labelled pairs of a query and a title."""
