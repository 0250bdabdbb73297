"""Several processes that train one model, on one machine or on two, started by the launcher."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml  # type: ignore[import-untyped]

from ernie_matching import train_pairwise
from paddle_ranker import Ranker, distributed
from paddle_ranker.distributed import ProcessGroup
from paddle_ranker.errors import RankerError
from paddle_ranker.evaluation.evaluation_set import EvaluationSet
from paddle_ranker.model.parameters import PARAMETERS_FILE, load_arrays
from paddle_ranker.scoring.engines.dygraph import DygraphEngine
from paddle_ranker.training.learning_curve import METRICS_FILE, read_metrics
from tests.checkout import IS_MODERN, ONCE
from tests.conftest import REPOSITORY, commands_here
from tests.nodes import Node, two_nodes
from tests.robustness.kill_resume import differences
from tests.started import SECONDS, free_ports, run_script, until
from tests.tiny import HAN, write_encoder, write_ranker
from tests.training_runs import typed_training

server = pytest.mark.server  # real processes take some 10 seconds each
TRIPLES, BATCH_SIZE, EPOCHS = 41, 8, 4  # two processes: batches of 16, 16 and 9, which is 5 and 4
STEPS = 12
SCRIPT = REPOSITORY / "ernie_matching" / "train_pairwise.py"
BROKEN = r"error: the connection to the other processes of this training broke .*log/workerlog\.<number>"
ALTERED = REPOSITORY / "tests" / "altered_training.py"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a tiny encoder, the same without dropout, training triples and a labelled file; return the folder."""
    folder = tmp_path_factory.mktemp("data")
    write_encoder(folder / "encoder")
    write_encoder(folder / "still", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    random = np.random.RandomState(0)
    words = ["".join(random.choice(HAN, random.randint(2, 6))) for _ in range(TRIPLES)]
    others = random.permutation(words)
    triples = [f"{word}\t{word}的研究{'论' * (i % 7)}\t{other}\n" for i, (word, other) in enumerate(zip(words, others))]
    pairs = [f"{word}\t论{word}\t1\n{word}\t{other}{word[:1]}\t0\n" for word, other in zip(words, others)]
    (folder / "train.csv").write_text("".join(triples), encoding="utf-8")
    (folder / "one.csv").write_text(triples[0], encoding="utf-8")
    (folder / "dev.csv").write_text("".join(pairs), encoding="utf-8")
    return folder


def training(save_dir: Path, *more: object, **changes: object) -> list[str]:
    """Return the command's options for the folder `data`; of options with the same name the last counts."""
    own = {"epochs": EPOCHS, "batch_size": BATCH_SIZE, "warmup_proportion": 0.2, "eval_step": 4, "save_step": 3}
    return typed_training(save_dir, *more, **{**own, **changes})


class Launched:
    """A training in two processes; their output is in `<logs>/workerlog.<number>`, the first's also in `output`.

    before: words before the launcher's line
    launch: its options
    """

    def __init__(
        self,
        data: Path,
        logs: Path,
        script: Path,
        *arguments: object,
        before: Sequence[object] = (),
        launch: Sequence[object] = ("--nproc_per_node", 2),
    ):
        self.logs, self._output = logs, logs.with_suffix(".txt")
        line = [*before, sys.executable, "-m", "paddle.distributed.launch", *launch, "--log_dir", logs, script]
        with self._output.open("wb") as stream:
            self.launcher = subprocess.Popen(
                [*map(str, [*line, *arguments])], cwd=data, stdout=stream, stderr=subprocess.STDOUT
            )

    @property
    def output(self) -> str:
        return self._output.read_text(encoding="utf-8", errors="replace")

    def log(self, rank: int) -> str:
        path = self.logs / f"workerlog.{rank}"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def wait(self, seconds: float = 120) -> int:
        """Wait for the end; return the exit status."""
        try:
            return self.launcher.wait(seconds)
        except subprocess.TimeoutExpired:
            self.end()
            raise

    def processes(self) -> dict[int, int]:
        """Return the process of each rank."""
        found = {}
        with suppress(OSError):  # a process that has just ended
            for child in Path(f"/proc/{self.launcher.pid}/task/{self.launcher.pid}/children").read_text().split():
                rank = re.search(rb"PADDLE_TRAINER_ID=(\d+)", Path(f"/proc/{child}/environ").read_bytes())
                if rank:
                    found[int(rank.group(1))] = int(child)
        return found

    def wait_for_step(self, step: int) -> None:
        def is_reached() -> bool:
            assert self.launcher.poll() is None, self.output
            return re.search(rf"^global step {step},", self.log(0), re.M) is not None

        until(is_reached)

    def end(self) -> None:
        """End all processes that still run."""
        if self.launcher.poll() is None:
            for process in [*self.processes().values(), self.launcher.pid]:
                os.kill(process, signal.SIGKILL)
            self.launcher.wait()


def run_alone(data: Path, *arguments: str) -> int:
    """Call the command in this process, without the seconds of a start; return its status."""
    with commands_here(data):
        return train_pairwise.main(list(arguments))


Trained = tuple[Path, str]  # save folder, output of the first process


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Train in one process, each step of two batches; return the save folder and the output."""
    folder = tmp_path_factory.mktemp("alone") / "checkpoint"
    arguments = training(folder, "--gradient_accumulation_steps", 2)
    done = run_script("ernie_matching/train_pairwise.py", *arguments, cwd=data)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture(scope="module")
def together(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Launched]:
    """Run the same training in two processes; return the save folder and the output."""
    folder = tmp_path_factory.mktemp("together")
    launched = Launched(data, folder / "log", SCRIPT, *training(folder / "checkpoint"))
    assert launched.wait() == 0, launched.output + launched.log(1)
    return folder / "checkpoint", launched


def scores(folder: Path) -> np.ndarray:
    """Return scores of 129 pairs by the last checkpoint of a save folder."""
    queries, titles = [f"{a}{b}" for a in HAN for b in HAN[:3]], [a for a in HAN for _ in range(3)]
    found: np.ndarray = Ranker.load(folder / "last").score(queries, titles)
    assert np.ptp(found) > 0.1
    return found


def figures(folder: Path) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in record.items() if name not in ("time", "seconds", "steps_per_second")}
        for record in read_metrics(folder / METRICS_FILE)
    ]


@server
def test_two_processes_are_one_that_adds_up_two_batches(
    together: tuple[Path, Launched], alone: Trained, data: Path
) -> None:
    folder, launched = together
    ours, theirs = (load_arrays(one / "last" / PARAMETERS_FILE) for one in (folder, alone[0]))
    assert list(ours) == list(theirs)
    for name, array in theirs.items():  # including dropout, which depends on the place in the batch, not on the process
        np.testing.assert_allclose(ours[name], array, atol=1e-6, rtol=0, err_msg=name)
    np.testing.assert_allclose(scores(folder), scores(alone[0]), atol=1e-5)
    lines = [[record for record in figures(one) if "loss" in record] for one in (folder, alone[0])]
    assert [record["examples"] for record in lines[0]][:4] == [16, 32, 41, 57] and len(lines[0]) == STEPS
    for ours_record, theirs_record in zip(*lines):
        assert ours_record == pytest.approx(theirs_record, abs=1e-6)
    # The evaluations are those of one process, to all digits.
    printed = re.findall(r"^eval_dev auc:\S+$", launched.log(0), re.M)
    assert len(printed) == 3 and printed == re.findall(r"^eval_dev auc:\S+$", alone[1], re.M)
    results = json.loads((folder / "best" / "ranker.json").read_text(encoding="utf-8"))["results"]
    ranker = Ranker.load(folder / "best")
    measured = EvaluationSet(data / "dev.csv", ranker.scorer.row_encoder, BATCH_SIZE).measure(ranker.scorer.engine)
    assert len(measured) > 3 and results == {"step": results["step"], **measured}
    # Only the first process prints and writes; a second writer would have moved the folders or doubled the lines.
    assert re.findall(r"^global step (\d+),", launched.output, re.M) == [str(step) for step in range(1, STEPS + 1)]
    assert not re.search("global step|eval_dev|kept|start from|best:|trained|rror", launched.log(1))
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in alone[0].iterdir())
    assert [record["step"] for record in figures(folder)] == [record["step"] for record in figures(alone[0])]


@pytest.mark.thorough
@ONCE
@server
def test_gradient_descent_in_two_processes_gives_the_parameters_of_one(data: Path, tmp_path: Path) -> None:
    # 20 steps without dropout. Only large gradients are clipped, by the norm of all of them together.
    more = ["--model_name_or_path", "./still", "--learning_rate", 0.05, "--max_grad_norm", 2, "--max_steps", 20]
    options = [*more, "--epochs", 7, "--save_step", 100]
    line = training(tmp_path / "alone", *options, "--batch_size", 2 * BATCH_SIZE)
    alone = run_script("tests/altered_training.py", "sgd", *line, cwd=data)
    assert alone.returncode == 0, alone.stderr
    launched = Launched(data, tmp_path / "log", ALTERED, "sgd", *training(tmp_path / "together", *options))
    assert launched.wait() == 0, launched.output
    start = load_arrays(data / "still" / PARAMETERS_FILE)
    ours, theirs = (load_arrays(tmp_path / name / "last" / PARAMETERS_FILE) for name in ("together", "alone"))
    for name, array in theirs.items():
        np.testing.assert_allclose(ours[name], array, atol=1e-5, rtol=0, err_msg=name)
    moved = [np.abs(theirs[f"encoder.{name}"] - array).max() for name, array in start.items()]
    assert np.median(moved) > 1e-3
    norms = [record["gradient_norm"] for record in figures(tmp_path / "together") if "loss" in record]
    assert min(norms) < 2 < max(norms) and len(norms) == 20


@pytest.mark.thorough
@server
def test_a_killed_process_ends_all_and_two_go_on(
    data: Path, tmp_path: Path, together: tuple[Path, Launched], capfd: pytest.CaptureFixture[str]
) -> None:
    save_dir = tmp_path / "checkpoint"
    kill_one(data, tmp_path, save_dir, rank=1)
    assert (save_dir / "last").is_symlink()

    assert run_alone(data, *training(save_dir, "--resume")) == 1
    assert (
        "the run to resume was started otherwise: processes was 2, is 1; total_steps was 12, is 24: "
        in capfd.readouterr().err
    )
    launched = Launched(data, tmp_path / "log2", SCRIPT, *training(save_dir, "--resume"))
    assert launched.wait() == 0, launched.output + launched.log(1)
    assert re.search(r"^resume after step \d+, from ", launched.log(0), re.M)
    assert differences(together[0], save_dir) == []


@pytest.fixture(scope="module")
def nodes() -> Iterator[tuple[Node, Node]]:
    """Two machines, as far as network, names and mounts go: 10.0.0.1 is `node0`, 10.0.0.2 is `node1`."""
    with two_nodes() as pair:
        yield pair


def launched_on(
    nodes: tuple[Node, Node], data: Path, logs: Path, *arguments: object, **second: object
) -> list[Launched]:
    """Start a training in one process on each node; the second node's options may be others."""
    logs.mkdir()
    changed = [part for name, value in second.items() for part in (f"--{name}", value)]
    return [
        Launched(
            data, logs / str(rank), ALTERED, *arguments, *(changed if rank else ()), before=node.before(data),
            launch=["--nnodes", 2, "--rank", rank, "--master", f"{nodes[0].address}:29500", "--host", node.address,
                    "--nproc_per_node", 1],
        )
        for rank, node in enumerate(nodes)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def slow_disk(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Launched]:
    """Start a training that waits 35 s for its disk, beside other tests; return its save folder and processes."""
    folder = tmp_path_factory.mktemp("slow_disk")
    save_dir = folder / "checkpoint"
    arguments = training(save_dir, "--max_steps", 4, "--save_step", 2, "--eval_step", 100)
    return save_dir, Launched(data, folder / "log", ALTERED, "slow_disk", *arguments)


def lines_of_page(nodes: tuple[Node, Node], folder: Path) -> list[list[str]]:
    page = (REPOSITORY / "docs" / "scale.md").read_text(encoding="utf-8")
    lines = re.findall(r"^    python (.* --nnodes .*) ernie_matching/train_pairwise.py …$", page, re.M)
    return [
        [*node.before(folder), sys.executable, *line.split(), "--log_dir", f"log/{node.name}", str(SCRIPT)]
        for node, line in zip(nodes, lines)
    ]


def line_of_slurm(nodes: tuple[Node, Node], folder: Path) -> list[list[str]]:
    # Slurm's commands: what a task is run with, and the names of the job's nodes.
    runs = [f"SLURM_NODEID={rank} {shlex.join(node.before(folder))}" for rank, node in enumerate(nodes)]
    commands = {
        "scontrol": "echo node0; echo node1",
        "srun": f"""nodes='0 1'
while [[ $1 == --* ]]; do
    case $1 in --nodelist) nodes=${{2#node}}; shift 2;; *=*) shift;; *) shift 2;; esac
done
task0() {{ {runs[0]} "$@"; }}
task1() {{ {runs[1]} "$@"; }}
for node in $nodes; do task$node "$@" & tasks+=($!); done
for task in ${{tasks[*]}}; do wait $task || exit 1; done""",
    }
    for name, text in commands.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
        (folder / name).chmod(0o700)
    job = "SLURM_JOB_NODELIST=node[0-1]", "SLURM_JOB_ID=7", "SLURM_NNODES=2", f"PYTHON={sys.executable}"
    script = REPOSITORY / "deploy" / "slurm" / "train.sbatch"
    return [["env", f"PATH={folder}:{os.environ['PATH']}", *job, "bash", str(script), str(SCRIPT)]]


def lines_of_kubernetes(nodes: tuple[Node, Node], folder: Path) -> list[list[str]]:
    documents = yaml.safe_load_all((REPOSITORY / "deploy/kubernetes/train.yaml").read_text(encoding="utf-8"))
    (job,) = [document for document in documents if document["kind"] == "Job"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert f"/{SCRIPT.relative_to(REPOSITORY)}" in container["args"][0] and container["args"][-1] == "--resume"
    given = {one["name"]: one.get("value") for one in container["env"]}
    lines = []
    for rank, node in enumerate(nodes):
        values = {**given, "PYTHON": sys.executable, "OWN_ADDRESS": node.address, "JOB_COMPLETION_INDEX": rank}
        command = [part.replace("/tmp/log", f"log/{node.name}") for part in container["command"]]
        lines.append(
            [*node.before(folder), "env", *(f"{name}={values[name]}" for name in values), *command, str(SCRIPT)]
        )
    return lines


@pytest.mark.thorough(keep=1)
@server
@pytest.mark.parametrize("lines", [lines_of_page, *([line_of_slurm, lines_of_kubernetes] if IS_MODERN else [])])
def test_two_nodes_are_one_with_two_processes(
    nodes: tuple[Node, Node], data: Path, tmp_path: Path, together: tuple[Path, Launched], lines: Any
) -> None:
    shutil.copytree(data, tmp_path, dirs_exist_ok=True)
    started = [
        subprocess.Popen([*line, *training(tmp_path / "checkpoint")], cwd=tmp_path) for line in lines(nodes, tmp_path)
    ]
    assert [process.wait(SECONDS) for process in started] == [0] * len(started)
    assert differences(together[0], tmp_path / "checkpoint") == []


@pytest.mark.thorough
@server
@pytest.mark.slow
@pytest.mark.usefixtures(*(["slow_disk"] if IS_MODERN else []))  # which waits meanwhile
@pytest.mark.parametrize(
    ("lost", "how"),
    [(1, "killed"), *([(0, "killed"), (1, "cut")] if IS_MODERN else [])],
)
def test_a_lost_node_ends_all_and_two_go_on(
    nodes: tuple[Node, Node], data: Path, tmp_path: Path, together: tuple[Path, Launched], lost: int, how: str
) -> None:
    held, save_dir = f"held:4:{tmp_path / 'go'}:ernie_matching.train_pairwise", tmp_path / "checkpoint"
    both = launched_on(nodes, data, tmp_path / "log", held, *training(save_dir))
    try:
        until(lambda: "global step 4," in both[0].log(0) or both[0].launcher.poll() is not None)
        if how == "cut":
            nodes[0].run("ip link set between down")
        else:
            both[lost].end()
        (tmp_path / "go").touch()
        assert both[1 - lost].wait(60 if how == "cut" else 30) == 1
    finally:
        for launched in both:
            launched.end()
        nodes[0].run("ip link set between up")
    assert re.search(BROKEN, both[1 - lost].log(0)), both[1 - lost].output
    assert f"(process {lost} on {nodes[lost].address} has ended)" in both[1 - lost].log(0)
    if (lost, how) != (1, "killed"):
        return

    again = "held:0::ernie_matching.train_pairwise", *training(save_dir, "--resume")
    both = launched_on(nodes, data, tmp_path / "log2", *again, save_dir=tmp_path / "other")  # without the checkpoints
    assert [launched.wait() for launched in both] == [1, 1]
    here = [re.findall(r"differ in the step to resume \(here (\d+)\)", launched.log(0)) for launched in both]
    assert sorted(here) == [["0"], ["3"]], both[0].log(0) + both[1].log(0)
    both = launched_on(nodes, data, tmp_path / "log3", *again)
    assert [launched.wait() for launched in both] == [0, 0], both[0].output + both[1].output
    assert re.search(r"^resume after step \d+, from ", both[0].log(0), re.M)
    assert differences(together[0], save_dir) == []


@server
@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_after_the_same_step(data: Path, tmp_path: Path) -> None:
    launched = Launched(data, tmp_path / "log", SCRIPT, *training(tmp_path / "checkpoint", "--epochs", 4000))
    try:
        launched.wait_for_step(4)
        os.kill(launched.processes()[1], signal.SIGTERM)
        assert launched.wait(SECONDS) != 0
    finally:
        launched.end()
    steps = [re.findall(r"interrupted \(at step (\d+) of", launched.log(rank)) for rank in (0, 1)]
    assert len(steps[0]) == 1 and steps[0] == steps[1], launched.log(0) + launched.log(1)
    assert (tmp_path / "checkpoint" / f"state_{steps[0][0]}" / "optimizer.npz").exists()
    assert re.search(r"^to go on: .*paddle\.distributed\.launch .* --resume$", launched.log(0), re.M)


def kill_one(data: Path, folder: Path, save_dir: Path, rank: int) -> None:
    """Kill one of two processes in the middle of the training; check that all end."""
    held = f"held:4:{folder / 'go'}:ernie_matching.train_pairwise"
    launched = Launched(data, folder / "log", ALTERED, held, *training(save_dir))
    try:
        launched.wait_for_step(4)
        processes = launched.processes()
        assert sorted(processes) == [0, 1]
        os.kill(processes[rank], signal.SIGKILL)
        (folder / "go").touch()
        assert launched.wait(SECONDS) != 0
    finally:
        launched.end()
    assert not any(Path(f"/proc/{process}").exists() for process in processes.values())
    # The launcher looks once a second, and shows the lowest rank of those that have ended by then.
    shown = re.search(r"Container rank (\d) status failed .* code (\S+)", launched.output)
    assert shown, launched.output
    assert shown.groups() == (str(rank), "-9") or re.search(BROKEN, launched.output), launched.output
    assert "Traceback" not in launched.log(1 - rank)
    # Either the launcher's signal or the end of the connection comes first.
    assert re.search(BROKEN + r"|^altered_training\.py: .*the last good checkpoint is ", launched.log(1 - rank), re.M)


@ONCE
@server
def test_a_process_that_fails_ends_all_with_its_error_shown(data: Path, tmp_path: Path) -> None:
    launched = Launched(data, tmp_path / "log", ALTERED, "raising", *training(tmp_path / "checkpoint"))
    message = "unexpected ValueError: the second process fails here; run again with --debug for the traceback"
    ends_with(launched, f"altered_training.py: error: {message}")


@ONCE
@server
@pytest.mark.slow
def test_more_processes_than_examples(data: Path, tmp_path: Path) -> None:
    arguments = training(tmp_path / "checkpoint", train_file="one.csv")
    launched = Launched(data, tmp_path / "log", SCRIPT, *arguments)
    ends_with(launched, "train_pairwise.py: error: 1 training examples are too few for 2 processes")
    assert not list((tmp_path / "checkpoint").glob("model_*"))


@ONCE
@server
@pytest.mark.slow
@pytest.mark.thorough
def test_the_others_wait_for_a_slow_disk(slow_disk: tuple[Path, Launched]) -> None:
    save_dir, launched = slow_disk
    assert launched.wait(SECONDS) == 0, launched.output + launched.log(1)
    assert sorted(path.name for path in save_dir.glob("model_*")) == ["model_2", "model_4"]


def ends_with(launched: Launched, message: str) -> None:
    """Check that all processes end within seconds, and that the launcher shows the second one's last line.

    If the first process has ended as well by then, the launcher shows its line, which names the logs.
    """
    processes: dict[int, int] = {}
    try:
        while len(processes) < 2 and launched.launcher.poll() is None:
            processes = launched.processes()
        assert launched.wait(SECONDS) != 0
    finally:
        launched.end()
    assert len(processes) == 2 and not any(Path(f"/proc/{process}").exists() for process in processes.values())
    assert launched.log(1).splitlines()[-1] == message
    assert message in launched.output.splitlines() or re.search(BROKEN, launched.output), launched.output


@pytest.mark.unit
def test_a_port_that_a_connection_has_been_given_meanwhile_is_waited_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        port = ours.getsockname()[1]
        monkeypatch.setenv("PADDLE_MASTER", f"127.0.0.1:{port}")
        monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
        monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")  # a variable that would be set for all later tests
        monkeypatch.setenv("PADDLE_TRAINER_ID", "0")
        begun: list[bool] = []
        monkeypatch.setattr("paddle.distributed.init_parallel_env", lambda: begun.append(True))
        starting = threading.Thread(target=ProcessGroup, daemon=True)
        starting.start()
        until(lambda: f"port {port}, where" in capsys.readouterr().err)
        assert not begun
        monkeypatch.setattr(distributed, "_PORT_SECONDS", 0.0)
        with pytest.raises(RankerError, match=f"port {port}, .* another program uses it: .*PORT_RANGE=20000:32000"):
            ProcessGroup()
        listener.accept()[0].close()  # the end that closes first keeps the port for a minute
        ours.recv(1)
        ours.close()
        monkeypatch.setenv("PADDLE_TRAINER_ID", "1")
        ProcessGroup()
        starting.join(SECONDS)
        assert begun == [True, True]


@pytest.mark.unit
@pytest.mark.parametrize("work", ["wait()", "sum(np.ones(1))"])
def test_a_process_that_ends_is_seen_by_those_who_wait_for_it(work: str) -> None:
    # Without Paddle's own connections, which with NCCL hang when a process is gone, as this `all_reduce` does.
    code = """
import os, sys, time
import numpy as np
import paddle
paddle.distributed.init_parallel_env = lambda: None
paddle.distributed.all_reduce = lambda tensor: time.sleep(1000)
from paddle_ranker.distributed import ProcessGroup
group = ProcessGroup()
group.wait()
if group.rank == 1:
    os.kill(os.getpid(), 9)
group."""
    shared = {"PADDLE_TRAINERS_NUM": "2", "PADDLE_MASTER": f"127.0.0.1:{free_ports(1)[0]}"}
    line = [sys.executable, "-c", code + work]
    ranks = [{**os.environ, **shared, "PADDLE_TRAINER_ID": str(rank)} for rank in (0, 1)]
    first, second = (subprocess.Popen(line, cwd=REPOSITORY, env=env, stderr=subprocess.PIPE) for env in ranks)
    assert b"training broke (process 1 on 127.0.0.1 has ended)" in first.communicate(timeout=SECONDS)[1]
    assert first.returncode == 1 and second.wait() == -signal.SIGKILL


class _Share(ProcessGroup):
    """One of several processes, whose sum is taken elsewhere."""

    def __init__(self, rank: int, size: int):
        self.rank, self.size = rank, size

    def sum(self, values: np.ndarray) -> np.ndarray:
        return values


class _Counting(DygraphEngine):
    def run(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.rows: list[int] = [*getattr(self, "rows", []), len(arrays["input_ids"])]
        return super().run(arrays)


@pytest.fixture
def evaluation(data: Path, tmp_path: Path) -> tuple[EvaluationSet, _Counting]:
    ranker = Ranker.load(write_ranker(tmp_path / "ranker"))
    engine = ranker.scorer.engine
    assert isinstance(engine, DygraphEngine)
    return EvaluationSet(data / "dev.csv", ranker.scorer.row_encoder, 4), _Counting(engine.network)


@pytest.mark.unit
@pytest.mark.parametrize("size", [2, 3, 50])
def test_each_process_scores_its_share_of_the_evaluation(
    evaluation: tuple[EvaluationSet, _Counting], size: int
) -> None:
    labelled, engine = evaluation
    whole = labelled.logits(engine)
    batches, shares, scored = engine.rows, [], []
    assert sum(batches) == len(labelled.labels) == 82 and len(batches) > 3
    for rank in range(size):
        engine.rows = []
        shares.append(labelled.logits(engine, _Share(rank, size)))
        scored.append(engine.rows)
        assert np.count_nonzero(shares[-1]) == sum(engine.rows)
    assert sorted(chain.from_iterable(scored)) == sorted(batches)  # no batch is scored twice, none is left out
    assert max(map(len, scored)) - min(map(len, scored)) <= 1
    np.testing.assert_array_equal(np.sum(shares, axis=0), whole)
