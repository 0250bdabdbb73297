"""The server, `paddle-ranker serve`, and its clients."""
