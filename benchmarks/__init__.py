"""Benchmarks of speed and quality beside other systems (peers); most modules are commands that print a table."""

import paddle_ranker  # noqa: F401  # in peers' processes too: it switches off what libraries report over the network
