"""Whether memory grows: samples over time, a fitted line, and how sure its slope is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paddle_ranker.metrics.intervals import Interval

_WARM_UP = 0.25  # of the time: caches fill, and the allocator finds its size
_BLOCKS = 20  # means of neighbouring samples, which are too alike to count each


@dataclass(frozen=True)
class Growth:
    """MB by which memory grew over so many seconds after the warm-up, with its 95% interval; MB held at the end."""

    megabytes: Interval
    seconds: float
    held: float

    def is_flat(self, allowed: float) -> bool:
        """Return whether a growth of no more than `allowed` MB explains what was seen."""
        return self.megabytes.low <= allowed

    def __str__(self) -> str:
        found = self.megabytes
        return (
            f"{found.estimate:+.2f} MB [{found.low:+.2f}, {found.high:+.2f}] in {self.seconds:.0f} seconds, "
            f"{self.held:.0f} MB held"
        )


def growth(samples: Sequence[tuple[float, float]]) -> Growth:
    """Fit a line to samples (seconds, MB) by least squares, the warm-up left out.

    Raises `ValueError` where there are too few of them.
    """
    from scipy import stats

    times, megabytes = np.asarray(samples, dtype=np.float64).T
    kept = times >= times[0] + _WARM_UP * (times[-1] - times[0])
    times, megabytes = times[kept], megabytes[kept]
    blocks = min(_BLOCKS, len(times))
    if blocks < 3:
        raise ValueError(f"{len(times)} samples after the warm-up are too few for a line")
    x = np.array([part.mean() for part in np.array_split(times, blocks)])
    y = np.array([part.mean() for part in np.array_split(megabytes, blocks)])
    seconds = float(times[-1] - times[0])
    distances = x - x.mean()
    slope = float(distances @ y / (distances @ distances))
    left_over = y - y.mean() - slope * distances
    error = float(np.sqrt(left_over @ left_over / (blocks - 2) / (distances @ distances)))
    grown, half = slope * seconds, float(stats.t.ppf(0.975, blocks - 2)) * error * seconds
    return Growth(Interval(grown, grown - half, grown + half), seconds, float(megabytes[-1]))
