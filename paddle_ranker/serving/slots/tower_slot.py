"""The slot of a server's tower: loads it, warms it up and checks its vectors.

Texts and pictures go through the tower's queue; a tower of two networks has a queue for each network.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Optional

import numpy as np

from paddle_ranker.array_types import Array, Arrays
from paddle_ranker.encoding.columns import PICTURE, TEXT, Columns, FileEncoder
from paddle_ranker.encoding.pair_encoder import LengthCheck, PairEncoder
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import SERVED_TOWER
from paddle_ranker.model.pretrained import resolve_model
from paddle_ranker.model.tower import QUERY_FOLDER, VECTOR, RowsOfTower, TextEncoder, TowerInfo
from paddle_ranker.scoring.loading import ScoringModel, open_model
from paddle_ranker.scoring.scorer import BatchRunner
from paddle_ranker.serving.core.batcher import Batcher, BatchObserver
from paddle_ranker.serving.core.faults import UNPROCESSABLE, Fault
from paddle_ranker.serving.core.jobs import Check, no_texts
from paddle_ranker.serving.core.server_config import ServeConfig
from paddle_ranker.serving.slots.picture_work import PictureWork
from paddle_ranker.serving.slots.self_check import check_rows, token_rows, tolerance_of, warm_up
from paddle_ranker.serving.slots.services import TextVectors
from paddle_ranker.serving.slots.slots import ServedModel, Slot, computed
from paddle_ranker.serving.slots.tower_options import TOWER_SLOT, TowerSlotOptions
from paddle_ranker.version import __version__

_TEXTS = ("a", "search engine", "深度学习在水稻病害诊断中的研究", "语言与文化差异的比较研究" * 8)
_IS_QUERY = ("", "q")  # a text's second field in the queue, by whether the text is a query


@dataclass(frozen=True)
class ServedTower(ServedModel):
    """A loaded tower.

    model: the opened tower
    runner: computes batches of its texts or pictures
    queries: the loaded separate tower for queries, or None
    """

    model: ScoringModel[TowerInfo, RowsOfTower]
    runner: BatchRunner
    queries: Optional[ServedTower] = None

    @property
    def queued_rows(self) -> int:
        """Number of rows that wait for both engines."""
        return self.batcher.queued_rows + (0 if self.queries is None else self.queries.queued_rows)

    def close(self, seconds: Optional[float] = None) -> bool:
        """Close both queues. See `Batcher.close`."""
        began = time.monotonic()
        closed = True if self.queries is None else self.queries.close(seconds)
        left = None if seconds is None else max(0.0, seconds - (time.monotonic() - began))
        return self.batcher.close(left) and closed

    @property
    def reads(self) -> tuple[str, ...]:
        """The kinds of inputs from which the tower computes vectors: "text", "picture" or both."""
        return tuple(dict.fromkeys(tower.model.info.reads for tower in (self, self.queries) if tower is not None))

    def of(self, kind: str = TEXT, is_query: bool = False, field: str = "input") -> ServedTower:
        """Return the tower that reads inputs of `kind`. If both towers do: `queries` for a query, else this tower.

        Raises `Fault` if neither tower reads such inputs.

        field: name of the request's field, for the fault
        """
        towers = (self.queries, self) if is_query else (self, self.queries)
        reader = next((tower for tower in towers if tower is not None and tower.model.info.reads == kind), None)
        if reader is None:
            remedy = "serve a CLIP, or train a tower of pictures" if kind == PICTURE else "serve one with texts"
            raise Fault(UNPROCESSABLE, f"is a {kind}, and this tower reads {self.reads[0]}s: {remedy}", field=field)
        return reader

    @property
    def texts(self) -> Optional[TextEncoder]:
        """The encoder of texts, or None if the tower reads pictures alone."""
        rows = [tower.model.row_encoder for tower in (self, self.queries) if tower is not None]
        return next((row for row in rows if isinstance(row, TextEncoder)), None)


class TowerSlot(Slot[ServedTower]):
    """The `VectorService` of a tower: checks limits and texts, then puts the texts into the queue.

    The limits `pairs` and `queue_pairs` of its `limits` count texts.
    """

    def __init__(self, config: ServeConfig, options: TowerSlotOptions):
        limits = dataclasses.replace(options, pairs=options.texts, queue_pairs=options.queue_texts)
        super().__init__(limits, TOWER_SLOT, options.tower)
        self._config, self._options = config, options
        self._pictures = PictureWork()

    def load(self, observer: Optional[BatchObserver] = None) -> ServedTower:
        """Load the tower, warm it up and check its vectors.

        Raises `CheckpointError` if the folder has no tower, or if vectors are not finite or depend on a text's
        neighbours in the batch. Also raises the errors of `open_model`.
        """
        assert self.folder is not None
        folder = self.folder.resolve()  # once: a link may be moved while the model is opened
        tower = self._load(folder, observer)
        if tower.model.info.towers == 2:
            queries = resolve_model(str(folder)) / QUERY_FOLDER  # a published folder is converted to two towers
            tower = dataclasses.replace(tower, queries=self._load(queries, observer))
        return tower

    def _load(self, folder: Path, observer: Optional[BatchObserver]) -> ServedTower:
        config = self._config
        model = open_model(folder, SERVED_TOWER, self._load_options())
        rows = model.row_encoder
        runner = BatchRunner(model.engine, rows.max_length, config.batch_size)
        check(runner, model, folder)
        batcher = Batcher(
            runner,
            partial(_encoded, rows) if isinstance(rows, TextEncoder) else no_texts,
            queue_rows=self.limits.queue_pairs,
            streams=config.streams,
            max_wait_us=config.max_wait_us,
            observer=observer,
            what=self.what,
        )
        name = config.name_of(TOWER_SLOT, self.folder or folder)
        return ServedTower(name, folder, batcher, time.time(), model, runner)

    def _load_options(self) -> LoadOptions:
        """Return the options with which the tower is opened.

        If the server has a ranker, options about pairs are for the ranker alone.
        """
        config, options = self._config, self._options
        of_ranker = {} if config.model is None else {"max_seq_length": None, "positive_label": None}
        return LoadOptions.of(
            config,
            engine=options.tower_engine or config.engine,
            precision=options.tower_precision or config.precision,
            **of_ranker,
        )

    @property
    def info(self) -> TowerInfo:
        """The tower's description. Raises `Fault(UNAVAILABLE)` until it is loaded."""
        return self.ready().model.info

    def encoders(self, is_query: bool) -> tuple[PairEncoder, ...]:
        """Return the encoders of queries, or of the texts that are searched.

        Raises `Fault` if the tower reads pictures alone, and as `ready` does.
        """
        rows = self.ready().of(is_query=is_query).model.row_encoder
        return (rows.tokens,) if isinstance(rows, TextEncoder) else ()

    @property
    def query_encoder(self) -> Optional[TextEncoder]:
        """The encoder of queries, or None if the tower reads no texts. Raises `Fault` as `ready` does."""
        served = self.ready()
        rows = (served.queries or served).model.row_encoder
        return rows if isinstance(rows, TextEncoder) else None

    def describe(self) -> dict[str, object]:
        """Return the tower's description for `/info`. The first keys are those of Text Embeddings Inference."""
        served = self.ready()
        info, encoder = served.model.info, served.texts
        of_texts: dict[str, object] = {}
        if encoder is not None:
            of_texts = {
                "max_input_length": encoder.tokens.max_seq_length,
                "prompts": {"query": encoder.query_prompt, "document": encoder.text_prompt},
                "tokenizer": encoder.tokens.backend,
            }
        return {
            "model_id": served.name,
            "model_type": {"embedding": {"pooling": info.pooling}},
            "reads": list(served.reads),
            **of_texts,
            "max_client_batch_size": self.limits.pairs,
            "auto_truncate": self.limits.auto_truncate,
            "version": __version__,
            "kind": info.kind,
            "size": info.size,
            "nested_sizes": list(info.nested_sizes),
            "towers": info.towers,
            "normalize": info.normalize,
            "loaded_at": served.loaded_at,
            "engine": served.model.engine.name,
            "precision": served.model.engine.precision,
            "batch_tokens": served.runner.max_tokens,
            "batch_texts": served.runner.max_rows,
        }

    async def vectors(
        self,
        texts: Sequence[str],
        *,
        is_query: bool = False,
        deadline: Optional[float] = None,
        field: str = "text",
        check_lengths: Optional[Check] = None,
    ) -> TextVectors:
        """Compute the vectors of texts. See `VectorService`.

        check_lengths: called for each batch as `check_lengths(first, counts, limit)`: the index of the batch's first
            text, the token counts `[n]` of its texts, prompts included, and the length to which texts are truncated;
            may raise a `Fault`
        """
        served = self.ready().of(TEXT, is_query, field)
        self.limits.check_pairs(len(texts), field)
        texts = self.limits.scored_texts(texts, field)
        fields = texts, [_IS_QUERY[is_query]] * len(texts)
        end = self.deadline(deadline)
        job = await computed(served.batcher, len(texts), end, texts=fields, check=check_lengths)
        return TextVectors(job.outputs[VECTOR], job.tokens)

    def picture_bytes(self, field: str) -> int:
        """Return the bytes of one picture's pixels as the tower reads them. Raises `Fault` if it reads texts alone.

        field: name of the request's field, for the fault
        """
        height, width = self.ready().of(PICTURE, field=field).model.info.picture_size
        return 3 * height * width

    async def picture_vectors(
        self, pictures: Sequence[bytes], fields: Sequence[str], *, deadline: Optional[float] = None
    ) -> TextVectors:
        """Compute the vectors of pictures.

        pictures: bytes of the pictures' files
        fields: names of the pictures in errors

        Raises `Fault` as `vectors` does, and for the first picture that is damaged, too large or no picture.
        """
        served = self.ready().of(PICTURE, field=fields[0])
        encoder, end = served.model.row_encoder, self.deadline(deadline)
        assert isinstance(encoder, FileEncoder)
        parts = await self._pictures.read(pictures, fields, end, lambda picture: encoder.encode([picture]))
        columns = type(parts[0]).concat(parts)
        job = await computed(served.batcher, len(columns), end, columns=columns)
        return TextVectors(job.outputs[VECTOR], job.tokens)

    async def token_vectors(
        self, input_ids: Array, token_type_ids: Array, *, deadline: Optional[float] = None
    ) -> TextVectors:
        """Compute the vectors of encoded texts, `[n, length]` arrays. See `VectorService`."""
        served = self.ready().of(field="input_ids")
        encoder = served.model.row_encoder
        assert isinstance(encoder, TextEncoder)
        self.limits.check_pairs(len(input_ids), "input_ids")
        rows = token_rows(served.model.engine.limits, encoder.tokens.given, input_ids, token_type_ids)
        job = await computed(served.batcher, len(rows), self.deadline(deadline), columns=rows)
        return TextVectors(job.outputs[VECTOR], job.tokens)


def _encoded(
    encoder: TextEncoder, texts: Sequence[str], are_queries: Sequence[str], check: Optional[LengthCheck] = None
) -> Columns:
    """Encode texts of the queue, each as a query or as a text that is searched. Keep their order.

    are_queries: for each text, "q" for a query, "" for another text
    check: may refuse the texts; given only if all are queries or none is
    """
    is_query = np.array(are_queries) == _IS_QUERY[True]
    if is_query.all():
        return encoder.encode_queries(texts, check)
    if not is_query.any():
        return encoder.encode(texts, check)
    queries, others = np.flatnonzero(is_query), np.flatnonzero(~is_query)
    parts: list[Columns] = [
        encoder.encode_queries([texts[i] for i in queries]),
        encoder.encode([texts[i] for i in others]),
    ]
    return type(parts[0]).concat(parts).take(np.argsort(np.concatenate([queries, others])))


def check(runner: BatchRunner, model: ScoringModel[TowerInfo, RowsOfTower], folder: Path) -> None:
    """Compute vectors of sample inputs, each alone and all in one batch.

    Raises `CheckpointError` if a vector is not finite or depends on the batch.
    """

    def vectors(outputs: Arrays) -> Array:
        return outputs[VECTOR]

    encoder, tolerance = model.row_encoder, tolerance_of(model.engine.precision)
    if not isinstance(encoder, TextEncoder):
        *_, noise = encoder.samples()
        check_rows(runner, noise, vectors, folder, f"{encoder.reads}'s vector", tolerance)
        warm_up(runner, noise.take([0]), noise.take([0]))
        return
    truncated = encoder.tokens.truncated
    check_rows(runner, encoder.encode(_TEXTS), vectors, folder, "text's vector", tolerance)
    warm_up(runner, encoder.encode([_TEXTS[-1] * 20]), encoder.encode(_TEXTS[:1]))
    encoder.tokens.truncated = truncated  # count only users' texts
