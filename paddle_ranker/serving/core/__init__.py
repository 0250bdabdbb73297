"""Queue, batches, models, limits and faults, shared by all protocols."""
