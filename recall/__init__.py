"""The recall stage: towers trained with negatives from the batch, and the search for candidates with them."""
