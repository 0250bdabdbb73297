"""Exported towers: every engine's vectors equal the network's; in integers, the loss of Recall@10 is the stated one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import paddle
import pytest

from paddle_ranker.__main__ import main
from paddle_ranker.errors import UsageError
from paddle_ranker.model.encoder_loading import read_checkpoint
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.tower import TowerInfo
from paddle_ranker.model.tower_network import save_query_tower, save_tower, start_tower
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from paddle_ranker.scoring.engines.engine_registry import is_installed
from tests.tiny import draw_words, write_encoder

pytestmark = pytest.mark.parity
TEXTS = ["深度学习", "", "a b c", "语言文化差异研究", "农业水稻" * 40, "老年人护理教育" * 3]
HAS_ONNX = not paddle.__version__.startswith("2.") and is_installed("onnx")


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a tower of two networks, and its export; return the folder."""
    folder = tmp_path_factory.mktemp("towers")
    models = []
    for seed in (1, 2):
        source = write_encoder(folder / f"encoder{seed}", seed)
        info = TowerInfo(32, 14, pooling="mean", output_layer=True, lexical_size=6, query_prompt="深")
        models.append(start_tower(read_checkpoint(source), info)[0])
    both = dataclasses.replace(models[0].info, towers=2)
    (folder / "tower").mkdir()
    save_tower(folder / "tower", models[0], both)
    save_query_tower(folder / "tower", models[1], both)
    onnx = ["--onnx"] if HAS_ONNX else []
    assert main(["export", "--model", str(folder / "tower"), "--output", str(folder / "exported"), *onnx]) == 0
    return folder


@pytest.mark.parametrize("engine", ["inference", "onnx", "openvino"])
def test_vectors_of_every_engine_are_the_network_s(towers: Path, engine: str) -> None:
    if engine != "inference" and not (HAS_ONNX and is_installed(engine)):
        pytest.skip(f"needs Paddle 3, which writes ONNX files, and {engine}")
    network, exported = Tower.open(towers / "tower"), Tower.open(towers / "exported", LoadOptions(engine=engine))
    np.testing.assert_allclose(exported.vectors(TEXTS), network.vectors(TEXTS), atol=1e-5)
    np.testing.assert_allclose(exported.query_vectors(TEXTS), network.query_vectors(TEXTS), atol=1e-5)
    assert np.abs(network.query_vectors(TEXTS) - network.vectors(TEXTS)).max() > 0.01
    with pytest.raises(UsageError, match="pooling mean, length 1"):
        Tower.open(towers / "exported", LoadOptions(engine=engine, normalize=False))
    if engine != "onnx":
        try:
            half = Tower.open(towers / "exported", LoadOptions(engine=engine, precision="bf16"))
        except UsageError as error:
            pytest.skip(str(error))  # a processor without bf16
        assert (half.vectors(TEXTS) * network.vectors(TEXTS)).sum(axis=1).min() > 0.99


def test_integers_are_kept_with_the_loss_that_they_cost(towers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not HAS_ONNX:
        pytest.skip("needs Paddle 3, which writes ONNX files")
    _, words = draw_words(60, 6)
    pairs = towers / "pairs.tsv"
    pairs.write_text("".join(f"{word[:3]}\t{word}\n" for word in words), encoding="utf-8")
    command = ["quantize", "--model", str(towers / "exported"), "--calibration_file", str(pairs), "--test", str(pairs)]
    command += ["--seconds", "0.01"]
    assert main([*command, "--max_loss", "1"]) == 0
    out = capsys.readouterr().out
    assert "recall@10" in out and "vectors move by" in out
    info = TowerInfo.read(towers / "exported")
    assert info is not None and info.export is not None
    int8 = info.export["int8"]
    assert int8 is not None and int8["evaluation"]["queries"] == len({word[:3] for word in words})  # type: ignore[index]
    network = Tower.open(towers / "tower").vectors(TEXTS)
    tower = Tower.open(towers / "exported", LoadOptions(engine="onnx", precision="int8"))
    found = tower.vectors(TEXTS)
    np.testing.assert_allclose(
        tower.query_vectors(TEXTS), Tower.open(towers / "tower").query_vectors(TEXTS), atol=1e-5
    )  # in fp32: queries have a separate tower
    assert np.abs(found - network).max() > 0 and (found * network).sum(axis=1).min() > 0.9
