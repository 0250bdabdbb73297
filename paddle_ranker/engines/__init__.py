"""What computes a ranker's logits: the network itself, or its exported graph in one of several runtimes."""
