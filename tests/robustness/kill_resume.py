"""Kill a training with SIGKILL at random moments, resume it each time, and compare its end with an unbroken run's.

python -m tests.robustness.kill_resume [--kills 20] [--seed 1] [--ranker pairwise]

The training command runs on demo data with a tiny encoder, saving every 3 steps and evaluating every 7, in one process
with one thread. Half of the kills wait for a save to begin and hit within it or shortly after, one in six comes at any
time from the start of the process, the others at any time in training. After each kill all checkpoints must load, and
no more than the steps since the last save may be lost. At the end the parameters of `best` and `last`, the evaluations
and all losses must be the unbroken run's, bit for bit; else the exit status is 1.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np

from benchmarks.inputs import ROOT
from paddle_ranker import runtime
from paddle_ranker.errors import CheckpointError, RankerError
from paddle_ranker.model.model_folder import RANKER, load_model
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.training.learning_curve import METRICS_FILE, MetricsLine, read_metrics
from tests.started import held_training

SAVE_STEP, EVAL_STEP, BATCH_SIZE, EPOCHS = 3, 7, 8, 3
OF_THE_CLOCK = {"time", "seconds", "steps_per_second"}  # numbers in metrics.jsonl that differ from run to run
SAVE_SECONDS = 0.04  # about what a save takes, pointers and dropping included
COMMANDS = {"pairwise": ("ernie_matching.train_pairwise", "train_file", "sort/train_pairwise.csv"),
            "cross_encoder": ("cross_encoder.train_ce", "train_set", "literature_search_rank/train.csv")}  # fmt: skip


@dataclass(frozen=True)
class KillResumeOptions(Options):
    """Options of `python -m tests.robustness.kill_resume`."""

    kills: int = option(20, help="kills", minimum=0)
    seed: int = option(1, help="seed of the moments", minimum=0)
    ranker: str = option("pairwise", help="whose training command", choices=tuple(COMMANDS))
    steps: int = option(0, help="steps of the training, about; 0: 12 a kill", minimum=0)
    work_dir: Optional[str] = option(None, help="where to work (default: the system's folder for temporary files)")


@dataclass(frozen=True)
class Run:
    """One start of the training command: how it ended, and when its first step was done."""

    status: Optional[int]  # None: killed
    step: int  # the last whose line it printed; 0: none
    seconds: float
    seconds_before_training: float


def run(options: KillResumeOptions) -> int:
    """Print a line a kill and the verdict; return 1 where anything differs."""
    with tempfile.TemporaryDirectory(dir=options.work_dir) as folder:
        problems = kill_and_resume(options, Path(folder))
    for problem in problems:
        print(f"DIFFERS: {problem}")
    if not problems:
        print(f"{options.kills} kills, {options.kills} clean resumes: parameters, losses and evaluations are those of "
              "the unbroken run, bit for bit")  # fmt: skip
    return 1 if problems else 0


def kill_and_resume(options: KillResumeOptions, folder: Path) -> list[str]:
    """Do it in `folder`, printing a line a kill; return what is wrong, nothing where all is well."""
    runtime.prepare()
    module, given = COMMANDS[options.ranker][0], prepare(options, folder)
    whole, broken = folder / "unbroken", folder / "broken"
    unbroken = start(module, given, whole)
    if unbroken.status:
        raise RankerError(f"the unbroken run ended with status {unbroken.status}: {_last_line(whole)}")
    total = unbroken.step
    print(f"unbroken: {total} steps in {unbroken.seconds:.1f} s, {unbroken.seconds_before_training:.1f} s of them "
          "before the first", flush=True)  # fmt: skip
    draw = random.Random(options.seed)
    problems: list[str] = []
    pointers: set[str] = set()
    state_step = 0
    for number in range(1, options.kills + 1):
        kills_left = options.kills - number + 1
        share = (total - state_step) / (kills_left + 1)  # steps that this attempt may make on average
        # Whatever the clock does, enough steps are left for the kills to come.
        latest = state_step + max(1, min(int(2 * share), total - state_step - kills_left))
        moment = Moment.drawn(draw, unbroken, total, share, latest)
        attempt = start(module, [*given, "--resume"], broken, moment)
        if attempt.status is not None:
            return [*problems, f"kill {number} came too late: the training ended with status {attempt.status} "
                               f"({_last_line(broken)})"]  # fmt: skip
        found = check_checkpoints(broken, pointers)
        now = _state_step(broken)
        if now < max(state_step, (attempt.step - 1) // SAVE_STEP * SAVE_STEP):
            found.append(f"goes on from step {now}: steps are lost")
        state_step = now
        problems += [f"kill {number}: {problem}" for problem in found]
        loaded = ", ".join(sorted(f"{name} -> {os.readlink(broken / name)}" for name in pointers)) or "no checkpoint"
        print(f"kill {number:2} after {attempt.seconds:4.1f} s, step {attempt.step:3}: "
              f"{'; '.join(found) or f'{loaded}; goes on from step {now}'}", flush=True)  # fmt: skip
    end = start(module, [*given, "--resume"], broken)
    if end.status:
        return [*problems, f"the last resume ended with status {end.status}: {_last_line(broken)}"]
    return problems + differences(whole, broken)


def prepare(options: KillResumeOptions, folder: Path) -> list[str]:
    """Make data and an encoder in `folder`; return the training command's options without `--save_dir`."""
    from demo_world.files import write_demo
    from paddle_ranker.commands.starter import StarterOptions, make_starter

    _, training_option, training_file = COMMANDS[options.ranker]
    examples = max(100, (options.steps or 12 * (options.kills + 1)) * BATCH_SIZE // EPOCHS)
    write_demo(folder / "data", 7, examples, 20)
    rows = (folder / "data" / training_file).read_text(encoding="utf-8").splitlines(keepends=True)
    train = folder / "train.csv"
    train.write_text("".join(rows[: examples + 1]), encoding="utf-8")
    small: dict[str, Any] = {"vocab_size": 1000, "hidden_size": 32, "num_attention_heads": 2}
    encoder = make_starter(StarterOptions(corpus=str(train), output_dir=str(folder / "encoder"), **small))
    values = {
        training_option: train,
        "test_file": folder / "data" / "sort" / "dev_pairwise.csv",
        "model_name_or_path": encoder,
        "max_seq_length": 48,
        "batch_size": BATCH_SIZE,
        "epochs": EPOCHS,
        "learning_rate": 1e-3,
        "warmup_proportion": 0.1,
        "save_step": SAVE_STEP,
        "eval_step": EVAL_STEP,
        "logging_steps": 1,
        "keep": 2,
        "cpu_threads": 1,
        "device": "cpu",
    }
    return [part for name, value in values.items() for part in (f"--{name}", str(value))]


@dataclass(frozen=True)
class Moment:
    """When to kill: so many seconds after the process's start, or its first step, or its n-th write into the folder.

    `latest` is the step after which it is time in any case.
    """

    after: str  # start | first step | write
    writes: int
    seconds: float
    latest: int

    @classmethod
    def drawn(cls, draw: random.Random, unbroken: Run, total: int, share: float, latest: int) -> Moment:
        """Draw a moment that on average leaves the process `share` of `total` steps."""
        seconds_a_step = (unbroken.seconds - unbroken.seconds_before_training) / total
        after = draw.choice(["start", "first step", "first step", "write", "write", "write"])
        seconds = {
            "start": draw.uniform(0, 1.1 * unbroken.seconds_before_training),
            "first step": draw.uniform(0, 2 * share * seconds_a_step),
            "write": draw.uniform(0, 1.5 * SAVE_SECONDS),
        }[after]
        folders = 2 * share / SAVE_STEP  # a save writes two, a checkpoint and its state
        return cls(after, draw.randint(1, max(1, round(2 * folders))), seconds, latest)


def start(module: str, options: Sequence[str], save_dir: Path, moment: Optional[Moment] = None) -> Run:
    """Run the training command to its end, or kill it at `moment`; its output goes to `<save_dir>.txt`."""
    output = _output(save_dir)
    # After its latest step it waits, however late the kill comes on a busy machine.
    command = [*held_training(module, moment.latest if moment else 0, save_dir / "never"), *options]
    began, first_step, due = time.monotonic(), 0.0, None
    writes: set[str] = set()
    with output.open("wb") as stream:
        process = subprocess.Popen([*command, "--save_dir", str(save_dir)], cwd=save_dir.parent, stdout=stream,
                                   stderr=subprocess.STDOUT, env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
        try:
            while process.poll() is None:
                step, now = _last_step(output), time.monotonic()
                first_step = first_step or (now - began if step else 0.0)
                if moment and due is None:
                    writes |= _being_written(save_dir, process.pid) if step else set()
                    reached = {"start": True, "first step": step > 0, "write": len(writes) >= moment.writes}
                    due = now + moment.seconds if reached[moment.after] else None
                if moment and ((due is not None and now >= due) or step >= moment.latest):
                    process.send_signal(signal.SIGKILL)
                    break
                time.sleep(0.0005)
        finally:
            process.kill()
            process.wait()
    status = None if process.returncode == -signal.SIGKILL else process.returncode
    return Run(status, _last_step(output), time.monotonic() - began, first_step)


POINTERS = ("best", "last")


def check_checkpoints(save_dir: Path, pointers: set[str]) -> list[str]:
    """Load every checkpoint; return what is wrong. Adds the pointers that are there to `pointers`: they must stay."""

    problems = [f"{name} is gone" for name in sorted(pointers) if not (save_dir / name).is_symlink()]
    pointers |= {name for name in POINTERS if (save_dir / name).is_symlink()}
    for path in [*sorted(save_dir.glob("model_*")), *(save_dir / name for name in sorted(pointers))]:
        try:
            load_model(path, RANKER)
        except CheckpointError as error:
            problems.append(f"{path.name} does not load ({error})")
    return problems


def differences(expected: Path, actual: Path) -> list[str]:
    """Return in what two finished runs' folders differ: checkpoints, parameters, metrics of every step."""
    names = [sorted(p.name for p in folder.iterdir() if p.name.startswith(("model_", "state_", "best", "last")))
             for folder in (expected, actual)]  # fmt: skip
    found = [] if names[0] == names[1] else [f"the folder holds {', '.join(names[1])} instead of {', '.join(names[0])}"]
    for pointer in POINTERS:
        found += _checkpoint_differences(expected / pointer, actual / pointer)
    records = [list(map(_lasting, read_metrics(folder / METRICS_FILE))) for folder in (expected, actual)]
    if [one["step"] for one in records[0]] != [one["step"] for one in records[1]]:
        found.append(f"{METRICS_FILE} has lines of other steps")
    found += [f"{METRICS_FILE}: {a} instead of {b}" for b, a in zip(*records) if a != b]
    return found


def _checkpoint_differences(expected: Path, actual: Path) -> list[str]:
    from paddle_ranker.model.parameters import PARAMETERS_FILE, load_arrays

    name, found = actual.name, []
    if not actual.is_dir():
        return [f"{name} is not there"]
    if expected.resolve().name != actual.resolve().name:
        return [f"{name} is {actual.resolve().name} instead of {expected.resolve().name}"]
    ours, theirs = load_arrays(actual / PARAMETERS_FILE), load_arrays(expected / PARAMETERS_FILE)
    for parameter in {**ours, **theirs}:
        if parameter not in ours or parameter not in theirs:
            found.append(f"{name}: {parameter} is in one of them")
        elif ours[parameter].tobytes() != theirs[parameter].tobytes():
            found.append(f"{name}: {parameter} is off by {np.abs(ours[parameter] - theirs[parameter]).max():.3g}")
    for file in sorted(path.name for path in expected.iterdir() if path.name != PARAMETERS_FILE):
        if not (actual / file).is_file() or (actual / file).read_bytes() != (expected / file).read_bytes():
            found.append(f"{name}: {file} differs")
    return found


def _lasting(record: MetricsLine) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in OF_THE_CLOCK}


def _being_written(save_dir: Path, process: int) -> set[str]:
    try:
        return {name for name in os.listdir(save_dir) if name.startswith(f".unfinished-{process}-")}
    except FileNotFoundError:
        return set()


def _output(save_dir: Path) -> Path:
    return save_dir.with_name(f"{save_dir.name}.txt")


def _last_step(output: Path) -> int:
    with output.open("rb") as stream:
        stream.seek(max(0, output.stat().st_size - 4096))
        steps = re.findall(rb"global step (\d+), [^\n]*\n", stream.read())
    return int(steps[-1]) if steps else 0


def _last_line(save_dir: Path) -> str:
    lines = _output(save_dir).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _state_step(save_dir: Path) -> int:
    from paddle_ranker.training.state import find_state

    state = find_state(save_dir) if save_dir.is_dir() else None
    return state.progress.step if state else 0


main = main_of(run, KillResumeOptions, (__doc__ or "").split("\n")[0])


if __name__ == "__main__":
    sys.exit(main())
