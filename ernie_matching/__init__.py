"""The pairwise ranker, trained on triples: a query, a title that answers it, and a title that answers it less well."""
