"""Towers of pictures: made from nothing, trained on files of names and paths, resumed, searched in both directions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Optional

import numpy as np
import paddle
import pytest
from paddle import Tensor
from PIL import Image, ImageDraw

from paddle_ranker.commands.starter import StarterOptions, make_starter
from paddle_ranker.data.files.pictures import ImageError
from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import TOWER, load_model
from paddle_ranker.model.parameters import PARAMETERS_FILE, load_arrays
from paddle_ranker.model.pretrained import resolve_model
from paddle_ranker.model.tower_network import load_tower, query_tower_of
from paddle_ranker.pictures.picture_networks import PictureTransformer
from paddle_ranker.retrieval.vectors.text_vectors import Tower, nearest
from recall.train_batch_neg import TrainBatchNegOptions, train
from tests.checkout import ONCE
from tests.pictures.test_pictures import published

pytestmark = pytest.mark.unit
COLOURS = ("red", "green", "blue", "yellow", "black", "white")
SHAPES = ("circle", "square")
OPTIONS: dict[str, Any] = {
    "epochs": 12, "batch_size": 24, "learning_rate": 3e-3, "margin": 0.0, "cpu_threads": 1, "max_seq_length": 8,
    "eval_step": 12, "recall_num": 12, "device": "cpu",
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of drawn pictures, with files of names and paths, either way round, and a tower to start from."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    lines = []
    for colour in COLOURS:
        for shape in SHAPES:
            for copy in range(4):
                image = Image.new("RGB", (40, 36), "grey")
                x, y = rng.integers(2, 12, 2).tolist()
                getattr(ImageDraw.Draw(image), {"circle": "ellipse", "square": "rectangle"}[shape])(
                    (x, y, x + 20, y + 20), fill=colour
                )
                name = f"{colour}-{shape}-{copy}.png"
                image.save(folder / name)
                lines.append((f"{colour} {shape}", name))
    (folder / "names.txt").write_text("".join(f"{name}\n" for name, _ in lines))
    (folder / "train.tsv").write_text("".join(f"{name}\t{path}\n" for name, path in lines))
    (folder / "test.tsv").write_text("".join(f"{name}\t{path}\n" for name, path in lines if "-0." in path))
    (folder / "turned.tsv").write_text("".join(f"{path}\t{name}\n" for name, path in lines))
    make_starter(
        StarterOptions(
            corpus=str(folder / "names.txt"), output_dir=str(folder / "start"), picture_size=32, hidden_size=32,
            num_hidden_layers=1, num_attention_heads=2, dropout=0.0,
        )
    )  # fmt: skip
    return folder


def options(data: Path, output: Path, **changes: Any) -> TrainBatchNegOptions:
    """Return the options of a training."""
    values = {**OPTIONS, "model_name_or_path": str(data / "start"), "train_set_file": str(data / "train.tsv")}
    return TrainBatchNegOptions(**{**values, "save_dir": str(output), **changes})


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("trained")
    train(options(data, output, similar_text_pair=str(data / "test.tsv"), epochs=100, eval_step=100))
    return output


@ONCE
def test_names_find_pictures_and_pictures_find_alike(data: Path, trained: Path) -> None:
    tower = Tower.open(trained / "best")
    names = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
    paths = [str(data / f"{name.replace(' ', '-')}-{copy}.png") for name in names for copy in (0, 1)]
    vectors = tower.encode_pictures(paths)
    np.testing.assert_array_equal(vectors, tower.vectors(paths))
    found, _ = nearest(vectors, tower.query_vectors(names), 1)
    assert (found[:, 0] // 2 == np.arange(len(names))).mean() >= 0.75
    others = np.array([next(place for place in row if place != number)
                       for number, row in enumerate(nearest(vectors, vectors, 2)[0].tolist())])  # fmt: skip
    assert (others // 2 == np.arange(len(paths)) // 2).mean() >= 0.75
    for rows in ([3], [5, 2, 3]):
        np.testing.assert_allclose(tower.encode_pictures([paths[row] for row in rows]), vectors[rows], atol=1e-6)


@pytest.mark.parametrize("freezes", [False, True])
def test_a_killed_training_goes_on_to_the_same_bits(freezes: bool, data: Path, tmp_path: Path) -> None:
    def kill(step: int, measures: dict[str, float]) -> None:
        if step == 6:
            raise KilledError

    changes = {
        "similar_text_pair": str(data / "test.tsv"),
        "eval_step": 3,
        "save_step": 2,
        "epochs": 4,
        "micro_batch": 8,
        "freeze_pictures": freezes,
    }
    train(options(data, tmp_path / "whole", **changes))
    with pytest.raises(KilledError):
        train(options(data, tmp_path / "killed", **changes), kill)
    # Pixels, or the states of a frozen network, are now kept in a file.
    train(options(data, tmp_path / "killed", **changes, resume=True, data_memory_mb=0))
    for inner in ("", "query"):
        files = [tmp_path / run / "last" / inner / PARAMETERS_FILE for run in ("whole", "killed")]
        whole, killed = map(load_arrays, files)
        assert not [name for name, array in whole.items() if array.tobytes() != killed[name].tobytes()]


class KilledError(Exception):
    """A training was killed."""


def test_a_frozen_network_computes_each_picture_once(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip, counts = published("clip", tmp_path / "clip"), list[int]()
    network = load_tower(clip, LoadOptions()).network
    pixels = paddle.to_tensor(np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), np.uint8))
    states, vectors = network.pooled(pixels), network(pixels)
    network.train()
    network.is_frozen = True
    np.testing.assert_allclose(network(states).numpy(), vectors.numpy(), atol=1e-6)
    pooled = PictureTransformer.pooled

    def counted(self: PictureTransformer, input_ids: Tensor, *others: Optional[Tensor]) -> Tensor:
        counts.append(len(input_ids))
        return pooled(self, input_ids, *others)

    monkeypatch.setattr(PictureTransformer, "pooled", counted)
    settings = {"model_name_or_path": str(clip), "epochs": 3, "freeze_pictures": True, "learning_rate": 1e-3}
    train(options(data, tmp_path / "run", **settings))
    assert sum(counts) == len(COLOURS) * len(SHAPES) * 4
    before, after = load_tower(clip, LoadOptions()), load_tower(tmp_path / "run" / "last", LoadOptions())
    for name, value in before.network.own_state().items():
        is_equal = np.array_equal(value.numpy(), after.network.own_state()[name].numpy())
        assert is_equal == name.startswith("encoder."), name
    learned = load_arrays(tmp_path / "run" / "last" / "query" / PARAMETERS_FILE)
    texts = query_tower_of(resolve_model(str(clip)), LoadOptions())
    assert texts is not None
    assert all(not np.array_equal(value.numpy(), learned[name]) for name, value in texts.network.own_state().items()
               if name.endswith("weight") and "layers" in name)  # fmt: skip


def test_pictures_may_be_the_queries(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "start" / "query", tmp_path / "start")
    shutil.copytree(data / "start", tmp_path / "start" / "query", ignore=shutil.ignore_patterns("query"))
    for folder, towers in ((tmp_path / "start", 2), (tmp_path / "start" / "query", 1)):
        info = json.loads((folder / "tower.json").read_text())
        (folder / "tower.json").write_text(json.dumps({**info, "towers": towers}))
    turned = {"model_name_or_path": str(tmp_path / "start"), "train_set_file": str(data / "turned.tsv")}
    result = train(options(data, tmp_path / "run", **turned, similar_text_pair=str(data / "turned.tsv")))
    assert result.last["recall@1"] >= 0.5
    tower = Tower.open(tmp_path / "run" / "last")
    path = str(data / "red-circle-0.png")
    np.testing.assert_array_equal(tower.encode_pictures([path]), tower.query_vectors([path]))


def test_bad_pictures_are_named(data: Path) -> None:
    (data / "broken.png").write_bytes((data / "red-circle-0.png").read_bytes()[:60])
    tower = Tower.open(data / "start")
    with pytest.raises(ImageError, match=r"broken\.png: damaged"):
        tower.encode_pictures([data / "broken.png"])
    with pytest.raises(ImageError, match="picture 1: "):
        tower.encode_pictures([(data / "red-circle-0.png").read_bytes(), b"no picture"])
    with pytest.raises(CheckpointError, match="not a tower of texts"):
        load_model(data / "start", TOWER)
