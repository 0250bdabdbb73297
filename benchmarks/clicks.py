"""Measure how well a ranker learns from simulated clicks, by loss and by correction for positions.

python -m benchmarks.clicks
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.harness.quality import print_comparison
from benchmarks.harness.runs import (
    QualityOptions,
    Run,
    RunStore,
    System,
    run_seeds,
    score_file,
    small_starter,
    train_cross_encoder,
)
from benchmarks.inputs import chosen, parse_numbers
from paddle_ranker.array_types import Booleans, Floats
from paddle_ranker.data.rows.records import LabeledPair, read_records, write_records
from paddle_ranker.errors import RankerError
from paddle_ranker.lexical.bm25 import BM25
from paddle_ranker.options import main_of, option

REFERENCE = "click_softmax"
_LEAST, _MORE = 0.1, 0.8  # attraction of a title of the lowest grade, and the increase up to the highest
_MAX_SEQ_LENGTH = 64
_RATES = ("--labels", "rate", "--without_clicks", "keep")
_GOES_ON = 0.9  # in the cascade, the probability of looking at the next title if the last one did not satisfy


class Learning(NamedTuple):
    """A row of the table: the loss, options of `judgments` (none: the true labels), and whether there is a tower."""

    loss: str
    judgments: tuple[str, ...] = _RATES
    tower: bool = False


SYSTEMS = {
    **{loss: Learning(loss) for loss in ("bce", "ranknet", "click_softmax")},
    **{f"{loss}_ipw": Learning(loss, (*_RATES, "--debias", "ipw")) for loss in ("bce", "ranknet", "click_softmax")},
    **{f"{loss}_tower": Learning(loss, tower=True) for loss in ("bce", "ranknet", "click_softmax")},
    "click_softmax_coec": Learning("click_softmax", (*_RATES, "--debias", "coec")),
    "click_softmax_clicked": Learning("click_softmax", ("--labels", "clicked")),
    "listnet_true_labels": Learning("listnet", ()),
}


@dataclass(frozen=True)
class ClicksOptions(QualityOptions):
    queries: int = option(250, help="queries of the log", minimum=2)
    test_queries: int = option(150, help="number of queries to measure, by their true labels", minimum=2)
    searches: int = option(30, help="number of searches per query in the log", minimum=1)
    clicks: str = option(
        "position,cascade",
        help="click models, comma-separated: people look by position, or from the top until they are satisfied",
    )
    exponent: float = option(1.0, help="exponent e: people look at position k in k^-e of all searches", minimum=0)
    systems: str = option("all", help="comma-separated rows of the table")
    data_seed: int = option(7, help="seed of the data and of the choice of queries", minimum=0)
    seeds: str = option("1,2,3", help="comma-separated random seeds, of clicks and of trainings")
    hidden_size: int = option(32, help="width of the ranker, which has one layer", minimum=8)
    epochs: int = option(6, help="epochs", minimum=1)


Queries = dict[str, list[LabeledPair]]


def read_queries(options: ClicksOptions) -> tuple[Queries, Queries]:
    """Return (pairs to log, pairs to measure), each by query; titles of a query are distinct."""
    from demo_world.files import write_demo

    wanted = options.queries + options.test_queries
    with tempfile.TemporaryDirectory() as folder:
        write_demo(Path(folder), options.data_seed, 100, 10 + wanted * 11 // 20)  # some queries repeat
        parts = (Path(folder) / "sort" / f"{name}_graded.csv" for name in ("dev", "test"))
        rows = [row for part in parts for row in read_records(part, LabeledPair)]
    by_query: dict[str, dict[str, LabeledPair]] = {}
    for row in rows:
        by_query.setdefault(row.query, {}).setdefault(row.title, row)
    usable = {query: [*pairs.values()] for query, pairs in by_query.items() if len(pairs) > 1}
    names = random.Random(options.data_seed).sample(sorted(usable), len(usable))
    assert len(names) >= wanted
    chosen = names[: options.queries], names[options.queries : wanted]
    logged, measured = ({query: usable[query] for query in part} for part in chosen)
    return logged, measured


def by_position(
    attraction: Floats, satisfaction: Floats, options: ClicksOptions, draw: np.random.Generator
) -> Booleans:
    """Draw clicks by the position-based model: position k is looked at in k^-e of all searches."""
    examined = draw.random(len(attraction)) < np.arange(1.0, len(attraction) + 1) ** -options.exponent
    clicked: Booleans = examined & (draw.random(len(attraction)) < attraction)
    return clicked


def by_cascade(attraction: Floats, satisfaction: Floats, options: ClicksOptions, draw: np.random.Generator) -> Booleans:
    """Draw clicks by the dynamic Bayesian network (Chapelle and Zhang, WWW 2009): from the top, until satisfied."""
    clicked = np.zeros(len(attraction), bool)
    for place in range(len(attraction)):
        clicked[place] = draw.random() < attraction[place]
        if (clicked[place] and draw.random() < satisfaction[place]) or draw.random() > _GOES_ON:
            break
    return clicked


Clicks = Callable[[Floats, Floats, ClicksOptions, np.random.Generator], Booleans]
CLICKS: dict[str, Clicks] = {"position": by_position, "cascade": by_cascade}


class LoggedClicks:
    """A log of simulated searches in a folder, with an index of their titles.

    BM25 orders the titles, with noise, so that each search shows them in another order.
    """

    def __init__(self, folder: Path, logged: Queries, options: ClicksOptions, model: str, seed: int):
        self.folder, self._log, self._index = folder, folder / "log", folder / "index"
        ids: dict[str, str] = {}
        for pairs in logged.values():
            for pair in pairs:
                ids.setdefault(pair.title, f"d{len(ids)}")
        self._write_index(ids)
        self._write_log(logged, ids, options, model, np.random.default_rng(seed))

    def _write_index(self, ids: Mapping[str, str]) -> None:
        from paddle_ranker.retrieval.index.collection import Collection
        from paddle_ranker.retrieval.stored.candidate_indexes import Document
        from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo

        with Collection.create(self._index, IndexInfo(WordsInfo("standard"), None)) as collection:
            collection.writer.add(Document(id, title) for title, id in ids.items())

    def _write_log(
        self, logged: Queries, ids: Mapping[str, str], options: ClicksOptions, model: str, draw: np.random.Generator
    ) -> None:
        from paddle_ranker.serving.core.search_log import FeedbackLine, SearchLine, SearchLog, Shown, digest_of

        pairs = [pair for part in logged.values() for pair in part]
        bm25 = BM25("bigram")
        bm25.fit([pair.query for pair in pairs], [pair.title for pair in pairs], [pair.label for pair in pairs])
        highest = max(pair.label for pair in pairs)
        log = SearchLog(self._log)
        digests = {id: digest_of(title) for title, id in ids.items()}
        for query, part in logged.items():
            scores = bm25.score([query] * len(part), [pair.title for pair in part])
            scores = scores / (scores.std() or 1.0)
            gain = np.array([(2**pair.label - 1) / (2**highest - 1) for pair in part])
            for number in range(options.searches):
                order = np.argsort(-(scores + draw.normal(0.0, 1.0, len(part))))
                shown = [ids[part[place].title] for place in order]
                id = f"{len(query)}-{ids[part[0].title]}-{number:06}"
                log.search(SearchLine(id, query, {}, [Shown(one, {}, None, digests[one]) for one in shown], {}))
                clicked = CLICKS[model](_LEAST + _MORE * gain[order], _MORE * gain[order], options, draw)
                for place in np.flatnonzero(clicked).tolist():
                    done = log.feedback(FeedbackLine(id, query, shown[place], "click", place + 1))
            done.result()
        log.close(60.0)
        if log.lost:
            raise RankerError(f"{self._log}: {log.lost:,} lines could not be written")

    def training_file(self, arguments: Sequence[str]) -> Path:
        """Run `paddle-ranker judgments` on the log; return the training file.

        arguments: options of `judgments`, as typed
        """
        from paddle_ranker.commands.judgments import main as judgments

        target = self.folder / "_".join(["judgments", *(argument.strip("-") for argument in arguments)])
        if not target.exists():
            given = ["--log", str(self._log), "--index", str(self._index), "--output", str(target), "--dev_share", "0"]
            if judgments([*given, *arguments]):
                raise RankerError(f"{target.name} could not be made: see above")
        return target / "train.jsonl"


def train(
    learning: Learning, clicks: LoggedClicks, logged: Queries, measured: Path, options: ClicksOptions, seed: int
) -> Run:
    """Train a ranker of a single layer from scratch; return its logits of the measured pairs, and the seconds."""
    labels = clicks.folder / "labels.tsv"
    if not labels.exists():
        write_records(labels, (pair for part in logged.values() for pair in part))
    starter = clicks.folder / "starter"
    if not starter.exists():
        small_starter(labels, starter, 1, options.hidden_size, _MAX_SEQ_LENGTH, seed)
    values = {
        "loss": learning.loss, "position_tower": str(learning.tower).lower(), "group_by_query": "true",
        "fractional_labels": "true", "max_seq_length": _MAX_SEQ_LENGTH, "batch_size": 160,
        "learning_rate": 5e-3, "epochs": options.epochs, "seed": seed, "new_parts_factor": 1,
        "cpu_threads": options.threads,
    }  # fmt: skip
    file = clicks.training_file(learning.judgments) if learning.judgments else labels
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "ranker"
        seconds = train_cross_encoder(file, measured, starter, output, values)
        return score_file(output / "last", measured), seconds


def systems_of(options: ClicksOptions, model: str, work: Path) -> Iterator[System]:
    """Yield the systems, each with a run per seed, on clicks of the click model `model`."""
    names = chosen("systems", options.systems, list(SYSTEMS), REFERENCE)
    logged, measured = read_queries(options)
    file, store, made = work / "measured.tsv", RunStore(options.scores_dir), dict[int, LoggedClicks]()
    write_records(file, (pair for part in measured.values() for pair in part))

    def run_of(name: str, seed: int) -> Run:
        if seed not in made:
            folder = work / f"{model}_{seed}"
            folder.mkdir()
            made[seed] = LoggedClicks(folder, logged, options, model, seed)
        return train(SYSTEMS[name], made[seed], logged, file, options, seed)

    facts = {**options.facts(), "benchmark": "clicks", "clicks": model}
    for name in names:
        yield run_seeds(store, name, parse_numbers(options.seeds, "seeds"), facts, partial(run_of, name))


def run(options: ClicksOptions) -> None:
    """Print a table for each click model: nDCG@10 by true labels on queries that are not in the log."""
    models = chosen("clicks", options.clicks, list(CLICKS))
    options.begin()
    _, measured = read_queries(options)
    pairs = [pair for part in measured.values() for pair in part]
    queries, labels = [pair.query for pair in pairs], [pair.label for pair in pairs]
    bm25 = BM25("bigram")
    bm25.fit(queries, [pair.title for pair in pairs], labels)
    shown = System("bm25, which was logged", (bm25.score(queries, [pair.title for pair in pairs]),), (0.0,))
    for model in models:
        with tempfile.TemporaryDirectory() as work:
            systems = [*systems_of(options, model, Path(work)), shown]
        head = (
            f"clicks by {model}, {options.searches} searches of {options.queries} queries; {len(pairs):,} other pairs"
        )
        print_comparison(options, queries, labels, systems, REFERENCE, head, measures=("ndcg@10",))


main = main_of(run, ClicksOptions, (__doc__ or "").split("\n")[0], prog="benchmarks.clicks")


if __name__ == "__main__":
    raise SystemExit(main())
