"""Rankers and towers that read boxes, from training to serving."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import numpy as np
import paddle
import pytest

from paddle_ranker import Ranker
from paddle_ranker.__main__ import main
from paddle_ranker.data.files.file_readers import READERS
from paddle_ranker.data.files.placed_text import PlacedText
from paddle_ranker.data.rows.records import LabeledPair, Pair, Triple, read_records, write_records
from paddle_ranker.errors import DataError
from paddle_ranker.export.static_graph import export_model
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import TOWER, load_model
from paddle_ranker.notebook import Index
from paddle_ranker.registry import VARIABLE
from tests.model.test_families import HAS_ONNX, tensors, write_folder
from tests.serving_cases import Application, close_slots, opened_slots
from tests.tiny import change_json

pytestmark = pytest.mark.parity
TOP, BOTTOM = [0.1, 0.1, 0.3, 0.2], [0.1, 0.8, 0.3, 0.9]


def form(box: list[float], word: int = 9) -> PlacedText:
    return PlacedText(f"w{word} w7", [(0, 2, *box), (3, 5, 0.5, 0.5, 0.6, 0.6)])


def write_pairs(path: Path, rows: int) -> None:
    """Write pairs whose relevance depends on a box alone: a title is relevant if its word stands at the top."""
    with path.open("w", encoding="utf-8") as stream:
        for number in range(rows):
            for label, box in ((1, TOP), (0, BOTTOM)):
                title = form(box, number % 10)
                row = {"query": f"w{20 + number}", "title": str(title), "label": label, "places": title.places}
                stream.write(json.dumps(row) + "\n")


def test_records_have_places(tmp_path: Path) -> None:
    """As lists of JSON, or in a column of tab-separated text; what is written is read again."""
    title = form(TOP)
    for name in ("rows.tsv", "rows.jsonl", "rows.parquet"):
        path = tmp_path / name
        for records in (
            [LabeledPair("w1", title, 1.0), LabeledPair("w1", form(BOTTOM), 0.0)],
            [Triple("w1", title, form(BOTTOM))],
            [Pair("w1", "w2")],
        ):
            write_records(path, records)
            assert read_records(path, type(records[0])) == records
    with pytest.raises(DataError, match="other columns"):
        write_records(tmp_path / "mixed.jsonl", [Pair("w1", title), Pair("w1", "w2")])
    write_pairs(tmp_path / "rows.jsonl", 1)
    assert [row.title for row in read_records(tmp_path / "rows.jsonl", LabeledPair)] == [form(TOP, 0), form(BOTTOM, 0)]
    for places, told in (("[[0, 9, 1]]", "start and end in a text of 2"), ("no", "its places are 'no'"), ("3", "'3'")):
        (tmp_path / "bad.tsv").write_text(f"query\ttitle\tplaces\nw1\tw2\t{places}\n", encoding="utf-8")
        with pytest.raises(DataError, match=told):
            read_records(tmp_path / "bad.tsv", Pair)
    (tmp_path / "bad.jsonl").write_text('{"query": "a", "pos": ["b"], "neg": ["c"], "places": [[0, 1, 1]]}\n')
    with pytest.raises(DataError, match="a row for each title"):
        read_records(tmp_path / "bad.jsonl", Triple)


@pytest.mark.thorough(keep=1)
@pytest.mark.parametrize("case", ["layoutlm", "lilt"])
def test_a_ranker_learns_from_boxes_and_is_measured_exported_and_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    """Relevant and irrelevant titles differ by their boxes alone."""
    folder = write_folder(tmp_path / "hf", case)
    for name in ("train.jsonl", "dev.jsonl"):
        write_pairs(tmp_path / name, 40)
    files = ["--train", str(tmp_path / "train.jsonl"), "--test", str(tmp_path / "dev.jsonl")]
    options = ["--batch_size", "16", "--epochs", "30", "--learning_rate", "3e-3", "--max_seq_length", "32"]
    command = ["train-ce", "--model", str(folder), *files, "--output", str(tmp_path / "run"), *options]
    assert main([*command, "--match_embeddings", "false", "--device", "cpu"]) == 0
    ranker = Ranker.load(tmp_path / "run" / "best")
    titles = [form(TOP), form(BOTTOM), "w9 w7"]
    wanted = ranker.score(["w3"] * 3, titles)
    assert wanted[0] > wanted[1] + 0.2
    assert [one.title for one in ranker.rank("w3", titles[:2])] == titles[:2]
    capsys.readouterr()
    assert (
        main(["evaluate", str(tmp_path / "run" / "best"), "--test", str(tmp_path / "dev.jsonl"), "--device", "cpu"])
        == 0
    )
    assert (
        main(["predict", str(tmp_path / "run" / "best"), "--input", str(tmp_path / "dev.jsonl"), "--device", "cpu"])
        == 0
    )
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    predicted = [ast.literal_eval(line)["pred_prob"] for line in printed[:2]]
    assert predicted[0] > predicted[1] + 0.2
    target = tmp_path / "exported"
    assert main(["export", str(tmp_path / "run" / "best"), "--output", str(target), *["--onnx"] * HAS_ONNX]) == 0
    for engine in ("inference", "onnx", "openvino") if HAS_ONNX else ("inference",):
        np.testing.assert_allclose(Ranker.load(target, engine=engine).score(["w3"] * 3, titles), wanted, atol=1e-5)
    serve(target, titles, wanted)


def serve(folder: Path, titles: list[str], wanted: np.ndarray) -> None:
    from paddle_ranker.serving.core.metrics import Metrics
    from paddle_ranker.serving.process.worker import make_app

    config, slots = opened_slots(model=folder)
    site = Application()
    site.app = make_app(slots, config, Metrics())
    try:
        documents = [{"text": one, "places": one.places} if isinstance(one, PlacedText) else one for one in titles]
        answer = site.post("/v1/rerank", {"query": "w3", "documents": documents}).json()
        found = {one["index"]: one["relevance_score"] for one in answer["results"]}
        np.testing.assert_allclose([found[place] for place in range(len(titles))], wanted, atol=1e-5)
        for place, problem in (
            ([0, 9, 1], "is no list of places"),
            ([0, 2, 0.1, 0.2, 0.3], "expected [start, end, x0, y0, x1, y1]"),
            ([0, 2, 0.1], "expected [start, end, x0, y0, x1, y1]"),
            ([0, 2, 3, 4], "expected [start, end, x0, y0, x1, y1]"),
            ([0, 2, 100, 200, 300, 400], "divide by 1000"),
            ([0, 2, 0.1, 0.2, 0.3, 1.6], "divide by 1000"),
            ([0, 2, 0.1, 0.2, 0.3, "a"], "documents[1].places[0][5]: Input should be a valid number"),
            ([0, True, 0.1, 0.2, 0.3, 0.4], "documents[1].places[0][1]: Input should be a valid number"),
        ):
            given = ["w1", {"text": "w1", "places": [place]}]
            refused = site.post("/v1/rerank", {"query": "w3", "documents": given})
            assert refused.status_code == 422 and "documents[1].places" in refused.text and problem in refused.text
        given = [{"text": "w1", "places": [[0, 2, -0.1, 0.2, 1.2, 0.3]]}, {"text": "w1", "places": []}, "w1"]
        answer = site.post("/v1/rerank", {"query": "w3", "documents": given}).json()
        assert answer["meta"]["clipped_boxes"] == 1
        scores = {one["index"]: one["relevance_score"] for one in answer["results"]}
        assert scores[1] == pytest.approx(scores[2], abs=1e-6) != scores[0]
    finally:
        close_slots(slots)


@pytest.mark.parametrize("case", ["layoutlm", "lilt"])
def test_an_encoder_is_a_tower_whose_vectors_depend_on_boxes(tmp_path: Path, case: str) -> None:
    folder = write_folder(tmp_path / "hf", case)
    change_json(folder / "config.json", architectures=["Model"])
    tower = load_model(folder, TOWER, LoadOptions(max_seq_length=512))
    tower.network.eval()
    ids, types = tensors(tower.network.config)
    states = tower.network.encoder(ids, types).numpy()
    np.testing.assert_allclose(tower.network.encoder.states(ids, types)[-1].numpy(), states, atol=1e-6)
    texts = [form(TOP), form(BOTTOM), "w9 w7", form([0.0] * 4)]
    rows = tower.row_encoder.encode(texts).pad([0, 1, 2, 3])
    vectors = tower.network(*(paddle.to_tensor(rows[name]) for name in ("input_ids", "token_type_ids"))).numpy()
    assert vectors.shape == (4, 24) and np.abs(vectors[0] - vectors[1]).max() > 1e-3
    export_model(tower, tmp_path / "exported", onnx=HAS_ONNX)  # which compares made-up texts with boxes


def test_a_search_gives_the_ranker_the_boxes_of_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "tests.retrieval.made_reader")
    monkeypatch.setenv("PADDLE_RANKER_CACHE", str(tmp_path / "cache"))
    READERS.load_plugins()
    (tmp_path / "corpus").mkdir()
    for name, words in (("a", "w9 w1 w2 w1"), ("b", "w1 w9"), ("c", "w9 w9 w1")):
        (tmp_path / "corpus" / f"{name}.pages").write_bytes(b"PAGES\n" + words.encode())
    assert main(["index", "build", "--corpus", str(tmp_path / "corpus"), "--output", str(tmp_path / "index"),
                 "--template", "{title}: {text} w3"]) == 0  # fmt: skip
    ranker = write_folder(tmp_path / "hf", "layoutlm")
    with Index(tmp_path / "index") as index:
        hits = index.search("w9", ranker=str(ranker))
    assert sorted(hit.id for hit in hits) == ["a.pages#1", "b.pages#1", "c.pages#1"]
    for hit in hits:
        assert hit.probability is not None
        spans = [one.span() for one in re.finditer(r"\S+", hit.text)]
        placed = PlacedText(hit.text, [(*span, n / 100, 0.5, (n + 1) / 100, 0.6) for n, span in enumerate(spans)])
        title = f"{hit.title}: " + placed + " w3"
        np.testing.assert_allclose(hit.probability, Ranker.load(ranker).score(["w9"], [title])[0], atol=1e-6)
        assert abs(hit.probability - Ranker.load(ranker).score(["w9"], [str(title)])[0]) > 1e-4
