"""What the tests of the server share: an engine that waits to be let go, jobs, and an application asked here."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Optional

import httpx
import numpy as np

from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.scoring.scorer import Scorer
from paddle_ranker.serving.core.batcher import Batcher
from paddle_ranker.serving.core.jobs import Job
from paddle_ranker.serving.slots.slot_kinds import SLOTS, fit_models, serve_options, served_by, with_tower_of_index
from paddle_ranker.serving.slots.slots import Slots

SECONDS = 60  # for what takes milliseconds, on a machine that has much else to do
TOKENIZER = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", *"abcdefghijklmnopqrstuvwxyz"]


class GatedEngine:
    """Logit: the sum of a row's ids. Computes when `gate` is open; `batches` holds the ids of every batch it began."""

    name, precision = "gated", "fp32"

    def __init__(self) -> None:
        self.limits: Any = SimpleNamespace(shares_queries=False)
        self.gate = threading.Event()
        self.gate.set()
        self.batches: list[np.ndarray] = []
        self.before: Callable[[np.ndarray], None] = lambda ids: None

    def run(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"logit": self.logits(arrays["input_ids"], arrays["token_type_ids"])}

    def logits(self, input_ids: np.ndarray, token_type_ids: np.ndarray) -> np.ndarray:
        self.batches.append(input_ids)
        assert self.gate.wait(SECONDS)
        self.before(input_ids)
        return (input_ids.sum(axis=1) + 1000 * token_type_ids.sum(axis=1)).astype(np.float32)


def write_letters(folder: Path) -> PairEncoder:
    """Return an encoder whose tokens are letters."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(TOKENIZER) + "\n", encoding="utf-8")
    return PairEncoder.from_folder(folder, 32)


def expected(scorer: Scorer, queries: list[str], titles: list[str]) -> list[float]:
    """Return what the gated engine says of pairs, worked out apart from the queue."""
    pairs: Any = scorer.row_encoder.encode(queries, titles)
    return [
        float(pairs[i].sum()) + 1000.0 * float(pairs.lengths[i] - pairs.second_starts[i]) for i in range(len(pairs))
    ]


class Submitted:
    """A job that was submitted, and its end. Attributes: `job`, `finished`, and `order`, which all jobs share."""

    order: list[Job] = []

    def __init__(self, batcher: Batcher, queries: list[str], titles: list[str], deadline: Optional[float] = None):
        self.finished = threading.Event()
        self.job = Job(len(titles), self._done, texts=(queries, titles), deadline=deadline)
        batcher.submit(self.job)

    def _done(self, jobs: Sequence[Job]) -> None:
        Submitted.order += jobs
        self.finished.set()

    def result(self) -> list[float]:
        assert self.finished.wait(SECONDS), "nothing came of the job"
        if self.job.fault is not None:
            raise self.job.fault
        logits: list[float] = self.job.outputs["logit"].tolist()
        return logits


async def ask_app(
    app: Any, method: str, path: str, body: Any = None, *, files: Any = None, form: Any = None, **headers: str
) -> httpx.Response:
    """Ask an application without a network; a body that is no bytes is sent as JSON."""
    content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=SECONDS) as client:
        return await client.request(method, path, content=content, files=files, data=form, headers=headers)


def opened_slots(**options: Any) -> tuple[Any, Slots]:
    """Return what a server of these options has: its configuration, and its slots with their models loaded."""
    SLOTS.load_plugins()
    config: Any = with_tower_of_index(serve_options()(**options))
    slots = Slots({name: kind.make(config) for name, kind in served_by(config).items()})
    loaded = [slot.load() for slot in slots.values()]
    fit_models(config, loaded)
    for slot, model in zip(slots.values(), loaded):
        slot.switch(model)
    return config, slots


def close_slots(slots: Slots) -> None:
    for slot in slots.values():
        model = slot.switch(None)
        assert model is not None and model.close(SECONDS)


class Application:
    """An application, `app`, without a network: a request is answered when the call returns, see `ask_app`."""

    app: Any

    def ask(self, method: str, path: str, body: Any = None, **more: Any) -> httpx.Response:
        return asyncio.run(ask_app(self.app, method, path, body, **more))

    def post(self, path: str, body: Any, **more: Any) -> httpx.Response:
        return self.ask("POST", path, body, **more)

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.ask("GET", path, **more)


class OpenedSite(Application):
    """A server's application with its models, for the options of `serve`."""

    def __init__(self, **options: Any):
        from paddle_ranker.serving.core.metrics import Metrics
        from paddle_ranker.serving.process.worker import make_app

        self.config, self.slots = opened_slots(**options)
        self.app = make_app(self.slots, self.config, Metrics())


def calls_of(work: Callable[[], Any]) -> int:
    """Return how many functions Python calls during `work`, its own and those in C."""
    count = 0

    def seen(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(seen)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count
