"""Compare passages of long documents with the first tokens of each, by quality and by the time of a ranker.

python datasets/make_manuals.py --output manuals
python -m benchmarks.passages --beir manuals --index passages --ranker ranker --first first --first_ranker first_ranker

Both indexes hold the same documents: `--index` by passages (`index build --passage_tokens`), `--first` by a vector of
each document's first tokens. Searches use words of whole documents, vectors and a ranker, which reads the best passage
of a document, or its first tokens. The weight of words and vectors beside the ranker's logit is learned from other
queries. `docs/negatives_and_distillation.md` has the commands that make indexes and rankers. A ranker is timed on fifty
long documents, and on their passages alone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Optional

import numpy as np

from paddle_ranker import runtime
from paddle_ranker.data.rows.beir import beir_judgments
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.evaluation.report.text import verdicts
from paddle_ranker.evaluation.retrieval import (
    HYBRID,
    compare_runs,
    comparison_lines,
    held_out_runs,
    read_judged,
    search_judged,
)
from paddle_ranker.options import DeviceOptions, main_of, option
from paddle_ranker.retrieval.stages.search import Search, SearchSettings
from paddle_ranker.retrieval.stages.search_engine import SearchEngine
from paddle_ranker.retrieval.stages.weight_learning import learn_recall_weight
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.scoring.ranker import Ranker

_RANKED, _TOP_K, _REPEATS = 50, 100, 3
_LEARNED = "ranker + learned recall weight"
_LONG = 5000  # characters of a long document


@dataclass(frozen=True)
class PassagesOptions(DeviceOptions):
    """Options of `benchmarks.passages`."""

    beir: str = option(help="a BEIR folder with the documents' queries and judgments")
    index: str = option(help="index of the documents by passages")
    ranker: str = option(help="ranker of passages")
    first: str = option(help="index of the same documents by their first tokens")
    first_ranker: Optional[str] = option(None, help="ranker of first tokens (default: --ranker)")
    splits: tuple[str, ...] = option(("dev", "test"), help="which of the folder's qrels are measured", several=True)


class FirstTokens(Ranker):
    """Ranker that reads the first tokens of whole texts."""

    @property
    def pair_encoder(self) -> Optional[PairEncoder]:
        return None


def run(options: PassagesOptions) -> None:
    runtime.prepare_command(options.cpu_threads)
    settings = SearchSettings(rank_top=_RANKED)
    by_passage = SearchEngine.open(options.index, settings, ranker=Ranker.load(options.ranker))
    by_first = SearchEngine.open(
        options.first, settings, ranker=FirstTokens.load(options.first_ranker or options.ranker)
    )
    files = [beir_judgments(options.beir, split) for split in options.splits]
    parts = [read_judged(file.qrels, file.queries) for file in files]
    judged = replace(
        parts[0],
        queries={id: text for part in parts for id, text in part.queries.items()},
        qrels={id: labels for part in parts for id, labels in part.qrels.items()},
    )
    _print_times(by_passage, list(judged.queries.values())[:10])
    runs = {}
    for name, searcher in (("passages", by_passage), ("first tokens", by_first)):
        found = search_judged(searcher, judged, _TOP_K)
        runs.update({f"{name}: {system}": run for system, run in found.runs.items() if "(" not in system})
        learned = learn_recall_weight(found.ranked, folds=5)
        print(f"{name}: learned recall weight {learned.weights['recall']:.3f} beside the ranker's logit")
        runs[f"{name}: {_LEARNED}"] = held_out_runs(learned.held_out, found.runs[HYBRID], _TOP_K)
    runs = {name: runs[name] for name in sorted(runs, key=lambda name: name != f"passages: {_LEARNED}")}
    comparison = replace(compare_runs(judged, runs, _TOP_K), measures=["r@10", "ndcg@10"])
    print("\n".join([*verdicts(comparison), *comparison_lines(comparison)]))


def _print_times(engine: SearchEngine, queries: Sequence[str]) -> None:
    """Print the time to rank long documents, divided by the time to rank their passages alone."""
    assert isinstance(engine.ranker, Ranker)
    for by in engine.searchers:
        settings, ratios = replace(engine.settings, by=(by,)), []
        for search in SearchEngine(engine.collection, settings, engine._query_vectors).run(queries, _RANKED):
            found = search.collection.documents_of([search.fused.candidates.ids[row] for row in search.page.order])
            long = ([one for one in found.values() if len(one.text) > _LONG] * _RANKED)[:_RANKED]
            seconds = [_seconds(engine.ranker, search, long) for _ in range(_REPEATS)]
            spans = [span for span, _ in search.ranking.read(long, engine.ranker.pair_encoder)]
            search.fused.spans = {}
            parts = [replace(one, text=one.text[slice(*span)]) for one, span in zip(long, spans)]
            short = [_seconds(engine.ranker, search, parts) for _ in range(_REPEATS)]
            ratios.append(np.median(seconds) / np.median(short))
        print(
            f"ranking {_RANKED} long documents found by {by}: {np.median(ratios):.2f} times as long as their passages"
        )


def _seconds(ranker: Ranker, search: Search, documents: Sequence[Document]) -> float:
    began = time.perf_counter()
    texts = [text for _, text in search.ranking.read(documents, ranker.pair_encoder)]
    ranker.score([search.query.text] * len(texts), texts, logits=True)
    return time.perf_counter() - began


main = main_of(run, PassagesOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
