"""The static model equals the model: with texts, images or both, with every fusion, in a separate folder."""

from __future__ import annotations

import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, Callable

import numpy as np
import paddle
import pytest

from multimodal_entailment.data import read_posts
from multimodal_entailment.entailment_scorer import Entailment
from multimodal_entailment.folder import load_entailment, save_entailment
from multimodal_entailment.images import ImageError
from multimodal_entailment.info import INFO_FILE, signature_of
from multimodal_entailment.model import Shape
from paddle_ranker.errors import CheckpointError, RankerError, UsageError
from paddle_ranker.export.static_graph import export_model
from paddle_ranker.export.static_model import StaticModel
from paddle_ranker.model.exported import open_exported
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import MODEL
from tests.entailment_cases import draw_images, make_parts, write_data

pytestmark = pytest.mark.parity
CASES: dict[str, dict[str, Any]] = {
    "both": {},
    "dot attention": {"shape": Shape(fusion="dot_attention")},
    "multihead, sums": {
        "shape": Shape(
            fusion="multihead", compare_images=False, joint=False, match_embeddings=False, modality_dropout=0.3
        )
    },
    "texts": {"images": False},
    "images": {"texts": False},
}


def saved(folder: Path, **changes: Any) -> Path:
    parts = make_parts(folder / "tokenizer", **changes)
    target = folder / "model"
    target.mkdir()
    save_entailment(target, parts, parts.info)
    return target


WITH_ONNX = sys.version_info >= (3, 10)  # the modern stack


Case = tuple[str, Path, dict[str, Any]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    """Return a function that returns a case by its name; each is exported once."""

    @cache
    def make(name: str) -> Case:
        folder = tmp_path_factory.mktemp("case")
        parts = load_entailment(saved(folder, **CASES[name]))
        exported, parities = export_model(parts, folder / "written", onnx=WITH_ONNX)
        assert exported.program.is_file() and exported.parameters.is_file()
        shutil.move(str(folder / "written"), folder / "output")  # nothing else is needed
        return name, folder, parities

    return make


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, made: Callable[[str], Case]) -> Case:
    """Return a case's name, its folder with the `model` and its export `output`, and the parities."""
    return made(request.param)


@pytest.mark.thorough(keep=2)
def test_a_model_saved_and_exported_predicts_the_same(case: Case, tmp_path: Path) -> None:
    name, folder, parities = case[0], case[1] / "model", case[2]
    parts, parity = load_entailment(folder), parities["paddle_inference"]
    assert parity.pairs >= 48 and parity.differences["probabilities"] < 1e-5
    moved = case[1] / "output"
    pairs = read_posts(write_data(tmp_path / "data", 20))
    theirs, ours = Entailment.load(moved), Entailment.load(folder, batch_size=3)
    assert (theirs.engine, ours.engine) == ("paddle_inference", "dygraph")
    assert (theirs.max_rows, ours.max_rows) == (256 if name == "texts" else 32, 3)
    probabilities = ours.predict_posts(pairs)
    np.testing.assert_allclose(theirs.predict_posts(pairs), probabilities, atol=1e-5)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
    # As the network computes them for the pair alone.
    again = ours.predict([pairs[7].text_1], [pairs[7].image_1], [pairs[7].text_2], [pairs[7].image_2])
    np.testing.assert_allclose(again[0], probabilities[7], atol=1e-5)
    text, images = ("input_ids", "token_type_ids"), ("image_1", "image_2", "present")
    inputs = {"texts": text, "images": images}.get(name, text + images)
    assert (
        signature_of(parts.info).input_names
        == inputs
        == tuple(json.loads((moved / INFO_FILE).read_text())["export"]["inputs"])
    )


def test_each_tensor_reaches_its_own_branch_of_the_static_model(made: Callable[[str], Case]) -> None:
    _, folder, _ = made("both")
    exported = open_exported(folder / "output", MODEL)
    model = StaticModel(exported.program, exported.parameters, exported.signature)
    encoder = load_entailment(folder / "model").row_encoder.texts
    assert encoder is not None
    texts = encoder.encode(["a b"], ["c d"]).pad(np.arange(1))
    one, two = draw_images(2)[:, None]

    def logits(first: np.ndarray, second: np.ndarray, present: tuple[int, int]) -> np.ndarray:
        images = {"image_1": first, "image_2": second, "present": np.array([present], np.float32)}
        return model.run({**texts, **images})["logits"]

    base = logits(one, two, (1, 1))
    assert np.abs(base - logits(two, one, (1, 1))).max() > 1e-3
    np.testing.assert_allclose(logits(one, two, (0, 1)), logits(two, two, (0, 1)), atol=1e-6)
    np.testing.assert_allclose(logits(one, two, (1, 0)), logits(one, one, (1, 0)), atol=1e-6)
    assert np.abs(logits(one, two, (1, 0)) - logits(one, two, (0, 1))).max() > 1e-3


def test_images_may_be_bytes_and_may_be_missing(tmp_path: Path) -> None:
    model = Entailment.load(saved(tmp_path))
    path = write_data(tmp_path / "data", 3).parent / "r.png"
    of_file, of_bytes, missing = (
        model.predict(["a"], [image], ["b"], [path]) for image in (path, path.read_bytes(), None)
    )
    np.testing.assert_array_equal(of_file, of_bytes)
    assert np.abs(of_file - missing).max() > 1e-6
    assert model.predict([], [], [], []).shape == (0, 3)


def test_what_cannot_be_predicted_is_named(tmp_path: Path) -> None:
    model = Entailment.load(saved(tmp_path))
    path = write_data(tmp_path / "data", 3).parent / "r.png"
    with pytest.raises(ImageError, match="pair 2, image_1: "):
        model.predict(["a", "b"], [path, b"no image"], ["c", "d"], [None, None])
    with pytest.raises(UsageError, match="two texts and two images"):
        model.predict(["a"], [None], ["b", "c"], [None])


def test_a_broken_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a model of pairs of posts"):
        Entailment.load(tmp_path)
    folder = saved(tmp_path)
    with pytest.raises(CheckpointError, match=r"did you mean .*model\?"):
        Entailment.load(tmp_path)
    values = json.loads((folder / INFO_FILE).read_text())
    for changes, message in (
        ({"format_version": 99}, "update the toolkit"),
        ({"labels": ["A", "B", "C"]}, "labels are A, B, C"),
        ({"shape": {"fusion": 1}}, "damaged"),
        ({"max_seq_length": "24"}, "damaged .*max_seq_length is 24"),
        ({"image_size": True}, "damaged .*image_size is True"),
        ({"vision": ["small"]}, "damaged .*vision is "),
        ({"export": "x"}, "damaged .*export is x"),
        ({"vision": None, "max_seq_length": None}, "neither texts nor images"),
    ):
        (folder / INFO_FILE).write_text(json.dumps({**values, **changes}))
        with pytest.raises(CheckpointError, match=message):
            load_entailment(folder)
    (folder / INFO_FILE).write_text(json.dumps({**values, "shape": {**values["shape"], "fusion": "multihead"}}))
    with pytest.raises(CheckpointError, match="missing, left over or of another shape"):
        load_entailment(folder)


def test_an_export_replaces_an_export_and_nothing_else(made: Callable[[str], Case], tmp_path: Path) -> None:
    parts = make_parts(tmp_path / "tokenizer", images=False)
    shutil.copytree(made("texts")[1] / "output", tmp_path / "output")
    before = (tmp_path / "output").stat().st_ino
    export_model(parts, tmp_path / "output")
    assert (tmp_path / "output").stat().st_ino != before
    (tmp_path / "output" / "notes.txt").write_text("mine")
    with pytest.raises(RankerError, match=r"holds notes\.txt"):
        export_model(parts, tmp_path / "output")


def test_a_difference_is_an_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from paddle_ranker.export import static_graph

    parts = make_parts(tmp_path / "tokenizer", images=False)
    right = static_graph.network_outputs
    shifted = lambda *a: [{**row, "probabilities": row["probabilities"] + 1e-3} for row in right(*a)]  # noqa: E731
    monkeypatch.setattr(static_graph, "network_outputs", shifted)
    with pytest.raises(RankerError, match="probabilities differ"):
        export_model(parts, tmp_path / "output")
    assert not (tmp_path / "output").exists() and paddle.in_dynamic_mode()


@pytest.mark.thorough(keep=2)
@pytest.mark.skipif(not WITH_ONNX, reason="needs the modern stack, which writes ONNX files")
def test_every_engine_predicts_the_same_from_several_threads(case: Case, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install onnxruntime")
    pytest.importorskip("openvino", reason="needs openvino: pip install openvino")
    pairs = read_posts(write_data(tmp_path / "data", 12))
    wanted = Entailment.load(case[1] / "model").predict_posts(pairs)
    for engine in ("inference", "onnx", "openvino"):
        model = Entailment.load(case[1] / "output", LoadOptions(engine=engine, threads=1), batch_size=4)
        with ThreadPoolExecutor(4) as pool:
            for found in pool.map(lambda _, model=model: model.predict_posts(pairs), range(8)):
                np.testing.assert_allclose(found, wanted, atol=1e-5)
