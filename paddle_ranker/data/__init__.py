"""Read and write data files: rows of every role, in every file format."""
