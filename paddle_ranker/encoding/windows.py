"""Score long pairs in overlapping windows over the title, each with the query, and pool the logits.

    windows = Windows(max_seq_length=64, pooling="max", overlap=16)
    split = windows.split(pair_encoder.encode(queries, titles, truncate=False))
    logits = windows.pool(engine_logits_of(split.pairs), split.offsets)

Windows consist of ids, so all engines support them.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.encoding.columns import EncodedPairs, offsets_of, ragged_positions
from paddle_ranker.encoding.tokenizers.interface import BERT_SHAPE, PairTemplate
from paddle_ranker.encoding.window_options import POOLINGS, TOP_K
from paddle_ranker.errors import UsageError
from paddle_ranker.notes import note_at_end


@dataclass(frozen=True)
class SplitPairs:
    """Windows of n pairs, at least one window per pair.

    pairs: the windows, each a pair of the query and a part of the title
    offsets: `[n + 1] int64`; the windows of pair i are `pairs[offsets[i]:offsets[i + 1]]`
    """

    pairs: EncodedPairs
    offsets: NDArray[np.int64]


class Windows:
    """Splitter of long pairs into windows, and pooling of the windows' logits into one logit per pair. Thread-safe.

    A pair that fits is a single window. The first window of a longer pair equals the truncated pair: the query,
    truncated if it is longer than half of a window's text tokens, and as much of the title as fits. The next windows
    continue to the end of the title. Each repeats the last `overlap` title tokens of the previous window; the last
    window may be shorter.

    Args:
        max_seq_length: tokens in a window, including the special tokens.
        pooling: "max", or "mean_top_k": the mean of the best `top_k` logits, or of all if there are fewer.
        overlap: tokens shared by two neighbouring windows; defaults to a quarter of `max_seq_length`.
        top_k: number of logits in the mean; defaults to 2.
        template: template of the pair encoder; defaults to BERT's three special tokens.

    Attributes:
        windowed: number of pairs with several windows.
        cut: number of truncated queries.

    Raises `UsageError` for an unknown pooling, for a `top_k` with max, and for an overlap so large that a window beside
    a long query would have no new title tokens.
    """

    def __init__(
        self,
        max_seq_length: int,
        pooling: str = "max",
        overlap: Optional[int] = None,
        top_k: Optional[int] = None,
        template: PairTemplate = BERT_SHAPE,
    ) -> None:
        if pooling not in POOLINGS:
            raise UsageError(f"--windows {pooling}: choose from {', '.join(POOLINGS)}")
        if pooling == "max" and top_k is not None:
            raise UsageError("--window_top_k belongs to --windows mean_top_k: drop it, or use mean_top_k")
        self._template, self._room = template, max_seq_length - template.pair_tokens
        least = self._room // 2  # title tokens in a window beside the longest query
        if overlap is not None and not 0 <= overlap < least:
            raise UsageError(
                f"--window_overlap {overlap}: must be at least 0 and below {least}, the title tokens that a window of "
                f"{max_seq_length} tokens has beside a long query"
            )
        if top_k is not None and top_k < 1:
            raise UsageError(f"--window_top_k {top_k}: must be at least 1")
        self.max_seq_length, self.pooling = max_seq_length, pooling
        self.overlap = min(max_seq_length // 4, least - 1) if overlap is None else overlap
        self.top_k = 1 if pooling == "max" else top_k or TOP_K
        self.windowed = self.cut = 0
        self._lock = threading.Lock()
        note_at_end(self)

    def counts(self) -> dict[str, int]:
        """Return counts for a report, by phrase: pairs with several windows, queries that were truncated."""
        return {
            f"pairs were scored in windows of {self.max_seq_length} tokens that share {self.overlap}": self.windowed,
            "queries were cut to leave room for titles": self.cut,
        }

    def facts(self) -> dict[str, Any]:
        """Return the settings that affect scores, for logging and comparison."""
        return {"pooling": self.pooling, "overlap": self.overlap, "top_k": self.top_k}

    def split(self, pairs: EncodedPairs) -> SplitPairs:
        """Return the windows of `pairs`, which must be encoded without truncation."""
        template, lengths, second_starts = self._template, pairs.lengths, pairs.second_starts.astype(np.int64)
        before, between, after = len(template.before), len(template.between), len(template.after)
        queries, titles = second_starts - before - between, lengths - second_starts - after
        kept, size = template.truncated(queries, titles, self._room)
        stride = np.maximum(size - self.overlap, 1)  # ignored for pairs with one window
        counts = 1 + np.where(size < titles, -(-(titles - size) // stride), 0)
        self._count(int((counts > 1).sum()), int((kept < queries).sum()))

        offsets = offsets_of(counts)
        owner = np.repeat(np.arange(len(pairs)), counts)
        first = (np.arange(len(owner)) - offsets[owner]) * stride[owner]  # token of the title
        shown = np.minimum(size[owner], titles[owner] - first)
        kept = kept[owner]

        starts, sources = offsets_of(kept + shown + template.pair_tokens), pairs.offsets[owner]
        taken = np.empty(starts[-1], np.int64)  # index of each window's token in `pairs.ids`
        query_ends, title_starts = starts[:-1] + before + kept, starts[:-1] + before + kept + between
        for count, target, source in (
            (before, starts[:-1], sources),
            (between, query_ends, sources + second_starts[owner] - between),
            (after, starts[1:] - after, pairs.offsets[owner + 1] - after),
        ):
            for number in range(count):
                taken[target + number] = source + number
        left_out = queries[owner] - kept if template.keeps_end else 0
        query_places = ragged_positions(sources + before + left_out, kept)
        title_places = ragged_positions(sources + second_starts[owner] + first, shown)
        taken[ragged_positions(starts[:-1] + before, kept)] = query_places
        taken[ragged_positions(title_starts, shown)] = title_places
        second, places = (before + kept + between).astype(np.int32), None
        if pairs.places is not None:
            places = pairs.places.reshape(-1, pairs.place_size)[taken].reshape(-1)
        windows = EncodedPairs(pairs.ids[taken], starts, second, pairs.pad_id, places, pairs.place_size)
        return SplitPairs(windows, offsets)

    def pool(self, logits: NDArray[np.float64], offsets: NDArray[np.int64]) -> NDArray[np.float64]:
        """Pool the logits of all windows, `[offsets[-1]]`, into a logit per pair, `[n]` float64."""
        counts = np.diff(offsets)
        if not len(counts):
            return np.zeros(0)
        owner = np.repeat(np.arange(len(counts)), counts)
        order = np.lexsort((-logits, owner))  # owner by owner, best first
        is_best = np.arange(len(owner)) - offsets[owner] < self.top_k
        totals = np.add.reduceat(np.where(is_best, logits[order], 0.0), offsets[:-1])
        return totals / np.minimum(counts, self.top_k)

    def _count(self, windowed: int, cut: int) -> None:
        with self._lock:
            self.windowed += windowed
            self.cut += cut


def make_windows(
    max_seq_length: int,
    windows: str,
    overlap: Optional[int],
    top_k: Optional[int],
    template: PairTemplate = BERT_SHAPE,
) -> Optional[Windows]:
    """Create the `Windows` for `--windows`, `--window_overlap` and `--window_top_k`; None for `--windows none`.

    Raises `UsageError` for options that are invalid or contradict each other.
    """
    if windows == "none":
        for name, value in (("window_overlap", overlap), ("window_top_k", top_k)):
            if value is not None:
                raise UsageError(f"--{name} {value} is of no use without --windows: add it, or drop this")
        return None
    return Windows(max_seq_length, windows, overlap, top_k, template)
