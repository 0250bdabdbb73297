"""Queue, batches, models, limits and faults: what every protocol shares."""
