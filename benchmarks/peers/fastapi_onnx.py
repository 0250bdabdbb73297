"""A server in the manner of Text Embeddings Inference over ONNX Runtime: `... fastapi_onnx FOLDER THREADS`.

Requests are tokenized in a separate thread while the model computes. When the model is free, it takes pairs in order of
arrival, up to the tokens of several batches, and sorts them by length, which saves padding. Batches are filled up to
`BATCH_TOKENS` padded tokens or `BATCH_ROWS` pairs.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import orjson
from fastapi import FastAPI, Request, Response
from transformers import AutoTokenizer

from benchmarks.peers.fastapi_server import MAX_SEQ_LENGTH, RerankRequest, results, serve
from benchmarks.peers.graphs import ONNX_FILE

BATCH_TOKENS, BATCH_ROWS = 4096, 128  # limits of a batch: padded tokens and pairs
ROUND = 4  # number of batches whose pairs are sorted together


class Waiting:
    """A request with pairs that are not scored yet."""

    __slots__ = ("done", "left", "probabilities")

    def __init__(self, count: int) -> None:
        self.left, self.probabilities = count, [0.0] * count
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def take(self, place: int, probability: float) -> None:
        """Store the probability of the pair at `place`; the last one completes the request."""
        self.probabilities[place] = probability
        self.left -= 1
        if not self.left and not self.done.done():
            self.done.set_result(None)


class Pair(NamedTuple):
    """A tokenized pair, its request, and its place in the request."""

    ids: list[int]
    types: list[int]
    request: Waiting
    place: int


class Model:
    """The tokenizer, the ONNX Runtime session, and the queue of tokenized pairs between them."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(folder / "hf")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Busy-waiting threads would take processor time from the event loop and the client.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            str(folder / ONNX_FILE), options, providers=["CPUExecutionProvider"]
        )
        self._waiting: deque[Pair] = deque()
        self._arrived = asyncio.Event()
        self._tokenizing = ThreadPoolExecutor(1)
        self._computing = ThreadPoolExecutor(1)

    async def score(self, query: str, titles: list[str]) -> list[float]:
        """Return the probability of each title."""
        loop = asyncio.get_running_loop()
        encoded = await loop.run_in_executor(self._tokenizing, self._encode, query, titles)
        request = Waiting(len(titles))
        for place, (ids, types) in enumerate(zip(encoded["input_ids"], encoded["token_type_ids"])):
            self._waiting.append(Pair(ids, types, request, place))
        self._arrived.set()
        await request.done
        return request.probabilities

    def _encode(self, query: str, titles: list[str]) -> Any:
        return self._tokenizer([query] * len(titles), titles, truncation=True, max_length=MAX_SEQ_LENGTH)

    async def compute(self) -> None:
        """Compute batches of waiting pairs, forever."""
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                for batch in self._batches(self._take()):
                    values = await loop.run_in_executor(self._computing, self._run, batch)
                    for pair, value in zip(batch, values):
                        pair.request.take(pair.place, value)

    def _take(self) -> list[Pair]:
        taken, tokens = [], 0
        while self._waiting and tokens < ROUND * BATCH_TOKENS:
            taken.append(self._waiting.popleft())
            tokens += len(taken[-1].ids)
        return sorted(taken, key=lambda pair: len(pair.ids))

    def _batches(self, pairs: list[Pair]) -> list[list[Pair]]:
        batches: list[list[Pair]] = []
        for pair in pairs:  # shortest first: a batch's last pair is its longest
            if not batches or len(batches[-1]) >= BATCH_ROWS or (len(batches[-1]) + 1) * len(pair.ids) > BATCH_TOKENS:
                batches.append([])
            batches[-1].append(pair)
        return batches

    def _run(self, batch: list[Pair]) -> list[float]:
        ids = np.zeros((len(batch), max(len(pair.ids) for pair in batch)), np.int64)
        types, mask = np.zeros_like(ids), np.zeros_like(ids)
        for row, pair in enumerate(batch):
            size = len(pair.ids)
            ids[row, :size], types[row, :size], mask[row, :size] = pair.ids, pair.types, 1
        inputs = {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}
        logits = self._session.run(None, inputs)[0].reshape(-1).astype(np.float64)
        values: list[float] = (1 / (1 + np.exp(-logits))).tolist()
        return values


def main() -> int:
    model = Model(Path(sys.argv[1]), int(sys.argv[2]))
    app = FastAPI()
    tasks: list[Any] = []

    @app.post("/v1/rerank")
    async def rerank(request: Request) -> Response:
        asked = RerankRequest.model_validate_json(await request.body())
        if not tasks:
            tasks.append(asyncio.ensure_future(model.compute()))
        probabilities = await model.score(asked.query, asked.documents)
        return Response(orjson.dumps(results(probabilities, asked.top_n)), media_type="application/json")

    serve(app)
    return 0


if __name__ == "__main__":
    sys.exit(main())
