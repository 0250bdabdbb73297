"""Errors quote input by one door, so that no message holds more than some 200 characters of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paddle_ranker import errors
from paddle_ranker.data.rows.formats import read_lines
from paddle_ranker.data.rows.records import LabeledPair, Triple, read_records
from paddle_ranker.data.rows.trec import read_run
from paddle_ranker.errors import (
    DataError,
    DependencyError,
    RankerError,
    brief,
    in_checkout,
    listed,
    one_line,
    quoted,
    shortened,
)
from paddle_ranker.evaluation.measuring_options import EvaluateOptions
from paddle_ranker.options import parse_options

pytestmark = pytest.mark.unit
LONG = "字" * 100_000


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


@pytest.mark.parametrize(
    "error",
    [
        ImportError("libx.so: failed to map segment from shared object"),
        RuntimeError("(PreconditionNotMet) a library is wrong.\n  (libmklml.so: failed to map segment)"),
        OSError("libx.so: cannot map zero-fill pages: Cannot allocate memory"),
    ],
)
def test_a_library_that_does_not_fit_into_memory_says_so(error: Exception) -> None:
    of_a_package = DependencyError("drawing needs matplotlib: pip install matplotlib")
    of_a_package.__cause__ = error
    for raised in (error, of_a_package):
        said = one_line(raised)
        assert said.startswith("the memory does not suffice to load a library (") and "\n" not in said


@pytest.mark.parametrize(
    ("content", "read"),
    [
        (f"query\ttitle\t{LONG}\n", lambda path: read_records(path, Triple)),
        (f"a\tb\t{LONG}\n", lambda path: read_records(path, LabeledPair)),
        (f"q Q0 d 1 {LONG} t\n", read_run),
        ("", lambda path: parse_options(EvaluateOptions, ["--engine", LONG], "evaluate", "")),
    ],
)
def test_errors_show_little_of_the_input(content: str, read: Callable[[Any], Any], tmp_path: Path) -> None:
    (tmp_path / "input").write_text(content, encoding="utf-8")
    with pytest.raises(RankerError) as caught:
        read(tmp_path / "input")
    assert len(str(caught.value)) <= 800 and str(caught.value).count("字") <= 250


@pytest.mark.parametrize("end", ["", "\r"])
def test_carriage_returns_alone_end_no_lines(tmp_path: Path, end: str) -> None:
    # Otherwise such a file is one header, and all of it stands in the error.
    content = "query\ttitle\tlabel\r" + "水果\t苹果\t1\r" * 30_000 + f"水果\t梨\t1{end}"
    (tmp_path / "input").write_bytes(content.encode("utf-8"))
    for read in (read_records, lambda path, _: list(read_lines(path))):
        with pytest.raises(DataError, match="carriage returns alone") as caught:
            read(str(tmp_path / "input"), LabeledPair)
        assert len(str(caught.value)) < 400


def test_a_wheel_says_that_a_checkout_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert in_checkout("bash scripts/setup.sh") == "bash scripts/setup.sh"
    monkeypatch.setattr(errors, "__file__", str(tmp_path / "site-packages" / "paddle_ranker" / "errors.py"))
    assert in_checkout("bash scripts/setup.sh") == "bash scripts/setup.sh (in a checkout of the project)"
