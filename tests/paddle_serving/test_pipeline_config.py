"""The pipeline's configuration file: every value that this project follows, and what is refused."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import os
from pathlib import Path
from typing import Any, cast

import pytest

from paddle_ranker.errors import CheckpointError, UsageError
from paddle_ranker.model.info import RankerInfo
from paddle_ranker.model.model_kind import ExportFacts
from paddle_ranker.paddle_serving.launchers.pipeline_config import read_pipeline_config
from paddle_ranker.paddle_serving.pipeline_options import pipeline_options
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.unit
yaml = importlib.import_module("yaml")  # which has no types
FILE = REPOSITORY / "deploy/python/config_nlp.yml"


def write(folder: Path, changes: dict[str, Any]) -> Path:
    """Write the project's file with other values, by their paths: `op.ernie.timeout`."""
    values = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    for path, value in changes.items():
        *parents, name = path.split(".")
        place = values
        for parent in parents:
            place = place.setdefault(parent, {})
        if value is None:
            place.pop(name, None)
        else:
            place[name] = value
    (folder / "config.yml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return folder / "config.yml"


def test_the_project_s_own_file() -> None:
    config = read_pipeline_config(FILE)
    assert (config.service, config.device, config.notes) == ("ernie", "cpu", ())
    assert config.model == REPOSITORY / "serving_server"
    assert config.unused_values() == [
        "worker_num", "build_dag_each_worker", "dag.is_thread_op", "dag.tracer.interval_s"
    ]  # fmt: skip
    served = config.serve_config("127.0.0.1", "key")
    assert (served.host, served.port, served.more_ports, served.api_key) == ("127.0.0.1", 8089, (8088,), "key")
    assert (pipeline_options(served).pipeline_service, served.cpu_threads, served.streams, served.workers) == (
        "ernie",
        2,
        1,
        1,
    )
    assert served.model == config.model and served.deadline_seconds == 30


def test_what_is_typed_wins(tmp_path: Path) -> None:
    config = read_pipeline_config(FILE, model=tmp_path, rpc_port=2000, http_port=2001)
    assert (config.values["rpc_port"], config.values["http_port"], config.model) == (2000, 2001, tmp_path.resolve())
    assert config.op["local_service_conf"]["model_config"] == str(tmp_path.resolve())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"http_port": None}, {"port": 8089, "more_ports": ()}),
        ({"worker_num": 3, "build_dag_each_worker": True}, {"workers": 3}),
        ({"op.ernie.concurrency": 4}, {"streams": 4}),
        ({"op.ernie.batch_size": 64, "op.ernie.auto_batching_timeout": 2}, {"batch_size": 64, "max_wait_us": 2000}),
        ({"op.ernie.local_service_conf.thread_num": 7}, {"cpu_threads": 7}),
        ({"op.ernie.local_service_conf.precision": "FP32"}, {"precision": "fp32"}),  # the vendor's takes capitals
        ({"op.ernie.local_service_conf.device_type": 1, "op.ernie.local_service_conf.devices": "1,0"},
         {"device": "gpu:1"}),
        ({"op.ernie.local_service_conf.device_type": 4}, {"device": "xpu:0"}),
    ],
)  # fmt: skip
def test_values_have_their_effect(tmp_path: Path, changes: dict[str, Any], expected: dict[str, Any]) -> None:
    served = read_pipeline_config(write(tmp_path, changes), finds_gpu=lambda: True).serve_config("127.0.0.1", None)
    assert {name: getattr(served, name) for name in expected} == expected


def test_timeout_and_name(tmp_path: Path) -> None:
    config = read_pipeline_config(write(tmp_path, {"op.ernie.timeout": 1500}))
    assert config.serve_config("::1", None).deadline_seconds == 1.5
    values = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    for name in ("rank", 1):
        (tmp_path / "renamed.yml").write_text(yaml.safe_dump({**values, "op": {name: values["op"]["ernie"]}}))
        served = read_pipeline_config(tmp_path / "renamed.yml").serve_config("::1", None)
        assert pipeline_options(served).pipeline_service == str(name)


@pytest.mark.parametrize("alias", ["predict", "score"])
def test_what_is_fetched_is_what_the_model_returns(tmp_path: Path, alias: str) -> None:
    facts = {"aliases": {"input_ids": "input_ids", "token_type_ids": "token_type_ids", "sigmoid_2.tmp_0": alias}}
    info = RankerInfo("cross_encoder", 64, False, export=cast(ExportFacts, facts))
    (tmp_path / "ranker.json").write_text(json.dumps(dataclasses.asdict(info)))
    (tmp_path / "inference.pdiparams").touch()
    for fetched in ([alias], [], None):
        path = write(tmp_path, {"op.ernie.local_service_conf.fetch_list": fetched})
        read_pipeline_config(path, model=tmp_path).require_fetched()
    path = write(tmp_path, {"op.ernie.local_service_conf.fetch_list": ["logit", 7]})
    with pytest.raises(CheckpointError, match=f"the model returns {alias}, not logit, 7"):
        read_pipeline_config(path, model=tmp_path).require_fetched()


def test_a_gpu_that_is_not_here_is_the_cpu_with_a_word(tmp_path: Path) -> None:
    path = write(tmp_path, {"op.ernie.local_service_conf.device_type": 1, "op.ernie.local_service_conf.devices": "0"})
    config = read_pipeline_config(path, finds_gpu=lambda: False)
    assert config.device == "cpu" and "Paddle finds no GPU here" in config.notes[0]
    local = config.op["local_service_conf"]
    assert (local["device_type"], local["devices"]) == (0, "")  # for Paddle Serving's own predictor


@pytest.mark.parametrize(
    ("kind", "devices", "precision", "given", "unused", "refused"),
    [
        (1, "", "fp32", (1, "0"), "", False),
        (1, 0, "bf16", (1, "0"), "", True),
        (1, "1", "fp16", (1, "1"), "", True),
        (-1, "0,1", "fp32", (1, "0,1"), "devices but the first", False),
        (2, "", "fp16", (2, "0"), "device_type 2", False),
        (2, "", "int8", (2, "0"), "device_type 2", True),
        (4, "", "fp32", (4, "0"), "", False),
        (0, "0", "bf16", (0, ""), "", False),
        (0, "", "fp16", (0, ""), "", True),
    ],
)
def test_devices_and_precisions_of_either_server(
    tmp_path: Path, kind: int, devices: Any, precision: str, given: tuple[int, str], unused: str, refused: bool
) -> None:
    values = {"device_type": kind, "devices": devices, "precision": precision}
    path = write(tmp_path, {f"op.ernie.local_service_conf.{name}": value for name, value in values.items()})
    asked = list[int]()
    config = read_pipeline_config(path, finds_gpu=lambda: len(asked.__iadd__([kind])) > 0)
    local = config.op["local_service_conf"]
    assert (local["device_type"], local["devices"]) == given and config.notes == ()
    assert bool(asked) == (given[0] in (1, 2))  # asking starts a process
    found = [name for name in config.unused_values() if "local_service_conf" in name]
    assert len(found) == bool(unused) and unused in "".join(found)
    with pytest.raises(CheckpointError, match=f"precision {precision}") if refused else contextlib.nullcontext():
        config.require_vendors_precision()


def test_the_model_lies_beside_the_file_or_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here/model").mkdir(parents=True)
    (tmp_path / "file").mkdir()
    path = write(tmp_path / "file", {"op.ernie.local_service_conf.model_config": "model"})
    monkeypatch.chdir(tmp_path / "here")
    assert read_pipeline_config(path).model == tmp_path / "here/model"
    (tmp_path / "file/model").mkdir()
    assert read_pipeline_config(Path(os.path.relpath(path))).model == tmp_path / "file/model"


def test_switches_that_are_always_on_are_named_where_they_are_off(tmp_path: Path) -> None:
    path = write(tmp_path, {"op.ernie.local_service_conf.ir_optim": False, "op.ernie.retry": 3})
    unused = read_pipeline_config(path).unused_values()
    assert "op.ernie.local_service_conf.ir_optim" in unused and "op.ernie.retry" in unused


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"http_port": None, "rpc_port": None}, "neither rpc_port nor http_port"),
        ({"rpc_port": "8089"}, "rpc_port is '8089'"),
        ({"rpc_port": 80}, "from 1024 to 65535"),
        ({"worker_num": 0}, "worker_num is 0"),
        ({"build_dag_each_worker": 1}, "build_dag_each_worker is 1"),
        ({"op.ernie.concurrency": True}, "concurrency is True"),
        ({"op.ernie.local_service_conf.fetch_list": "predict"}, "fetch_list is 'predict'"),
        ({"op.other.concurrency": 1}, "op must hold one name"),
        ({"op.ernie.local_service_conf": None}, "no local_service_conf"),
        ({"op.ernie.local_service_conf.client_type": "brpc"}, "expected local_predictor"),
        ({"op.ernie.local_service_conf.model_config": None}, "no model_config"),
        ({"op.ernie.local_service_conf.device_type": 3}, "device_type 3"),
    ],
)
def test_what_cannot_be(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        read_pipeline_config(write(tmp_path, changes))


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such file"):
        read_pipeline_config(tmp_path / "nowhere.yml")
    for text, said in (
        ("a: [", "is not YAML"),
        ("- 1", "holds no names"),
        ("!!python/object/apply:os.getcwd []", "is not YAML"),
    ):
        (tmp_path / "config.yml").write_text(text)
        with pytest.raises(CheckpointError, match=said):
            read_pipeline_config(tmp_path / "config.yml")
