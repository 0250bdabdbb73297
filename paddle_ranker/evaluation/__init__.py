"""How good rankers are: sets, comparisons, baselines, reports."""
