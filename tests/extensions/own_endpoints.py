"""A slot of a plugin in the server, and two endpoints: `/v1/vectors` asks the slot, `/v1/nearest` also the ranker."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Optional

import numpy as np

from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.options import Options, option
from paddle_ranker.serving.core.batcher import Batcher, BatchObserver
from paddle_ranker.serving.core.faults import INVALID, Fault
from paddle_ranker.serving.core.json_text import parse_json
from paddle_ranker.serving.core.server_config import RANKER_SLOT, ServeConfig
from paddle_ranker.serving.core.threads import run_in_thread
from paddle_ranker.serving.http.endpoints import ENDPOINTS, Endpoint
from paddle_ranker.serving.slots.slot_kinds import SLOTS, SlotKind
from paddle_ranker.serving.slots.slots import ServedModel, Slot, Slots, computed
from paddle_ranker.storage.untrusted import Unchecked
from tests.extensions.own_kind import _TEXTS, VECTORS

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

NAME = "vectors"


@dataclass(frozen=True)
class VectorOptions(Options):
    vector_model: Optional[str] = option(None, help="a model of vectors: it answers POST /v1/vectors")


class VectorSlot(Slot[ServedModel]):
    """A slot for vectors of texts; requests share batches."""

    def __init__(self, config: ServeConfig):
        super().__init__(config, "model of vectors", SLOTS[NAME].folder(config))
        self._config = config

    def load(self, observer: Optional[BatchObserver] = None) -> ServedModel:
        from paddle_ranker.scoring.loading import open_model
        from paddle_ranker.scoring.scorer import BatchRunner

        config, folder = self._config, self.folder
        assert folder is not None
        model = open_model(folder, VECTORS, LoadOptions.of(config))
        runner, encode = BatchRunner(model.engine, model.info.max_seq_length), model.row_encoder.encode_single
        runner.run(encode(_TEXTS))  # warms the model up
        batcher = Batcher(runner, encode, queue_rows=config.queue_pairs, observer=observer, what=self.what)
        return ServedModel(folder.name, folder, batcher, time.time())

    def describe(self) -> dict[str, object]:
        return {"name": self.name}

    async def vectors(self, texts: list[str], deadline: float) -> np.ndarray:
        """Return the vectors of texts, `[n, size]` float32."""
        self.limits.check_pairs(len(texts), "input")
        self.limits.check_texts(texts, "input")
        return (await computed(self.ready().batcher, len(texts), deadline, texts=(texts,))).outputs["vector"]


class VectorsOfTexts(Endpoint):
    """Endpoint for vectors of texts."""

    slots = (NAME,)
    paths: ClassVar[Mapping[str, str]] = {"/v1/vectors": "vectors"}

    def routes(self, slots: Slots, config: ServeConfig) -> list[BaseRoute]:
        from starlette.routing import Route

        answer = partial(_vectors, slots.of(NAME, VectorSlot))
        return [Route(path, answer, methods=["POST"]) for path in self.paths]


class Nearest(Endpoint):
    """Endpoint for the documents nearest to a query by vectors, ranked: two models in a request, with one deadline."""

    slots = (NAME, RANKER_SLOT)
    paths: ClassVar[Mapping[str, str]] = {"/v1/nearest": "nearest"}

    def routes(self, slots: Slots, config: ServeConfig) -> list[BaseRoute]:
        from starlette.routing import Route

        return [Route("/v1/nearest", partial(_nearest, slots), methods=["POST"])]


async def _body_of(request: Request, slot: Slot[ServedModel]) -> dict[str, Unchecked]:
    """Return a request's JSON object; raises `Fault` if it is not an object, or beyond the server's limits."""
    from paddle_ranker.serving.http.exchange import read_body

    data = await read_body(request, slot.limits.request_bytes)
    # Large bodies are parsed outside the event loop.
    body = await run_in_thread(len(data), parse_json, data, slot.limits.json_bounds)
    if not isinstance(body, dict):
        raise Fault(INVALID, "expected an object", field="body")
    return body


def _texts_in(body: dict[str, Unchecked], name: str) -> list[str]:
    texts = body.get(name)
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise Fault(INVALID, "expected a list of texts", field=name)
    return texts


async def _vectors(slot: VectorSlot, request: Request) -> Response:
    from starlette.responses import JSONResponse

    from paddle_ranker.serving.http.exchange import deadline_of

    stated = deadline_of(request)  # read before the body, since the caller already waits
    texts = _texts_in(await _body_of(request, slot), "input")
    vectors = await slot.vectors(texts, slot.deadline(stated))
    return JSONResponse({"model": slot.name, "data": [{"embedding": row.tolist()} for row in vectors]})


async def _nearest(slots: Slots, request: Request) -> Response:
    from starlette.responses import JSONResponse

    from paddle_ranker.serving.http.exchange import deadline_of
    from paddle_ranker.serving.slots.ranker_slot import RankerSlot

    tower, ranker = slots.of(NAME, VectorSlot), slots.of(RANKER_SLOT, RankerSlot)
    stated = deadline_of(request)  # read before the body, since the caller already waits
    body = await _body_of(request, tower)
    query, documents = body.get("query"), _texts_in(body, "documents")
    if not isinstance(query, str):
        raise Fault(INVALID, "expected a text", field="query")
    end = tower.deadline(stated)
    vectors = await tower.vectors([query, *documents], end)
    near = np.argsort(-(vectors[1:] @ vectors[0]), kind="stable")[:2]
    titles = [documents[place] for place in near.tolist()]
    scores = await ranker.score_pairs([query] * len(titles), titles, deadline=end)
    order = np.argsort(-scores.probabilities, kind="stable").tolist()
    ranked = [{"document": titles[place], "score": float(scores.probabilities[place])} for place in order]
    return JSONResponse({"models": [tower.name, ranker.name], "results": ranked})


SLOTS.add(NAME, SlotKind("model of vectors", "vector_model", VectorOptions, VectorSlot, VECTORS))
ENDPOINTS.add("vectors", VectorsOfTexts())
ENDPOINTS.add("nearest", Nearest())
