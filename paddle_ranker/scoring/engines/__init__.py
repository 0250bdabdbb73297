"""Engines, which compute a model's outputs: the network itself, or its exported graph in one of several runtimes."""
