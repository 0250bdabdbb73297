"""The server, and what speaks with it: `python -m paddle_ranker serve`."""
