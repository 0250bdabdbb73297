"""A trained ranker in a few lines of Python."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Union

import numpy as np

from paddle_ranker.array_types import Array, Arrays
from paddle_ranker.encoding.pair_encoder import PairEncoder, shortest
from paddle_ranker.errors import UsageError, asking_about_keywords, quoted, spelling_hint
from paddle_ranker.metrics.calibration import sigmoid
from paddle_ranker.model.info import RankerInfo
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import RANKER
from paddle_ranker.model.model_kind import TOKEN_LOGITS
from paddle_ranker.scoring.loading import ScoringRanker, open_model
from paddle_ranker.scoring.scorer import Scorer
from paddle_ranker.scoring.texts import is_number, list_searches, list_texts, require_count, require_text

if TYPE_CHECKING:
    from paddle_ranker.scoring.table_answers import TableAnswer


@dataclass(frozen=True)
class RankedTitle:
    """Title in a ranked list.

    index: index of the title in the input
    title: text of the title
    probability: probability that the title is relevant
    recall_score: score of the title in first-stage retrieval, if the input file has it
    logit: logit of the title, if logits were requested
    answer: cells that answer the query, if the title is a table and the ranker names cells
    """

    index: int
    title: str
    probability: float
    recall_score: Optional[float] = None
    logit: Optional[float] = None
    answer: Optional[TableAnswer] = None


@asking_about_keywords
class Ranker:
    """Ranker for use from Python: it scores titles for queries and ranks them.

        ranker = Ranker.load("checkpoint/best")
        ranker.rank("query", titles, top_k=10)
        ranker.rank_many([("query", titles), ("another", others)], top_k=10)

    A pair's probability depends only on that pair. It is calibrated if the ranker is (`info.calibration`); otherwise it
    orders titles, but may differ from the share of relevant titles.
    """

    def __init__(
        self,
        loaded: ScoringRanker,
        batch_size: int = 256,
        *,
        windows: str = "none",
        window_overlap: Optional[int] = None,
        window_top_k: Optional[int] = None,
    ):
        require_count(batch_size, "batch_size")
        for name, value, least in (("window_overlap", window_overlap, 0), ("window_top_k", window_top_k, 1)):
            if value is not None:
                require_count(value, name, least)
        self.loaded, self.batch_size = loaded, batch_size
        self._opening: Optional[functools.partial[Ranker]] = None
        self.info: RankerInfo = loaded.info
        self.row_encoder = loaded.row_encoder
        template = loaded.row_encoder.members[0].template
        length = loaded.row_encoder.max_seq_length
        self.windows = None
        if (windows, window_overlap, window_top_k) != ("none", None, None):
            from paddle_ranker.encoding.windows import make_windows

            self.windows = make_windows(length, windows, window_overlap, window_top_k, template)
        self.scorer = Scorer(
            loaded.engine,
            loaded.row_encoder,
            batch_size,
            calibration=loaded.info.calibration,
            windows=self.windows,
        )

    @property
    def pair_encoder(self) -> Optional[PairEncoder]:
        """Encoder that truncates pairs; None if windows read whole pairs."""
        return shortest(self.row_encoder) if self.windows is None else None

    @classmethod
    def load(  # type: ignore[explicit-any]  # each field of `LoadOptions` has its own type
        cls,
        source: Union[str, Path],
        *,
        batch_size: int = 256,
        windows: str = "none",
        window_overlap: Optional[int] = None,
        window_top_k: Optional[int] = None,
        **how: Any,
    ) -> Ranker:
        """Load a model folder (or the parameter file in it), the folder of an exported ranker, or a model by its name.

        A name, `owner/model`, is looked up in the Hugging Face cache, and downloaded into it if missing (`model.hub`).

        Args:
            batch_size: pairs of maximum length that are scored at once.
            windows: how pairs longer than `max_seq_length` are scored: none truncates them; max and mean_top_k pool the
                logits of overlapping windows, see `paddle_ranker.encoding.windows`, which also explains
                `window_overlap` and `window_top_k`.
            how: fields of `LoadOptions`, such as engine (onnx and openvino need no Paddle and start faster), precision,
                threads, device (default auto: a GPU if there is one, else the CPU), model_name and max_seq_length.

        Raises `CheckpointError` if anything that the scores depend on is missing, `UsageError` for an unknown argument,
        invalid windows or an unavailable precision, `DependencyError` if the engine's package is missing.
        """
        names = [field.name for field in fields(LoadOptions)]
        for name in how:
            if name not in names:
                raise UsageError(f"Ranker.load has no {name}{spelling_hint(name, names)}: there are {', '.join(names)}")
        loaded = open_model(source, RANKER, LoadOptions(**how))
        ranker = cls(loaded, batch_size, windows=windows, window_overlap=window_overlap, window_top_k=window_top_k)
        place = Path(source).resolve() if Path(source).exists() else source
        how.update(windows=windows, window_overlap=window_overlap, window_top_k=window_top_k)
        ranker._opening = functools.partial(cls.load, place, batch_size=batch_size, **how)
        return ranker

    def __reduce__(self) -> tuple[Callable[[], Ranker], tuple[()]]:
        """Pickle the folder and the options of `load`, which opens the ranker anew; parameters are not copied.

        Raises `TypeError` for a ranker that `load` did not open.
        """
        if self._opening is None:
            raise TypeError("this ranker was not opened by Ranker.load: save it to a folder, and load it from there")
        return self._opening, ()

    def score(self, queries: Iterable[str], titles: Iterable[str], *, logits: bool = False) -> Array:
        """Return the probability of each pair (queries[i], titles[i]), or with `logits` its logit, `[n]` float64.

        probability = sigmoid(logit); both are calibrated if the ranker is. Raises `UsageError` if the numbers of
        queries and titles differ, or one of them is not text.
        """
        computed, _ = self.scored(list_texts(queries, "queries"), list_texts(titles, "titles"))
        return computed if logits else sigmoid(computed)

    def rank(
        self,
        query: str,
        titles: Iterable[str],
        top_k: Optional[int] = None,
        *,
        min_probability: Optional[float] = None,
        logits: bool = False,
    ) -> list[RankedTitle]:
        """Return the titles by descending probability; ties keep the given order.

        Args:
            top_k: return at most this many titles.
            min_probability: return only titles with at least this probability.
            logits: set the `logit` of each title, too.

        Raises `UsageError`, naming the argument, if `query` is not text, `titles` is not an iterable of texts, or
        `top_k` or `min_probability` is out of range.
        """
        searches = [(require_text(query, "query"), list_texts(titles, "titles"))]
        return self._rank(searches, top_k, min_probability, logits)[0]

    def rank_many(
        self,
        searches: Union[Mapping[str, Iterable[str]], Iterable[tuple[str, Iterable[str]]]],
        top_k: Optional[int] = None,
        *,
        min_probability: Optional[float] = None,
        logits: bool = False,
    ) -> list[list[RankedTitle]]:
        """Rank the titles of many queries as `rank` does, in shared batches; return one list per query, in order.

        Args:
            searches: (query, titles) pairs, or a mapping from query to titles.
        """
        return self._rank(list_searches(searches, "searches"), top_k, min_probability, logits)

    def scored(self, queries: Sequence[str], titles: Sequence[str]) -> tuple[Array, Arrays]:
        """Return the logits of the pairs (queries[i], titles[i]), `[n]` float64, and all outputs, `[n, ...]` by name.

        Logits are calibrated if the ranker is. With windows, there are no outputs.
        """
        pairs = self.scorer.encode(queries, titles)
        if self.windows is not None:
            return self.scorer.logits(pairs), {}
        outputs = self.scorer.run(pairs)
        return self.scorer.logits_in(outputs), outputs

    def _rank(
        self,
        searches: list[tuple[str, list[str]]],
        top_k: Optional[int],
        min_probability: Optional[float],
        with_logits: bool,
    ) -> list[list[RankedTitle]]:
        require_cut(top_k, min_probability)
        queries = [query for query, titles in searches for _ in titles]
        computed, outputs = self.scored(queries, [title for _, titles in searches for title in titles])
        ends = np.cumsum([len(titles) for _, titles in searches], dtype=np.int64)
        ranked = []
        for (query, titles), of_query, begin in zip(searches, np.split(computed, ends[:-1]), [0, *ends.tolist()]):
            probabilities = sigmoid(of_query)
            order = np.argsort(-probabilities, kind="stable")
            shown = of_query[order] if with_logits else None
            best = best_titles(titles, order, probabilities[order], top_k, min_probability, shown)
            rows = [begin + title.index for title in best]
            ranked.append(
                with_answers(self.scorer, query, best, {name: array[rows] for name, array in outputs.items()})
            )
        return ranked


def with_answers(scorer: Scorer, query: str, titles: list[RankedTitle], outputs: Arrays) -> list[RankedTitle]:
    """Return the titles with their answers to the query, if the ranker names cells of tables; else unchanged.

    outputs: the ranker's outputs for the titles, `[titles, ...]`
    """
    if TOKEN_LOGITS not in outputs:
        return titles
    from paddle_ranker.scoring.table_answers import table_answers

    tables = [title.title for title in titles]
    answers = table_answers(scorer.row_encoder, [query] * len(tables), tables, outputs)
    return [replace(title, answer=answer) for title, answer in zip(titles, answers)]


def best_titles(
    titles: Sequence[str],
    order: Array,
    probabilities: Array,
    top_k: Optional[int],
    min_probability: Optional[float],
    logits: Optional[Array] = None,
) -> list[RankedTitle]:
    """Return the best titles: at most `top_k`, each with at least `min_probability`.

    Args:
        order: indices into `titles`, best first, `[n]`.
        probabilities, logits: values of the titles in that order, `[n]` each.
    """
    return [
        RankedTitle(
            int(place), titles[place], float(probability), logit=None if logits is None else float(logits[rank])
        )
        for rank, (place, probability) in enumerate(zip(order[:top_k], probabilities))
        if min_probability is None or probability >= min_probability
    ]


def require_cut(top_k: Optional[int], min_probability: Optional[float]) -> None:
    """Raise `UsageError` unless `top_k` is a whole number >= 1 or None, and `min_probability` in [0, 1] or None."""
    if top_k is not None:
        require_count(top_k, "top_k")
    if min_probability is not None and not (is_number(min_probability) and 0 <= min_probability <= 1):
        raise UsageError(f"min_probability {quoted(min_probability)}: must be from 0 to 1")
