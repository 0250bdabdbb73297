"""Improve a search by its log or by judgments: learn what their number allows, and recommend what is better.

paddle-ranker improve --index index --log log --output improved
paddle-ranker improve --index index --log log --ranker ranker --fusion fusion.json --model MODEL --output improved
paddle-ranker improve --index index --judged judged.tsv --output improved
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Optional

from paddle_ranker import runtime
from paddle_ranker.commands.evaluate_recall import (
    FEWEST_LABELS,
    LEARNED,
    LEARNED_FEATURES,
    has_labels_for_features,
)
from paddle_ranker.commands.judgments import JudgmentsOptions, draw, read_log
from paddle_ranker.commands.search import SearchingOptions, open_search_engine
from paddle_ranker.errors import DataError, UsageError
from paddle_ranker.model.pretrained import resolve_model
from paddle_ranker.options import given_of, main_of, note, option
from paddle_ranker.options.declare import FETCHED, FETCHED_FOLDER

if TYPE_CHECKING:
    from paddle_ranker.data.rows.trec import Scores
    from paddle_ranker.evaluation.comparison import Comparison
    from paddle_ranker.evaluation.retrieval import JudgedQueries
    from paddle_ranker.retrieval.stages.fusion import Fusion
    from paddle_ranker.retrieval.stages.search_engine import SearchEngine

TODAY, NEW_RANKER = "today", "new ranker"
REPORT, FUSION_FILE, RANKER_FOLDER = "report.txt", "fusion.json", "ranker"
_FOR_RANKER = 500  # minimum labels, of queries that are not held out, for training a ranker
_HELD_OUT, _VALIDATION = 0.3, 0.15  # share of held-out queries; share of the others that select a checkpoint
_FEWEST = 10  # queries, in training as well as held out
_DEPTH = 100  # documents of each query that are measured
_MEASURE = "ndcg@10"


@dataclass(frozen=True)
class ImproveOptions(SearchingOptions):
    """Options of `improve`: how searches work today, and the log or judgments to learn from."""

    log: Optional[str] = option(
        None, help="folder of the log, as in search-serve --search_log", either=True, addresses=FETCHED
    )
    beir: Optional[str] = option(
        None,
        help="a BEIR folder of judgments, with queries.jsonl and qrels/, in place of --log",
        either=True,
        addresses=FETCHED,
    )
    split: str = option("test", help="which of a BEIR folder's qrels")
    judged: Optional[str] = option(
        None,
        help="a table of judgments in place of --log: query, document (its id, title or text) and label",
        files=True,
        either=True,
    )
    model: Optional[str] = option(
        None,
        help=f"encoder that a ranker begins with, from {_FOR_RANKER} labels on (default: no ranker is trained)",
        addresses=FETCHED_FOLDER,
    )
    output_dir: str = option(
        help=f"folder to make: {REPORT}, and what is recommended, {FUSION_FILE} or {RANKER_FOLDER}/", name="output"
    )
    accept: bool = option(
        False,
        help="put what is recommended in the place of --fusion (a file) or --ranker, which a server then reloads",
    )
    seed: int = option(1000, help="random seed of the held-out queries", minimum=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if sum(source is not None for source in (self.log, self.beir, self.judged)) != 1:
            raise UsageError("say what is known of the searches: --log, --judged or --beir; one of them")
        if given_of(self, ["split"]) and self.beir is None:
            raise UsageError("--split is about --beir: add that, or leave it out")

    def look_up(self) -> None:
        if self.model is not None:  # it is opened after the searches have been measured
            resolve_model(self.model)

    @property
    def source(self) -> str:
        """The log or the judgments, for messages."""
        return str(self.log or self.judged or self.beir)


class TrainingPair(NamedTuple):
    """A judged pair.

    query: text of the query
    id: id of the document
    label: the label to train on; if it comes from clicks, it is a click rate
    whole_label: the label as a whole number
    title: the part of the document that a ranker reads
    """

    query: str
    id: str
    label: float
    whole_label: int
    title: str


def improve(options: ImproveOptions) -> Optional[str]:
    """Learn fusions and a ranker, compare each with today's search, and print and write the report.

    Returns the name of the recommended system; None if no system is significantly better than today's search.
    """
    runtime.prepare_command(options.cpu_threads)
    from paddle_ranker.storage.atomic import make_folder, new_folder

    output = Path(options.output_dir)
    if output.exists():
        raise DataError(f"{output}: is there already; name another folder")
    make_folder(output.parent)
    searcher = open_search_engine(options)
    pairs, known = _pairs_of(options, searcher)
    answered = len(_judged(pairs, options).queries)
    if answered < 2 * _FEWEST:
        raise DataError(
            f"{options.source}: {answered} queries have an answer, a document labelled 1 or more, and {2 * _FEWEST} "
            f"are needed, {_FEWEST} to learn from and {_FEWEST} to compare with: judge more, or use a longer log"
        )
    held_out, others = _split(pairs, max(_HELD_OUT, _FEWEST / answered), options.seed)
    judged, learning = _judged(held_out, options), _judged(others, options)
    with new_folder(output) as folder:
        systems, lines = _learned_fusions(options, searcher, learning), [*known]
        lines.append(f"{len(others):,} labels of {len(learning.queries):,} queries, {len(judged.queries):,} held out")
        if not has_labels_for_features(learning):
            labels = sum(map(len, learning.qrels.values()))
            lines.append(
                f"no weights of features were learned: {FEWEST_LABELS} labels are needed, of queries with an answer "
                f"that are not held out; there are {labels:,}"
            )
        if options.model is None or len(others) < _FOR_RANKER:
            why = (
                "name an encoder by --model"
                if options.model is None
                else f"{_FOR_RANKER} labels are needed, of queries that are not held out"
            )
            lines.append(f"no ranker was trained: {why}")
        else:
            systems[NEW_RANKER] = _trained_ranker(options, searcher, others, folder)
        recommended = None
        if systems:
            comparison = _compare(judged, {TODAY: searcher, **systems})
            recommended = _best(comparison)
            lines += _table(comparison)
        else:
            lines.append("nothing to learn: the index has one searcher, of one field; add a tower, or --model")
        if recommended is not None and recommended != NEW_RANKER:
            systems[recommended].settings.fusion.write(folder / FUSION_FILE, {"queries": len(learning.queries)})
        lines.append(_advice(recommended, output))
        if recommended != NEW_RANKER and (folder / RANKER_FOLDER).exists():
            shutil.rmtree(folder / RANKER_FOLDER)
        (folder / REPORT).write_text("\n".join([*lines, ""]), encoding="utf-8")
    print("\n".join(lines))
    if options.accept and recommended is not None:
        _accept(options, output, recommended)
    return recommended


def _pairs_of(options: ImproveOptions, engine: SearchEngine) -> tuple[list[TrainingPair], list[str]]:
    """Return the judged pairs of the log or of the judgments whose documents are in the index; and lines on the log."""
    if options.log is not None:
        judgments = read_log(JudgmentsOptions(log=options.log, index=options.index, output_dir=""), engine.collection)
        pairs_of_log = [
            TrainingPair(
                judgment.query,
                judgment.id,
                judgment.label,
                judgment.whole_label,
                judgments.titles[judgment.query, judgment.id],
            )
            for judgment in judgments.judgments
        ]
        return pairs_of_log, judgments.log.lines(options.log)
    from paddle_ranker.data.rows.beir import beir_judgments
    from paddle_ranker.evaluation.retrieval import read_judged, read_pairs
    from paddle_ranker.retrieval.stages.query import SearchedQuery
    from paddle_ranker.retrieval.stages.ranker_texts import EstimatedTokens, texts_for_ranker

    now, pairs = engine.collection.snapshot(), list[TrainingPair]()
    if options.judged is not None:
        judged = read_pairs(options.judged, now.documents(), now.info.schema.title, options)
    else:
        assert options.beir is not None
        queries, qrels = beir_judgments(options.beir, options.split)
        judged = read_judged(qrels, queries, options, engine.collection)
    for line in judged.notes:
        note(line)
    for query, labels in judged.qrels.items():
        text, documents = judged.queries[query], now.documents_of([*labels])
        searched = SearchedQuery(now, text, now.info.searchers, literal=True)
        read = texts_for_ranker(searched, [*documents.values()], EstimatedTokens(), {})
        pairs += [TrainingPair(text, id, labels[id], labels[id], title) for id, (_, title) in zip(documents, read)]
    return pairs, []


def _split(pairs: list[TrainingPair], share: float, seed: int) -> tuple[list[TrainingPair], list[TrainingPair]]:
    """Draw a share of the queries with an answer; return the pairs of these queries, and all other pairs."""
    from paddle_ranker.metrics.ranking import RELEVANT

    answered = {pair.query for pair in pairs if pair.whole_label >= RELEVANT}
    drawn = {*sorted(answered, key=lambda query: draw(query, seed))[: math.ceil(share * len(answered))]}
    return [pair for pair in pairs if pair.query in drawn], [pair for pair in pairs if pair.query not in drawn]


def _judged(pairs: list[TrainingPair], options: ImproveOptions) -> JudgedQueries:
    from paddle_ranker.evaluation.retrieval import JudgedQueries
    from paddle_ranker.metrics.ranking import RELEVANT

    qrels: dict[str, dict[str, int]] = {}
    for pair in pairs:
        qrels.setdefault(pair.query, {})[pair.id] = pair.whole_label
    answered = {query: labels for query, labels in qrels.items() if max(labels.values()) >= RELEVANT}
    return JudgedQueries(options.source, {query: query for query in answered}, answered)


def _learned_fusions(options: ImproveOptions, engine: SearchEngine, learning: JudgedQueries) -> dict[str, SearchEngine]:
    """Learn weights of searchers and fields, then also of features; return the resulting engines, by system name."""
    from paddle_ranker.commands.evaluate_recall import EvaluateRecallOptions, can_learn, learn
    from paddle_ranker.evaluation.retrieval import feature_lists, search_judged
    from paddle_ranker.retrieval.stages.search_engine import SearchEngine
    from paddle_ranker.retrieval.stages.weight_learning import learn_features

    fusions: dict[str, Fusion] = {}
    fusion = engine.settings.fusion
    try:
        if can_learn(engine):
            same = {name: getattr(options, name) for name in ("index", "by", "depth")}
            learn_options = EvaluateRecallOptions(**same, beir="", top_k=_DEPTH)
            searched = search_judged(engine, learning, _DEPTH)
            fusion, _, _ = learn(learn_options, engine, learning, searched, dict(searched.runs), {})
            fusions[LEARNED] = fusion
        if has_labels_for_features(learning):
            features = learn_features(*feature_lists(engine, learning, fusion))
            fusions[LEARNED_FEATURES] = replace(fusion, features=features)
    except DataError as error:
        note(f"weights: {error}")
    return {
        name: SearchEngine(engine.collection, replace(engine.settings, fusion=learned), None, engine.ranker)
        for name, learned in fusions.items()
    }


def _trained_ranker(
    options: ImproveOptions, engine: SearchEngine, pairs: list[TrainingPair], folder: Path
) -> SearchEngine:
    """Train a ranker on the pairs that are not held out; return an engine that uses it."""
    from paddle_ranker.commands.command_registry import COMMANDS
    from paddle_ranker.data.rows.formats import write_rows
    from paddle_ranker.options import options_from
    from paddle_ranker.retrieval.stages.search_engine import SearchEngine
    from paddle_ranker.scoring.ranker import Ranker

    dev, train = _split(pairs, _VALIDATION, options.seed + 1)
    training = folder / "training"
    training.mkdir()
    for name, part in (("train", train), ("dev", dev)):
        rows = ((pair.query, pair.title, pair.label if name == "train" else pair.whole_label) for pair in part)
        write_rows(f"{training}/{name}.jsonl", ("query", "title", "label"), rows, header=True)
    module = COMMANDS["train-ce"].load()
    files = {"train": f"{training}/train.jsonl", "test": f"{training}/dev.jsonl", "model": options.model}
    losses = {"loss": "click_softmax" if options.log is not None else "listnet", "fractional_labels": True}
    where = {"output": str(training / "run"), "device": options.device, "cpu_threads": options.cpu_threads}
    module.train(options_from(module.TrainCeOptions, **files, **losses, **where, eval_step=max(1, len(train) // 100)))
    best = training / "run" / "best"
    shutil.copytree(best if best.exists() else training / "run" / "last", folder / RANKER_FOLDER)
    shutil.rmtree(training)
    ranker = Ranker.load(folder / RANKER_FOLDER, device=options.device, threads=options.cpu_threads)
    return SearchEngine(engine.collection, engine.settings, None, ranker)


def _compare(judged: JudgedQueries, systems: Mapping[str, SearchEngine]) -> Comparison:
    """Measure the results of each system for the held-out queries; compare each system with today's search."""
    from paddle_ranker.evaluation.retrieval import RANKED, compare_runs, search_judged

    runs: dict[str, Scores] = {}
    for name, searcher in systems.items():
        runs_of = search_judged(searcher, judged, _DEPTH).runs
        first, *_ = runs_of
        runs[name] = runs_of.get(f"{first}{RANKED}", runs_of[first])
    return compare_runs(judged, runs, _DEPTH)


def _best(comparison: Comparison) -> Optional[str]:
    """Return the best of the systems that are significantly better than today's search; None if no system is."""
    measured = {system.name: comparison.measured[system.name][_MEASURE] for system in comparison.others}
    better = [name for name, system in measured.items() if system.verdict == "better"]
    return max(better, key=lambda name: measured[name].interval.estimate, default=None)


def _table(comparison: Comparison) -> list[str]:
    from paddle_ranker.evaluation.report.text import verdicts
    from paddle_ranker.evaluation.retrieval import comparison_lines

    return [*verdicts(comparison, _MEASURE), *comparison_lines(comparison)]


def _advice(recommended: Optional[str], output: Path) -> str:
    if recommended is None:
        return "recommended: nothing; what serves today stays"
    name, file = ("ranker", RANKER_FOLDER) if recommended == NEW_RANKER else ("fusion", FUSION_FILE)
    return f"recommended: {recommended}, --{name} {output / file} of search and search-serve"


def _accept(options: ImproveOptions, output: Path, recommended: str) -> None:
    """Replace what a server uses today by what is recommended.

    A new ranker replaces the folder `--ranker`, learned weights replace the file `--fusion`.

    Raises `UsageError` if there is no such folder or file.
    """
    from paddle_ranker.storage.atomic import new_file, new_folder

    if recommended != NEW_RANKER:
        target = Path(options.fusion)
        if not target.is_file():
            raise UsageError(f"--accept: --fusion {options.fusion} is no file; serve {output / FUSION_FILE} instead")
        with new_file(target) as stream:
            stream.write((output / FUSION_FILE).read_text("utf-8"))
    elif options.ranker is None or not Path(options.ranker).is_dir():
        raise UsageError(f"--accept: there is no --ranker folder; serve {output / RANKER_FOLDER} instead")
    else:
        target = Path(options.ranker)
        with new_folder(target, replace=True) as folder:
            shutil.copytree(output / RANKER_FOLDER, folder, dirs_exist_ok=True)
    print(f"{target}: replaced; send the server SIGHUP, or POST /admin/reload, and it takes it up")


main = main_of(improve, ImproveOptions, __doc__)
