"""Ask one server with every client there is, and see that all get the scorer's probabilities.

python -m tests.robustness.conformance [--model FOLDER] [--peer_python PYTHON] [--complete_python PYTHON]

The server is this project's, on one port, with an exported ranker (without --model a tiny one with random weights) and
--auto_truncate: some clients of Text Embeddings Inference cannot ask for long texts to be cut.
Clients of one module share a process; one that is not installed is a row that says so. The exit status is 1 where a
client fails, or is off by more than 1e-5.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np

from benchmarks.harness.report import format_table, write_report
from benchmarks.harness.servers import serve_command, started
from benchmarks.inputs import ROOT
from paddle_ranker import runtime
from paddle_ranker.errors import RankerError
from paddle_ranker.model.exported import is_exported
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.options import Options, option, run_command
from tests.tiny import write_exported

TOLERANCE = 1e-5
OWN, PEER, COMPLETE = "own", "peer", "complete"  # whose Python runs a client
INSTALL = {
    OWN: "pip install 'paddle-ranker[serving]'",
    PEER: "pip install -r requirements/peers.in, and name its Python with --peer_python",
    COMPLETE: "bash scripts/setup.sh complete, and name its Python with --complete_python",
}
_SECONDS = 300  # that the clients of a module may take; some import much


@dataclass(frozen=True)
class Client:
    """A row: `module` of `clients` and the client's name in it, and whose Python runs it."""

    title: str
    protocol: str
    module: str
    name: str
    python: str = OWN


CLIENTS = (
    Client("this project's", "baidu_std, tokens, gzip", "ours", "baidu_std"),
    Client("this project's", "HTTP, JSON, texts", "ours", "http"),
    Client("this project's", "gRPC, tokens", "ours", "grpc"),
    Client("this project's", "pipeline, gRPC", "ours", "pipeline_grpc"),
    Client("this project's", "pipeline, HTTP", "ours", "pipeline_http"),
    Client("this project's", "/v1/rerank", "ours", "rerank"),
    Client("curl", "HTTP, JSON, tokens", "plain", "curl"),
    Client("requests", "HTTP, protobuf, gzip", "plain", "requests_proto"),
    Client("requests", "pipeline, HTTP", "plain", "requests_pipeline"),
    Client("grpcio, messages by hand", "gRPC, tokens", "plain", "grpcio"),
    Client("grpcio, messages by hand", "pipeline, gRPC", "plain", "grpcio_pipeline"),
    Client("cohere, Client", "/v1/rerank", "rerank", "cohere_v1", PEER),
    Client("cohere, ClientV2", "/v2/rerank", "rerank", "cohere_v2", PEER),
    Client("LangChain, CohereRerank", "/v2/rerank", "rerank", "langchain", PEER),
    Client("Voyage, Client", "/v1/rerank", "rerank", "voyage", PEER),
    Client("LiteLLM, cohere/", "/v1/rerank", "rerank", "litellm_cohere", PEER),
    Client("LiteLLM, infinity/, without documents", "/rerank", "rerank", "litellm_infinity", PEER),
    Client("LiteLLM, jina_ai/", "/v1/rerank", "rerank", "litellm_jina", PEER),
    Client("LiteLLM, voyage/", "/v1/rerank", "rerank", "litellm_voyage", PEER),
    Client("LiteLLM, hosted_vllm/", "/rerank", "rerank", "litellm_vllm", PEER),
    Client("LiteLLM, huggingface/", "/rerank of TEI", "rerank", "litellm_tei", PEER),
    Client("LlamaIndex, TextEmbeddingInference", "/rerank of TEI", "rerank", "tei", PEER),
    Client("paddle_serving_client, native", "baidu_std, tokens", "vendor", "native", COMPLETE),
    Client("paddle_serving_server's PipelineClient", "pipeline, gRPC", "vendor", "pipeline", COMPLETE),
)

GROUPS: list[tuple[str, list[str]]] = [
    ("深度学习", ["深度学习在水稻病害诊断中的研究"]),
    ("文化差异", ['语言,文化,"差异"', "a\tb\\n", "语言\n文化", "😀 emoji", "ÀÉÎ õü"]),
    ("rank", [f"{number}: {'经济增长与教育法律'[:number]}" for number in range(10)]),
    ("long", ["x" * 300, "深度学习 " * 100]),  # the last one is cut, whether a client can ask for that or not
]


@dataclass(frozen=True)
class ConformanceOptions(Options):
    """Options of `python -m tests.robustness.conformance`."""

    model: Optional[str] = option(None, help="an exported ranker's folder (default: a tiny one with random weights)")
    peer_python: str = option(sys.executable, help="a Python that has what requirements/peers.in names")
    complete_python: Optional[str] = option(None, help="a Python of the complete stack, with Paddle Serving's packages")
    json: Optional[str] = option(None, help="write the table's rows to this file")


@dataclass
class Row:
    """What came of one client. `problem`: what went wrong; `missing`: what is not installed."""

    client: str
    protocol: str
    version: str = ""
    pairs: int = 0
    difference: Optional[float] = None
    problem: str = ""
    missing: str = ""

    @property
    def ok(self) -> bool:
        return self.difference is not None and self.difference <= TOLERANCE


def run(options: ConformanceOptions) -> int:
    """Print the table; return 1 where a client that is there does not get the scorer's probabilities."""
    if options.model is not None and not is_exported(Path(options.model)):
        raise RankerError(f"--model {options.model}: is no exported ranker; make one: python -m paddle_ranker export")
    runtime.prepare_command(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = Path(options.model) if options.model else write_exported(folder, max_seq_length=48)
        expected, given = _given(model, folder)
        command = serve_command(model, "--cpu_threads", "1", "--log_requests", "false", "--auto_truncate", "true")
        with started("server", command, folder, 1) as server:
            given.update(host="127.0.0.1", port=server.port)
            rows = _rows(options, given, expected)
    print(shown(rows))
    write_report(options.json, {"rows": [{**asdict(row), "ok": row.ok} for row in rows]})
    return 1 if any(not row.ok and not row.missing for row in rows) else 0


def _given(model: Path, folder: Path) -> tuple[list[np.ndarray], dict[str, Any]]:
    """Return the scorer's probabilities of each group, and what the clients are given."""
    from paddle_ranker.export.serving_folders import write_serving
    from paddle_ranker.model.exported import INPUTS, OUTPUTS, open_exported_ranker
    from paddle_ranker.scoring.loading import open_ranker
    from paddle_ranker.scoring.scorer import Scorer

    client = folder / "serving_client"
    write_serving(open_exported_ranker(model), folder / "serving_server", client, INPUTS, OUTPUTS[:1])
    loaded = open_ranker(model, LoadOptions(threads=1))
    scorer = Scorer(loaded.engine, loaded.row_encoder, calibration=loaded.info.calibration)
    expected, groups = [], []
    for query, titles in GROUPS:
        queries = [query] * len(titles)
        expected.append(scorer.score(queries, titles))
        pairs = loaded.row_encoder.encode(queries, titles)
        ids, types = pairs.pad(np.arange(len(titles))).values()
        tokens = {"input_ids": ids.tolist(), "token_type_ids": types.tolist()}
        groups.append({"query": query, "titles": titles, **tokens})
    return expected, {"groups": groups, "serving_client": str(client)}


def _rows(options: ConformanceOptions, given: dict[str, Any], expected: Sequence[np.ndarray]) -> list[Row]:
    """Let the clients score, those of a module in one process."""
    pythons = {OWN: sys.executable, PEER: options.peer_python, COMPLETE: options.complete_python}
    rows = []
    for (module, whose), group in itertools.groupby(CLIENTS, lambda client: (client.module, client.python)):
        clients, python = list(group), pythons[whose]
        found = _answers(python, module, [client.name for client in clients], given) if python else {}
        for client in clients:
            row = Row(client.title, client.protocol)
            answer = found.get(client.name, found)
            if python is None:
                row.missing = INSTALL[whose]
            elif "missing" in answer:
                row.missing = f"{answer['missing']}: {INSTALL[whose]}"
            elif "problem" in answer:
                row.problem = answer["problem"]
            else:
                judge(row, answer, expected)
            rows.append(row)
    return rows


def _answers(python: str, module: str, names: list[str], given: dict[str, Any]) -> dict[str, Any]:
    """Return what each client of a module has found, or what is wrong with all."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        environment.pop(name, None)  # the server is here
    command = [python, "-m", f"tests.robustness.clients.{module}", *names]
    try:
        done = subprocess.run(
            command, input=json.dumps(given), env=environment, capture_output=True, text=True, timeout=_SECONDS
        )
    except OSError as error:
        raise RankerError(f"{python}: cannot be run ({error}); name a Python interpreter") from None
    except subprocess.TimeoutExpired:
        return {"problem": f"no answers within {_SECONDS} seconds"}
    if done.returncode:
        return {"problem": (done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"])[-1]}
    answers: dict[str, Any] = json.loads(done.stdout)
    return answers


def judge(row: Row, found: dict[str, Any], expected: Sequence[np.ndarray]) -> None:
    """Fill in how far a client's probabilities, a list for each group, are from those that are expected."""
    row.version = found["version"]
    if [len(group) for group in found["probabilities"]] != [len(group) for group in expected]:
        row.problem = f"{[len(group) for group in found['probabilities']]} probabilities came"
        return
    row.pairs = sum(map(len, expected))
    row.difference = max(float(np.abs(np.array(own) - group).max()) for own, group in
                         zip(found["probabilities"], expected))  # fmt: skip
    if not row.ok:
        row.problem = f"off by more than {TOLERANCE:g}"


def shown(rows: Sequence[Row]) -> str:
    """Return the table, and below it what is missing or went wrong."""
    cells, notes = [], []
    for row in rows:
        verdict = "ok" if row.ok else "not installed" if row.missing else "FAILED"
        difference = "" if row.difference is None else f"{row.difference:.0e}"
        cells.append([row.client, row.version, row.protocol, str(row.pairs or ""), difference, verdict])
        note = row.missing or row.problem
        if note:
            notes.append(f"{row.client}, {row.protocol}: {note}")
    header = ["client", "version", "protocol", "pairs", "off the scorer by", ""]
    return "\n".join([format_table(header, cells), *notes])


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; return its exit status."""
    return run_command(run, ConformanceOptions, argv, description=(__doc__ or "").split("\n")[0])


if __name__ == "__main__":
    sys.exit(main())
