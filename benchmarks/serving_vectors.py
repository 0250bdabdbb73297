"""Put load on a server of vectors: texts per second and processor time per protocol, beside its engine alone.

python -m benchmarks.serving_vectors --model output_recall --corpus datasets/recall/corpus.csv [--engine onnx]
    [--peer_model HF_FOLDER --peer_python PYTHON]

The server runs in a separate process; the client, and the engine alone in batches of 32 texts, take turns in this
process. Vectors are compared first. Infinity takes turns as well, with the folder that the tower was exported from.
"""

from __future__ import annotations

import asyncio
import base64
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.report import format_table
from benchmarks.harness.servers import started
from benchmarks.serving_client import BAIDU_STD, HTTP, Request, closed_loop, connect, http
from paddle_ranker import runtime
from paddle_ranker.data.rows.records import Text, read_records
from paddle_ranker.errors import RankerError
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.paddle_serving import baidu_std
from paddle_ranker.paddle_serving.messages import GENERAL_SERVICE, messages
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from paddle_ranker.scoring.engines.engine_registry import exported_engines

_TEXTS, _TOLERANCE = 2000, 1e-5
Texts = Sequence[str]


@dataclass(frozen=True)
class VectorLoadOptions(Options):
    model: str = option(help="folder of an exported tower")
    corpus: str = option("datasets/recall/corpus.csv", help="texts, of which the first 2,000 are encoded", files=True)
    engine: str = option("inference", help="engine of the server", choices=exported_engines())
    threads: int = option(1, help="threads of the engine", minimum=1)
    clients: int = option(64, help="clients at once", minimum=2)
    seconds: float = option(3.0, help="seconds of each load in each round", above=0)
    rounds: int = option(3, help="timed rounds", minimum=1)
    peer_model: str = option("", help="folder of the same tower for sentence-transformers, for Infinity")
    peer_python: str = option(sys.executable, help="Python interpreter of an environment with infinity-emb")


def _write_json(path: str, **more: object) -> Callable[[Texts], bytes]:
    name = "inputs" if path == "/embed" else "input"
    body = {"truncate": True} if path == "/embed" else more
    return lambda texts: http(path, json.dumps({name: list(texts), **body}, ensure_ascii=False).encode())


def _read_openai(body: bytes) -> np.ndarray:
    data = [one["embedding"] for one in json.loads(body)["data"]]
    if isinstance(data[0], str):
        return np.array([np.frombuffer(base64.b64decode(text), "<f4") for text in data])
    return np.array(data)


def _write_frame(texts: Texts) -> bytes:
    request = messages().Request(fetch_var_names=["output_embedding"])
    request.tensor.add(name="text", elem_type=20, data=texts)
    meta = messages().RpcMeta(correlation_id=1)
    meta.request.service_name, meta.request.method_name = GENERAL_SERVICE, "inference"
    return baidu_std.write_frame(meta, request.SerializeToString())


def _read_frame(body: bytes) -> np.ndarray:
    tensor = messages().Response.FromString(body).outputs[0].tensor[0]
    return np.array(tensor.float_data).reshape(tensor.shape)


# By title: the transport, and functions that write a request and read its answer.
WAYS: dict[str, tuple[str, Callable[[Texts], bytes], Callable[[bytes], np.ndarray]]] = {
    "/v1/embeddings, numbers": (HTTP, _write_json("/v1/embeddings"), _read_openai),
    "/v1/embeddings, base64": (HTTP, _write_json("/v1/embeddings", encoding_format="base64"), _read_openai),
    "/embed": (HTTP, _write_json("/embed"), lambda body: np.array(json.loads(body))),
    "baidu_std": (BAIDU_STD, _write_frame, _read_frame),
}
_INFINITY = "Infinity: /v1/embeddings, numbers"


def run(options: VectorLoadOptions) -> None:
    """Print a table: texts per second of the engine alone and over each protocol, and its share of the engine's."""
    runtime.prepare_command(options.threads)
    texts = [row.text for row in islice(read_records(options.corpus, Text), _TEXTS)]
    how = LoadOptions(engine=options.engine, threads=options.threads)
    tower, threads = Tower.open(options.model, how), str(options.threads)
    served = ["serve", "--tower", options.model, "--port", "0", "--log_requests", "false"]
    command = [sys.executable, "-m", "paddle_ranker", *served, "--engine", options.engine, "--cpu_threads", threads]
    rates: dict[str, list[float]] = {}
    costs: dict[str, list[float]] = {}  # processor milliseconds per text
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = dict.fromkeys(WAYS, stack.enter_context(started("server", command, folder, options.threads)))
        if options.peer_model:
            (folder / "hf").symlink_to(Path(options.peer_model).resolve())
            peer = [options.peer_python, "-m", "benchmarks.peers.infinity_server", str(folder), threads]
            servers[_INFINITY] = stack.enter_context(started("infinity", peer, folder, options.threads))
        ways = {title: WAYS.get(title, next(iter(WAYS.values()))) for title in servers}
        for title, (transport, write, read) in ways.items():
            body = asyncio.run(_asked(transport, servers[title].port, write(texts[:20])))
            _compare(title, body, read, tower.vectors(texts[:20]))
        for number in range(options.rounds + 1):  # the first round is the warm-up
            measured = {"the engine alone": _alone(tower, texts, options.seconds)}  # by row: rate, cost
            for title, (transport, write, _) in ways.items():
                server = servers[title]
                for count in (1, 10):
                    made = [Request(write(texts[at : at + count]), count) for at in range(0, len(texts), count)]
                    used = server.processor_seconds()
                    work = closed_loop(transport, server.port, made, options.clients, options.seconds)
                    load = asyncio.run(work)
                    cores = (server.processor_seconds() - used) / load.whole_seconds
                    if load.failures:
                        raise RankerError(f"{title}: {load.failures} requests failed: {server.said()[-500:]}")
                    rate = load.pairs_per_second
                    measured[f"{title}, {count} a request"] = rate, 1000 * cores / rate
            for row, (rate, cost) in measured.items():
                rates.setdefault(row, []).extend([rate] if number else [])
                costs.setdefault(row, []).extend([cost] if number else [])
    alone = statistics.median(rates["the engine alone"])
    cells = []
    for row, found in rates.items():
        speed = statistics.median(found)
        cells.append([row, f"{speed:,.0f}", f"{speed / alone:.2f}", f"{statistics.median(costs[row]):.2f}"])
    width = tower.vectors(texts[:1]).shape[1]
    print(f"{len(texts):,} texts, vectors of {width}, {options.engine}, {options.threads} threads, "
          f"{options.clients} clients")  # fmt: skip
    print(format_table(["", "texts a second", "of the engine's", "processor ms a text"], cells))


async def _asked(transport: str, port: int, data: bytes) -> bytes:
    connection = connect(transport, port)
    answer: Any = await connection.ask(data)
    await connection.close()
    return bytes(answer.body)


def _compare(title: str, body: bytes, read: Callable[[bytes], np.ndarray], wanted: np.ndarray) -> None:
    gap = float(np.abs(read(body) - wanted).max())
    if not gap <= _TOLERANCE:
        raise RankerError(f"the vectors over {title} are off by {gap:.1e}: their speed means nothing")


def _alone(tower: Tower, texts: Texts, seconds: float) -> tuple[float, float]:
    """Return the texts per second of the engine without a server, including tokenization, and processor ms per text."""
    began, used, done = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - began < seconds:
        done += len(tower.vectors([texts[(done + at) % len(texts)] for at in range(32)]))
    return done / (time.perf_counter() - began), 1000 * (time.process_time() - used) / done


main = main_of(run, VectorLoadOptions, (__doc__ or "").split("\n")[0])


if __name__ == "__main__":
    sys.exit(main())
