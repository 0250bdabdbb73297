"""Queue, batches, limits, faults, logs and metrics, shared by all protocols."""
