"""The cross-encoder: trained on pairs of a query and a title that are labelled relevant or not."""
