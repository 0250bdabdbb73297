"""The tutorial's servers, started as it starts them, and its clients: all give the scores of deploy/python/predict.py.

On the complete stack these are Paddle Serving's own launcher, pipeline server, native client and pipeline client; on
the modern stack, which has none of them, this project's server takes the same commands.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from paddle_ranker.__main__ import main
from paddle_ranker.model.exported import open_exported
from paddle_ranker.model.model_folder import RANKER
from paddle_ranker.paddle_serving.messages import PIPELINE_SERVICE, messages
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from tests.conftest import REPOSITORY, load_script
from tests.export_cases import Exports
from tests.started import SECONDS, Started, free_ports, get, is_open, post, started
from tests.tiny import PAIRS, write_tower

pytestmark = pytest.mark.server
HAS_PADDLE_SERVING = importlib.util.find_spec("paddle_serving_server") is not None
needs_paddle_serving = pytest.mark.skipif(
    not HAS_PADDLE_SERVING, reason="needs the complete stack (paddle-serving-client and -server)"
)
INFERENCE = "/GeneralModelService/inference"


class Made(NamedTuple):
    """The folders for servers and for clients, the pairs' token arrays, and what predict.py says of them."""

    server: Path
    client: Path
    ids: np.ndarray
    types: np.ndarray
    probabilities: list[float]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, exports: Exports) -> Made:
    folder = tmp_path_factory.mktemp("real")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("paddle_ranker.runtime.prepare_command", lambda threads: None)
        output = exports["calibrated"].exported.folder
        paths = ["--server_path", str(folder / "serving_server"), "--client_path", str(folder / "serving_client")]
        assert main(["export-serving", "--dirname", str(output), *paths]) == 0
        rows, scored = folder / "rows.tsv", folder / "scored.jsonl"
        rows.write_text("".join(f"{query}\t{title}\n" for query, title in PAIRS), encoding="utf-8")
        predict = ["--model_dir", str(output), "--input_file", str(rows), "--format", "jsonl"]
        device = ["--device", "cpu", "--cpu_threads", "1", "--output_file", str(scored)]
        assert load_script("deploy/python/predict.py").main([*predict, *device]) == 0
    probabilities = [json.loads(line)["probability"] for line in scored.read_text(encoding="utf-8").splitlines()]
    assert np.ptp(probabilities) > 0.01
    encoder = open_exported(folder / "serving_server", RANKER).row_encoder()
    queries, titles = (list(column) for column in zip(*PAIRS))
    ids, types = encoder.encode(queries, titles).pad(np.arange(len(PAIRS))).values()
    return Made(folder / "serving_server", folder / "serving_client", ids, types, probabilities)


def environment(folder: Path) -> dict[str, str]:
    return {
        "PADDLE_RANKER_PYTHON": sys.executable,
        "PADDLE_RANKER_SERVING_HOST": "127.0.0.1",
        "PADDLE_RANKER_CACHE": str(folder.parent / "cache"),
        "SERVING_HOME": str(folder),  # where Paddle Serving writes who runs
        "PYTHONPATH": str(REPOSITORY),
        "CUDA_VISIBLE_DEVICES": "-1,0",  # the launcher looks for --gpu_id's 0 there, CUDA at nothing after -1
    }


def start_server(model: Path, folder: Path, port: int, *more: str) -> Any:
    """Start deploy/cpp/start_server.sh with what the contract's line has beside its own."""
    command = ["bash", str(REPOSITORY / "deploy/cpp/start_server.sh"), "--model", str(model), "--port", str(port)]
    return started([*command, "--gpu_id", "0", *more], folder, **environment(folder))


def start_pipeline(model: Path, folder: Path, rpc: int, http: int, *more: str) -> Any:
    """Start deploy/python/web_service.py."""
    command = [sys.executable, str(REPOSITORY / "deploy/python/web_service.py"), "--model_dir", str(model)]
    ports = ["--rpc_port", str(rpc), "--http_port", str(http)]
    return started([*command, *ports, *more], folder, **environment(folder))


class Server(NamedTuple):
    started: Started
    port: int
    prometheus: int


@pytest.fixture(scope="module")
def cpp(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server in the place of the C++ one."""
    port, prometheus = free_ports(2)
    folder = tmp_path_factory.mktemp("cpp") / "run"
    metrics = ("--enable_prometheus", "--prometheus_port", str(prometheus))
    with start_server(made.server, folder, port, *metrics) as server:
        server.until(lambda: get(port, "/ready")[0] == 200)
        yield Server(server, port, prometheus)


@pytest.fixture(scope="module")
def pipeline(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """The ports of gRPC and HTTP of deploy/python/web_service.py."""
    rpc, http = free_ports(2)
    folder = tmp_path_factory.mktemp("pipeline") / "run"
    with start_pipeline(made.server, folder, rpc, http) as server:
        server.until(lambda: "\nserving " in server.output)  # says that it is ready, and is
        assert ask_pipeline(http, [PAIRS[0]]).get("err_no") == 0
        [line] = [line for line in server.output.splitlines() if line.startswith("serving ")]
        assert str(made.server) in line and f":{rpc} (" in line.replace(" and", " (") and f":{http} (" in line
        if HAS_PADDLE_SERVING:  # CUDA, which Paddle starts, would not survive the fork of those that compute
            assert "libpaddle" not in Path(f"/proc/{server.process.pid}/maps").read_text(encoding="utf-8")
        yield rpc, http


def tensors(ids: np.ndarray, types: np.ndarray) -> list[dict[str, Any]]:
    """Return what the contract's curl line has as `tensor`."""
    return [
        {"int64_data": array.reshape(-1).tolist(), "elem_type": 0, "name": name, "alias_name": name,
         "shape": list(array.shape)}
        for name, array in (("input_ids", ids), ("token_type_ids", types))
    ]  # fmt: skip


def test_the_contract_s_http_line(made: Made, cpp: Server) -> None:
    for rows in ([0], [3], list(range(len(PAIRS)))):
        for name in ("sigmoid_2.tmp_0", "predict"):
            body = {"tensor": tensors(made.ids[rows], made.types[rows]), "fetch_var_names": [name], "log_id": 0}
            status, answer = post(cpp.port, INFERENCE, body)
            assert status == 200, answer
            [tensor] = answer["outputs"][0]["tensor"]
            assert (tensor["name"], tensor["alias_name"]) == ("sigmoid_2.tmp_0", "predict")
            assert tensor["shape"] == [len(rows), 1]
            np.testing.assert_allclose(tensor["float_data"], [made.probabilities[row] for row in rows], atol=1e-5)


_NATIVE = """
import json, sys
import numpy as np
from paddle_ranker.paddle_serving.launchers.native_client import native_client

given = json.load(sys.stdin)
client = native_client()()
client.load_client_config(given["config"])
client.connect([given["endpoint"]])
feed = {name: np.array(given[name]) for name in client.feed_names_}
scores = client.predict(feed=feed, fetch=client.fetch_names_, batch=True)
print(json.dumps({name: values.tolist() for name, values in scores.items()}))
"""


@needs_paddle_serving
def test_paddle_serving_s_native_client(made: Made, cpp: Server) -> None:
    given = {"config": str(made.client), "endpoint": f"127.0.0.1:{cpp.port}"}
    inputs = {"input_ids": made.ids.tolist(), "token_type_ids": made.types.tolist()}
    scores = json.loads(in_a_child(_NATIVE, {**given, **inputs}, cpp.started.folder))
    assert list(scores) == ["predict"]
    np.testing.assert_allclose(np.array(scores["predict"])[:, 0], made.probabilities, atol=1e-5)


def in_a_child(code: str, given: dict[str, Any], folder: Path) -> str:
    """Run code that reads `given` as JSON; return the last line that it prints."""
    program = folder / "child.py"  # Paddle Serving's native client reads the first argument, which -c must not be
    program.write_text(code)
    done = subprocess.run(
        [sys.executable, str(program)], input=json.dumps(given), capture_output=True, text=True, timeout=SECONDS,
        cwd=folder, env={**os.environ, **environment(folder)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()[-1]


def test_what_the_launcher_passes_on(made: Made, cpp: Server) -> None:
    output = cpp.started.output
    assert "GPU 0 is asked for, and Paddle finds none here: using the CPU" in output
    assert ("Going to Run Comand" in output) == HAS_PADDLE_SERVING  # the launcher's own words
    assert get(cpp.prometheus, "/metrics")[0] == 200
    status, info = get(cpp.port, "/info")
    assert status == 200 and info["limits"]["request_bytes"] == 16 * 1024 * 1024  # the launcher names 512 MiB


def ask_pipeline(port: int, pairs: list[tuple[str, str]]) -> dict[str, Any]:
    values = [json.dumps({"query": query, "title": title}, ensure_ascii=False) for query, title in pairs]
    status, answer = post(port, "/ernie/prediction", {"key": [str(i) for i in range(len(values))], "value": values})
    return answer if status == 200 and isinstance(answer, dict) else {}


def printed(answer: str) -> list[float]:
    return [row[0] for row in json.loads(answer)]


def test_the_pipeline_s_http_gateway(made: Made, pipeline: tuple[int, int]) -> None:
    for count in (1, len(PAIRS)):
        answer = ask_pipeline(pipeline[1], PAIRS[:count])
        assert (answer["err_no"], answer["key"]) == (0, ["predict"])
        np.testing.assert_allclose(printed(answer["value"][0]), made.probabilities[:count], atol=1e-5)


def test_the_pipeline_s_grpc(made: Made, pipeline: tuple[int, int]) -> None:
    grpc = pytest.importorskip("grpc")
    request = messages().PipelineRequest(name="ernie", method="prediction")
    for place, (query, title) in enumerate(PAIRS):
        request.key.append(str(place))
        request.value.append(str({"query": query, "title": title}))  # as the tutorial's client prints it
    with grpc.insecure_channel(f"127.0.0.1:{pipeline[0]}") as channel:
        call = channel.unary_unary(f"/{PIPELINE_SERVICE}/inference")
        response = messages().PipelineResponse.FromString(call(request.SerializeToString(), timeout=SECONDS))
    assert response.err_no == 0, response.err_msg
    np.testing.assert_allclose(printed(response.value[0]), made.probabilities, atol=1e-5)


_PIPELINE_CLIENT = """
import json, sys
from paddle_serving_server.pipeline import PipelineClient

given = json.load(sys.stdin)
client = PipelineClient()
client.connect([given["endpoint"]])
feed = {str(place): str(item) for place, item in enumerate(given["items"])}
feed["clientip"] = "127.0.0.1"
print(client.predict(feed_dict=feed).value[0])
"""


@needs_paddle_serving
def test_paddle_serving_s_pipeline_client(made: Made, pipeline: tuple[int, int], tmp_path: Path) -> None:
    items = [{"query": query, "title": title} for query, title in PAIRS]
    last = in_a_child(_PIPELINE_CLIENT, {"endpoint": f"127.0.0.1:{pipeline[0]}", "items": items}, tmp_path)
    np.testing.assert_allclose(printed(last), made.probabilities, atol=1e-5)


_TENSORRT_SHAPES = """
import json, sys
from pathlib import Path
from paddle_serving_server.pipeline.local_service_handler import LocalServiceHandler

from paddle_ranker.paddle_serving.launchers.pipeline_config import read_pipeline_config
from paddle_ranker.paddle_serving.launchers.vendor_pipeline import ModelOp

given = json.load(sys.stdin)
config = read_pipeline_config(Path(given["config"]), model=Path(given["model"]), finds_gpu=lambda: True)
op, local = ModelOp(config), config.op["local_service_conf"]
how = {name: local[name] for name in ("model_config", "device_type", "devices")}
shapes = LocalServiceHandler(**how, dynamic_shape_info=op.dynamic_shape_info).dynamic_shape_info
least, most = (shapes[f"{name}_input_shape"]["input_ids"] for name in ("min", "max"))
too_many = op.preprocess({"": {"request": [("a", "b")] * (most[0] + 1)}}, 0, 0)[2]
print(json.dumps([least, most, too_many]))
"""


@needs_paddle_serving
def test_the_pipeline_gives_tensorrt_the_shapes_of_its_batches(made: Made, tmp_path: Path) -> None:
    published = (REPOSITORY / "deploy/python/config_nlp.yml").read_text(encoding="utf-8")
    (tmp_path / "config.yml").write_text(published.replace("device_type: 0", "device_type: 2"), encoding="utf-8")
    given = {"config": str(tmp_path / "config.yml"), "model": str(made.server)}
    least, most, too_many = json.loads(in_a_child(_TENSORRT_SHAPES, given, tmp_path))
    for array in (made.ids, made.types):
        assert all(low <= size <= high for low, size, high in zip(least, array.shape, most))
    assert too_many == 5000


def test_the_pipeline_answers_errors_and_evaluates_nothing(pipeline: tuple[int, int], tmp_path: Path) -> None:
    _, http = pipeline
    mark = tmp_path / "evaluated"
    typed = f"{{'query': open({str(mark)!r}, 'w'), 'title': 'a'}}"
    for path, value, number in (("ernie", '{"query": "a"}', 5000), ("ernie", typed, 5000), ("other", "{}", 3002)):
        status, answer = post(http, f"/{path}/prediction", {"key": ["0"], "value": [value]})
        assert (status, answer["err_no"]) == (200, number), answer
    pickled = {"name": "x", "elem_type": 13, "byte_data": "gASVAAAAAAAAAAAu"}
    status, answer = post(http, "/ernie/prediction", {"key": [], "value": [], "tensors": [pickled]})
    assert status == 400 or answer["err_no"] == 5000
    assert not mark.exists() and ask_pipeline(http, [PAIRS[0]])["err_no"] == 0


def test_the_server_ends_with_its_launcher(made: Made, tmp_path: Path) -> None:
    [port] = free_ports(1)
    with start_server(made.server, tmp_path / "run", port) as server:
        server.until(lambda: is_open(port))
        server.process.send_signal(signal.SIGKILL)
        server.until(lambda: not is_open(port), running=False)


@needs_paddle_serving
def test_paddle_serving_s_own_clients_and_pipeline_get_a_tower_s_vectors(tmp_path: Path) -> None:
    folder, texts = write_tower(tmp_path / "tower"), [title for _, title in PAIRS]
    server, client = tmp_path / "serving_server", tmp_path / "serving_client"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("paddle_ranker.runtime.prepare_command", lambda threads: None)
        assert main(["export", "--model", str(folder), "--output", str(tmp_path / "output")]) == 0
        paths = ["--server_path", str(server), "--client_path", str(client)]
        assert main(["export-serving", "--model", str(tmp_path / "output"), *paths]) == 0
    tower = Tower.open(folder)
    wanted, arrays = tower.vectors(texts), tower.encoder.encode(texts).pad(range(len(texts)))
    port, rpc, http = free_ports(3)
    with start_server(server, tmp_path / "cpp", port) as cpp:
        cpp.until(lambda: get(port, "/ready")[0] == 200)
        given = {"config": str(client), "endpoint": f"127.0.0.1:{port}"}
        inputs = {name: array.tolist() for name, array in arrays.items()}
        found = json.loads(in_a_child(_NATIVE, {**given, **inputs}, cpp.folder))
    assert list(found) == ["output_embedding"]
    np.testing.assert_allclose(found["output_embedding"], wanted, atol=1e-5)
    config = tmp_path / "config.yml"
    published = (REPOSITORY / "deploy/python/config_nlp.yml").read_text(encoding="utf-8")
    config.write_text(published.replace("['predict']", "['output_embedding']"), encoding="utf-8")
    with start_pipeline(server, tmp_path / "pipeline", rpc, http, "--config", str(config)) as pipeline:
        pipeline.until(lambda: "\nserving " in pipeline.output)
        asked = {"endpoint": f"127.0.0.1:{rpc}", "items": texts}
        np.testing.assert_allclose(json.loads(in_a_child(_PIPELINE_CLIENT, asked, tmp_path)), wanted, atol=1e-5)
        status, answer = post(http, "/ernie/prediction", {"key": ["0"], "value": texts[:1]})
        assert (status, answer["err_no"], answer["key"]) == (200, 0, ["output_embedding"])
        np.testing.assert_allclose(json.loads(answer["value"][0]), wanted[:1], atol=1e-5)
