"""A kind of model of one's own: single texts in, one vector out, `POST /v1/embeddings`; trained in own_training.py."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Optional

import numpy as np

from paddle_ranker.encoding.columns import Arrays, Columns
from paddle_ranker.model.kinds import KINDS, ModelKind
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.signature import TOKENS, ArraySpec, Signature
from paddle_ranker.options import Options, option
from paddle_ranker.scoring.loading import LoadedModel, load_model
from paddle_ranker.scoring.scorer import BatchRunner
from paddle_ranker.serving.core.config import ServeConfig
from paddle_ranker.serving.http.endpoints import ENDPOINTS, Endpoint
from paddle_ranker.storage.atomic import new_file

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from paddle_ranker.serving.core.batcher import Batcher, BatchObserver
    from paddle_ranker.serving.core.model_slot import ModelSlot, Served

_TEXTS = ("a", "深度学习", "two words", "一段很长的话" * 20)


@dataclass(frozen=True)
class VectorInfo:
    """What `vectors.json` holds."""

    max_seq_length: int
    size: int
    training: dict[str, Any] = field(default_factory=dict)
    export: Optional[dict[str, Any]] = None

    kind: ClassVar[str] = "vectors"
    calibration: ClassVar[None] = None


class VectorKind(ModelKind):
    """Models that make a vector of a text."""

    name, info_file = "vectors", "vectors.json"

    def read_info(self, folder: Path) -> VectorInfo:
        return VectorInfo(**json.loads((folder / self.info_file).read_text(encoding="utf-8")))

    def signature(self, info: VectorInfo) -> Signature:
        return Signature(TOKENS[:1], (ArraySpec("vector", "float32", (None, info.size)),), read="vector")

    def load(self, source: Path, options: LoadOptions) -> Any:
        from tests.extensions.own_training import load_vectors

        return load_vectors(source, self.read_info(source), self.encoder(source, self.read_info(source), options))

    def static_network(self, parts: Any) -> Any:
        return parts.network

    def sample_inputs(self, parts: Any) -> Iterator[Arrays]:
        columns = parts.pair_encoder.encode_single(_TEXTS)
        yield from (columns.pad(rows) for rows in ([0, 1, 2, 3], [2, 0], [1]))

    def write_descriptions(self, folder: Path, parts: Any) -> None:
        from paddle_ranker.model.config import write_config

        write_config(folder, parts.network.config)
        parts.pair_encoder.save(folder)

    def write_info(self, folder: Path, parts: Any, info: VectorInfo) -> None:
        with new_file(folder / self.info_file) as stream:
            stream.write(json.dumps(dataclasses.asdict(info), indent=2) + "\n")


@dataclass(frozen=True)
class VectorOptions(Options):
    vector_model: Optional[str] = option(None, help="a model of vectors: it answers POST /v1/embeddings")


class VectorRunner(BatchRunner):
    """Vectors of texts in batches, encoded in the queue's own thread."""

    def __init__(self, loaded: LoadedModel, batch_size: int):
        super().__init__(loaded.engine, "vector", loaded.info.max_seq_length, batch_size)
        self._encoder = loaded.pair_encoder

    def encode(self, texts: Sequence[str], same: Sequence[str]) -> Columns:
        return self._encoder.encode_single(texts)


@dataclass(frozen=True)
class ServedVectors:
    name: str
    batcher: Batcher[VectorRunner]


class Vectors(Endpoint):
    """Vectors of texts over HTTP: requests share batches."""

    name, what, option, options = "vectors", "model of vectors", "vector_model", VectorOptions
    paths: ClassVar[Mapping[str, str]] = {"/v1/embeddings": "embeddings"}

    def service(self, config: ServeConfig) -> ModelSlot[Any]:
        from paddle_ranker.serving.core.model_slot import ModelSlot

        return ModelSlot(config.limits, self.what)

    def load(self, config: ServeConfig, observer: BatchObserver) -> Served:
        from paddle_ranker.serving.core.batcher import Batcher

        folder = self.folder(config)
        assert folder is not None
        runner = VectorRunner(load_model(folder, config.load_options()), config.batch_size)
        runner.run(runner.encode(_TEXTS, _TEXTS))  # to warm it up
        return ServedVectors(folder.name, Batcher(runner, queue_pairs=config.queue_pairs, observer=observer))

    def routes(self, service: Any, config: ServeConfig) -> list[BaseRoute]:
        from starlette.routing import Route

        return [Route(path, partial(_answer, service), methods=["POST"]) for path in self.paths]

    def info(self, service: Any, config: ServeConfig) -> dict[str, Any]:
        return {"name": service.name}

    def describe(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"/v1/embeddings": {"post": {"summary": "Vectors of texts"}}}, {}


async def _answer(service: Any, request: Request) -> Response:
    from starlette.responses import JSONResponse

    from paddle_ranker.serving.core.faults import INVALID, Fault
    from paddle_ranker.serving.core.model_slot import computed
    from paddle_ranker.serving.http.exchange import deadline_of, read_body

    try:
        texts = json.loads(await read_body(request, service.limits.request_bytes))["input"]
    except (ValueError, KeyError, TypeError) as error:
        raise Fault(INVALID, 'expected {"input": [texts]}', field="body") from error
    service.limits.check_pairs(len(texts), "input")
    service.limits.check_texts(texts, "input")
    model, end = service.ready(), service.deadline(deadline_of(request))
    vectors = await computed(model.batcher, len(texts), end, texts=(texts, texts))
    return JSONResponse({"model": model.name, "data": [{"embedding": row.tolist()} for row in np.asarray(vectors)]})


KINDS.add(VectorKind.name, VectorKind())
ENDPOINTS.add(Vectors.name, Vectors())
