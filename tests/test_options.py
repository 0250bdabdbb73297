"""Parsers made from dataclasses: types, bounds, errors in one line, exit statuses."""

from __future__ import annotations

import ast
import copy
import dataclasses
import errno
import io
import json
import os
import pickle
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, TextIO

import numpy as np
import pytest

from paddle_ranker.__main__ import main
from paddle_ranker.commands.index import AddOptions
from paddle_ranker.errors import RankerError, UsageError
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.options import Options, json_text, option, options_from, parse_options, run_command
from paddle_ranker.options.input_files import SeveralFiles, paths_of
from paddle_ranker.scoring.scoring_options import PredictOptions
from paddle_ranker.serving.core.server_config import ServeConfig
from recall.export_model import ExportTowerOptions
from recall.inference import EncodeOptions
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.unit


@dataclass(frozen=True)
class Sample(Options):
    train_file: str = option(help="what to train on")
    steps: int = option(10, help="100% of the steps", minimum=1, maximum=100, aliases=("--max_steps",))
    rate: float = option(0.5, help="a rate", above=0, below=1)
    name: Optional[str] = option(None, help="a name")
    only: str = option("", help="a part (default: all)")
    kind: str = option("a", help="a kind", choices=("alpha", "a"))
    amp: bool = option(False, help="mixed precision")
    cut: int = option(0, help="a length (default: none is cut)")


def parse(*arguments: str) -> Sample:
    return parse_options(Sample, ["--train_file", "f", *arguments], "sample", "A sample.")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", {}),
        ("--steps 3 --rate=0.25 --name x", {"steps": 3, "rate": 0.25, "name": "x"}),
        ("--steps 3 --steps 4", {"steps": 4}),  # scripts put their defaults first
        ("--max_steps 7", {"steps": 7}),
        ("--amp", {"amp": True}),
        ("--amp true", {"amp": True}),
        ("--amp False", {"amp": False}),
    ],
)
def test_values_and_defaults(arguments: str, expected: dict[str, Any]) -> None:
    assert parse(*arguments.split()) == Sample(train_file="f", **expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "--steps 0: must be at least 1"),
        (["--rate", "0"], "--rate 0.0: must be above 0"),
        (["--rate", "1"], "--rate 1.0: must be below 1"),
        (["--rate", "nan"], "--rate nan: must be above 0"),
        (["--kind", "alhpa"], "--kind alhpa: choose from alpha, a (did you mean alpha?)"),
        (["--stpes", "3"], "unknown option --stpes (did you mean --steps?); see sample --help"),
        (["--step", "3"], "unknown option --step (did you mean --steps?)"),  # no abbreviations
        (["stray"], "'stray': more values than are expected"),
        (["--amp", "perhaps"], "'perhaps' is neither true nor false"),
        (["--steps", "3", "--max_steps", "4"], "--steps 3 and --max_steps 4 are one option"),
    ],
)
def test_what_is_wrong_is_named(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(*arguments)
    assert message in str(caught.value)


@dataclass(frozen=True)
class Many(Options):
    systems: tuple[str, ...] = option(help="what to compare", positional=True, several=True)
    seed: int = option(1, help="a seed")


def test_several_values_side_by_side() -> None:
    assert parse_options(Many, ["a", "b", "--seed", "2"], "many", "") == Many(systems=("a", "b"), seed=2)
    assert parse_options(Many, ["--seed", "2", "a"], "many", "") == Many(systems=("a",), seed=2)
    behind = parse_options(Many, ["a", "--seed", "2", "--", "-b", "c"], "many", "")
    assert behind == Many(systems=("a", "-b", "c"), seed=2)
    with pytest.raises(UsageError, match="SYSTEMS"):
        parse_options(Many, [], "many", "")
    with pytest.raises(UsageError, match="unknown option -b; a value that begins with a minus sign stands at the end"):
        parse_options(Many, ["a", "-b"], "many", "")


@dataclass(frozen=True)
class OfFiles(Options):
    train_file: str = option(help="what to train on", name="train", aliases=("--train_set",), files=True)
    eval_files: tuple[str, ...] = option((), help="what to measure on", name="test", files=True)
    save_dir: str = option("./checkpoint", help="where it goes", name="output")


def parse_files(*arguments: str) -> OfFiles:
    return parse_options(OfFiles, arguments, "sample", "")


def test_one_idea_has_one_name_and_the_others_stay() -> None:
    for name in ("--train", "--train_file", "--train_set"):
        assert parse_files(name, "a", "--output", "x") == OfFiles(train_file="a", save_dir="x")
    assert parse_files("--train", "a", "--train_file", "a", "--save_dir", "x").save_dir == "x"
    with pytest.raises(UsageError, match="--save_dir x and --output y are one option: give one value"):
        parse_files("--train", "a", "--save_dir", "x", "--output", "y")
    with pytest.raises(UsageError, match="--train/--train_file/--train_set"):
        parse_files()


@dataclass(frozen=True)
class Given(OfFiles):
    where: Optional[str] = option(None, help="what holds", aliases=("--if",), joins=" and ")
    sizes: tuple[str, ...] = option((), help="how large", several=True)


def test_an_option_that_is_given_twice_loses_no_value_of_several() -> None:
    def parsed(*arguments: str) -> Given:
        return parse_options(Given, ["--train", "a", *arguments], "sample", "")

    assert parsed("--where", "a=1", "--if", "b=2", "--where=c=3").where == "a=1 and b=2 and c=3"
    assert parsed("--where", "a=1").where == "a=1" and parsed().where is None
    assert parsed("--output", "x", "--output", "y").save_dir == "y"  # a script's value, and the user's
    # The same values twice are no error.
    assert parsed("--train", "a", "--sizes", "1", "2", "--sizes", "1", "2").sizes == ("1", "2")
    for twice in (["--train", "b"], ["--test", "a", "b", "--test=c"], ["--sizes", "1", "2", "--sizes", "3"]):
        with pytest.raises(UsageError, match=f"{twice[0]} .*: give the option once, with all its values"):
            parsed(*twice)


def test_a_misspelled_option_is_named_before_what_it_left_missing() -> None:
    with pytest.raises(UsageError, match=r"^unknown option --tain \(did you mean --train\?\); see sample --help$"):
        parse_files("--tain", "a")
    with pytest.raises(UsageError, match=r"^unknown option --tain=a \(did you mean --train\?\)"):
        parse_files("--tain=a", "--output", "x")
    with pytest.raises(SystemExit):  # --help works despite the error
        parse_files("--tain", "--help")


def test_files_side_by_side_and_by_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b.tsv", "a.tsv", "c.txt", "[1].tsv"):
        (tmp_path / name).touch()
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "d.tsv").touch()
    assert paths_of(parse_files("--train", "b.tsv", "a.tsv").train_file) == ("b.tsv", "a.tsv")
    assert paths_of(parse_files("--train", "[ab].tsv", "c.*").train_file) == ("a.tsv", "b.tsv", "c.txt")  # sorted
    assert paths_of(parse_files("--train", "b.tsv:c.txt").train_file) == ("b.tsv", "c.txt")
    assert parse_files("--train", "[1].tsv").train_file == "[1].tsv"  # a file of that name
    assert parse_files("--train", "x", "--test", "**/*.tsv").eval_files[-1] == "deep/er/d.tsv"
    assert parse_files("--train", "c*").train_file == "c.txt" and type(parse_files("--train", "c*").train_file) is str
    assert parse_files("--train", "no/such:file").train_file == "no/such:file"  # its reader will name it
    with pytest.raises(UsageError, match=r"--train d\*: no file matches; check the path"):
        parse_files("--train", "d*")  # folders are not files
    with pytest.raises(UsageError, match=r"--test \*.jsonl: no file matches"):
        OfFiles(train_file="a", eval_files=("a.tsv", "*.jsonl"))


def test_many_files_are_one_name_that_is_short_where_it_is_shown() -> None:
    several = SeveralFiles(["a", "b", "c", "d"])
    assert f"{several}" == "a and 3 more" and json.dumps(several) == '"a:b:c:d"' and several == "a:b:c:d"
    assert f"{SeveralFiles(['a', 'b'])}" == "a:b"
    assert paths_of(pickle.loads(pickle.dumps(several))) == paths_of(copy.deepcopy(several)) == ("a", "b", "c", "d")  # noqa: S301


@dataclass(frozen=True)
class Placed(Options):
    ranker: str = option(help="a ranker", positional=True)
    dev_file: str = option(help="labelled pairs", positional=True, files=True)
    target: str = option(help="a folder", positional=True)
    train_file: Optional[str] = option(None, help="what to learn from", files=True)


@pytest.mark.parametrize(
    ("arguments", "dev_files", "train_files"),
    [
        ("r d t --train_file a b", ("d",), ("a", "b")),
        ("r d e t", ("d", "e"), ("",)),
        ("--train_file a r d t", ("d",), ("a",)),  # unchanged behaviour
        ("r --train_file a d t", ("d",), ("a",)),
    ],
)
def test_files_where_arguments_have_no_name(
    arguments: str, dev_files: tuple[str, ...], train_files: tuple[str, ...]
) -> None:
    placed = parse_options(Placed, arguments.split(), "placed", "")
    assert (placed.ranker, placed.target) == ("r", "t")
    assert (paths_of(placed.dev_file), paths_of(placed.train_file or "")) == (dev_files, train_files)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": "3"}, "--steps '3': expected a whole number"),
        ({"steps": True}, "--steps True: expected a whole number"),
        ({"steps": None}, "--steps None: expected a whole number"),
        ({"steps": 0}, "at least 1"),
        ({"rate": "0.5"}, "--rate '0.5': expected a number"),
        ({"amp": 1}, "--amp 1: expected true or false"),
        ({"name": 7}, "--name 7: expected text"),
        ({"stepz": 3}, "unknown option stepz (did you mean steps?)"),
        ({"steps": 3, "max_steps": 4}, "steps 3 and max_steps 4 are one option"),
    ],
)
def test_a_caller_from_python_meets_the_same_checks(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        options_from(Sample, train_file="f", **values)
    assert message in str(caught.value)


def test_values_from_python_are_those_of_the_command_line() -> None:
    made = options_from(Sample, train_file=Path("f"), max_steps=np.int64(3), rate=np.float32(0.25), name=Path("x"))
    assert made == parse("--steps", "3", "--rate", "0.25", "--name", "x")
    assert type(made.steps) is int and type(made.rate) is float and type(made.train_file) is str
    assert options_from(OfFiles, train_file="f", eval_files=[]).eval_files == ()  # the default is accepted as well
    with pytest.raises(UsageError, match="--train_file is required"):
        Sample()
    with pytest.raises(UsageError, match="--train_file"):
        parse_options(Sample, [], "sample", "")


def test_the_help_begins_with_what_is_required_shows_defaults_and_ends_with_examples(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="0"):
        parse_options(Sample, ["--help"], "sample", "Train.\n\n    paddle-ranker sample --train_file mine.tsv\n")
    text = capsys.readouterr().out
    assert text.startswith("usage: sample --train_file TRAIN_FILE [options]\n")
    assert text.index("required:") < text.index("  --train_file") < text.index("options:") < text.index("--debug")
    assert text.endswith("examples:\n  paddle-ranker sample --train_file mine.tsv\n")
    for shown in ("--kind {alpha,a}", "100% of the steps", "(default: 10)", "--max_steps"):
        assert shown in text
    assert "(default: )" not in text and "(default: none is cut)\n" in text and "(default: 0)" not in text


OF_PADDLE = (
    "\n\n----\nC++ Traceback (most recent call last):\n0   paddle::memory::Alloc\n----\nError Message Summary:\n----\n"
    "ResourceExhaustedError: \n\nOut of memory error on GPU 0. Cannot allocate 3.1GB memory on GPU 0, 7.2GB memory has "
    "been allocated and available memory is only 0.8GB.\n"
)


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (RankerError("no room\nhere"), 1, "sample: error: no room here"),
        (UsageError("wrong"), 2, "sample: error: wrong"),
        (KeyboardInterrupt(), 130, "sample: interrupted"),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), 1, "no space left on the disk of /x"),
        (OSError(errno.EACCES, "Permission denied", "/x"), 1, "sample: error: Permission denied: /x"),
        (MemoryError(), 1, "sample: error: the memory does not suffice: give a lower --batch_size"),
        (MemoryError(OF_PADDLE), 1, "suffice (Cannot allocate 3.1GB memory on GPU 0): give a lower --batch_size"),
        (ZeroDivisionError("oops"), 1, "unexpected ZeroDivisionError: oops; run again with --debug"),
    ],
)
def test_every_error_is_one_line_and_a_status(
    error: BaseException, status: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(options: Sample) -> None:
        raise error

    for more, lines in ([], 1), (["--debug=false"], 1), (["--debug"], 5):
        assert run_command(fail, Sample, ["--train_file", "f", *more], "", prog="sample") == status
        errors = capsys.readouterr().err
        assert line in errors and (errors.count("\n") == 1 if lines == 1 else "Traceback" in errors)
    for work, status in ((lambda options: None, 0), (lambda options: 3, 3)):
        assert run_command(work, Sample, ["--train_file", "f"], "", prog="sample") == status


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


@pytest.mark.parametrize(("ends", "done"), [(False, ["one", "two"]), (True, [])])
def test_work_goes_on_when_its_reader_leaves(
    ends: bool, done: list[str], unread: TextIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    worked: list[str] = []

    def work(options: Sample) -> None:
        for word in ("one", "two"):
            print(word, file=sys.stderr, flush=True)
            print(word, flush=True)
            worked.append(word)

    with open(os.dup(unread.fileno()), "w", encoding="utf-8") as errors:
        monkeypatch.setattr(sys, "stdout", unread)
        monkeypatch.setattr(sys, "stderr", errors)
        assert run_command(work, Sample, ["--train_file", "f"], "", prog="sample", ends_with_reader=ends) == 0
    assert worked == done


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_note_that_cannot_be_written_is_lost_and_nothing_else() -> None:
    code = "from paddle_ranker.options import note\nnote('one')\nnote('two')\nprint('done')"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=full, text=True, timeout=60
        )
    assert (done.returncode, done.stdout) == (0, "done\n")


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
    # A launcher ends the other processes with three SIGTERM in a row when one has failed.
    def call(*more: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-c", SIGNALLED, *more]
        return subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True)

    done = call()
    assert (done.returncode, done.stdout, done.stderr) == (130, "cleaned up\n", "sample: interrupted (SIGTERM)\n")
    done = call("--debug")
    assert (done.returncode, done.stdout) == (1, "") and done.stderr.endswith("\nsample: error: the cause\n")


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        (["--train", "here.tsv"], None),
        (["--train", "-"], None),  # standard input
        (["--train", "nowhere.tsv"], "nowhere.tsv"),
        (["--train", "here.tsv", "--test", "here.tsv", "there.tsv"], "there.tsv"),
    ],
)
def test_every_file_is_looked_for_before_the_command_works(
    arguments: list[str],
    missing: Optional[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.tsv").touch()
    worked: list[object] = []
    status = run_command(worked.append, OfFiles, arguments, "", prog="sample")
    assert (status, len(worked)) == ((1, 0) if missing else (0, 1))
    assert (f"{missing}: no such file" in capsys.readouterr().err) is bool(missing)


@pytest.mark.parametrize(
    ("line", "option", "of"),
    [
        ("search --index none --input a.tsv --output link.tsv", "--output", "--input"),
        ("index build --corpus a.tsv b.tsv --output new --report a.tsv", "--report", "--corpus"),
        ("index add --index none --corpus a.tsv --report ./a.tsv", "--report", "--corpus"),
        ("encode --model none --input a.tsv --output a.tsv", "--output", "--input"),
    ],
)
def test_no_output_takes_the_place_of_an_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str, option: str, of: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.tsv", "b.tsv"):
        Path(name).write_text("query\ttitle\nlamp\tA lamp\n")
    os.link("a.tsv", "link.tsv")
    assert main(line.split()) == 2
    printed = capsys.readouterr().err
    assert f"error: {option} " in printed and f"is the file of {of}" in printed and "overwritten" in printed
    assert {path.read_text() for path in tmp_path.iterdir()} == {"query\ttitle\nlamp\tA lamp\n"}


def test_an_output_that_knows_ascii_alone_gets_escapes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert json_text({"查询": 1}) == '{"查询": 1}'
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))  # as PYTHONIOENCODING=ascii does
    shown = {"query": "查询 é 🙂"}

    def show(options: Sample) -> None:
        print(shown)
        print(json_text(shown))

    assert run_command(show, Sample, ["--train_file", "f"], "", prog="sample") == 0
    printed, as_json = written.getvalue().decode("ascii").splitlines()
    assert ast.literal_eval(printed) == json.loads(as_json) == shown


def test_what_a_command_says_of_opening_a_model_reaches_it() -> None:
    """Each field of `LoadOptions` comes from the option of that name, wherever a command has it."""
    said: dict[str, Any] = {
        "engine": "onnx",
        "precision": "int8",
        "max_seq_length": 9,
        "positive_label": "good",
        "tensorrt": True,
    }
    said = {**said, "pooling": "mean", "normalize": False, "device": "cpu"}
    renamed: dict[str, tuple[str, Any]] = {"cpu_threads": ("threads", 3), "model_name_or_path": ("model_name", "bert")}
    required: dict[str, Any] = {
        "params_path": "m",
        "input_file": "-",
        "output_file": "v.npy",
        "index": "i",
        "corpus": "-",
    }
    wanted = {field.name for field in dataclasses.fields(LoadOptions)}
    reached = set[str]()
    kinds: tuple[Any, ...] = (PredictOptions, EncodeOptions, ServeConfig, ExportTowerOptions, AddOptions)
    for kind in kinds:
        names = {field.name for field in dataclasses.fields(kind)}
        given: dict[str, Any] = {name: value for name, value in said.items() if name in names}
        more: dict[str, Any] = {name: value for name, (_, value) in renamed.items() if name in names}
        rest = {name: value for name, value in required.items() if name in names}
        load = LoadOptions.of(kind(**rest, **given, **more))
        assert load == LoadOptions(**given, **{renamed[name][0]: value for name, value in more.items()})
        reached |= {*given, *(renamed[name][0] for name in more)}
    assert reached == wanted
