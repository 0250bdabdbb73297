"""Real checkpoints, converted both ways, against BERT in NumPy; `benchmarks.convert_real` uses transformers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.convert_real import MODELS, TOLERANCE, compare_model, compare_vectors, comparison_pairs

pytestmark = [pytest.mark.real_data, pytest.mark.slow]


def real_model(package: str) -> Path:
    folder, name = os.environ.get("PADDLE_RANKER_REAL_MODELS"), package.partition("==")[0]
    source = Path(folder or "") / name / MODELS[package]
    if not folder or not source.is_dir():
        pytest.skip(
            f"needs the unzipped package {package} as PADDLE_RANKER_REAL_MODELS/{name}: fetch it with "
            "python -m benchmarks.convert_real --cache_dir FOLDER, and set the variable to that folder"
        )
    return source


@pytest.mark.parametrize("package", MODELS)
def test_real_encoders_make_equal_vectors(package: str, tmp_path: Path) -> None:
    texts = ["", "长文本" * 300, *(text for pair in comparison_pairs(8) for text in pair)]
    differences = compare_vectors(real_model(package), tmp_path, texts, reference="")
    assert len(differences) == 2
    assert all(found.largest <= TOLERANCE for found in differences), differences


@pytest.mark.parametrize("package", MODELS)
def test_real_checkpoints_give_equal_outputs_both_ways(package: str, tmp_path: Path) -> None:
    source = real_model(package)
    differences = compare_model(source, tmp_path, comparison_pairs(8), reference="")
    assert len(differences) == 3
    assert all(found.largest <= TOLERANCE for found in differences), differences
