"""Training a tiny model: it learns from texts and images together, resumes exactly, and refuses impossible options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multimodal_entailment.data import read_posts
from multimodal_entailment.folder import load_entailment
from multimodal_entailment.options import TrainEntailmentOptions
from multimodal_entailment.train import train
from paddle_ranker.errors import DataError, RankerError, UsageError
from paddle_ranker.model.parameters import PARAMETERS_FILE, load_arrays
from paddle_ranker.training.learning_curve import read_metrics
from tests.entailment_cases import LENGTH, SIZE, write_data
from tests.tiny import write_encoder

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("same_process")]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_data(folder, 120)
    write_encoder(folder / "encoder", initializer_range=0.1)
    return folder


def options(data: Path, save_dir: Path, **changes: Any) -> TrainEntailmentOptions:
    values: dict[str, Any] = {
        "train_file": str(data / "posts.csv"),
        "model_name_or_path": str(data / "encoder"),
        "save_dir": str(save_dir),
        "max_seq_length": LENGTH,
        "image_size": SIZE,
        "batch_size": 12,
        "epochs": 2,
        "learning_rate": 2e-3,
        "new_parts_factor": 1.0,
        "validation_share": 0.15,
        "eval_step": 4,
        "save_step": 4,
        "logging_steps": 2,
        "device": "cpu",
        "cpu_threads": 1,
        "image_workers": 1,
        **changes,
    }
    return TrainEntailmentOptions(**values)


def parameters(folder: Path) -> dict[str, np.ndarray]:
    return load_arrays(folder / PARAMETERS_FILE)


def test_it_learns_what_texts_and_images_say_together(data: Path, tmp_path: Path) -> None:
    found = train(options(data, tmp_path / "run", epochs=12, eval_step=8, save_step=1000))
    # Texts alone determine half of the labels, images alone a third of the others.
    assert found.best["accuracy"] > 0.85
    info = load_entailment(tmp_path / "run" / "best").info
    assert sum(info.training["train_counts"].values()) == 91 and sum(info.training["validation_counts"].values()) == 17
    assert info.results["accuracy"] == found.best["accuracy"] and info.image_size == SIZE
    assert (tmp_path / "run" / "best" / "README.md").read_text().startswith("# Entailment between two posts")
    told = [record for record in read_metrics(tmp_path / "run" / "metrics.jsonl") if "evaluation" in record]
    assert {"loss", "accuracy", "macro_f1"} <= set(told[0]["evaluation"])


@pytest.mark.thorough(keep=2)
@pytest.mark.parametrize(
    "changes",
    [
        {"fusion": "multihead", "modality_dropout": 0.3, "loss": "focal", "class_weights": "balanced"},
        {"freeze_vision": True, "freeze_text": True, "fusion": "dot_attention"},
        {"modalities": "text", "class_weights": "1,2,0.5"},
        {"modalities": "text", "gradient_checkpointing": True},
        {"modalities": "image", "model_name_or_path": None, "compare_images": False, "joint": False},
    ],
    ids=["everything", "frozen", "text", "checkpointing", "image"],
)
def test_a_resumed_run_is_the_unbroken_one(data: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    whole = train(options(data, tmp_path / "whole", **changes))
    part = options(data, tmp_path / "part", **changes)
    train_until(part, 4)
    rest = train(options(data, tmp_path / "part", resume=True, **changes))
    assert rest.steps == whole.steps > 8
    assert whole.last_checkpoint is not None and rest.last_checkpoint is not None
    ours, theirs = parameters(whole.last_checkpoint), parameters(rest.last_checkpoint)
    assert set(ours) == set(theirs)
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)


class _Stop(Exception):
    pass


def train_until(chosen: TrainEntailmentOptions, step: int) -> None:
    """Train, and stop as if killed after the checkpoint of a step."""
    from multimodal_entailment.examples import HeldOutPosts

    right, seen = HeldOutPosts.measure, []

    def measure(self: HeldOutPosts, *arguments: Any) -> dict[str, float]:
        seen.append(1)
        if len(seen) > step // chosen.eval_step:
            raise _Stop
        return right(self, *arguments)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(_Stop):
        patch.setattr(HeldOutPosts, "measure", measure)
        train(chosen)


def test_accumulated_batches_are_one_batch(data: Path, tmp_path: Path) -> None:
    """The first step's loss is the same mean however the batch is split: class weights are summed over all parts."""
    changes: dict[str, Any] = {"max_steps": 1, "class_weights": "balanced", "loss": "focal", "dropout": 0.0,
                               "logging_steps": 1}  # fmt: skip
    write_encoder(tmp_path / "encoder", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    changes["model_name_or_path"] = str(tmp_path / "encoder")
    losses = []
    for name, size, steps in (("one", 24, 1), ("four", 6, 4)):
        train(options(data, tmp_path / name, batch_size=size, gradient_accumulation_steps=steps, **changes))
        records = list(read_metrics(tmp_path / name / "metrics.jsonl"))
        losses.append(next((r["loss"], r["gradient_norm"]) for r in records if "gradient_norm" in r))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_frozen_encoders_are_as_they_were(data: Path, tmp_path: Path) -> None:
    found = train(options(data, tmp_path / "run", freeze_text=True, freeze_vision=True))
    assert found.last_checkpoint is not None and found.best_checkpoint is not None
    start, end = parameters(data / "encoder"), parameters(found.last_checkpoint)
    for name, array in start.items():
        np.testing.assert_array_equal(array, end[f"text.encoder.{name}"])
    kept = list((tmp_path / "run" / "images").glob("features_*"))
    assert len(kept) == 1  # both parts have the same three images
    train(
        options(data, tmp_path / "other", freeze_vision=True, cache_dir=str(tmp_path / "run" / "images"), max_steps=1)
    )
    assert [*(tmp_path / "run" / "images").glob("features_*")] == kept  # reused: the seed made the same encoder


def test_given_files_are_not_split(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_data(data, 30, "validation.csv")
    train(options(data, tmp_path / "run", max_steps=1, validation_file=str(data / "validation.csv")))
    printed = capsys.readouterr().out
    assert "train: 120 pairs of posts: " in printed and "validation: 30 pairs" in printed and "test:" not in printed
    counts = [pair.label for pair in read_posts(data / "posts.csv")]
    assert f"train: 120 pairs of posts: Contradictory {counts.count(0)}, Implies {counts.count(1)}" in printed


def test_what_cannot_be_trained_is_refused(data: Path, tmp_path: Path) -> None:
    for changes, message in (
        ({"model_name_or_path": None}, "--model is needed for texts"),
        ({"modalities": "text", "fusion": "multihead"}, "--fusion needs texts and images"),
        ({"modalities": "image", "modality_dropout": 0.5}, "--modality_dropout needs texts and images"),
        ({"modalities": "image", "freeze_text": True}, "--freeze_text needs texts"),
        ({"modalities": "text", "freeze_vision": True}, "--freeze_vision needs images"),
        ({"modalities": "text", "vision_weights": "download"}, "--vision_weights needs images"),
        ({"focal_gamma": 5.0}, "--focal_gamma 5 belongs to the focal loss: add --loss focal"),
        ({"class_weights": "1,2"}, "--class_weights 1,2"),
        ({"vision_encoder": "smal"}, "small"),
    ):
        with pytest.raises(UsageError, match=message):
            train(options(data, tmp_path / "run", **changes))
    (data / "gap.csv").write_text((data / "posts.csv").read_text().replace("b.png", "gone.png"), encoding="utf-8")
    with pytest.raises(RankerError, match=r"line \d+, image_[12]: .*gone\.png"):
        train(options(data, tmp_path / "run", train_file=str(data / "gap.csv")))
    with pytest.raises(DataError):
        train(options(data, tmp_path / "run", train_file=str(data / "none.csv")))


def test_a_broken_image_may_be_a_missing_one(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "gap.csv").write_text((data / "posts.csv").read_text().replace("b.png", "gone.png"), encoding="utf-8")
    train(options(data, tmp_path / "run", train_file=str(data / "gap.csv"), skip_bad_rows=True, max_steps=2))
    assert "images left out" in capsys.readouterr().out
