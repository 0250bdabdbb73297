"""The command line of Paddle Serving's C++ server: what it means here, and what is refused."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from paddle_ranker import runtime
from paddle_ranker.errors import CheckpointError, UsageError
from paddle_ranker.paddle_serving.launchers import brpc_server
from paddle_ranker.paddle_serving.launchers.brpc_server import (
    EVERY_ADDRESS,
    HOST_VARIABLE,
    SWITCHES,
    WITH_VALUES,
    Launch,
    read_launch,
    serve_config,
)
from paddle_ranker.serving.core.limits import Limits
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.unit

TOOLKIT = """engines {{
  name: "general_infer_0"
  type: "PADDLE_INFER"
  reloadable_meta: "{model}/fluid_time_file"
  reloadable_type: "timestamp_ne"
  model_dir: "{model}"
  gpu_ids: {gpu}
  enable_memory_optimization: true
  use_gpu: {use_gpu}
  runtime_thread_num: {streams}
  batch_infer_size: 32
  enable_overrun: false
}}
"""
LINE = (
    "-enable_model_toolkit -inferservice_path {0} -inferservice_file infer_service.prototxt -max_concurrency 0 "
    "-num_threads 5 -port 8600 -precision fp32 -use_calib=False -reload_interval_s 10 -resource_path {0} "
    "-resource_file resource.prototxt -workflow_path {0} -workflow_file workflow.prototxt -bthread_concurrency 5 "
    "-max_body_size 536870912"
)


def write_workdir(folder: Path, *, engines: int = 1, gpu: int = -1, streams: int = 0) -> Path:
    """Write what the launcher writes of which there is something to read."""
    (folder / "general_infer_0").mkdir(parents=True)
    toolkit = TOOLKIT.format(model="serving_server", gpu=gpu, use_gpu=str(gpu >= 0).lower(), streams=streams)
    (folder / "general_infer_0/model_toolkit.prototxt").write_text(toolkit * engines)
    resource = f'model_toolkit_path: "{folder}"\nmodel_toolkit_file: "general_infer_0/model_toolkit.prototxt"\n'
    more = f'general_model_path: "{folder}"\ngeneral_model_file: "general_infer_0/general_model.prototxt"\n'
    (folder / "resource.prototxt").write_text(resource + more)
    return folder


def test_the_help_names_options_that_are_known_and_an_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert brpc_server.main(["--port", "8600", "--help"]) == 0
    shown = re.findall(r"(?<!\S)--([a-z_]+)", capsys.readouterr().out)
    assert {"model", "port", "thread"} <= set(shown) <= {*WITH_VALUES, *SWITCHES}
    assert brpc_server.main(["--port", "1"]) == 2
    assert capsys.readouterr().err.startswith("serving: error: names no model")


def test_the_launcher_s_line(tmp_path: Path) -> None:
    arguments = LINE.format(write_workdir(tmp_path / "workdir_8600")).split()
    expected = Launch(
        model=Path("serving_server"), port=8600, threads=5, request_bytes=Limits().request_bytes,
        reload_file=Path("serving_server/fluid_time_file"), reload_seconds=10,
    )  # fmt: skip
    assert read_launch(arguments) == expected
    more = ["-enable_prometheus=True", "-prometheus_port", "19393", "-request_cache_size", "100"]
    launch = read_launch([*arguments, *more])
    assert launch.prometheus_port == 19393 and launch.notes == ("-request_cache_size 100: this server has none, and "
                                                                "does without",)  # fmt: skip
    busy = read_launch(LINE.format(write_workdir(tmp_path / "busy", gpu=1, streams=3)).split())
    assert (busy.gpu, busy.threads, busy.batch_size) == (1, 3, 256)


@pytest.mark.parametrize(
    ("line", "changes"),
    [
        ("--model m --port 8600 --thread 5 --ir_optim True", {"port": 8600, "threads": 5}),
        ("--model=m -port=1 -num_threads=2 --thread 9", {"port": 1, "threads": 2}),
        ("--model m --gpu_id 0 --thread 5", {"gpu": 0, "threads": 5}),
        (
            "--model m --gpu_ids 2,3",
            {"gpu": 2, "notes": ("--gpu_ids 2,3: this server uses 2 alone; start one for each GPU",)},
        ),
        ("--model m --gpu_ids -1", {"gpu": None}),
        ("--model m --ir_optim --precision BF16", {"precision": "bf16"}),
        ("--enable_prometheus --model m", {"prometheus_port": 19393}),
        ("--model m --batch_infer_size 8 --runtime_thread_num 2", {"batch_size": 8, "threads": 2}),
        ("--model m --batch_infer_size 32", {"batch_size": 256}),  # the launcher's own
        ("--model m --use_mkl --max_body_size 5", {"request_bytes": 5}),
        ("--model m --max_body_size 536870912", {"request_bytes": 16 * 1024 * 1024}),  # the launcher's own
        ("--model m --max_body_size 1073741824", {"request_bytes": 1024**3}),
        ("--model m --use_calib", {"notes": ("-use_calib true: this server has none, and does without",)}),
        ("--model m -idle_timeout_s 30", {"notes": ("-idle_timeout_s 30: not known here, passed over",)}),
        ("start --model m", {"notes": ("start: not a flag, passed over",)}),
    ],
)
def test_flags_in_every_spelling(line: str, changes: dict[str, Any]) -> None:
    assert read_launch(line.split()) == Launch(**{"model": Path("m"), **changes})


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--port 8600", "names no model"),
        ("--model a b", "one model; start one for each"),
        ("--model m --enable_prometheus --prometheus_port 0", "-prometheus_port 0: give a number, 1 to 65535"),
        ("--model m --port many", "-port many: give a number, 0 to 65535"),
        ("--model m --port 70000", "-port 70000"),
        ("--model m --thread 0", "1 or more"),
        ("--model m --port", "-port: give it a value"),
        ("--model m -enable_prometheus=maybe", "give true or false"),
        ("--model m --gpu_id x", "numbers of GPUs"),
    ],
)
def test_values_that_are_none(line: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_launch(line.split())


def test_files_that_are_not_the_launcher_s(tmp_path: Path) -> None:
    for name, content, said in (
        ("none", None, "is not there; start the server with its launcher"),
        ("damaged", "model_toolkit_path {", "is not what the launcher writes"),
        ("empty", "", "name 0 models"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        if content is not None:
            (folder / "resource.prototxt").write_text(content)
        with pytest.raises(CheckpointError, match=said):
            read_launch(["-resource_path", str(folder)])
    with pytest.raises(CheckpointError, match="name 2 models"):
        read_launch(["-resource_path", str(write_workdir(tmp_path / "two", engines=2))])


def test_what_the_server_is_started_with(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(runtime, "usable_cores", lambda: 4)
    monkeypatch.delenv(HOST_VARIABLE, raising=False)
    config = serve_config(Launch(Path("m"), port=8600, threads=5, request_bytes=99, prometheus_port=9))
    assert (config.host, config.port, config.more_ports) == (EVERY_ADDRESS, 8600, (9,))
    assert (config.streams, config.cpu_threads, config.request_bytes) == (4, 1, 99)
    monkeypatch.setenv(HOST_VARIABLE, "127.0.0.1")
    config = serve_config(Launch(Path("m"), threads=2))
    assert (config.host, config.streams, config.cpu_threads, config.device) == ("127.0.0.1", 2, 2, "cpu")

    monkeypatch.setattr(runtime, "finds_gpu", lambda: False)
    assert serve_config(Launch(Path("m"), gpu=0)).device == "cpu"
    assert "GPU 0 is asked for, and Paddle finds none here: using the CPU" in capsys.readouterr().err
    monkeypatch.setattr(runtime, "finds_gpu", lambda: True)
    assert serve_config(Launch(Path("m"), gpu=1)).device == "gpu:1"


def test_it_ends_when_one_of_those_that_started_it_does(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    sent: list[tuple[int, int]] = []
    seen = iter([(5, 4), (5, 4), (5, 1)])  # the shell lives, whoever started the shell has ended
    monkeypatch.setattr(brpc_server, "_LOOK_SECONDS", 0)
    monkeypatch.setattr(brpc_server, "_ancestors", lambda: next(seen))
    monkeypatch.setattr(os, "kill", lambda process, number: sent.append((process, number)))
    brpc_server._end_with_the_launcher((5, 4))
    assert sent == [(os.getpid(), signal.SIGTERM)] and "has ended" in capsys.readouterr().err


def test_the_shell_of_a_launcher_is_not_the_launcher() -> None:
    code = "from paddle_ranker.paddle_serving.launchers.brpc_server import _ancestors; print(*_ancestors())"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}

    def ancestors(command: list[str]) -> list[int]:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=100)
        return [int(word) for word in done.stdout.split()]

    alone = ancestors([sys.executable, "-c", code])
    # Two commands, or the shell would make way for the one.
    shell, starter = ancestors(["sh", "-c", f"'{sys.executable}' -c '{code}'; true"])
    assert alone[0] == os.getpid() and starter == os.getpid() and shell != starter


def test_the_model_is_loaded_anew_when_the_file_s_time_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class EnoughError(Exception):
        pass

    path = tmp_path / "fluid_time_file"
    path.touch()
    times = iter([1, None, 1, 2, 2, 3])  # seconds; None: it is not there

    def change(seconds: float) -> None:
        assert seconds == 10
        try:
            time = next(times)
        except StopIteration:
            raise EnoughError from None
        path.unlink(missing_ok=True)
        if time is not None:
            path.touch()
            os.utime(path, (time, time))

    sent: list[int] = []
    change(10)
    monkeypatch.setattr(brpc_server.time, "sleep", change)
    monkeypatch.setattr(os, "kill", lambda process, number: sent.append(number))
    with pytest.raises(EnoughError):
        brpc_server._reload_with_the_file(path, 10)
    assert sent == [signal.SIGHUP] * 2  # at 2 and at 3
