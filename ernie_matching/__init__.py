"""The pairwise ranker: trained on triples of a query, a title that answers it and one that answers it less."""
