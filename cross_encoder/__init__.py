"""The cross-encoder, trained on pairs of a query and a title with a label of relevance."""
