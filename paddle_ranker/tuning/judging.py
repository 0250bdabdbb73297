"""Judge trained models on queries that chose nothing: neither checkpoints nor hyperparameters.

judge = open_judge("judging.jsonl", options, "ndcg@10")
judge.compare({"the defaults": "tuned/trial_0/best", "trial 7": "tuned/trial_7/best"})
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from paddle_ranker.commands.judgments import draw
from paddle_ranker.errors import DataError, listed
from paddle_ranker.training.training_options import RankerTrainingOptions, TrainingOptions

if TYPE_CHECKING:
    from paddle_ranker.evaluation.comparison import Comparison

CHOOSING, JUDGING = "choosing.jsonl", "judging.jsonl"


class QueryJudge(Protocol):
    """Queries on which models are compared."""

    def compare(self, models: Mapping[str, str]) -> Comparison:
        """Compare models, paths by name, with the first of them."""
        ...


def split_by_query(file: str, options: Any, folder: Path) -> tuple[str, str]:
    """Write the pairs of half of the queries into one file, and those of the others into another; return both paths.

    options: rules for reading the file, and the seed of the draw

    Raises `DataError` if the file has fewer than two queries.
    """
    from paddle_ranker.data.rows.records import write_records
    from paddle_ranker.evaluation.recall import label_of, open_pairs
    from paddle_ranker.metrics.ranking import RELEVANT

    pairs = list(open_pairs(file, options))
    answered = {pair.query for pair in pairs if label_of(pair) >= RELEVANT}
    order = sorted({pair.query for pair in pairs}, key=lambda query: (query in answered, draw(query, options.seed)))
    if len(order) < 2:
        raise DataError(
            f"{file}: has one query, and some choose while others judge: give more queries, or --judge FILE"
        )
    judging = {*order[::2]}  # half of those with an answer, and half of those without
    for name, judges in ((CHOOSING, False), (JUDGING, True)):
        write_records(folder / name, (pair for pair in pairs if (pair.query in judging) is judges))
    return str(folder / CHOOSING), str(folder / JUDGING)


def require_apart(choosing: str, judging: str, options: Any) -> None:
    """Raise `DataError` if files share a query, which would judge what it has chosen."""
    from paddle_ranker.evaluation.recall import open_pairs

    queries = [{pair.query for pair in open_pairs(file, options)} for file in (choosing, judging)]
    if both := sorted(queries[0] & queries[1]):
        raise DataError(
            f"{judging}: {len(both):,} of its queries are in {choosing} too, such as {listed(both[:3])}: what chooses "
            "cannot judge; take them out of one file, or leave --judge out"
        )


def open_judge(file: str, options: TrainingOptions, measure: str) -> QueryJudge:
    """Read the queries that judge; raises `DataError` if the measure cannot be computed on them."""
    return (
        _RankerJudge(file, options, measure)
        if isinstance(options, RankerTrainingOptions)
        else _TowerJudge(file, options)
    )


class _RankerJudge:
    """Labelled pairs, which rankers score."""

    def __init__(self, file: str, options: RankerTrainingOptions, measure: str) -> None:
        from paddle_ranker.evaluation.comparison import measurable
        from paddle_ranker.evaluation.measuring_options import MeasuringOptions
        from paddle_ranker.evaluation.systems import read_measured_pairs

        same = ("device", "cpu_threads", "seed", "skip_bad_rows", "separator", "header", "fractional_labels")
        self._options = MeasuringOptions(test_file=file, **{name: getattr(options, name) for name in same})
        self._pairs, self._measure = read_measured_pairs(self._options, {}), measure
        if measure not in measurable(self._pairs):
            raise DataError(f"{file}: the queries that judge give no {measure}; give more queries, or another --metric")

    def compare(self, models: Mapping[str, str]) -> Comparison:
        from paddle_ranker.evaluation.comparison import compare_systems
        from paddle_ranker.evaluation.systems import named_systems

        systems, _ = named_systems(models, self._options, self._pairs)
        return compare_systems(self._pairs, systems, measure=self._measure, seed=self._options.seed)


class _TowerJudge:
    """Queries with their answers, and the texts that towers search: a corpus, and the titles of the file."""

    def __init__(self, file: str, options: Any) -> None:
        from paddle_ranker.data.rows.beir import beir_corpus
        from paddle_ranker.data.rows.records import Line, RecordFile
        from paddle_ranker.evaluation.recall import label_of, open_pairs
        from paddle_ranker.evaluation.retrieval import JudgedQueries
        from paddle_ranker.metrics.ranking import RELEVANT

        pairs, corpus = list(open_pairs(file, options)), options.corpus_file
        lines = [line.text for line in RecordFile(beir_corpus(corpus), Line, options)] if corpus else []
        self._ids = {text: f"d{n}" for n, text in enumerate(dict.fromkeys([*lines, *(pair.title for pair in pairs)]))}
        answers: dict[str, dict[str, int]] = {}
        for pair in pairs:
            if label_of(pair) >= RELEVANT:
                answers.setdefault(pair.query, {})[self._ids[pair.title]] = 1
        if len(answers) < 2:
            raise DataError(f"{file}: {len(answers)} of the queries that judge have an answer; give more queries")
        self._judged = JudgedQueries(file, {query: query for query in answers}, answers)
        self._file, self._options = file, options

    def compare(self, models: Mapping[str, str]) -> Comparison:
        from paddle_ranker.evaluation.retrieval import compare_runs, vector_run
        from paddle_ranker.model.load_options import LoadOptions
        from paddle_ranker.options.input_files import folder_of
        from paddle_ranker.retrieval.vectors.text_vectors import Tower

        load = LoadOptions(device=self._options.device, threads=self._options.cpu_threads)
        passages, runs = [(id, text) for text, id in self._ids.items()], {}
        for name, model in models.items():
            tower = Tower.open(model, load, for_search=True, folder=folder_of(self._file))
            runs[name] = vector_run(tower, passages, self._judged.queries, self._options.recall_num)
        return compare_runs(self._judged, runs, self._options.recall_num, seed=self._options.seed)
