"""Notice a ranker that is served over an index it was not calibrated for, by the scores of the first searches."""

from __future__ import annotations

import logging
import threading
from typing import Optional

from paddle_ranker.metrics.calibration import ListScores, SearchScores
from paddle_ranker.metrics.ranking import Floats

SEARCHES = 100  # Compare once so many different queries were searched for.
_MEASURES = {"tenth": "tenth best logit of a list", "spread": "standard deviation of a list's logits"}
_LOG = logging.getLogger(__name__)


class Familiarity:
    """Comparison of the first searches' scores with those that a ranker was calibrated with; thread-safe.

    Holds two numbers for each search until there are enough, then nothing.

    Args:
        expected: scores of the calibration; None: nothing is compared.
        ranker, index: their names, for the log.

    Attribute: `unfamiliar`, as of `SearchScores.unlike` once the scores have turned out to differ, else None.
    """

    def __init__(self, expected: Optional[SearchScores], ranker: str, index: str):
        self._expected, self._names = expected, (ranker, index)
        self._lists: dict[int, ListScores] = {}  # by the query's hash: a query that is repeated tells nothing new
        self._lock = threading.Lock()
        self.unfamiliar: Optional[dict[str, object]] = None

    def wants(self, rank_top: int) -> bool:
        """Return whether a search that ranks at most so many documents is comparable, and needed."""
        return self._expected is not None and rank_top == self._expected.top

    def note(self, query: str, logits: Floats) -> bool:
        """Note a search by its calibrated logits, `[n]`; return True if `judge` should be called now."""
        with self._lock:
            if self._expected is not None and len(self._lists) < SEARCHES:
                self._lists.setdefault(hash(query), ListScores.of(logits))
                return len(self._lists) == SEARCHES
        return False

    def judge(self) -> None:
        """Compare the scores, and log it if they differ."""
        with self._lock:
            expected, self._expected = self._expected, None
            lists, self._lists = [*self._lists.values()], {}
        self.unfamiliar = None if expected is None else expected.unlike(lists)
        if self.unfamiliar is not None:
            _LOG.warning(
                "%s may be wrong for %s: in the first %d searches its scores are unlike those that it was calibrated "
                "with (%s: median %s, not %s); calibrate it with --index for this index, or train it on such documents",
                *self._names, len(lists), _MEASURES[str(self.unfamiliar["measure"])],
                self.unfamiliar["seen"], self.unfamiliar["expected"],
            )  # fmt: skip
