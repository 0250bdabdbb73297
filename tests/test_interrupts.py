"""Ctrl-C and SIGTERM at any moment of a command: one line, status 130, and no incomplete files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from paddle_ranker.interrupts import Interrupts, StopRequest, resume_line
from tests.conftest import REPOSITORY
from tests.entailment_cases import write_data
from tests.tiny import write_encoder

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def heeded() -> Iterator[None]:
    """Make the process handle both signals, which a shell's background job ignores; restore the handlers."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.unit
@pytest.mark.parametrize("first", SIGNALS)
def test_the_first_signal_asks_and_the_second_ends(first: signal.Signals, capfd: pytest.CaptureFixture[str]) -> None:
    with Interrupts().taken() as interrupts, StopRequest().awaited() as stop:
        send(first)
        assert (stop.must_stop, interrupts.received) == (True, False)
        assert "saved for --resume; once more ends at once" in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
        assert interrupts.received


@pytest.mark.unit
def test_a_launcher_that_insists_is_no_second_signal_and_an_ignored_signal_stays_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch, StopRequest().awaited() as stop:
        patch.setenv("PADDLE_TRAINERS_NUM", "2")
        for _ in range(3):
            send(signal.SIGTERM)
        assert stop.must_stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Interrupts().taken(), StopRequest().awaited() as stop:
        send(signal.SIGINT)
        assert not stop.must_stop


@pytest.mark.unit
def test_an_interrupt_that_was_lost_still_stops_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    lost: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: lost.append(unraisable.exc_type))

    class Deleted:
        def __del__(self) -> None:
            send(signal.SIGINT)  # Python drops the exception

    with Interrupts().taken():
        Deleted()
        assert lost == [KeyboardInterrupt]
        with StopRequest().awaited() as stop:
            assert stop.must_stop


OWN_TRAINING = """
from paddle_ranker.commands.command_registry import COMMANDS, Command
from paddle_ranker.interrupts import Interrupted
from paddle_ranker.options import Options, run_command

def interrupted(options):
    raise Interrupted("at step 1 of 2")

def main(argv=None):
    return run_command(interrupted, Options, argv, "")

COMMANDS.add("train-own", Command(__name__, "be interrupted"))
"""
SCRIPT = "#!{}\nimport sys\nfrom paddle_ranker.__main__ import main\nsys.exit(main())\n"


@pytest.mark.unit
@pytest.mark.parametrize("typed", ["paddle-ranker", "bin/paddle-ranker", f"{sys.executable} -m paddle_ranker"])
def test_the_line_that_goes_on_is_the_one_that_was_typed(typed: str, tmp_path: Path) -> None:
    (tmp_path / "own_training.py").write_text(OWN_TRAINING, encoding="utf-8")
    script = tmp_path / "bin" / "paddle-ranker"
    script.parent.mkdir()
    script.write_text(SCRIPT.format(sys.executable), encoding="utf-8")
    script.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{script.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{REPOSITORY}",
        "PADDLE_RANKER_PLUGINS": "own_training",
    }
    line = f"{typed} train-own --debug false"
    done = subprocess.run(line, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stderr == f"paddle-ranker train-own: interrupted (at step 1 of 2)\nto go on: {line} --resume\n"


@pytest.mark.unit
@pytest.mark.parametrize(
    "said", [[], ["--resume"], ["--resume", "false"], ["--resume=false"], ["--resume", "true", "--resume", "false"]]
)
def test_the_line_to_go_on_resumes_whatever_was_said(said: list[str]) -> None:
    assert resume_line("train", ["--train", "t.tsv", *said, "--seed", "1"]) == "train --train t.tsv --seed 1 --resume"


PAIRWISE = "ernie_matching/train_pairwise.py --train_file t.tsv --test_file d.tsv --model_name_or_path encoder"
ENTAILMENT = (
    "multimodal_entailment/train.py --train_file posts.csv --modalities image --image_size 16 --test_share 0 "
    "--validation_share 0.4"
)


def interrupted(command: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process that handles SIGINT and interrupts itself."""
    return subprocess.run(
        [sys.executable, *command.split()],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **variables},
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the data of the trainings; return the folder."""
    folder = tmp_path_factory.mktemp("data")
    write_encoder(folder / "encoder")
    (folder / "t.tsv").write_text("".join(f"q{n}\ta{n}\tb{n}\n" for n in range(20)), encoding="utf-8")
    (folder / "d.tsv").write_text("".join(f"q{n}\ta{n}\t{n % 2}\nq{n}\tb{n}\t{1 - n % 2}\n" for n in range(9)))
    write_data(folder, 30)
    return folder


@pytest.mark.server
@pytest.mark.parametrize(
    ("command", "at", "inside"),
    [  # the module being imported, and the compiled module that imports it
        (PAIRWISE, "datetime", "paddle.base.libpaddle"),  # Paddle's compiled part is being initialised
        (ENTAILMENT, "multimodal_entailment.vision", ""),  # the folder has been made
    ],
)
def test_an_interrupt_in_the_first_seconds(command: str, at: str, inside: str, data: Path, tmp_path: Path) -> None:
    line = f"{REPOSITORY / command} --device cpu --cpu_threads 1 --save_dir {tmp_path / 'run'}"
    plugin = {"PADDLE_RANKER_PLUGINS": "tests.interrupting", "INTERRUPT_AT": at, "INTERRUPT_INSIDE": inside}
    done = interrupted(line, data, **plugin)
    # A progress bar of images may have begun, and the demo's posts repeat.
    lines = [line for line in done.stderr.splitlines() if line and not line.startswith(("images:", "warning: "))]
    assert done.returncode == 130 and "Error" not in done.stderr, done.stderr
    if any("saved for --resume" in line for line in lines):
        return  # all imports were over before it came, and the training had begun: test_trainer looks at that
    assert lines == [f"{Path(command.split()[0]).name}: interrupted"]
    assert not (tmp_path / "run").exists()


@pytest.mark.unit
@pytest.mark.parametrize(
    ("command", "at", "name"),
    [
        ("-m paddle_ranker train-pairwise --help", "paddle_ranker.notes", "paddle-ranker"),
        ("-m paddle_ranker rank --help", "paddle_ranker.registry", "paddle-ranker"),
    ],
)
def test_an_interrupt_before_the_command_has_begun(command: str, at: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import tests.interrupting\n", encoding="utf-8")
    done = interrupted(command, REPOSITORY, PYTHONPATH=f"{tmp_path}{os.pathsep}{REPOSITORY}", INTERRUPT_AT=at)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", f"{name}: interrupted\n")


STUCK = """
import threading
from paddle_ranker.serving.slots.ranker_slot import RankerSlot

def load(self, observer=None):
    print("loading", flush=True)
    threading.Event().wait()

RankerSlot.load = load
"""


@pytest.mark.server
def test_a_server_that_loads_ends_at_a_signal(tmp_path: Path) -> None:
    (tmp_path / "stuck.py").write_text(STUCK, encoding="utf-8")
    line = [sys.executable, "-m", "paddle_ranker", "serve", ".", "--port", "0", "--engine", "onnx"]
    paths = f"{tmp_path}{os.pathsep}{REPOSITORY}"
    server = subprocess.Popen(
        line,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths, "PADDLE_RANKER_PLUGINS": "stuck"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert server.stdout is not None and server.stdout.readline() == "loading\n"
        server.send_signal(signal.SIGINT)
        _, errors = server.communicate(timeout=120)
    finally:
        server.kill()
    assert server.returncode == 0 and errors.count("\n") == 1 and '"event": "stop"' in errors, errors
