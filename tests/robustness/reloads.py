"""Let a server take its model anew, again and again, half of the times asked by clients that leave: does memory grow?

python -m tests.robustness.reloads [--reloads 40] [--engines dygraph,inference,onnx,openvino]

Prints the megabytes that the server holds, before and after so many reloads. The exit status is 1 where they are above
1.3 times those after two, or where a reload did not end as it should.
"""

from __future__ import annotations

import json
import socket
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness.report import format_table
from benchmarks.harness.servers import memory_mb
from benchmarks.inputs import chosen
from paddle_ranker import runtime
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.serving.core.limits import API_KEY_VARIABLE
from tests.started import SECONDS, Started, get, is_open, started_server

ENGINES = ("dygraph", "inference", "onnx", "openvino")
MOST_GROWTH = 1.3
_KEY = "a-key"
_SHOWN = (0, 1, 2, 5, 10, 20, 30, 40)


@dataclass(frozen=True)
class ReloadOptions(Options):
    """Options of `python -m tests.robustness.reloads`."""

    reloads: int = option(40, help="of each server", minimum=3)
    engines: str = option(
        ",".join(ENGINES), help="comma-separated: dygraph is a trained ranker, others an exported one"
    )
    layers: int = option(4, help="of the ranker, which has random weights", minimum=1)
    width: int = option(312, help="of the ranker; a multiple of 12", minimum=12)


def write_ranker(
    folder: Path, layers: int, width: int, heads: int = 12, *, vocabulary: int = 40_000, seed: int = 3
) -> Path:
    """Write a ranker of that size with random weights; return its folder."""
    from tests.export_cases import write_case

    return write_case(
        folder, vocab_size=vocabulary, num_hidden_layers=layers, hidden_size=width, num_attention_heads=heads,
        intermediate_size=4 * width, seed=seed,
    )  # fmt: skip


def _calm(folder: Path) -> None:
    """Make a ranker's weights smaller: in a wide one, sums of large ones differ between engines."""
    from paddle_ranker.model.parameters import PARAMETERS_FILE, load_arrays, save_arrays

    arrays = load_arrays(folder / PARAMETERS_FILE)
    save_arrays(
        {name: array if "norm" in name else array / 10 for name, array in arrays.items()}, folder / PARAMETERS_FILE
    )


class ReloadedServer:
    """A server that is asked to reload. Attributes: `port`, `held`, megabytes at the start and after each reload."""

    def __init__(self, process: Started, ports: list[int]):
        self._process, self.port = process, ports[0]
        self.ask()
        self.held = [self._megabytes()]

    def reload(self, *, leave: bool) -> None:
        """Ask for a reload, and hear of its end or leave; wait until the new model answers alone."""
        outcomes = self.outcomes()
        with socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS) as connection:
            if leave:
                connection.sendall(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n" + _post("/admin/reload", b""))
                assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
                assert get(self.port, "/live")[0] == 200  # so what came before is being answered
            else:
                connection.sendall(_post("/admin/reload", b""))
                assert connection.recv(65536).startswith(b"HTTP/1.1 200 "), self._process.output[-2000:]
        self._process.until(lambda: len(self.outcomes()) > len(outcomes))
        self.ask()
        self.held.append(self._settled())

    def outcomes(self) -> list[str]:
        """Return what became of each reload, as the log has it."""
        lines = [line for line in self._process.output.splitlines() if '"reload"' in line]
        return [str(json.loads(line)["status"]) for line in lines]

    def ask(self) -> float:
        """Return the probability of a pair."""
        asked = json.dumps({"query": "深度 学习", "documents": ["深度学习 研究"] * 32}).encode()
        found: Any = json.loads(self._answer(_post("/v1/rerank", asked)))
        return float(found["results"][0]["relevance_score"])

    def _answer(self, request: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS) as connection:
            connection.sendall(request)
            answer = b""
            while part := connection.recv(65536):
                answer += part
        return answer.partition(b"\r\n\r\n")[2]

    def _settled(self) -> float:
        """Return the megabytes held when they have stopped falling: the old model goes after the new one answers."""
        found, end = self._megabytes(), time.monotonic() + 5
        while time.monotonic() < end:
            time.sleep(0.3)
            before, found = found, self._megabytes()
            if found >= before - 1:
                break
        return found

    def _megabytes(self) -> float:
        return memory_mb(self._process.process.pid)


def _post(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {_KEY}\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def serve(model: Path, folder: Path, *options: str) -> Any:
    """Start a server in `folder`, which is made; to be used in a `with`."""
    return started_server(model, folder, *options, **{API_KEY_VARIABLE: _KEY})


def run(options: ReloadOptions) -> int:
    """Reload a server of each engine; print what it holds, and return 1 where that grows."""
    engines = chosen("engines", options.engines, ENGINES)
    runtime.prepare(1)
    rows, failed = [], False
    shown = [count for count in _SHOWN if count <= options.reloads]
    with tempfile.TemporaryDirectory() as name:
        trained = write_ranker(Path(name) / "ranker", options.layers, options.width)
        _calm(trained)
        if set(engines) - {"dygraph"}:
            from paddle_ranker.export.static_graph import export_model
            from paddle_ranker.model.kinds import load_ranker

            export_model(load_ranker(trained), Path(name) / "output", onnx=bool(set(engines) & {"onnx", "openvino"}))
        for engine in engines:
            model = trained if engine == "dygraph" else Path(name) / "output"
            given = () if engine == "dygraph" else ("--engine", engine)
            with serve(model, Path(name) / engine, *given) as started:
                server = ReloadedServer(*started)
                for number in range(options.reloads):
                    server.reload(leave=number % 2 == 1)
                grown = server.held[-1] / server.held[2]
                fine = grown <= MOST_GROWTH and set(server.outcomes()) == {"switched"} and is_open(server.port)
            failed |= not fine
            rows.append([engine, *(f"{server.held[count]:.0f}" for count in shown), f"{grown:.2f}", str(fine)])
            print(f"{engine}: {' '.join(rows[-1][1:])}", file=sys.stderr, flush=True)
    print(format_table(["engine", *(f"MB after {count}" for count in shown), "last / second", "as it should"], rows))
    return int(failed)


main = main_of(run, ReloadOptions, (__doc__ or "").split("\n")[0])


if __name__ == "__main__":
    sys.exit(main())
