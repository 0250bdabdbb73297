"""Errors quote input by one door, so that no message holds more than some 200 characters of it."""

from __future__ import annotations

import ast
import builtins
import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from paddle_ranker import errors
from paddle_ranker.data.formats import read_lines
from paddle_ranker.data.records import LabeledPair, Pair, RecordFile, Triple, read_records
from paddle_ranker.data.trec import read_qrels, read_run, read_texts, write_run
from paddle_ranker.errors import DataError, RankerError, brief, in_checkout, listed, one_line, quoted, shortened
from paddle_ranker.evaluation.options import EvaluateOptions
from paddle_ranker.metrics.measures import MEASURES
from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.options import note, parse_options
from paddle_ranker.recipes import RECIPES
from paddle_ranker.scoring.texts import list_texts
from paddle_ranker.training.losses.expression import parse_loss
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.unit
LONG = "字" * 100_000
FOLDERS = ("paddle_ranker", *RECIPES)


def test_input_is_shown_up_to_a_length() -> None:
    assert (quoted("a\tb"), quoted(["a", 1]), quoted(None), brief("q1")) == (r"'a\tb'", "['a', 1]", "None", "q1")
    assert quoted("x" * 81) == f"'{'x' * 80}'… (81 characters)"
    assert quoted(b"x" * 81) == f"b'{'x' * 80}'… (81 bytes)"
    assert quoted(["x" * 1000]).endswith("x… (1,004 characters)")
    assert listed(["query", "title"]) == "query, title" and listed([]) == ""
    assert listed(f"column{number:03}" for number in range(1000)).endswith("column017 and 982 more")
    assert listed([LONG, "a"]) == f"{'字' * 80}… (100,000 characters), a"


def test_a_long_message_loses_its_middle() -> None:
    whole = "m" * 800
    assert shortened(whole) == whole
    cut = str(DataError(f"file.tsv: {LONG}; correct the row"))
    assert cut.startswith("file.tsv: 字") and cut.endswith("字; correct the row") and len(cut) <= 800
    assert "[…99,267 characters…]" in cut and shortened(cut) == cut
    assert len(one_line(FileNotFoundError(2, "No such file or directory", LONG))) <= 800
    assert len(one_line(ValueError(LONG))) <= 400


def _file(folder: Path, content: str) -> str:
    path = folder / "input"
    path.write_bytes(content.encode("utf-8"))
    return str(path)


DOORS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "a header": (f"query\ttitle\t{LONG}\n", lambda path: read_records(path, Triple)),
    "many columns": ("query\ttitle" + "\t字" * 9999 + "\n", lambda path: read_records(path, Triple)),
    "a label": (f"a\tb\t{LONG}\n", lambda path: read_records(path, LabeledPair)),
    "a key": (json.dumps({LONG: 1}, ensure_ascii=False) + "\n", lambda path: read_records(path, Pair)),
    "an id": (f"q\t{LONG}\tt\n" * 2 + f"q\t{LONG}\tu\n", lambda path: read_texts(path, [LONG])),
    "a run": (f"{LONG} Q0 {LONG} 1 2 t\n" * 2, read_run),
    "a score": (f"q Q0 d 1 {LONG} t\n", read_run),
    "qrels": (f"{LONG} 0 {LONG} 1\n{LONG} 0 {LONG} 2\n", read_qrels),
    "no id": (json.dumps({LONG: 1}, ensure_ascii=False) + "\n", lambda path: read_texts(path, [LONG])),
    "a missing id": ("a\tb\n", lambda path: read_texts(path, [LONG])),
    "an id to write": ("", lambda path: write_run(path, [(f"a {LONG}", LONG, 1.0)], "t")),
    "skipped": (f"a\tb\t{LONG}\n" * 9, lambda path: read_records(path, LabeledPair, skip_bad_rows=True)),
    "an option": ("", lambda path: parse_options(EvaluateOptions, ["--engine", LONG], "evaluate", "")),
    "an unknown option": ("", lambda path: parse_options(EvaluateOptions, [f"--{LONG}"], "evaluate", "")),
    "a loss": ("", lambda path: parse_loss(LONG)),
    "a name": ("", lambda path: MEASURES[LONG]),
    "texts": ("", lambda path: list_texts(LONG, "titles")),
    "no texts": ("", lambda path: list_texts(["a", [LONG]], "titles")),
    "a configuration": ("", lambda path: EncoderConfig(vocab_size=LONG)),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("door", DOORS)
def test_no_door_lets_more_of_the_input_through(door: str, tmp_path: Path) -> None:
    content, enter = DOORS[door]
    path = _file(tmp_path, content)
    with pytest.raises(RankerError) as caught:
        enter(path)
    words = str(caught.value)
    assert len(words) <= 800 and words.count("字") <= 250, words


def test_a_note_is_bounded_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = RecordFile(_file(tmp_path, f"a\tb\t1\n{LONG}\n{LONG}\t{LONG}\t{LONG}\n"), LabeledPair, skip_bad_rows=True)
    assert len(list(source)) == 1
    note(f"{source.report()} {LONG}")
    assert len(capsys.readouterr().err) <= 801


@pytest.mark.parametrize("read", [lambda path: read_records(path, LabeledPair), lambda path: list(read_lines(path))])
@pytest.mark.parametrize("end", ["", "\r"])
def test_carriage_returns_alone_end_no_lines(tmp_path: Path, read: Callable[[str], Any], end: str) -> None:
    # 1.35 MB of such a file were once one header, and all of it stood in the error.
    path = _file(tmp_path, "query\ttitle\tlabel\r" + "水果\t苹果\t1\r" * 30_000 + f"水果\t梨\t1{end}")
    with pytest.raises(DataError) as caught:
        read(path)
    expected = "its lines end in carriage returns alone, as on old Macs; turn them into line feeds with tr '\\r' '\\n'"
    assert str(caught.value) == f"{path}: {expected}"


# What a wheel lacks: a checkout's folders, and recipes' files under these paths.
_FOLDER, _RECIPE = "docs|deploy|scripts|benchmarks|datasets|requirements", "|".join(RECIPES)
CHECKOUT_ONLY = re.compile(rf"\b({_FOLDER})/\w|\b({_RECIPE})/(\w+\.py|\W|$)")
# Code for the checkout's own scripts.
OF_SCRIPTS = ("paddle_ranker/serving/clients/command.py", "paddle_ranker/serving/vendor/brpc_server.py")


@cache
def _trees() -> list[tuple[str, ast.Module]]:
    """Return the name and the syntax tree of those files of the package and the recipes that the tests below judge."""
    files = sorted(file for folder in FOLDERS for file in (REPOSITORY / folder).rglob("*.py"))
    texts = {file.relative_to(REPOSITORY).as_posix(): file.read_text(encoding="utf-8") for file in files}
    return [(name, ast.parse(text)) for name, text in texts.items() if "!r" in text or CHECKOUT_ONLY.search(text)]


def test_errors_quote_by_one_function() -> None:
    found = []
    for name, tree in _trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                is_builtin = isinstance(node.exc.func, ast.Name) and hasattr(builtins, node.exc.func.id)
                if not is_builtin and any(getattr(one, "conversion", -1) == ord("r") for one in ast.walk(node.exc)):
                    found.append(f"{name}:{node.lineno}")
    assert found == [], "use paddle_ranker.errors.quoted instead of !r"


def test_no_words_of_the_package_name_files_that_a_wheel_lacks() -> None:
    found = []
    for name, tree in [(name, tree) for name, tree in _trees() if name not in OF_SCRIPTS]:
        left_out: set[ast.AST] = set()
        for node in ast.walk(tree):  # a call or a docstring is met before what is in it
            if isinstance(node, ast.Expr):
                left_out.add(node.value)
            elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "in_checkout":
                left_out.update(node.args)
            elif isinstance(node, ast.Constant) and node not in left_out and CHECKOUT_ONLY.search(str(node.value)):
                found.append(f"{name}:{node.lineno}: {node.value!r}")
    assert found == [], "name a command, or say it by paddle_ranker.errors.in_checkout"


def test_a_wheel_says_that_a_checkout_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert in_checkout("bash scripts/setup.sh") == "bash scripts/setup.sh"
    monkeypatch.setattr(errors, "__file__", str(tmp_path / "site-packages" / "paddle_ranker" / "errors.py"))
    assert in_checkout("bash scripts/setup.sh") == "bash scripts/setup.sh (in a checkout of the project)"
