"""Systems that the benchmarks measure, each in a separate process."""
