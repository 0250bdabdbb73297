"""Pipes as inputs of every command: what a file gives, a pipe gives, however often the command opens it."""

from __future__ import annotations

import dataclasses
import importlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from paddle_ranker.commands.command_registry import COMMANDS, OF_KIND
from paddle_ranker.notebook import Index
from paddle_ranker.options import Options, command_run, main_of
from paddle_ranker.options.declare import annotations_of, fields_of
from paddle_ranker.options.input_files import folder_of, paths_of

pytestmark = pytest.mark.unit
# More than a pipe holds, and more than a buffered reader looks ahead
CONTENT = "".join(f"query {number}\tthe title of row {number}\n" for number in range(20_000)).encode()


def options_classes() -> dict[str, set[Any]]:
    """Return the options classes of each command of the registries, by the command's name."""
    found = dict[str, set[Any]]()
    COMMANDS.load_plugins()
    modules = {**{name: command.module for name, command in COMMANDS.items()}, **dict(OF_KIND.items())}
    for name, module in modules.items():

        def keep(options_class: type[Options], *_: object, name: str = name) -> None:
            found.setdefault(name, set()).add(options_class)
            raise SystemExit(0)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(command_run, "parse_options", keep)
            loaded = importlib.import_module(module)
            for action in getattr(loaded, "ACTIONS", [None]):
                with pytest.raises(SystemExit):
                    loaded.main(["--help"] if action is None else [action, "--help"])
    return found


def file_options() -> Iterator[Any]:
    for name, classes in options_classes().items():
        for options_class in sorted(classes, key=lambda one: one.__qualname__):
            for field in fields_of(options_class):
                if field.metadata["files"]:
                    yield pytest.param(field, annotations_of(options_class)[field.name], id=f"{name} {field.name}")


@contextmanager
def writing(end: Callable[[], int]) -> Iterator[None]:
    """Write `CONTENT` in a thread, in pieces, as a program that prints its output does."""

    def write() -> None:
        with os.fdopen(end(), "wb") as stream:
            for start in range(0, len(CONTENT), 10_007):
                stream.write(CONTENT[start : start + 10_007])

    writer = threading.Thread(target=write)
    writer.start()
    yield
    writer.join()


def read_twice(field: dataclasses.Field[Any], annotation: Any, argument: str) -> list[bytes]:
    """Run a command that has this option alone, and opens each file twice, first for its beginning."""
    contents = list[bytes]()

    def run(options: Any) -> None:
        value = getattr(options, field.name)
        for name in value if isinstance(value, tuple) else paths_of(value):
            with open(name, "rb") as beginning, open(name, "rb") as whole:
                beginning.read(10)
                contents.append(whole.read())

    declared = dataclasses.field(default=None, metadata={**field.metadata, "positional": False, "leads": False})
    one = dataclasses.make_dataclass("One", [(field.name, annotation, declared)], bases=(Options,), frozen=True)
    assert main_of(run, one, "Read.")([argument.format(f"--{field.name}")]) == 0
    return contents


def test_every_command_takes_its_options_from_the_declaration() -> None:
    assert {*COMMANDS} == {*options_classes()} & {*COMMANDS}


@pytest.mark.parametrize(("field", "annotation"), file_options())
def test_a_pipe_is_read_as_often_as_a_file(field: dataclasses.Field[Any], annotation: Any, tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    with writing(lambda: write_end):
        assert read_twice(field, annotation, f"{{}}=/dev/fd/{read_end}") == [CONTENT]
    assert read_twice(field, annotation, f"{{}}=/proc/self/fd/{read_end}") == [CONTENT]
    os.close(read_end)
    fifo = tmp_path / "rows.jsonl"
    os.mkfifo(fifo)
    with writing(lambda: os.open(fifo, os.O_WRONLY)):
        assert read_twice(field, annotation, f"{{}}={fifo}") == [CONTENT]


def test_commands_read_pipes_as_they_read_files(tmp_path: Path) -> None:
    rows = (f"a question on subject{n % 900}\tan answer on subject{n % 900}, number{n}\n" for n in range(9000))
    (tmp_path / "rows.tsv").write_text("".join(rows))
    outputs = {}
    for name, queries, corpus in (
        ("files", "rows.tsv", "titles.txt"),
        ("pipes", "<(cat rows.tsv)", "<(cut -f2 rows.tsv)"),
        ("standard input", "/dev/stdin", "<(cut -f2 rows.tsv)"),
    ):
        script = (
            f"cut -f2 rows.tsv > titles.txt; cat rows.tsv | {sys.executable} -m paddle_ranker mine --queries {queries} "
            f"--corpus {corpus} --output '{name}.tsv' --header false"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)}
        subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, check=True)
        outputs[name] = (tmp_path / f"{name}.tsv").read_bytes()
    assert len({*outputs.values()}) == 1
    assert outputs["files"].count(b"\n") > 9000
    assert not [*tmp_path.glob("paddle_ranker_*")]  # the copies are deleted


def test_processes_of_one_training_refuse_to_share_a_pipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    read_end, write_end = os.pipe()
    os.close(write_end)
    assert main_of(lambda options: None, Options, "Read.")([f"/dev/fd/{read_end}"]) == 1
    os.close(read_end)
    assert "a pipe, which 2 processes cannot all read; write it to a file" in capsys.readouterr().err


def test_a_notebook_reads_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with writing(lambda: os.open(tmp_path / "fifo", os.O_WRONLY)):
        index = Index.build(tmp_path / "fifo", tmp_path / "index", header=False)
    assert len(index) == 20_000


def test_paths_in_the_rows_of_a_pipe_begin_at_the_working_folder() -> None:
    assert folder_of("/dev/fd/63") == folder_of("/dev/stdin") == Path()
