"""Parts that the benchmarks share: workers that take turns, trainings over folds, measures with intervals, tables."""
