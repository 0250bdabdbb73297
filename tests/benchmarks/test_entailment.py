"""The benchmarks of entailment: their arithmetic, their recipe, their baselines, and the script they take it from."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import entailment, tweets
from multimodal_entailment.options import TrainEntailmentOptions
from paddle_ranker.model.parameters import PARAMETERS_FILE
from paddle_ranker.options import parse_options
from tests.scripts.test_scripts import checkout as checkout
from tests.scripts.test_scripts import script
from tests.tiny import write_encoder


def one_hot(guesses: list[int]) -> np.ndarray:
    return np.eye(3)[guesses] * 0.9 + 0.1 / 3


@pytest.mark.unit
def test_figures_are_means_over_seeds_and_differences_are_paired() -> None:
    labels = np.array([0, 1, 2, 2] * 50)
    right, half = one_hot([0, 1, 2, 2] * 50), one_hot([0, 1, 0, 0] * 50)
    runs = {"multimodal": [(right, 1.0), (half, 1.0)], "text_only": [(half, 1.0)], "same": [(right, 1.0), (half, 1.0)]}
    figures, ahead = entailment.measure(labels, runs, "multimodal", 500)
    assert figures["multimodal"]["accuracy"].estimate == 0.75 and figures["text_only"]["accuracy"].estimate == 0.5
    assert set(ahead) == {"text_only", "same"}
    assert ahead["text_only"].estimate == 0.25 and ahead["text_only"].low > 0.2
    assert (ahead["same"].low, ahead["same"].high) == (0, 0)  # on every draw, since the difference is paired


@pytest.mark.unit
def test_every_row_is_what_train_takes() -> None:
    recipe = entailment.script_recipe()
    assert "--epochs" in recipe
    for name, changes in entailment.SYSTEMS.items():
        typed = [*recipe, "--train_file", "x.csv", "--model_name_or_path", "y", *changes]
        options = parse_options(TrainEntailmentOptions, typed, "test", "")
        assert name == entailment.REFERENCE or options != parse_options(
            TrainEntailmentOptions, typed[: len(typed) - len(changes)], "test", ""
        )
    typed = ["--train_file", "x.csv", "--model_name_or_path", "y", *tweets.RECIPE.split()]
    assert parse_options(TrainEntailmentOptions, typed, "test", "").modalities == "text"


@pytest.mark.unit
def test_word_overlap_by_hand() -> None:
    # {the, cat, sat} and {the, cat, ran, off}: 2 shared of 5.
    assert tweets.overlap_features("The cat sat. The cat!", "the cat ran off") == [0.4, 2 / 3, 0.5, 3, 4]
    assert tweets.overlap_features("", "") == [0, 0, 0, 0, 0]


@pytest.mark.real_data
def test_the_baselines_of_the_tweets(real_data: Path, tmp_path: Path) -> None:
    model = write_encoder(tmp_path / "encoder")
    harness = tweets.Harness(
        tweets.TweetsBenchmarkOptions(model=str(model), work_dir=str(tmp_path / "work"), data_dir=str(real_data))
    )
    assert len(harness.pairs) == 1260 and np.bincount(harness.labels).tolist() == [98, 98, 1064]
    assert sorted(np.concatenate([score for _, score in harness.folds]).tolist()) == list(range(1260))
    assert (harness.encoder / PARAMETERS_FILE).is_file()
    majority, overlap = harness.majority()[0], harness.overlap()[0]
    assert (majority.argmax(axis=1) == harness.labels).mean() == pytest.approx(1064 / 1260)
    found, _ = entailment.measure(harness.labels, {"overlap": [(overlap, 0.0)]}, "overlap", 200)
    assert found["overlap"]["auc"].low > 0.5  # overlap is somewhat informative


@pytest.mark.thorough
@pytest.mark.server
@pytest.mark.slow
def test_the_script_without_arguments(checkout: Path) -> None:
    """Run the script with 100 pairs of posts; it makes 8,000 for minutes of training."""
    python, typed = checkout / "python", checkout / "typed.txt"
    python.write_text(f'#!/bin/bash\necho "$@" >> "{typed}"\nexec "{sys.executable}" "${{@/#8000/100}}"\n')
    python.chmod(0o755)
    few = ("--max_steps", "20", "--eval_step", "10", "--logging_steps", "10")
    done = script(checkout, "train_entailment.sh", *few, python=str(python))
    assert done.returncode == 0, done.stderr
    (made,) = [line for line in typed.read_text(encoding="utf-8").splitlines() if "make_demo_posts.py" in line]
    assert "--size 8000" in made
    best = checkout / "checkpoint" / "entailment" / "best"
    assert (best / "entailment.json").is_file() and (checkout / "datasets" / "entailment" / "truth.json").is_file()
    shown = done.stdout.split("were in no training pair")[1]
    assert "accuracy: 0." in shown and "50 pairs of posts" in shown and str(best) in shown
    texts = ("--max_steps", "2", "--modalities", "text", "--save_dir", str(checkout / "texts"))
    alone = script(checkout, "train_entailment.sh", *texts, python=str(python))
    # The option is refused for texts alone.
    assert alone.returncode == 0 and "--explain" in shown and "--explain" not in alone.stdout
    again = script(checkout, "train_entailment.sh", "--train_file", "nowhere.csv", "--modalities", "image")
    assert again.returncode == 1 and "nowhere.csv" in again.stderr
