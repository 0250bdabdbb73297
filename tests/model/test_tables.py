"""Rankers of tables: equal to transformers' TAPAS; what does not fit is said; converted and exported."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import paddle
import pytest

from paddle_ranker import Ranker
from paddle_ranker.commands.convert import ConvertOptions, convert
from paddle_ranker.data.placed_text import PlacedText
from paddle_ranker.encoding.table_pairs import TablePairEncoder, table_text
from paddle_ranker.errors import DataError, UsageError
from paddle_ranker.export.static_graph import export_model
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import RANKER, load_model
from paddle_ranker.model.ranker_folder import load_single
from tests.model.table_cases import FILE, LENGTH, cases, checksum, write_folder
from tests.model.test_families import HAS_ONNX

pytestmark = pytest.mark.parity
EXPECTED = json.loads(FILE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("tapas") / "hf")


def test_ids_types_and_logits_of_500_tables_are_those_of_transformers(folder: Path) -> None:
    model = load_single(folder, LoadOptions(max_seq_length=LENGTH))
    model.network.eval()
    questions, tables = zip(*((question, table_text(rows)) for question, rows in cases()))
    pairs = model.row_encoder.encode(questions, tables)
    found = []
    for row in range(len(pairs)):
        arrays = pairs.pad([row])
        found.append(checksum(arrays["input_ids"][0], arrays["token_type_ids"][0, :, :7]))
    different = [row for row, (ours, theirs) in enumerate(zip(found, EXPECTED["checksums"])) if ours != theirs]
    assert different == []
    logits = []
    for start in range(0, len(pairs), 50):  # padded to the longest of 50
        arrays = pairs.pad(range(start, start + 50))
        logits += model.network(*map(paddle.to_tensor, (arrays["input_ids"], arrays["token_type_ids"]))).tolist()
    np.testing.assert_allclose(logits, EXPECTED["logits"], atol=1e-5)


def test_what_does_not_fit_is_counted_and_named(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    encoder = load_single(folder, LoadOptions(max_seq_length=32)).row_encoder
    assert isinstance(encoder, TablePairEncoder)
    long = table_text([["year", "city"], *([str(year), "north"] for year in range(1900, 1950))])
    wide = table_text([["team"], ["grand final open " * 20]])
    pairs = encoder.encode(["total?", "total?", "the " * 90], [long, wide, table_text([["year"], ["two"]])])
    assert pairs.lengths.max() <= 32 and pairs.pad([2])["token_type_ids"][0, -1, :3].tolist() == [1, 1, 1]
    kept = int(pairs.pad([0])["token_type_ids"][0, :, 2].max())
    counts = encoder.counts()
    assert counts["rows of tables did not fit and were left out"] == 50 - kept > 0
    assert counts["tables had cells cut to fit"] == 1 and counts["questions were cut to 32 tokens"] == 1
    assert f"note: rows {kept + 1} to 50 of the table 'year | city" in capfd.readouterr().err
    with pytest.raises(UsageError, match="--windows none"):
        encoder.encode(["a"], [long], truncate=False)
    for place in ((0, 1, 0.5, 0), (0, 1, -2, 0), (0, 1, 0), (0, 1, 0, 1000)):
        with pytest.raises(DataError, match=r"correct it|at most 255"):
            encoder.encode(["a"], [PlacedText("abc", [place])])
    plain = encoder.encode(["total?"], ["year city"]).pad([0])["token_type_ids"][0]
    assert plain[-1, :3].tolist() == [1, 1, 0]  # a header


def test_a_ranker_of_tables_is_converted_exported_and_ranks(folder: Path, tmp_path: Path) -> None:
    convert(ConvertOptions(source=str(folder), target=str(tmp_path / "ours")))
    export_model(load_model(tmp_path / "ours", RANKER), tmp_path / "exported", onnx=HAS_ONNX)  # which compares tables
    questions, tables = zip(*((question, table_text(rows)) for question, rows in cases()[:20]))
    wanted = Ranker.load(folder).score(questions, tables)
    for engine in ("inference", "onnx", "openvino") if HAS_ONNX else ("inference",):
        found = Ranker.load(tmp_path / "exported", engine=engine).score(questions, tables)
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert len(Ranker.load(folder).rank(questions[0], tables)) == 20
    convert(ConvertOptions(source=str(tmp_path / "ours"), target=str(tmp_path / "back"), to="hf"))
    np.testing.assert_allclose(Ranker.load(tmp_path / "back").score(questions, tables), wanted, atol=1e-6)
