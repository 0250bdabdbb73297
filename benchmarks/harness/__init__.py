"""The harness of all benchmarks: workers that take turns, trainings over folds, measures with intervals, tables."""
