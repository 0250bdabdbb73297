"""The benchmark of search, from titles to a server under load, as small as it gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import search
from paddle_ranker.errors import DependencyError
from paddle_ranker.export.onnx import require_onnx
from paddle_ranker.export.static_graph import export_model
from paddle_ranker.model.model_folder import RANKER, load_model
from tests.tiny import write_ranker, write_tower


@pytest.mark.slow
def test_every_part_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("faiss", reason="needs faiss (pip install faiss-cpu)")
    try:
        require_onnx()
    except DependencyError as error:
        pytest.skip(str(error))
    ranker, _ = export_model(load_model(write_ranker(tmp_path / "ranker"), RANKER), tmp_path / "exported", onnx=True)
    sizes = ["--documents", "1200", "--queries", "10", "--seconds", "0.3", "--clients", "2"]
    models = ["--tower", str(write_tower(tmp_path / "tower")), "--ranker", str(ranker.folder)]
    arguments = ["--work_dir", str(tmp_path / "work"), *models, *sizes]
    assert search.main([*arguments, "--threads", "1"]) == 0
    shown = capsys.readouterr().out
    for stage in ("one client", "words", "added and found"):
        assert f"\n| {stage} " in shown, shown
    assert "2 clients: answers_per_second" in shown and shown.count(", goal ") == 15
    assert "reached: ten times as much: other codes than 200, 429 and 503 0.000" in shown
