"""Measure rankers: evaluation sets, comparisons, baselines, reports."""
