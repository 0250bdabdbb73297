"""Errors quote input by one door, so that no message holds more than some 200 characters of it."""

from __future__ import annotations

import json
from collections.abc import Callable
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
from paddle_ranker.scoring.texts import list_texts
from paddle_ranker.training.losses.expression import parse_loss

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
    capsys.readouterr()
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


def test_a_wheel_says_that_a_checkout_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert in_checkout("bash scripts/setup.sh") == "bash scripts/setup.sh"
    monkeypatch.setattr(errors, "__file__", str(tmp_path / "site-packages" / "paddle_ranker" / "errors.py"))
    assert in_checkout("bash scripts/setup.sh") == "bash scripts/setup.sh (in a checkout of the project)"
