"""Rank stored titles: the lower layers run on the query alone, and only the upper layers run on every pair."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Optional, Union, cast

import numpy as np
from numpy.typing import NDArray

from paddle_ranker import runtime
from paddle_ranker.array_types import Arrays, Floats
from paddle_ranker.data.rows.records import Pair
from paddle_ranker.encoding.batching import scoring_batches
from paddle_ranker.encoding.columns import EncodedTexts, ragged_positions
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.errors import CheckpointError, UsageError, quoted, refuse_text
from paddle_ranker.metrics.calibration import sigmoid
from paddle_ranker.model.exported import ExportedFolder, open_exported
from paddle_ranker.model.info import RankerInfo
from paddle_ranker.model.load_options import DEFAULT_OPTIONS, LoadOptions
from paddle_ranker.model.model_folder import RANKER, identify
from paddle_ranker.model.pretrained import find_model
from paddle_ranker.options import note
from paddle_ranker.scoring.engines.engine import Engine
from paddle_ranker.scoring.engines.engine_registry import AUTO
from paddle_ranker.scoring.engines.opening import open_engine
from paddle_ranker.scoring.files import score_file
from paddle_ranker.scoring.loading import ScoringRanker, open_model
from paddle_ranker.scoring.ranker import RankedTitle, best_titles, require_cut
from paddle_ranker.scoring.scorer import BatchRunner, Scorer
from paddle_ranker.scoring.scoring_options import PredictOptions
from paddle_ranker.scoring.texts import list_texts, require_text
from paddle_ranker.stored_titles.signatures import LOWER, SIDES, STATES, UPPER, split_signatures
from paddle_ranker.stored_titles.title_states import StatesInfo, StoredPairs, TextStates, TitleStates, joined, taken

UPPER_PRODUCTS = "upper_products"  # key in the facts of int8: number of the upper layers' products in int8
_PAIRS_AT_ONCE = 512  # pairs whose states are in memory
_Encoded = tuple[EncodedTexts, NDArray[np.int64], EncodedTexts]  # queries, index of each title's query, titles


@dataclasses.dataclass(frozen=True)
class OpenedParts:
    """Opened parts of a split ranker.

    info: the ranker's info
    encoder: encoder of the ranker's pairs
    states_info: description of the ranker, which stored states record
    lower, upper: engines of the lower and of the upper layers
    """

    info: RankerInfo
    encoder: PairEncoder
    states_info: StatesInfo
    lower: Engine
    upper: Engine


class SplitRanker:
    """Ranker with a split encoder (trained with `--stored_titles`), opened for stored titles.

        ranker = SplitRanker.open("checkpoint/best")
        titles = ranker.title_states(["a title", "another"])
        ranker.logits(ranker.query_states(["a query"]), titles)

    The logits equal the whole ranker's, except for pairs above the ranker's maximum length: `SplitRanker` truncates
    each text separately, to the maximum length of a text in a pair.

    Attributes:
        info: the ranker's info.
        encoder: the encoder of the ranker's pairs.
        states_info: description of the ranker, which stored states record.
    """

    def __init__(self, parts: OpenedParts, batch_size: int = 256):
        self.info, self.encoder, self.states_info = parts.info, parts.encoder, parts.states_info
        self._lower = BatchRunner(parts.lower, self.encoder.max_seq_length, batch_size)
        self._upper = Scorer(parts.upper, self.encoder, batch_size, calibration=self.info.calibration)

    @classmethod
    def open(
        cls, source: Union[str, Path], options: LoadOptions = DEFAULT_OPTIONS, batch_size: int = 256
    ) -> SplitRanker:
        """Open a trained or an exported ranker, in the engine that the options name.

        Raises `CheckpointError` as `open_model` does, and for a ranker whose encoder is not split; `UsageError` as
        `open_model` does, and for an exported ranker in the engine auto.
        """
        runtime.prepare(threads=0)  # a command has done so, a program need not
        folder = find_model(source)
        if not identify(folder).is_exported:
            opened = open_model(folder, RANKER, options)
            _require_split(folder, opened.info)
            return cls(_of_network(opened), batch_size)
        if options.engine == AUTO:
            raise UsageError("--engine auto times whole rankers: for stored titles, name an engine")
        exported = open_exported(folder, RANKER)
        _require_split(folder, exported.info)
        encoder = cast(PairEncoder, exported.row_encoder(options))
        return cls(_of_export(cast(ExportedFolder, exported), options, encoder), batch_size)

    @classmethod
    def of(cls, opened: ScoringRanker, batch_size: int = 256) -> SplitRanker:
        """Split an opened ranker; the parts of an exported ranker are opened from its folder, in the same engine.

        Raises `CheckpointError` if the ranker's encoder is not split, or the ranker was exported without parts.
        """
        if not opened.info.stored_titles:
            raise CheckpointError("the ranker's encoder is not split")
        if opened.exported is None:
            return cls(_of_network(opened), batch_size)
        return cls(_of_export(*opened.exported, cast(PairEncoder, opened.row_encoder)), batch_size)

    def query_states(self, queries: Sequence[str]) -> TextStates:
        """Return the lower layers' states of queries."""
        refuse_text(queries, "queries")
        return self.states_of(self.encoder.encode_queries(queries), is_title=False)

    def title_states(self, titles: Sequence[str]) -> TextStates:
        """Return the lower layers' states of titles."""
        refuse_text(titles, "titles")
        return self.states_of(self.encoder.encode_titles(titles), is_title=True)

    def logits(self, queries: TextStates, titles: TextStates, query_of: Optional[NDArray[np.int64]] = None) -> Floats:
        """Return the logits of pairs, `[titles]` float64, calibrated if the ranker is.

        query_of: index of each title's query, `[titles]`; if it is None, all titles belong to the first query
        """
        of = np.zeros(len(titles), np.int64) if query_of is None else query_of
        return self._upper.logits(StoredPairs(queries, titles, of, self.encoder.pad_id))

    def pairs(self, query: EncodedTexts, titles: TextStates) -> StoredPairs:
        """Return the pairs of one encoded query and titles, for `logits_of` and `compute`."""
        return StoredPairs(query, titles, np.zeros(len(titles), np.int64), self.encoder.pad_id)

    def logits_of(self, pairs: StoredPairs) -> Floats:
        """Return the logits, as `logits` does, of pairs whose queries are encoded but have no states yet."""
        return self._upper.logits(self._with_states(pairs))

    def compute(self, pairs: StoredPairs, rows: NDArray[np.int64]) -> Arrays:
        """Compute the outputs, by name, of a batch of pairs whose queries are encoded but have no states yet.

        rows: indices of the pairs, `[batch]`
        """
        return self._upper.compute(self._with_states(pairs.take(rows)), np.arange(len(rows)))

    def _with_states(self, pairs: StoredPairs) -> StoredPairs:
        assert isinstance(pairs.queries, EncodedTexts)
        used, of = np.unique(pairs.query_of, return_inverse=True)
        return dataclasses.replace(pairs, queries=self.states_of(pairs.queries.take(used), is_title=False), query_of=of)

    def states_of(self, texts: EncodedTexts, *, is_title: bool) -> TextStates:
        """Return the lower layers' states of encoded titles or queries."""
        info, template = self.states_info, self.encoder.template
        states = np.empty((len(texts.ids), info.width), np.float32)
        vectors = np.empty((len(texts), info.vectors), np.float32)
        matches = np.zeros((len(texts.ids), info.matches), np.float32)
        before, after = ((), template.after) if is_title else (template.before, template.between)
        for rows in scoring_batches(texts.lengths, self._lower.max_tokens, self._lower.max_rows):
            arrays, starts, lengths = texts.pad(rows), texts.offsets[rows], texts.lengths_of(rows)
            is_token = np.arange(arrays["input_ids"].shape[1]) < lengths[:, None]
            if is_title:
                arrays["token_type_ids"] = is_token.astype(np.int64)
            outputs = self._lower.engine.run(arrays)
            states[ragged_positions(starts, lengths)] = outputs[STATES][is_token]
            if info.vectors:
                vectors[rows] = outputs[f"{SIDES[is_title]}_vectors"]
                of_batch, counts = outputs[f"{SIDES[is_title]}_matches"], lengths - len(before) - len(after)
                matches[ragged_positions(starts + len(before), counts)] = of_batch[
                    np.arange(of_batch.shape[1]) < counts[:, None]
                ]
        return TextStates(states, texts.ids, texts.offsets, vectors, matches)


def _of_network(opened: ScoringRanker) -> OpenedParts:
    from paddle_ranker.model.network import RankerNetwork
    from paddle_ranker.scoring.engines.dygraph import DygraphEngine
    from paddle_ranker.stored_titles.split import LowerLayers, UpperLayers, lower_digest, similarity_sizes

    network = cast(RankerNetwork, cast(DygraphEngine, opened.engine).network)
    digest, sizes = lower_digest(network, opened.row_encoder), similarity_sizes(network)
    info = StatesInfo(digest, opened.info.stored_titles, network.states_width, *sizes)
    parts = LowerLayers(network), UpperLayers(network)
    for part in parts:
        part.eval()
    lower, upper = map(DygraphEngine, parts, split_signatures(info.width, info.vectors, info.matches))
    return OpenedParts(opened.info, cast(PairEncoder, opened.row_encoder), info, lower, upper)


def _info_of_export(exported: ExportedFolder) -> StatesInfo:
    info = cast(RankerInfo, exported.info)
    assert info.export is not None
    digest, sizes = info.export.get("ranker", ""), info.export.get("similarity", (0, 0))
    return StatesInfo(digest, info.stored_titles, info.stored_width or exported.config.hidden_size, *sizes)


def parts_of(exported: ExportedFolder) -> tuple[ExportedFolder, ExportedFolder]:
    """Return the (lower, upper) layers of an exported split ranker; raises `CheckpointError` if a part is missing."""
    info = _info_of_export(exported)
    lower, upper = split_signatures(info.width, info.vectors, info.matches)
    return exported.part(LOWER, lower), exported.part(UPPER, upper)


def _of_export(exported: ExportedFolder, options: LoadOptions, encoder: PairEncoder) -> OpenedParts:
    plain, upper_options = options, options
    if options.precision == "int8":
        # A query's few tokens are computed in fp32, and so are upper layers that integers do not speed up.
        plain = dataclasses.replace(options, precision="fp32")
        int8 = (cast(RankerInfo, exported.info).export or {}).get("int8") or {}
        upper_options = plain if int8.get(UPPER_PRODUCTS) == 0 else options
    info, (lower, upper) = _info_of_export(exported), parts_of(exported)
    opened = open_engine(lower, plain), open_engine(upper, upper_options)
    return OpenedParts(cast(RankerInfo, exported.info), encoder, info, *opened)


def _require_split(folder: Path, info: RankerInfo) -> None:
    if not info.stored_titles:
        raise CheckpointError(
            f"{folder}: its encoder is not split, so its titles cannot be stored; train it with --stored_titles 2, "
            f"which may start from it: --init_from_ckpt {folder}"
        )


class StoredRanker:
    """Ranker of stored titles, for use from Python.

        ranker = StoredRanker.open("checkpoint/best", "states")
        ranker.rank("query", ["id 7", "id 9"], top_k=10)

    Attributes:
        ranker: the split ranker.
        titles: the stored states.
    """

    def __init__(self, ranker: SplitRanker, titles: TitleStates):
        titles.require_ranker(ranker.states_info)
        self.ranker, self.titles = ranker, titles

    @classmethod
    def open(  # type: ignore[explicit-any]  # each field of `LoadOptions` has its own type
        cls, source: Union[str, Path], store: Union[str, Path], *, batch_size: int = 256, **how: Any
    ) -> StoredRanker:
        """Open a ranker and the folder that `paddle-ranker store` made with it.

        how: fields of `LoadOptions`, such as engine, precision and threads

        Raises `CheckpointError` if the ranker's encoder is not split, or another ranker made the folder.
        """
        return cls(SplitRanker.open(source, LoadOptions(**how), batch_size), TitleStates.open(store))

    def score(self, query: str, rows: NDArray[np.int64], *, logits: bool = False) -> Floats:
        """Return the probabilities of the titles at `rows` `[n]` of the store, or with `logits` their logits."""
        queries = self.ranker.query_states([require_text(query, "query")])
        parts = [rows[start : start + _PAIRS_AT_ONCE] for start in range(0, len(rows), _PAIRS_AT_ONCE)]
        computed = np.concatenate(
            [np.zeros(0), *(self.ranker.logits(queries, self.titles.take(part)) for part in parts)]
        )
        return computed if logits else sigmoid(computed)

    def rank(
        self,
        query: str,
        ids: Optional[Iterable[str]] = None,
        top_k: Optional[int] = None,
        *,
        min_probability: Optional[float] = None,
        logits: bool = False,
    ) -> list[RankedTitle]:
        """Return stored titles by descending probability, as `Ranker.rank` does; `title` of a result is the title's id.

        ids: ids of the titles to rank; defaults to all titles

        Raises `DataError` for an id that the store lacks.
        """
        require_cut(top_k, min_probability)
        titles = self.titles.ids if ids is None else list_texts(ids, "ids")
        computed = self.score(query, self.titles.rows_of(titles), logits=True)
        probabilities = sigmoid(computed)
        order = np.argsort(-probabilities, kind="stable")
        shown = computed[order] if logits else None
        return best_titles(titles, order, probabilities[order], top_k, min_probability, shown)


def score_stored_pairs(options: PredictOptions, store: str) -> Iterator[tuple[Pair, float]]:
    """Yield each pair of the input file with its probability, from the states of the folder `store`.

    Titles are looked up by their tokens. States that the folder lacks are computed; a note says for how many titles.
    """
    ranker = SplitRanker.open(options.params_path, LoadOptions.of(options), options.batch_size)
    titles, encoder = StoredRanker(ranker, TitleStates.open(store)).titles, ranker.encoder
    absent, seen = 0, 0

    def encode(part: list[Pair]) -> _Encoded:
        queries = list(dict.fromkeys(pair.query for pair in part))
        number = {query: place for place, query in enumerate(queries)}
        of = np.array([number[pair.query] for pair in part], np.int64)
        return encoder.encode_queries(queries), of, encoder.encode_titles([pair.title for pair in part])

    def logits(part: _Encoded) -> Floats:
        nonlocal absent, seen
        queries, of, texts = part
        rows = titles.rows_with(texts)
        stored, others = np.flatnonzero(rows >= 0), np.flatnonzero(rows < 0)
        states = titles.take(rows[stored])
        if len(others):
            states = joined(states, ranker.states_of(texts.take(others), is_title=True))
            states = taken(states, np.argsort(np.concatenate([stored, others])))
        absent, seen = absent + len(others), seen + len(rows)
        return ranker.logits_of(StoredPairs(queries, states, of, encoder.pad_id))

    yield from score_file(options, encode, logits, _PAIRS_AT_ONCE)
    if absent:
        note(f"{absent:,} of {seen:,} titles are not in {quoted(store)}: their states were computed")
