"""The recall stage: towers trained with negatives from the batch, and what finds candidates with them."""
