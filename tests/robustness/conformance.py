"""Ask one server with every client there is, and see that all get the scorer's probabilities, and the tower's vectors.

python -m tests.robustness.conformance [--model FOLDER] [--peer_python PYTHON] [--complete_python PYTHON]

The server is this project's, on one port, with an exported ranker (without --model a tiny one with random weights), a
tiny tower and --auto_truncate: some clients of Text Embeddings Inference cannot ask for long texts to be cut.
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
from paddle_ranker.model.exported import open_exported
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import RANKER, identify
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.scoring.loading import open_model
from tests.tiny import write_exported, write_tower

TOLERANCE = 1e-5
PAIRS, TEXTS, BOTH = "pairs", "texts", "texts and queries"  # what a client asks for
OWN, PEER, COMPLETE = "own", "peer", "complete"  # whose Python runs a client
INSTALL = {
    OWN: "pip install 'paddle-ranker[serving]'",
    PEER: "pip install -r requirements/peers.in, and name its Python with --peer_python",
    COMPLETE: "bash scripts/setup.sh complete, and name its Python with --complete_python",
}
_SECONDS = 300  # that the clients of a module may take; some import much


@dataclass(frozen=True)
class Client:
    """A row: `module` of `clients` and the client's name in it, whose Python runs it, and what it asks for."""

    title: str
    protocol: str
    module: str
    name: str
    python: str = OWN
    asks: str = PAIRS


CLIENTS = (
    Client("curl", "HTTP, JSON, tokens", "plain", "curl"),
    Client("requests", "pipeline, HTTP", "plain", "requests_pipeline"),
    Client("requests", "/embed of TEI", "plain", "requests_embed", asks=BOTH),
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
    Client("openai", "/v1/embeddings, base64", "embeddings", "openai", PEER, BOTH),
    Client("openai, errors and single texts", "/v1/embeddings", "embeddings", "openai_errors", PEER, BOTH),
    Client("LangChain, OpenAIEmbeddings", "/v1/embeddings", "embeddings", "langchain", PEER, BOTH),
    Client("huggingface_hub, InferenceClient", "/ of TEI", "embeddings", "hugging_face", PEER, BOTH),
    Client("Voyage, Client", "/v1/embeddings", "embeddings", "voyage", PEER, BOTH),
    Client("LiteLLM, openai/", "/v1/embeddings", "embeddings", "litellm_openai", PEER, TEXTS),
    Client("LiteLLM, hosted_vllm/", "/v1/embeddings", "embeddings", "litellm_vllm", PEER, TEXTS),
    Client("LiteLLM, voyage/", "/v1/embeddings", "embeddings", "litellm_voyage", PEER, TEXTS),
    Client("LiteLLM, jina_ai/", "/v1/embeddings", "embeddings", "litellm_jina", PEER, TEXTS),
    Client("LiteLLM, infinity/", "/embeddings", "embeddings", "litellm_infinity", PEER, TEXTS),
    Client("LiteLLM, huggingface/", "/embed of TEI", "embeddings", "litellm_tei", PEER, TEXTS),
    Client("paddle_serving_client, native", "baidu_std, tokens", "vendor", "native", COMPLETE),
    Client("paddle_serving_client, native", "baidu_std, tokens, vectors", "vendor", "native_vectors", COMPLETE, TEXTS),
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
    if options.model is not None and not identify(Path(options.model)).is_exported:
        raise RankerError(f"--model {options.model}: is no exported ranker; make one: python -m paddle_ranker export")
    runtime.prepare_command(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = Path(options.model) if options.model else write_exported(folder, max_seq_length=48)
        expected, given = _given(model, folder)
        vectors, more = _given_texts(folder, given["groups"])
        given.update(more)
        options_of_server = ["--cpu_threads", "1", "--log_requests", "false", "--auto_truncate", "true"]
        command = serve_command(model, *options_of_server, "--tower", more["tower"])
        with started("server", command, folder, 1) as server:
            given.update(host="127.0.0.1", port=server.port)
            rows = _rows(options, given, {PAIRS: expected, **vectors})
    print(shown(rows))
    write_report(options.json, {"rows": [{**asdict(row), "ok": row.ok} for row in rows]})
    return 1 if any(not row.ok and not row.missing for row in rows) else 0


def _given(model: Path, folder: Path) -> tuple[list[np.ndarray], dict[str, Any]]:
    """Return the scorer's probabilities of each group, and what the clients are given."""
    from paddle_ranker.model.exported import INPUTS, OUTPUTS
    from paddle_ranker.paddle_serving.serving_folders import write_serving
    from paddle_ranker.scoring.scorer import Scorer

    client = folder / "serving_client"
    write_serving(open_exported(model, RANKER), folder / "serving_server", client, INPUTS, OUTPUTS[:1])
    loaded = open_model(model, RANKER, LoadOptions(threads=1))
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


def _given_texts(folder: Path, groups: list[dict[str, Any]]) -> tuple[dict[str, list[np.ndarray]], dict[str, Any]]:
    """Return the vectors of each group's titles, alone and with its query, and what the clients of a tower are given.

    Each group gets the tokens of its titles, too.
    """
    from paddle_ranker.export.static_graph import export_model
    from paddle_ranker.model.exported import INPUTS
    from paddle_ranker.model.tower_network import load_tower
    from paddle_ranker.paddle_serving.serving_files import EMBEDDING
    from paddle_ranker.paddle_serving.serving_folders import write_serving
    from paddle_ranker.retrieval.vectors.text_vectors import Tower

    exported, _ = export_model(load_tower(write_tower(folder / "tower"), LoadOptions()), folder / "output_recall")
    client = folder / "tower_client"
    write_serving(exported, folder / "tower_server", client, INPUTS, (EMBEDDING,))
    tower = Tower.open(exported.folder, LoadOptions(threads=1))
    alone, both = [], []
    for group in groups:
        alone.append(tower.vectors(group["titles"]))
        both.append(np.concatenate([alone[-1], tower.query_vectors([group["query"]])]))
        columns = tower.encoder.encode(group["titles"])
        group["text"] = {name: array.tolist() for name, array in columns.pad(np.arange(len(columns))).items()}
    return {TEXTS: alone, BOTH: both}, {"tower": str(exported.folder), "tower_client": str(client)}


def _rows(options: ConformanceOptions, given: dict[str, Any], expected: dict[str, Sequence[np.ndarray]]) -> list[Row]:
    """Let the clients ask, those of a module in one process; `expected` is by what they ask for."""
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
                judge(row, answer, expected[client.asks])
            rows.append(row)
    return rows


def _answers(python: str, module: str, names: list[str], given: dict[str, Any]) -> dict[str, Any]:
    """Return what each client of a module has found, or what is wrong with all."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "HF_HUB_OFFLINE"):
        environment.pop(name, None)  # the server is here, and asked
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
    """Fill in how far a client's answers, a list for each group, are from those that are expected."""
    row.version = found["version"]
    if [len(group) for group in found["probabilities"]] != [len(group) for group in expected]:
        row.problem = f"{[len(group) for group in found['probabilities']]} answers came"
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
    header = ["client", "version", "protocol", "rows", "off the scorer by", ""]
    return "\n".join([format_table(header, cells), *notes])


main = main_of(run, ConformanceOptions, (__doc__ or "").split("\n")[0])


if __name__ == "__main__":
    sys.exit(main())
