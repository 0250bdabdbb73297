"""Find candidates in a collection: indexes of documents by name."""
