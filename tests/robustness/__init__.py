"""Programs that attack the server and the trainer, or compare clients: each is a command, each has a short test."""
