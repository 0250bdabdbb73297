"""The server, `python -m paddle_ranker serve`, and its clients."""
