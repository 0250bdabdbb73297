"""Let a server take its model anew, again and again, half of the times asked by clients that leave: does memory grow?

python -m tests.robustness.reloads [--reloads 40] [--engines dygraph,inference,onnx,openvino]

Prints the megabytes that the server holds, before and after so many reloads. The exit status is 1 where they are above
1.3 times those after two, or where a reload did not end as it should.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from benchmarks.harness.report import format_table
from benchmarks.harness.servers import memory_mb
from benchmarks.inputs import chosen
from paddle_ranker import runtime
from paddle_ranker.model.model_folder import RANKER, load_model
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.serving.core.limits import API_KEY_VARIABLE
from tests.started import SECONDS, Started, started_server

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


def write_ranker(folder: Path, seed: int = 3) -> Path:
    """Write a ranker with random weights, of a size that shows in a process's memory; return its folder."""
    from tests.export_cases import write_case

    return write_case(
        folder, vocab_size=60_000, num_hidden_layers=2, hidden_size=128, num_attention_heads=4, intermediate_size=512,
        seed=seed,
    )  # fmt: skip


class ReloadedServer:
    """A server that is asked to reload. Attributes: `held`, megabytes at the start and after each reload."""

    def __init__(self, process: Started, ports: list[int]):
        self._process, self._port = process, ports[0]
        self.ask()
        self.held = [memory_mb(process.process.pid)]

    def reload(self, *, leave: bool) -> None:
        """Ask for a reload, and hear of its end or leave before; wait until the new model answers alone."""
        before = len(self.outcomes())
        with contextlib.suppress(*[requests.Timeout] if leave else []):
            self._post("/admin/reload", None, 0.02 if leave else SECONDS)
        self._process.until(lambda: len(self.outcomes()) > before)
        self.ask()
        self.held.append(self._settled())

    def outcomes(self) -> list[str]:
        """Return what became of each reload, as the log has it."""
        lines = [line for line in self._process.output.splitlines() if '"reload"' in line]
        return [str(json.loads(line)["status"]) for line in lines]

    def ask(self) -> float:
        """Return the probability of a pair."""
        found = self._post("/v1/rerank", {"query": "深度 学习", "documents": ["深度学习 研究"] * 32}, SECONDS)
        return float(found["results"][0]["relevance_score"])

    def _post(self, path: str, body: Any, timeout: float) -> Any:
        url = f"http://127.0.0.1:{self._port}{path}"
        answer = requests.post(url, json=body, headers={"X-API-Key": _KEY}, timeout=timeout)
        answer.raise_for_status()
        return answer.json()

    def _settled(self) -> float:
        """Return the megabytes held when they have stopped falling: the old model goes after the new one answers."""
        found, end = memory_mb(self._process.process.pid), time.monotonic() + 5
        while time.monotonic() < end:
            time.sleep(0.3)
            before, found = found, memory_mb(self._process.process.pid)
            if found >= before - 1:
                break
        return found


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
        trained = write_ranker(Path(name) / "ranker")
        if set(engines) - {"dygraph"}:
            from paddle_ranker.export.static_graph import export_model

            export_model(
                load_model(trained, RANKER), Path(name) / "output", onnx=bool(set(engines) & {"onnx", "openvino"})
            )
        for engine in engines:
            model = trained if engine == "dygraph" else Path(name) / "output"
            given = () if engine == "dygraph" else ("--engine", engine)
            with serve(model, Path(name) / engine, *given) as started:
                server = ReloadedServer(*started)
                for number in range(options.reloads):
                    server.reload(leave=number % 2 == 1)
                grown = server.held[-1] / server.held[2]
                fine = grown <= MOST_GROWTH and set(server.outcomes()) == {"switched"}
            failed |= not fine
            rows.append([engine, *(f"{server.held[count]:.0f}" for count in shown), f"{grown:.2f}", str(fine)])
            print(f"{engine}: {' '.join(rows[-1][1:])}", file=sys.stderr, flush=True)
    print(format_table(["engine", *(f"MB after {count}" for count in shown), "last / second", "as it should"], rows))
    return int(failed)


main = main_of(run, ReloadOptions, (__doc__ or "").split("\n")[0])


if __name__ == "__main__":
    sys.exit(main())
