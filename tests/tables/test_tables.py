"""Rankers of tables: equal to transformers' TAPAS; what does not fit is said; converted and exported."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any, Optional
from unittest import mock

import numpy as np
import paddle
import pytest

from paddle_ranker import Ranker
from paddle_ranker.__main__ import main
from paddle_ranker.commands.convert import ConvertOptions, convert
from paddle_ranker.data.files.placed_text import PlacedText
from paddle_ranker.errors import CheckpointError, DataError, UsageError
from paddle_ranker.export.static_graph import export_model
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import RANKER, load_model
from paddle_ranker.model.ranker_folder import load_single
from paddle_ranker.notebook import Index
from paddle_ranker.tables.table_pairs import TablePairEncoder, table_text
from tests.model.test_families import HAS_ONNX
from tests.serving.test_search import Site
from tests.tables.table_cases import (
    ANSWERED,
    ANSWERS,
    FILE,
    LENGTH,
    LIMITS,
    LONG,
    NETWORKS,
    cases,
    checksum,
    limited_cases,
    write_folder,
    write_limited,
)

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


@pytest.mark.thorough(keep=2)
@pytest.mark.parametrize("number", range(len(LIMITS)))
def test_the_limits_of_tables_are_those_of_transformers(number: int, tmp_path: Path) -> None:
    """Logits, also of the model converted there and back; transformers refuses some tables."""
    folder, ours, back = write_limited(tmp_path / "hf", number), tmp_path / "ours", tmp_path / "back"
    convert(ConvertOptions(source=str(folder), target=str(ours)))
    convert(ConvertOptions(source=str(ours), target=str(back), to="hf"))
    wanted = np.array(EXPECTED["limited"][number], float)
    is_said = ~np.isnan(wanted)
    assert is_said.sum() > 3
    questions, tables = zip(*((question, table_text(rows)) for question, rows in limited_cases()))
    for source in (folder, ours, back):
        ranker = Ranker.load(source, max_seq_length=LONG)
        found = np.array(ranker.score(questions, tables, logits=True))
        np.testing.assert_allclose(found[is_said], wanted[is_said], atol=2e-5)


@pytest.mark.parametrize(
    ("key", "value"),
    [("min_question_length", 3), ("empty_token", "[MASK]"), ("max_row_id", 1), ("max_column_id", "9"),
     ("max_question_length", 9)],
)  # fmt: skip
def test_other_settings_of_tables_are_refused_by_name(folder: Path, tmp_path: Path, key: str, value: object) -> None:
    shutil.copytree(folder, tmp_path / "hf")
    settings = {"tokenizer_class": "TapasTokenizer", key: value}
    (tmp_path / "hf" / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match=f"{key} is"):
        load_single(tmp_path / "hf")


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
    for place in ((0, 1, 0.5, 0), (0, 1, -2, 0), (0, 1, 0)):
        with pytest.raises(DataError, match="correct it"):
            encoder.encode(["a"], [PlacedText("abc", [place])])
    encoder.encode(["a"], [table_text([["x"] * 300])])
    assert encoder.counts()["columns of tables after the first 255 were left out"] == 45
    plain = encoder.encode(["total?"], ["year city"]).pad([0])["token_type_ids"][0]
    assert plain[-1, :3].tolist() == [1, 1, 0]  # a header


@pytest.mark.parametrize("network", [None, "operations"])
def test_a_ranker_of_tables_is_converted_exported_and_ranks(tmp_path: Path, network: Optional[str]) -> None:
    folder = write_folder(tmp_path / "hf", network)
    convert(ConvertOptions(source=str(folder), target=str(tmp_path / "ours")))
    export_model(load_model(tmp_path / "ours", RANKER), tmp_path / "exported", onnx=HAS_ONNX)  # which compares tables
    questions, tables = zip(*((question, table_text(rows)) for question, rows in cases()[:20]))
    wanted = Ranker.load(folder).score(questions, tables)
    for engine in ("inference", "onnx", "openvino") if HAS_ONNX else ("inference",):
        exported = Ranker.load(tmp_path / "exported", engine=engine)
        np.testing.assert_allclose(exported.score(questions, tables), wanted, atol=1e-5)
        assert exported.rank(questions[0], tables[:1])[0].answer is None
    ranker = Ranker.load(folder)
    runs = mock.Mock(wraps=ranker.scorer.compute)
    with mock.patch.object(ranker.scorer, "compute", runs):
        ranked = ranker.rank(questions[0], tables)
    assert sum(len(call.args[1]) for call in runs.call_args_list) == 20  # each table is computed once
    assert len(ranked) == 20 and [one.answer is None for one in ranked] == [network is None] * 20
    convert(ConvertOptions(source=str(tmp_path / "ours"), target=str(tmp_path / "back"), to="hf"))
    back = Ranker.load(tmp_path / "back")
    np.testing.assert_allclose(back.score(questions, tables), wanted, atol=1e-6)
    answers = [one.answer for one in back.rank(questions[0], tables)]
    assert [None if one is None else [cell.text for cell in one.cells] for one in answers] == [
        None if one.answer is None else [cell.text for cell in one.answer.cells] for one in ranked
    ]


@pytest.mark.thorough(keep=2)
@pytest.mark.parametrize("network", NETWORKS)
def test_cells_and_operations_are_those_of_transformers(tmp_path: Path, network: str) -> None:
    ranker = Ranker.load(write_folder(tmp_path / "hf", network), max_seq_length=LENGTH)
    expected = json.loads(ANSWERS.read_text(encoding="utf-8"))[network]
    questions, tables = zip(*((question, table_text(rows)) for question, rows in cases()[:ANSWERED]))
    arrays = ranker.row_encoder.encode(questions, tables).pad(range(ANSWERED))  # padded to the longest
    engine: Any = ranker.loaded.engine
    _, logits, *operations = engine.call(engine.network, arrays)
    for row, said in enumerate(expected):
        own = logits[row][arrays["token_type_ids"][row, :, 2] > 0]
        theirs = [np.nan if one is None else one for one in said["logits"]]  # None: of a column that is not selected
        np.testing.assert_allclose(np.where(own < -5000, np.nan, own), theirs, atol=3e-5)  # theirs are rounded to 1e-5
        if operations:
            np.testing.assert_allclose(operations[0][row], said["operations"], atol=3e-5)
        else:
            assert said["operations"] is None
    names = NETWORKS[network].get("aggregation_labels", {"0": "0"})
    scores = ranker.score(questions, tables, logits=True)
    for question, table, said, score in zip(questions, tables, expected, scores):
        (alone,) = ranker.rank(question, [table], logits=True)
        assert alone.answer is not None and alone.logit == pytest.approx(score, abs=1e-5)
        assert [[cell.row, cell.column] for cell in alone.answer.cells] == said["cells"]
        texts = {place[2:]: str(table)[place[0] : place[1]] for place in table.places}
        assert all(texts[cell.row, cell.column] == cell.text for cell in alone.answer.cells)
        assert alone.answer.operation == (None if said["operation"] is None else names[str(said["operation"])])
        if network != "columns":  # whose probability of a cell is a mean of probabilities, not of logits
            assert (score > 0) == bool(said["cells"])


@pytest.fixture
def index(tmp_path: Path) -> Path:
    (tmp_path / "corpus").mkdir()
    for name, count in (("short", 9), ("long", 200)):
        with (tmp_path / "corpus" / f"{name}.csv").open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows(_rows(count))
    command = ["index", "build", "--corpus", str(tmp_path / "corpus"), "--output", str(tmp_path / "index")]
    assert main([*command, "--device", "cpu"]) == 0
    return tmp_path / "index"


def _rows(count: int) -> list[list[str]]:
    rows = [[f"city {place % 26:x}", str(1200 + place * 37 % 800), f"{place} points"] for place in range(count)]
    return [["City", "Year", "Team"], *rows]


def test_a_search_ranks_tables_that_were_read_and_names_their_cells(
    tmp_path: Path, index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_folder(tmp_path / "hf", "operations")
    command = ["search", "--index", str(index), "city points", "--ranker", str(folder), "--top_k", "20"]
    capsys.readouterr()
    assert main([*command, "--format", "json"]) == 0
    results = json.loads(capsys.readouterr().out.splitlines()[-1])["results"]
    ranker, named = Ranker.load(folder), 0
    for result in results:
        table = _rows(9 if result["id"].startswith("short") else 200)
        answer, place = result["answer"], result["place"]
        assert answer["operation"] in ("NONE", "SUM", "AVERAGE", "COUNT")
        for cell in answer["cells"]:
            assert table[cell["row"] + 1][cell["column"]] == cell["text"]
        if answer["cells"]:
            named += 1
            assert place["cells"] == [[cell["row"], cell["column"]] for cell in answer["cells"]]
        if "long" not in result["id"] or "#" in result["id"]:  # without its summary, which has a value of a row
            rows = table[place["first_row"] + 1 : place["last_row"] + 2]
            (logit,) = ranker.score(["city points"], [table_text([table[0], *rows])], logits=True)
            assert result["logit"] == pytest.approx(logit, abs=1e-5)
    assert named > 1 and len(results) > 5
    assert main([*command, "--explain"]) == 0
    assert "; NONE" in capsys.readouterr().out


def _swapped(is_relevant: bool, number: int) -> PlacedText:
    """Return a table whose text says nothing of its relevance: which of its columns is the first does."""
    first, second = (0, 1) if is_relevant else (1, 0)
    word, count = f"{'abcdefgh'[number % 8]}", str(number % 10)
    text = f"city team {word} {count}"
    spans = [(0, 4, -1, first), (5, 9, -1, second), (10, 11, 0, first), (12, 13, 0, second)]
    return PlacedText(text, spans)


@pytest.mark.thorough(keep=1)
@pytest.mark.parametrize("network", [None, "operations"])
def test_a_ranker_of_tables_is_trained_quantized_and_served(
    tmp_path: Path, index: Path, capsys: pytest.CaptureFixture[str], network: Optional[str]
) -> None:
    folder = write_folder(tmp_path / "hf", network)
    rows = [(f"total of {number}", _swapped(label == 1, number), label) for number in range(40) for label in (1, 0)]
    lines = [{"query": query, "title": str(one), "places": one.places, "label": label} for query, one, label in rows]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    pairs = ["--train", str(tmp_path / "pairs.jsonl"), "--test", str(tmp_path / "pairs.jsonl"), "--device", "cpu"]
    options = ["--batch_size", "16", "--epochs", "40", "--learning_rate", "5e-3", "--max_seq_length", "64"]
    command = ["--model", str(folder), *pairs, *options, "--output", str(tmp_path / "run")]
    assert main(["train-batch-neg", *command]) == 2
    assert "makes no vectors of texts" in capsys.readouterr().err
    assert main(["train-ce", *command]) == 0
    trained, tables = tmp_path / "run" / "best", [_swapped(True, 3), _swapped(False, 3)]
    asked = ["total of cities"] * 2, tables
    wanted = Ranker.load(trained).score(*asked)
    assert wanted[0] > wanted[1] + 0.1
    (best, _) = Ranker.load(trained).rank("total of cities", tables)
    assert best.title == tables[0] and (best.answer is None) == (network is None)
    if HAS_ONNX:
        static = ["--model", str(tmp_path / "exported")]
        capsys.readouterr()
        assert main(["export", "--model", str(trained), "--output", static[1], "--onnx"]) == 0
        assert ("names no cells" in capsys.readouterr().err) == (network is not None)
        quality = ["--calibration_file", str(tmp_path / "pairs.jsonl"), *pairs[2:4], "--max_loss", "1"]
        assert main(["quantize", *static, *quality, "--seconds", "0.1"]) == 0
        int8 = Ranker.load(static[1], engine="onnx", precision="int8").score(*asked)
        assert int8[0] > int8[1] + 0.1 and (int8 != wanted).all()
    site = Site(model=trained, index=index)
    try:
        documents = [{"text": one, "places": one.places} for one in tables]
        body = {"query": "total of cities", "documents": documents}
        answer = site.ask("POST", "/v1/rerank", body).json()
        scores = {one["index"]: one["relevance_score"] for one in answer["results"]}
        np.testing.assert_allclose([scores[place] for place in range(2)], wanted, atol=1e-5)
        sparse = [[0, 1, number, number] for number in range(1000)]
        for places in (
            [[0, 1, 0]],
            [[0, 1, 0.1, 0.1, 0.2, 0.2]],
            [[0, 1, -2, 0]],
            [[0, 1, 0, -1]],
            [[0, 1, 0.5, 1]],
            sparse,
        ):
            refused = site.ask("POST", "/v1/rerank", {"query": "a", "documents": [{"text": "ab", "places": places}]})
            assert refused.status_code == 422 and "documents[0].places" in refused.text, refused.text
        hits = site.search("city points", top_k=20)["hits"]
    finally:
        site.close()
    with Index(index) as opened:
        results = {one.id: one for one in opened.search("city points", top_k=20, ranker=str(trained))}
    assert len(hits) == len(results) > 5
    for hit in hits:
        result = results[hit["id"]]
        assert hit["probability"] == pytest.approx(result.probability, abs=1e-5)
        assert ("answer" in hit) == (result.answer is not None) == (network is not None)
        if result.answer is not None:
            assert hit["answer"].get("operation") == result.answer.operation
            cells = [[cell["row"], cell["column"]] for cell in hit["answer"]["cells"]]
            assert cells == [[cell.row, cell.column] for cell in result.answer.cells]
            assert hit["place"] == result.place and (not cells or hit["place"]["cells"] == cells)
