"""Measure suggestions while typing, on generated titles: the time to find them, to build them, and their memory.

    python -m benchmarks.suggest --titles 1000000

Texts are typed as people do: the first characters of a title, or of a place inside it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np

from benchmarks.indexes import milliseconds, resident_mb, titles_of
from paddle_ranker.lexical.analyser import standard
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.retrieval.stages.suggestions import Completions

_SHOWN = 8


@dataclass(frozen=True)
class SuggestOptions(Options):
    titles: int = option(100_000, help="titles", minimum=1)
    typed: int = option(10_000, help="texts that are typed", minimum=1)
    seed: int = option(7, help="seed of titles and typed texts", minimum=0)


def run(options: SuggestOptions) -> None:
    titles = list(titles_of(options.titles, options.seed))
    standard("warm")
    before, began = resident_mb(), time.perf_counter()
    completions = Completions(titles, standard.fold)
    print(f"build: {time.perf_counter() - began:.1f} s, {len(completions):,} beginnings in {len(titles):,} titles")
    print(f"memory: {resident_mb() - before:,.0f} MB beside the titles' own")
    draw = np.random.default_rng(options.seed)
    typed = []
    for title in islice(cycle(titles), options.typed):
        first = int(draw.integers(0, len(title))) if draw.random() < 0.5 else 0
        typed.append(title[first : first + int(draw.integers(1, 8))])
    print(f"find {_SHOWN}: {milliseconds(lambda text: completions.find(text, _SHOWN), typed)}")


main = main_of(run, SuggestOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
