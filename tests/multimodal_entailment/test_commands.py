"""The commands as users type them: train, evaluate, export, predict."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from multimodal_entailment import evaluate, export_model, predict, train
from multimodal_entailment.data import read_posts
from multimodal_entailment.info import LABELS
from multimodal_entailment.options import EvaluateEntailmentOptions
from paddle_ranker.model.load_options import LoadOptions
from tests.checkout import ONCE
from tests.conftest import Call, commands_here
from tests.entailment_cases import LENGTH, SIZE, write_data
from tests.tiny import write_encoder

pytestmark = pytest.mark.server  # trains a tiny model, for seconds


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_data(folder, 120)
    write_encoder(folder / "encoder", initializer_range=0.1)
    typed = f"""--train_file posts.csv --model_name_or_path encoder --save_dir run --max_seq_length {LENGTH}
        --image_size {SIZE} --batch_size 12 --epochs 12 --learning_rate 2e-3 --new_parts_factor 1 --test_share 0.2
        --validation_share 0.15 --eval_step 8 --device cpu --cpu_threads 1 --image_workers 1"""
    with commands_here(folder):
        assert train.main(typed.split()) == 0
        assert export_model.main(["--model", "run/best", "--output_dir", "static"]) == 0
    return folder


@pytest.fixture
def call(data: Path, monkeypatch: pytest.MonkeyPatch, call: Call) -> Call:
    """Return a function that calls a command's `main` in `data` on the CPU."""
    monkeypatch.chdir(data)
    return lambda command, typed: call(command, *typed.split(), "--device", "cpu")


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


@ONCE
def test_evaluate_the_rows_kept_for_it(call: Call, data: Path) -> None:
    status, printed, errors = call(evaluate.main, "--model run/best --test_file posts.csv --part test --format json")
    assert "warning" not in errors
    found = json.loads(printed)
    assert status == 0 and found["pairs"] == 24 and found["labels"] == list(LABELS)
    accuracy = found["figures"]["accuracy"]
    assert 0 <= accuracy["low"] <= accuracy["estimate"] <= accuracy["high"] <= 1 and accuracy["estimate"] > 0.5
    assert sum(map(sum, found["confusion"])) == 24
    _, printed, _ = call(evaluate.main, "--model static --test_file posts.csv --part test --format json")
    assert json.loads(printed)["confusion"] == found["confusion"]  # the static model agrees
    how = LoadOptions.of(EvaluateEntailmentOptions(model="static", test_file="posts.csv", device="gpu:1"))
    assert how.device == "gpu:1"
    _, printed, _ = call(evaluate.main, "--model run/best --test_file posts.csv --part validation --format json")
    assert json.loads(printed)["pairs"] == 15  # of the 96 remaining pairs, rounded up
    best = json.loads((data / "run" / "best" / "entailment.json").read_text())["results"]
    assert json.loads(printed)["figures"]["accuracy"]["estimate"] == pytest.approx(best["accuracy"])


def test_evaluate_prints_and_draws(call: Call, data: Path) -> None:
    status, printed, errors = call(evaluate.main, "--model run/best --test_file posts.csv --confusion_plot matrix.png")
    assert "warning: posts.csv is what this model was trained on" in errors
    assert status == 0 and (data / "matrix.png").read_bytes().startswith(b"\x89PNG")
    lines = printed.splitlines()
    assert lines[0].startswith("accuracy: 0.") and "[" in lines[0] and lines[1].startswith("macro_f1: ")
    counts = [pair.label for pair in read_posts(data / "posts.csv")]
    for label, name in enumerate(LABELS):
        assert any(line.split()[:2] == [name, str(counts.count(label))] for line in lines)


def test_predict_a_file(call: Call, data: Path) -> None:
    status, printed, _ = call(predict.main, "--model run/best --input_file posts.csv --output_file found.csv")
    assert status == 0 and printed == "120 pairs: found.csv\n"
    found = rows((data / "found.csv").read_text())
    assert [row["id_1"] for row in found] == [f"{number}x" for number in range(120)]
    for row in found:
        shares = [float(row[label]) for label in LABELS]
        assert sum(shares) == pytest.approx(1, abs=3e-6) and row["label"] == LABELS[shares.index(max(shares))]
    _, printed, _ = call(predict.main, "--model static --input_file posts.csv")
    for ours, theirs in zip(rows(printed), found):
        assert [float(ours[label]) for label in LABELS] == pytest.approx([float(theirs[x]) for x in LABELS], abs=2e-5)
    _, printed, _ = call(predict.main, "--model run/best --input_file posts.csv --format json")
    objects = [json.loads(line) for line in printed.splitlines()]
    assert [{name: str(value) for name, value in one.items() if name not in LABELS} for one in objects] == [
        {name: value for name, value in row.items() if name not in LABELS} for row in found
    ]
    for one, row in zip(objects, found):
        assert [one[label] for label in LABELS] == [float(row[label]) for label in LABELS]


def test_predict_one_pair_and_what_it_hangs_on(call: Call) -> None:
    whole = "--model run/best --text_1 a --image_1 r.png --text_2 z --image_2 b.png"
    status, printed, _ = call(predict.main, f"{whole} --explain")
    (row,) = rows(printed)
    assert status == 0
    for part, without in {
        "texts": "--model run/best --image_1 r.png --image_2 b.png",
        "image_1": "--model run/best --text_1 a --text_2 z --image_2 b.png",
        "image_2": "--model run/best --text_1 a --image_1 r.png --text_2 z",
    }.items():
        (other,) = rows(call(predict.main, without)[1])
        fall = float(row[row["label"]]) - float(other[row["label"]])
        assert float(row[f"without_{part}"]) == pytest.approx(fall, abs=3e-6)


def test_the_images_of_a_typed_pair_start_from_the_folder(call: Call, data: Path) -> None:
    (data / "pictures").mkdir()
    (data / "pictures" / "other.png").write_bytes((data / "r.png").read_bytes())
    typed = "--model run/best --text_1 a --image_1 other.png --text_2 z --image_folder pictures"
    status, printed, errors = call(predict.main, typed)
    assert status == 0, errors
    assert printed == call(predict.main, "--model run/best --text_1 a --image_1 r.png --text_2 z")[1]


@pytest.mark.parametrize(
    ("command", "typed", "status", "fragment"),
    [
        (evaluate, "--test_file other.csv --part test", 1, "is not the file that this model's training split"),
        (evaluate, "--test_file none.csv", 1, "none.csv"),
        (predict, "", 2, "--input"),
        (predict, "--input_file posts.csv --text_1 a", 2, "--text_1"),
        (predict, "--text_1 a --image_1 r.png", 2, "post 2 is empty"),
        (predict, "--input_file broken.csv", 1, "broken.png"),
    ],
)
def test_bad_input(call: Call, data: Path, command: Any, typed: str, status: int, fragment: str) -> None:
    posts = (data / "posts.csv").read_text()
    (data / "other.csv").write_text(posts + "\n", encoding="utf-8")
    (data / "broken.png").write_bytes((data / "r.png").read_bytes()[:60])
    (data / "broken.csv").write_text(posts.replace("r.png", "broken.png"), encoding="utf-8")
    found, printed, errors = call(command.main, f"--model run/best {typed}")
    assert (found, printed) == (status, "") and fragment in errors
    if "broken" in typed:
        found, printed, errors = call(command.main, f"--model run/best {typed} --skip_bad_rows")
        assert found == 0 and len(rows(printed)) == 120 and "images treated as missing" in errors
