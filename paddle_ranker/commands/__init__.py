"""Commands of `paddle-ranker`, each in the file of its name."""
