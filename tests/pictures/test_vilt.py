"""ViLT as a ranker of pictures: logits equal to transformers', whatever the batch, trained, exported, written back."""

from __future__ import annotations

import io
import json
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
from paddle_ranker.errors import CheckpointError, DataError
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import RANKER
from paddle_ranker.pictures.picture_pairs import PictureTitle
from paddle_ranker.scoring.loading import open_model
from paddle_ranker.scoring.scorer import Scorer
from tests.conftest import load_script
from tests.model.test_families import HAS_ONNX
from tests.pictures.vilt_cases import FILE, PROCESSORS, SCALING, TEXTS, titles, write, write_processor
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


@pytest.mark.parametrize("number", range(len(PROCESSORS)))
def test_legal_processors_scale_as_in_transformers(vilt: Path, tmp_path: Path, number: int) -> None:
    """Logits, also of the model converted there and back."""
    write_processor(vilt, number)
    assert convert([str(vilt), str(tmp_path / "ours")]) == 0
    assert convert([str(tmp_path / "ours"), str(tmp_path / "back"), "--to", "hf"]) == 0
    expected = np.array(EXPECTED["processors"][number][: len(PICTURES)], float)
    is_said = ~np.isnan(expected)
    assert is_said.any()
    for folder in (vilt, tmp_path / "ours", tmp_path / "back"):
        np.testing.assert_allclose(logits(folder)[is_said, 0], expected[is_said], rtol=1e-5, atol=1e-5)


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
        ("preprocessor_config.json", "size_divisor", 32, "size is"),
        ("preprocessor_config.json", "do_rescale", None, "do_rescale is null"),
        ("preprocessor_config.json", "default_to_square", True, "default_to_square is True"),
        ("preprocessor_config.json", "image_processor_type", "ViTImageProcessor", "image_processor_type is"),
        ("preprocessor_config.json", "do_sharpen", True, "do_sharpen: unknown"),
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


def test_a_picture_s_texts_share_a_batch_of_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    batches, loss = list[list[int]](), LabeledExamples.loss

    def recorded(examples: LabeledExamples, network: Any, indices: np.ndarray) -> Any:
        batches.append(sorted(indices.tolist()))
        return loss(examples, network, indices)

    monkeypatch.setattr(LabeledExamples, "loss", recorded)
    scenes = load_script("datasets/make_scenes.py")
    assert scenes.main(["--output", str(tmp_path / "scenes"), "--scenes", "20"]) == 0
    files = {name: str(tmp_path / "scenes" / name) for name in ("texts.txt", "train.tsv", "dev.tsv")}
    shape = ["--picture_size", "48", "--patch_size", "24", "--hidden_size", "32"]
    assert starter(["--corpus", files["texts.txt"], "--output", str(tmp_path / "start"), *shape]) == 0
    given = ["--train", files["train.tsv"], "--test", files["dev.tsv"], "--model", str(tmp_path / "start")]
    settings = ["--match_embeddings", "false", "--epochs", "1", "--batch_size", "8"]
    assert train_ce([*given, "--output", str(tmp_path / "out"), *settings]) == 0, capsys.readouterr().err
    pairs = [batch[first : first + 2] for batch in batches for first in range(0, len(batch), 2)]
    assert sorted(pairs) == [[row, row + 1] for row in range(0, 40, 2)]
