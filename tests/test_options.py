"""Parsers made from dataclasses: types, bounds, errors in one line, exit statuses."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any, Optional

import pytest

from paddle_ranker.errors import CheckpointError, RankerError, UsageError
from paddle_ranker.options import Options, option, parse_options, run_command
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.unit


@dataclass(frozen=True)
class Sample(Options):
    train_file: str = option(help="what to train on")
    steps: int = option(10, help="100% of the steps", minimum=1, maximum=100, aliases=("--max_steps",))
    rate: float = option(0.5, help="a rate", above=0, below=1)
    name: Optional[str] = option(None, help="a name")
    kind: str = option("a", help="a kind", choices=("alpha", "a"))
    amp: bool = option(False, help="mixed precision")


def parse(*arguments: str) -> Sample:
    return parse_options(Sample, ["--train_file", "f", *arguments], "sample", "A sample.")


def test_values_and_defaults() -> None:
    assert parse() == Sample(train_file="f")
    assert parse("--steps", "3", "--rate=0.25", "--name", "x") == Sample(train_file="f", steps=3, rate=0.25, name="x")
    assert parse("--steps", "3", "--steps", "4").steps == 4  # scripts put their defaults first


@pytest.mark.parametrize(
    ("arguments", "value"),
    [(["--amp"], True), (["--amp", "true"], True), (["--amp", "False"], False), (["--amp=1"], True), ([], False)],
)
def test_a_flag_with_and_without_a_value(arguments: list[str], value: bool) -> None:
    assert parse(*arguments).amp is value


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "--steps 0: must be at least 1"),
        (["--steps", "101"], "--steps 101: must be at most 100"),
        (["--rate", "0"], "--rate 0.0: must be above 0"),
        (["--rate", "1"], "--rate 1.0: must be below 1"),
        (["--rate", "nan"], "--rate nan: must be above 0"),
        (["--kind", "alhpa"], "--kind alhpa: choose from alpha, a (did you mean alpha?)"),
        (["--stpes", "3"], "unknown option --stpes (did you mean --steps?); see sample --help"),
        (["--step", "3"], "unknown option --step (did you mean --steps?)"),  # no abbreviations
        (["stray"], "unknown option stray"),
        (["--amp", "perhaps"], "'perhaps' is neither true nor false"),
        (["--steps", "x"], "invalid int value: 'x'"),
        (["--steps", "3", "--max_steps", "4"], "--steps 3 and --max_steps 4 are one option"),
    ],
)
def test_what_is_wrong_is_named(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(*arguments)
    assert message in str(caught.value)


def test_two_names_of_one_option() -> None:
    assert parse("--max_steps", "7").steps == 7
    assert parse("--max_steps", "7", "--steps", "7").steps == 7


@dataclass(frozen=True)
class Many(Options):
    systems: tuple[str, ...] = option(help="what to compare", positional=True, several=True)
    seed: int = option(1, help="a seed")


def test_several_values_side_by_side() -> None:
    assert parse_options(Many, ["a", "b", "--seed", "2"], "many", "") == Many(systems=("a", "b"), seed=2)
    assert parse_options(Many, ["--seed", "2", "a"], "many", "") == Many(systems=("a",), seed=2)
    with pytest.raises(UsageError, match="SYSTEMS"):
        parse_options(Many, [], "many", "")


def test_a_required_option_is_asked_for() -> None:
    with pytest.raises(UsageError, match="--train_file"):
        parse_options(Sample, [], "sample", "")
    with pytest.raises(UsageError, match="--train_file is required"):
        Sample()
    with pytest.raises(UsageError, match="at least 1"):
        Sample(train_file="f", steps=0)  # Python callers meet the same bounds


def test_the_help_shows_every_option_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("--help")
    text = capsys.readouterr().out
    assert caught.value.code == 0
    for expected in ("--train_file", "100% of the steps", "(default: 10)", "--max_steps", "--debug"):
        assert expected in text


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (RankerError("no room\nhere"), 1, "sample: error: no room here"),
        (UsageError("wrong"), 2, "sample: error: wrong"),
        (CheckpointError("damaged"), 1, "sample: error: damaged"),
        (KeyboardInterrupt(), 130, "sample: interrupted"),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), 1, "no space left on the disk of /x"),
        (OSError(errno.EACCES, "Permission denied", "/x"), 1, "sample: error: Permission denied: /x"),
        (ZeroDivisionError("oops"), 1, "unexpected ZeroDivisionError: oops; run again with --debug"),
    ],
)
def test_every_error_is_one_line_and_a_status(
    error: BaseException, status: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(options: Sample) -> None:
        raise error

    def call(*more: str) -> Any:
        return run_command(fail, Sample, ["--train_file", "f", *more], "", prog="sample")

    assert call() == status
    errors = capsys.readouterr().err
    assert line in errors and errors.count("\n") == 1
    assert call("--debug") == status
    assert "Traceback" in capsys.readouterr().err


OUTPUT = """
import sys
from paddle_ranker.options import Options, run_command
sys.exit(run_command(lambda options: print("a line"), Options, sys.argv[1:], "", prog="sample"))
"""


@pytest.mark.parametrize(("where", "status", "errors"), [("/dev/full", 1, "no space left"), ("| true", 0, "")])
def test_output_that_cannot_be_written(where: str, status: int, errors: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    target = f"> {where}" if where.startswith("/") else f"{where}; exit ${{PIPESTATUS[0]}}"
    line = f'"{sys.executable}" -c "$PROGRAM" {target}'
    done = subprocess.run(
        ["bash", "-c", line], env={**environment, "PROGRAM": OUTPUT}, cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == status
    assert errors in done.stderr and done.stderr.count("\n") == (1 if errors else 0)


SIGNALLED = """
import os, signal, sys, time
from paddle_ranker.errors import RankerError
from paddle_ranker.options import Options, run_command

def run(options):
    try:
        if options.debug:
            raise RankerError("the cause")
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        print("cleaned up")

sys.exit(run_command(run, Options, sys.argv[1:], "", prog="sample"))
"""


def test_a_second_signal_and_one_after_an_error_hide_nothing() -> None:
    # A launcher ends the processes whose peer has failed with three SIGTERM in a row.
    def call(*more: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-c", SIGNALLED, *more]
        return subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True)

    done = call()
    assert (done.returncode, done.stdout, done.stderr) == (130, "cleaned up\n", "sample: interrupted (SIGTERM)\n")
    done = call("--debug")
    assert (done.returncode, done.stdout) == (1, "") and done.stderr.endswith("\nsample: error: the cause\n")


@pytest.mark.parametrize(("asked", "shown"), [("--debug=true", True), ("--debug=false", False)])
def test_debug_with_a_value(asked: str, shown: bool, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(options: Sample) -> None:
        raise RankerError("no")

    assert run_command(fail, Sample, ["--train_file", "f", asked], "", prog="sample") == 1
    assert ("Traceback" in capsys.readouterr().err) is shown


def test_success_is_zero_and_a_status_is_passed_on() -> None:
    assert run_command(lambda options: None, Sample, ["--train_file", "f"], "", prog="sample") == 0
    assert run_command(lambda options: 3, Sample, ["--train_file", "f"], "", prog="sample") == 3
