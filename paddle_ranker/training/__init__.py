"""The trainer, and what stands around its loop."""
