"""The options of commands that measure rankers; read before Paddle is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from paddle_ranker.errors import UsageError
from paddle_ranker.options import LabelOptions, option, redeclare
from paddle_ranker.options.declare import FETCHED_FOLDER
from paddle_ranker.scoring.scoring_options import ScoringOptions

TIES = ("against", "trec_eval")


@dataclass(frozen=True)
class MeasuringOptions(LabelOptions, ScoringOptions):
    """Options of evaluation and comparison: the pairs to measure on, and how."""

    test_file: Optional[str] = option(
        None, help="labelled pairs: query, title, label; or give --qrels", name="test", files=True, either=True
    )
    qrels: Optional[str] = option(
        None, help="TREC qrels, in place of a test file: query 0 document label", files=True, either=True
    )
    queries: Optional[str] = option(
        None, help="texts of the qrels' queries: id, text, tab-separated or JSON lines", files=True
    )
    documents: Optional[str] = option(
        None, help="texts of the documents: id, text (or id, title, text), tab-separated or JSON lines", files=True
    )
    candidates: Optional[str] = option(
        None,
        help="TREC run whose documents a model scores (default: the first run compared, else the judged documents)",
        files=True,
    )
    ties: Optional[str] = option(
        None,
        help="order of equal scores: against the system, or trec_eval's, by id (default: trec_eval with --qrels)",
        choices=TIES,
    )
    resamples: int = option(2000, help="number of bootstrap draws of queries for the intervals", minimum=100)
    seed: int = option(1000, help="seed of the draws", minimum=0)
    format: str = option("text", help="form of what is printed", choices=("text", "json"))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.test_file is None and self.qrels is None:
            raise UsageError("--test (query, title, label) is required, or --qrels in its place")
        if self.test_file is not None and self.qrels is not None:
            raise UsageError("--test and --qrels both say what is relevant: give one")
        if self.qrels is not None and self.fractional_labels:
            raise UsageError("--fractional_labels goes with --test: labels of --qrels are whole numbers")
        for name in ("queries", "documents", "candidates"):
            if getattr(self, name) is not None and self.qrels is None:
                raise UsageError(f"--{name} goes with --qrels")
        if (self.queries is None) != (self.documents is None):
            raise UsageError("--queries and --documents go together")
        if self.candidates is not None and self.documents is None:
            raise UsageError("--candidates says what is scored: give the texts, --queries and --documents")


@dataclass(frozen=True)
class BaselineOptions(MeasuringOptions):
    """Options of commands that measure baselines, too."""

    baselines: bool = option(True, help="also measure BM25 and a linear model on lexical features")
    train_file: Optional[str] = option(
        None,
        help="labelled pairs that the baselines learn from (default: BM25 from the measured titles, the linear model "
        "by cross-validation over five folds of the queries)",
        name="train",
        files=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train_file is not None and not self.baselines:
            raise UsageError("--train is what the baselines learn from: give --baselines, or leave it out")


@dataclass(frozen=True)
class EvaluateOptions(BaselineOptions):
    init_from_ckpt: str = option(
        help="the ranker: a model folder or a name, OWNER/MODEL, of the Hugging Face hub",
        name="model",
        leads=True,
        addresses=FETCHED_FOLDER,
    )
    baselines: bool = redeclare(BaselineOptions, "baselines", False)
    scores_file: Optional[str] = option(
        None, help="write the scores: .jsonl, .tsv or .parquet, a row per pair; any other name: a TREC run"
    )
    qrels_file: Optional[str] = option(None, help="write the labels as TREC qrels, with the ids of a --scores_file run")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.qrels is not None and self.queries is None:
            raise UsageError("--qrels needs --queries and --documents: the texts that the ranker reads")
