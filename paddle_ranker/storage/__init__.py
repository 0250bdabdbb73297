"""Files: write them atomically, cache them, download them, and read ahead."""
