"""Which pairs go together: batches of similar length, so that little is spent on padding.

A batch costs what its longest pair costs. Scoring sorts by length outright; training shuffles first and sorts only
inside windows of many batches, so that which examples meet in a batch stays random from epoch to epoch.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

WINDOW = 50  # batches a window; at 50 nearly all padding is gone and an epoch of 6,000 triples still mixes 4 windows


def training_batches(lengths: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Return one epoch of index batches: a random order, length-bucketed in windows, batches shuffled.

    Args:
        lengths: `[n]` tokens that each example costs.
        batch_size: examples a batch; the last of a window may be smaller.
        seed, epoch: decide the order; the same two give the same batches.

    Returns:
        Index arrays; together they hold every example once.
    """
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(lengths))
    batches: list[np.ndarray] = []
    window = batch_size * WINDOW
    for start in range(0, len(order), window):
        part = order[start : start + window]
        part = part[np.argsort(lengths[part], kind="stable")]
        batches += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
    return [batches[i] for i in random.permutation(len(batches))]


def scoring_batches(lengths: np.ndarray, max_tokens: int, max_rows: int) -> Iterator[np.ndarray]:
    """Yield index batches sorted by length, each of at most `max_tokens` padded tokens and `max_rows` rows.

    A pair longer than `max_tokens` makes a batch of its own. Every index of `lengths` (`[n]`) comes exactly once.
    """
    order = np.argsort(-lengths, kind="stable")  # longest first: memory peaks at once, not at the end
    start = 0
    while start < len(order):
        rows = max(1, min(max_rows, max_tokens // max(1, int(lengths[order[start]]))))
        yield order[start : start + rows]
        start += rows
