"""Networks, their parts, and the folder that a trained one lies in."""
