"""Score pairs (query, title) with an exported ranker of either kind, one line per pair."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Optional

from paddle_ranker import runtime
from paddle_ranker.errors import UsageError
from paddle_ranker.export.output_folder import OUTPUT, output_folder
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.options import json_text, main_of, option
from paddle_ranker.scoring.scoring_options import CASCADE_HELP, FileOptions, PublishedEngineOptions, RankingOptions
from paddle_ranker.storage.atomic import check_writable, new_file

if TYPE_CHECKING:
    from paddle_ranker.data.rows.records import Pair

PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class DeployPredictOptions(PublishedEngineOptions, FileOptions):
    model_dir: str = option(
        OUTPUT, help="folder of an exported ranker; if ./output does not exist here, the project's", name="model"
    )
    format: str = option(
        "lines",
        help="lines: as the published scripts print them; jsonl: for programs; run: a TREC run, each query's titles "
        "best first",
        choices=("lines", "jsonl", "run"),
    )
    output_file: Optional[str] = option(
        None, help="file to write instead of standard output; it appears when it is complete", name="output"
    )
    cascade: Optional[str] = option(None, help=f"with --format run: {CASCADE_HELP}")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cascade is not None and self.format != "run":
            raise UsageError("--cascade ranks the titles of each query: add --format run")


def predict(options: DeployPredictOptions) -> None:
    """Write the probability of every pair of the input file, in order; in a TREC run each query's best titles first."""
    options.note_unused()
    runtime.prepare_command(options.cpu_threads)
    from paddle_ranker.model.model_folder import RANKER
    from paddle_ranker.scoring.files import predict_with
    from paddle_ranker.scoring.loading import open_model

    options = dataclasses.replace(options, model_dir=output_folder(options.model_dir, PROJECT))
    check_writable(options.output_file)
    tag = os.path.basename(os.path.abspath(options.model_dir))
    if options.cascade is not None:
        with output(options.output_file) as stream:
            stream.writelines(run_of_cascade(options, tag))
        return
    ranker = open_model(options.model_dir, RANKER, LoadOptions.of(options))
    scored = predict_with(ranker, options)
    if options.format == "run":
        lines = run_of(scored, tag)
    elif options.format == "jsonl":
        lines = map(json_line, scored)
    else:
        brackets = ranker.info.kind != "cross_encoder"
        lines = (published_line(*item, brackets=brackets) for item in scored)
    with output(options.output_file) as stream:
        stream.writelines(lines)


def published_line(pair: Pair, probability: float, brackets: bool) -> str:
    """Return `Data: {...}<tab>prob: [0.92894065]`, or without `brackets` `prob: 0.01956`, as for a cross-encoder."""
    from paddle_ranker.scoring.files import shown_probability

    shown = f"[{shown_probability(probability)}]" if brackets else f"{probability:.5f}"
    return f"Data: {_texts(pair)}\tprob: {shown}\n"


def json_line(scored: tuple[Pair, float]) -> str:
    """Return a line of JSON: an object with query, title, recall_score (if the file has one) and probability."""
    from paddle_ranker.scoring.files import shown_probability

    pair, probability = scored
    return json_text({**_texts(pair), "probability": shown_probability(probability)}) + "\n"


def run_of(scored: Iterable[tuple[Pair, float]], tag: str) -> Iterator[str]:
    """Yield the lines of a TREC run, in which query q1 is the file's first query and document d1 its first pair.

    Only scores, ids and query texts are kept in memory until the whole file is read.
    """
    from paddle_ranker.data.rows.trec import run_lines

    numbers: dict[str, str] = {}
    by_query: dict[str, dict[str, float]] = {}
    for row, (pair, probability) in enumerate(scored, start=1):
        query = numbers.setdefault(pair.query, f"q{len(numbers) + 1}")
        by_query.setdefault(query, {})[f"d{row}"] = probability
    yield from run_lines(by_query, "_".join(tag.split()) or "run")


def run_of_cascade(options: DeployPredictOptions, tag: str) -> Iterator[str]:
    """Yield the lines of the TREC run of a cascade, with the same ids as `run_of`."""
    from paddle_ranker.data.rows.trec import run_lines
    from paddle_ranker.scoring.by_query import rank_by_query

    shared = {field.name: getattr(options, field.name) for field in dataclasses.fields(FileOptions)}
    ranking = RankingOptions(params_path=options.model_dir, cascade=options.cascade, **shared)
    ranked = rank_by_query(ranking, sys.maxsize)
    by_query = {
        f"q{number}": {f"d{title.index + 1}": title.probability for title in titles}
        for number, (_, titles) in enumerate(ranked, start=1)
    }
    yield from run_lines(by_query, "_".join(tag.split()) or "run")


@contextlib.contextmanager
def output(path: Optional[str]) -> Iterator[IO[Any]]:
    """Yield standard output if `path` is None, else a new file that replaces `path` if the block succeeds."""
    if path is None:
        yield sys.stdout
        return
    with new_file(path) as stream:
        yield stream


def _texts(pair: Pair) -> dict[str, object]:
    recalled = {} if pair.recall_score is None else {"recall_score": pair.recall_score}
    return {"query": pair.query, "title": pair.title, **recalled}


main = main_of(predict, DeployPredictOptions, __doc__, ends_with_reader=True)


if __name__ == "__main__":
    raise SystemExit(main())
