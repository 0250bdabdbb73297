"""The published commands of recall: their files and output, against products and counts by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from paddle_ranker.model.encoder_loading import read_checkpoint
from paddle_ranker.model.tower import TowerInfo
from paddle_ranker.model.tower_network import save_tower, start_tower
from paddle_ranker.options.input_files import join_files
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from recall import evaluate, recall
from recall.results import corpus_texts
from tests.conftest import REPOSITORY as ROOT
from tests.tiny import HAN, write_encoder

pytestmark = pytest.mark.unit
QUERIES = ["甲 乙", "丙", "丁"]


def call(main: object, capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main([*map(str, arguments)])  # type: ignore[operator]
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def written(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_what_is_found_is_every_text_in_the_order_of_its_cosine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = read_checkpoint(write_encoder(tmp_path / "encoder"))
    model, _ = start_tower(source, TowerInfo(16, 8, pooling="mean", output_layer=True))
    save_tower(tmp_path / "tower", model, model.info)
    texts = [*HAN[:6], "水稻\t病害", HAN[3]]
    corpus = written(tmp_path / "corpus.csv", *texts)
    pairs = written(tmp_path / "dev.csv", f"{HAN[0]}\t{HAN[1]}", f"{HAN[7]}\t{HAN[3]}", f"{HAN[0]}\t{HAN[2]}")
    files = ["--params_path", tmp_path / "tower", "--corpus_file", corpus, "--similar_text_pair", pairs]
    found: dict[str, list[tuple[str, str, float]]] = {}
    for name in ("result.txt", "result.jsonl"):
        target = ["--recall_result_dir", tmp_path / "results", "--recall_result_file", name, "--recall_num", 5]
        status, out, err = call(recall.main, capsys, *files, *target, "--device", "cpu")
        assert (status, out) == (0, f"{tmp_path / 'results' / name}\n"), err
        lines = (tmp_path / "results" / name).read_text(encoding="utf-8").splitlines()
        rows = [list(json.loads(line).values()) if name.endswith("l") else line.split("\t") for line in lines]
        found[name] = [(query, text, float(cosine)) for query, text, cosine in rows]

    tower, distinct = Tower.open(tmp_path / "tower"), list(dict.fromkeys(texts))
    cosines = tower.query_vectors([HAN[0], HAN[7]]) @ tower.vectors(distinct).T
    best = np.argsort(-cosines, axis=1, kind="stable")[:, :5]
    wanted = [(query, distinct[n]) for query, row in zip((HAN[0], HAN[7]), best) for n in row]
    assert [row[:2] for row in found["result.jsonl"]] == wanted
    assert [row[:2] for row in found["result.txt"]] == [(query, text.replace("\t", " ")) for query, text in wanted]
    np.testing.assert_allclose(
        [row[2] for row in found["result.txt"]], np.take_along_axis(cosines, best, 1).ravel(), atol=1e-6
    )

    result = tmp_path / "results" / "result.txt"
    status, out, err = call(evaluate.main, capsys, "--similar_text_pair", pairs, "--recall_result_file", result)
    assert status == 0 and len([line for line in out.splitlines() if line.startswith("recall@")]) == 5, err


def test_the_options_of_a_graph_find_what_an_exact_search_finds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("faiss", reason="needs faiss (pip install faiss-cpu)")
    random = np.random.default_rng(1)
    vectors = random.normal(size=(1500, 16)).astype(np.float32)
    queries = vectors[:40] + 0.1 * random.normal(size=(40, 16)).astype(np.float32)
    options = recall.RecallOptions(
        params_path="tower", corpus_file="c", similar_text_pair="p", recall_num=5, hnsw_m=32, hnsw_ef=400
    )
    exact = [*recall._search(vectors, queries, replace(options, hnsw_m=None, hnsw_ef=None))]
    found = [*recall._search(vectors, queries, options)]
    shared = [len(set(some[0]) & set(all_[0])) for some, all_ in zip(found, exact)]
    assert np.mean(shared) >= 4.9
    for (numbers, cosines), query in zip(found, queries):
        np.testing.assert_allclose(cosines, vectors[numbers] @ query, rtol=1e-4)


def test_the_published_lines_are_the_share_of_answers_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = written(tmp_path / "dev.csv", "甲 乙\t子", "丙\t丑", "丁\t寅", "丙\t卯")
    rows = [
        "甲\t乙\t辰\t0.9",
        "甲 乙\t子\t0.8",
        "丙\t丙\t0.9",
        "丙\t丑\t0.7",
        "丙\t卯\t0.6",
        "丙\t丑\t0.5",
        "丁\t寅\t1.0",
    ]
    result = written(tmp_path / "result.txt", *rows)
    corpus = written(tmp_path / "corpus.csv", "子甲乙", "子", "丑", "寅丁", "寅", "卯")
    files = ["--similar_text_pair", pairs, "--recall_result_file", result]
    status, out, err = call(evaluate.main, capsys, *files, "--corpus_file", corpus)
    assert status == 0, err
    # Ranks of the answers: 2 (of 1); 2 and 3 (of 2); 1 (of 1). The last query and texts equal to the query count.
    wanted = [(1, 1 / 3), (5, 1.0), (10, 1.0), (20, 1.0), (50, 1.0)]
    assert out.splitlines()[:5] == [f"recall@{cut}={round(100 * share, 3)}" for cut, share in wanted]
    assert [line for line in out.splitlines() if "BM25" in line and line.startswith("  ")]
    values = {}
    for count in (2, 20):
        more = ["--corpus_file", corpus, "--format", "json", "--recall_num", count]
        status, out, _ = call(evaluate.main, capsys, *files, *more)
        systems = json.loads(out)["systems"]
        assert list(systems) == ["found", "BM25 (words)", "BM25 (bigrams)"]
        values[count] = {name: one["value"] for name, one in systems["found"]["measures"].items()}
    assert not [name for name in values[2] if "@" in name and not name.endswith("@1")]  # for two there is no r@5
    assert values[2]["r@1"] == 1 / 3 and values[2]["map"] == pytest.approx((1 / 2 + 1 / 2 * 1 / 2 + 1) / 3)
    assert {"r@20", "ndcg@10"} <= values[20].keys() and "r@50" not in values[20]
    assert values[20]["r@5"] == 1 and values[20]["mrr@10"] == pytest.approx((1 / 2 + 1 / 2 + 1) / 3)


@pytest.mark.parametrize(
    ("pairs", "rows", "wanted", "said"),
    [
        (
            ["query\ttitle\tlabel", "甲\t子\t0", "甲\t丑\t1", "丙\t子\t0", "甲\t寅\t2"],
            ["甲\t子\t0.9", "甲\t丑\t0.8", "丙\t子\t0.9"],
            "recall@1=0.0\nrecall@5=50.0\n",
            "1 of 2 queries have no title labelled 1 or more: left out",
        ),
        (
            ["甲\t子", "丙\t丑"],
            ["甲\t子\t0.9", "甲\t丑\t0.8"],
            "recall@1=50.0\nrecall@5=50.0\n",
            "1 of the 2 judged queries",
        ),
    ],
    ids=["labels below 1 are no answers", "a query without results"],
)
def test_queries_that_count_differently_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], pairs: list[str], rows: list[str], wanted: str, said: str
) -> None:
    files = ["--similar_text_pair", written(tmp_path / "dev.csv", *pairs)]
    files += ["--recall_result_file", written(tmp_path / "result.txt", *rows)]
    status, out, err = call(evaluate.main, capsys, *files)
    assert status == 0 and out.startswith(wanted) and said in err


@pytest.mark.parametrize("line", ["甲\t子", "甲\t子\tx"])
def test_a_line_of_anything_else_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str) -> None:
    pairs = written(tmp_path / "dev.csv", "甲\t子")
    result = written(tmp_path / "result.txt", "甲\t子\t0.9", line, "甲\t丑\t0.8")
    status, _, err = call(evaluate.main, capsys, "--similar_text_pair", pairs, "--recall_result_file", result)
    assert status == 1 and "result.txt, line 2: " in err and "expected query, text, cosine" in err


def test_the_folder_s_commands_find_its_modules_beside_recall_py() -> None:
    """`python recall/recall.py` puts the folder first on the path, where `recall` is that file."""
    program = f"import sys; sys.path.insert(0, {str(ROOT / 'recall')!r}); import recall.results, recall.commands"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_a_corpus_is_lines_or_a_column_of_texts_in_several_files_too(tmp_path: Path) -> None:
    lines = written(tmp_path / "lines.csv", "水稻\t病害", "text", "水稻")
    table = written(tmp_path / "table.tsv", "id\ttext", "a\t水稻", "b\t护理")
    named = written(tmp_path / "named.tsv", "title\tlang", "教育\tzh")
    rows = written(tmp_path / "rows.jsonl", '{"id": "c", "title": "经济"}', '{"_id": "d", "title": "a", "text": "b"}')
    names = join_files([str(path) for path in (lines, table, named, rows)])
    assert corpus_texts(names) == ["水稻\t病害", "text", "水稻", "护理", "教育", "经济", "a b"]
    (tmp_path / "beir").mkdir()
    rows.rename(tmp_path / "beir" / "corpus.jsonl")
    assert corpus_texts(str(tmp_path / "beir")) == ["经济", "a b"]
    assert corpus_texts(str(written(tmp_path / "one.csv", "text", "水稻"))) == ["水稻"]
    assert corpus_texts(str(written(tmp_path / "blank.csv", "水稻", "", "护理"))) == ["水稻", "护理"]
