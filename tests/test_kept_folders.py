"""Golden scores: models in `tests/kept`, opened by `Ranker` and the commands, score as they did when they were made."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from paddle_ranker import Ranker
from paddle_ranker.errors import CheckpointError
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.parity

KEPT = Path(__file__).resolve().parent / "kept"
GOLDEN = json.loads((KEPT / "golden.json").read_text(encoding="utf-8"))
PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino"}
PADDLE = paddle.__version__
OF_PADDLE_3 = f"was exported by Paddle 3, whose static models Paddle {PADDLE} cannot read"


def unpack(target: Path) -> None:
    """Copy all that is kept into an existing folder, the archives unpacked: nothing writes into what is kept."""
    for path in sorted(KEPT.iterdir()):
        if path.name.endswith(".tar.xz"):
            shutil.unpack_archive(str(path), target)
        elif path.is_dir():
            shutil.copytree(path, target / path.name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of all that is kept, to be read and written."""
    folder = tmp_path_factory.mktemp("kept")
    unpack(folder)
    return folder


def command(script: str, *arguments: str, cwd: Path) -> str:
    """Run a command as users type it; return what it printed."""
    line = [sys.executable, str(REPOSITORY / script), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(line, cwd=cwd, env=environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    return done.stdout


def require_readable(folder: Path) -> None:
    """Skip the test of a static model that this Paddle cannot read."""
    if PADDLE.startswith("2.") and not list(folder.glob("*.pdmodel")):
        pytest.skip(f"{folder.name} {OF_PADDLE_3}")


@pytest.mark.parametrize(
    "row", GOLDEN["scores"], ids=lambda row: "-".join((row["folder"], *row["how"].values())).replace("_", "-")
)
def test_a_kept_ranker_scores_as_it_did(row: dict[str, Any], kept: Path) -> None:
    folder, how = kept / row["folder"], row["how"]
    if how["engine"] == "inference":
        require_readable(folder)
    package = PACKAGES.get(how["engine"])
    if package and importlib.util.find_spec(package) is None:
        pytest.skip(f"needs {package}: pip install {package}")
    if row["folder"] == "blend_export" and package == "openvino" and metadata.version(package).startswith("2025."):
        with pytest.raises(CheckpointError, match=r"OpenVINO 2025.* cannot load it .*; type --engine onnx, or export"):
            Ranker.load(folder, **how)  # what is exported since reads there, too: see `squeeze_scalars`
        return
    queries, titles = (list(column) for column in zip(*GOLDEN["pairs"]))
    probabilities = Ranker.load(folder, **how).score(queries, titles)
    np.testing.assert_allclose(probabilities, row["probabilities"], rtol=0, atol=1e-6)


def test_the_kept_scores_tell_the_rankers_apart() -> None:
    """The test above would pass with any ranker if all of them scored alike."""
    scores = {(row["folder"], *row["how"].values()): np.array(row["probabilities"]) for row in GOLDEN["scores"]}
    dygraph = [scores[name, "dygraph"] for name in ("pairwise", "cross_encoder", "blend")]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(dygraph[one] - dygraph[other]).max() > 0.05
    assert np.abs(scores["export", "onnx", "int8"] - scores["export", "onnx"]).max() > 1e-4
    assert all(np.ptp(one) > 0.5 for one in scores.values())


@pytest.mark.parametrize("name", ["checkpoint", "static"])
def test_a_kept_model_of_posts_predicts_as_it_did(name: str, kept: Path) -> None:
    folder = kept / "entailment"
    if name == "static":
        require_readable(folder / name)
    arguments = ("--model", name, "--input_file", "posts.csv", "--device", "cpu", "--cpu_threads", "1")
    printed = command("multimodal_entailment/predict.py", *arguments, cwd=folder)
    found = list(csv.DictReader(printed.splitlines()))
    expected = list(csv.DictReader((folder / f"{name}.csv").read_text(encoding="utf-8").splitlines()))
    assert [list(row) for row in found] == [list(row) for row in expected]
    for row, as_it_was in zip(found, expected):
        for column, value in as_it_was.items():
            if "." in value:
                assert float(row[column]) == pytest.approx(float(value), abs=1.5e-6)  # six digits are printed
            else:
                assert row[column] == value
