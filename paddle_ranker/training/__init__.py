"""The trainer and its parts: examples, losses, schedules, checkpoints, logs."""
