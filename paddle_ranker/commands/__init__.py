"""One file a command of `paddle-ranker`, under its name."""
