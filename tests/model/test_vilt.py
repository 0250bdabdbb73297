"""ViLT as a ranker of pictures: logits equal to transformers', whatever the batch, trained, exported, written back."""

from __future__ import annotations

import io
import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from PIL import Image
from safetensors.numpy import load_file

from cross_encoder.model import LabeledExamples
from cross_encoder.train_ce import main as train_ce
from paddle_ranker.commands.convert import main as convert
from paddle_ranker.commands.export import main as export
from paddle_ranker.commands.starter import main as starter
from paddle_ranker.encoding.picture_pairs import PictureTitle
from paddle_ranker.errors import CheckpointError, DataError
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import RANKER
from paddle_ranker.scoring.loading import open_model
from paddle_ranker.scoring.scorer import Scorer
from tests.conftest import load_script
from tests.model.test_families import HAS_ONNX
from tests.model.vilt_cases import FILE, SCALING, TEXTS, titles, write
from tests.tiny import change_json

pytestmark = pytest.mark.parity
EXPECTED: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
PILLOW = int(PIL.__version__.partition(".")[0])
PICTURES = titles() if PILLOW > 11 else titles()[:1]  # Pillow 11 scales tall pictures in another order


@pytest.fixture
def vilt(tmp_path: Path) -> Path:
    """Write a published ViLT."""
    folder = tmp_path / "vilt"
    folder.mkdir()
    write(folder, EXPECTED["shapes"])
    return folder


def opened(folder: Path, **options: Any) -> Scorer:
    model = open_model(folder, RANKER, LoadOptions(**options))
    return Scorer(model.engine, model.row_encoder)


def logits(folder: Path, pictures: list[np.ndarray] = PICTURES, **options: Any) -> np.ndarray:
    """Return the logits of all texts for each picture, [pictures, texts], computed in one batch."""
    scorer = opened(folder, **options)
    shown = [PictureTitle(picture) for picture in pictures for _ in TEXTS]
    found = scorer.logits(scorer.encode(TEXTS * len(pictures), shown))
    return np.asarray(found.reshape(len(pictures), -1))


def test_logits_are_those_of_transformers_in_any_batch_and_way(vilt: Path, tmp_path: Path) -> None:
    expected = np.array(EXPECTED["logits"])[: len(PICTURES)]
    np.testing.assert_allclose(logits(vilt), expected, rtol=1e-5, atol=1e-5)
    alone = np.concatenate([logits(vilt, [picture]) for picture in PICTURES])
    np.testing.assert_allclose(alone, expected, rtol=1e-5, atol=1e-5)
    assert convert([str(vilt), str(tmp_path / "ours")]) == 0
    np.testing.assert_allclose(logits(tmp_path / "ours"), expected, rtol=1e-5, atol=1e-5)
    onnx = ["--onnx"] if HAS_ONNX else []
    assert export(["--model", str(tmp_path / "ours"), "--output", str(tmp_path / "static"), *onnx]) == 0
    for engine in ("inference", "onnx") if HAS_ONNX else ("inference",):
        np.testing.assert_allclose(logits(tmp_path / "static", engine=engine), expected, rtol=1e-4, atol=4e-5)
    assert convert([str(tmp_path / "ours"), str(tmp_path / "back"), "--to", "hf"]) == 0
    theirs, back = (load_file(folder / "model.safetensors") for folder in (vilt, tmp_path / "back"))
    assert sorted(theirs) == sorted(back)
    for name, array in theirs.items():
        np.testing.assert_array_equal(back[name], array, err_msg=name)
    scaling = json.loads((tmp_path / "back" / "preprocessor_config.json").read_text())
    assert SCALING.items() <= scaling.items()


def test_a_picture_s_file_is_read_and_a_text_is_refused(vilt: Path, tmp_path: Path) -> None:
    scorer, stream = opened(vilt), io.BytesIO()
    Image.fromarray(PICTURES[0]).save(stream, "PNG")
    found = scorer.logits(scorer.encode(TEXTS[:1], [PictureTitle(stream.getvalue())]))
    assert found[0] == pytest.approx(EXPECTED["logits"][0][0], abs=1e-5)
    (tmp_path / "cat.png").write_bytes(stream.getvalue())
    with pytest.raises(DataError, match=r"'cat\.png' is a text, and this ranker reads pictures"):
        scorer.encode(TEXTS[:1], ["cat.png"])
    scorer.row_encoder.set_title_folder(tmp_path)
    np.testing.assert_allclose(scorer.logits(scorer.encode(TEXTS[:1], ["cat.png"])), found, atol=1e-6)
    for bad, words in ((stream.getvalue()[:-30], "damaged"), (b"", "not an image")):
        with pytest.raises(DataError, match=words):
            scorer.encode(TEXTS[:1], [PictureTitle(bad)])
    with pytest.raises(DataError, match="no such image"):
        scorer.encode(TEXTS[:1], ["dog.png"])
    with pytest.raises(DataError, match="outside"):
        scorer.encode(TEXTS[:1], ["../vilt/config.json"])
    assert scorer.encode(["a"], [PictureTitle(np.zeros((1, 3000, 3), np.uint8))]).lengths.tolist() == [3 + 1 + 4]


def test_a_query_longer_than_it_reads_is_counted(vilt: Path) -> None:
    scorer = opened(vilt)
    scorer.encode(TEXTS, [PictureTitle(PICTURES[0])] * len(TEXTS))
    assert scorer.row_encoder.truncated == 1


@pytest.mark.parametrize(
    ("file", "key", "value", "problem"),
    [
        ("preprocessor_config.json", "size_divisor", 4, "size_divisor is 4"),
        ("preprocessor_config.json", "image_mean", [0.4, 0.5, 0.5], "image_mean is"),
        ("preprocessor_config.json", "do_resize", False, "do_resize is False"),
        ("preprocessor_config.json", "size", {"longest_edge": 9}, "shortest_edge"),
        ("config.json", "max_image_length", 200, "max_image_length is 200"),
        ("config.json", "num_channels", 1, "num_channels is 1"),
    ],
)
def test_other_settings_are_refused_by_name(vilt: Path, file: str, key: str, value: object, problem: str) -> None:
    change_json(vilt / file, **{key: value})
    with pytest.raises(CheckpointError, match=problem):
        opened(vilt)


def test_a_starter_learns_colours_from_nothing_with_a_picture_s_texts_in_one_batch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    batches, loss = list[list[int]](), LabeledExamples.loss

    def recorded(examples: LabeledExamples, network: Any, indices: np.ndarray) -> Any:
        batches.append(sorted(indices.tolist()))
        return loss(examples, network, indices)

    monkeypatch.setattr(LabeledExamples, "loss", recorded)
    scenes = load_script("datasets/make_scenes.py")
    rng, colours = random.Random(1), list(scenes.COLOURS)
    for name, count in (("train", 300), ("dev", 50)):
        lines = []
        for number in range(count):
            right, wrong = rng.sample(colours, 2)
            path = tmp_path / f"{name}{number}.png"
            scenes.draw((rng.choice(scenes.COUNTS), right, rng.choice(scenes.PLACES)), rng).save(path)
            lines += [f"{right}\t{path.name}\t1\n", f"{wrong}\t{path.name}\t0\n"]
        (tmp_path / f"{name}.tsv").write_text("".join(lines))
    start, output, shape = tmp_path / "start", tmp_path / "out", "--picture_size 48 --patch_size 24 --hidden_size 32"
    train, dev = str(tmp_path / "train.tsv"), str(tmp_path / "dev.tsv")
    assert starter(["--corpus", train, "--output", str(start), "--dropout", "0", *shape.split()]) == 0
    settings = "--match_embeddings false --epochs 12 --learning_rate 2e-3 --new_parts_factor 1"
    given = ["--train", train, "--test", dev, "--model", str(start), "--output", str(output)]
    assert train_ce([*given, *settings.split()]) == 0, capsys.readouterr().err
    best = max(float(auc) for auc in re.findall(r"eval_dev auc:([\d.]+)", capsys.readouterr().out))
    assert best > 0.9, best
    assert all(batch[::2] == [row - 1 for row in batch[1::2]] and batch[0] % 2 == 0 for batch in batches)
