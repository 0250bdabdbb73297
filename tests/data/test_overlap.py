"""Every training warns of held-out rows that it learns from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from paddle_ranker.__main__ import main
from paddle_ranker.data.rows.overlap import warn_of_overlap
from tests import entailment_cases
from tests.tiny import HAN, write_encoder, write_ranker

pytestmark = pytest.mark.unit
TRAIN = "--max_steps 1 --save_step 1 --logging_steps 1 --device cpu --batch_size 4 --max_seq_length 32"
TEXTS = ["".join([*HAN[place:], *HAN[:place]])[:7] for place in range(30)]
LINES = {
    "train-pairwise": f"--model encoder --train triples.tsv --test labelled.tsv {TRAIN}",
    "train-ce": f"--model encoder --train learned.tsv --test labelled.tsv {TRAIN}",
    "train-batch-neg": f"--model encoder --train pairs.tsv --test answers.tsv --evaluate true {TRAIN}",
    "train-simcse": f"--model encoder --train texts.txt --test answers.tsv --evaluate true {TRAIN}",
    "train-entailment": f"--train posts.csv --model encoder --image_size 64 {TRAIN}",
    "pretrain": f"--model encoder --train texts.txt --test held.txt --documents lines {TRAIN}",
    "blend": "ranker labelled.tsv blended --train learned.tsv",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("overlap")
    write_ranker(folder / "ranker")
    write_encoder(folder / "encoder")

    def write(name: str, rows: list[tuple[object, ...]]) -> None:
        (folder / name).write_text("".join("\t".join(map(str, row)) + "\n" for row in rows), encoding="utf-8")

    pairs = [(text, TEXTS[place - 9], place % 2) for place, text in enumerate(TEXTS)]
    write("learned.tsv", [*pairs[:20]])
    write("labelled.tsv", [*pairs[18:], *((one, other, 1 - label) for one, other, label in map(_turned, pairs[18:]))])
    write("triples.tsv", [(query, title, TEXTS[place - 4]) for place, (query, title, _) in enumerate(pairs[:20])])
    write("pairs.tsv", [row[:2] for row in pairs[:20]])
    write("answers.tsv", [row[:2] for row in pairs[18:]])
    write("texts.txt", [(text,) for text in TEXTS[:20]])
    write("held.txt", [(text,) for text in TEXTS[18:]])
    posts = entailment_cases.write_data(folder, 90)
    header, *rows = posts.read_text(encoding="utf-8").splitlines()
    posts.write_text("\n".join([header, *rows, *rows]) + "\n", encoding="utf-8")
    return folder


def _turned(pair: tuple[str, str, int]) -> tuple[str, str, int]:
    return pair[0], pair[1][::-1], pair[2]


@pytest.mark.parametrize("command", LINES)
def test_a_training_counts_the_held_out_rows_that_it_learns(
    command: str, made: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(made)
    output = [] if command == "blend" else ["--output", command]
    status, said = main([command, *LINES[command].split(), *output]), capfd.readouterr()
    assert status == 0, said.err
    found = re.findall(r"warning: (\d+) of the (\d+) held-out [a-z ]+ are trained on as well", said.err + said.out)
    assert len(found) == 1, said.err
    expected = {"train-pairwise": ("2", "24"), "train-ce": ("2", "24"), "blend": ("2", "24")}
    alone = ("2", "12")
    assert found[0] == expected.get(command, alone) or (command == "train-entailment" and int(found[0][0]) > 0)


def test_no_overlap_is_no_warning(capsys: pytest.CaptureFixture[str]) -> None:
    assert warn_of_overlap("pairs", [("a", "b"), ("c", "d")], [("a", "d"), ("c", "b")]) == 0
    assert capsys.readouterr().err == ""
    assert warn_of_overlap("pairs", [("a", "b"), ("a", "b")], [("a", "b"), ("c", "b"), ("a", "b")]) == 2
    assert "warning: 2 of the 3 held-out pairs are trained on as well" in capsys.readouterr().err
