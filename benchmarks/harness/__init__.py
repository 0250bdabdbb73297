"""The harness of all benchmarks: workers that take turns, trainings over folds, figures with intervals, tables."""
