"""Measures of ranking quality, intervals and tests, calibration and logistic regressions."""
