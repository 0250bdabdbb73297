"""Networks, their parts, and the folders of trained models."""
