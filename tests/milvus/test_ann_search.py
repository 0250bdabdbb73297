"""`recall/milvus_ann_search.py`: the published lines insert whole texts into Milvus, and find them there."""

from __future__ import annotations

import importlib.util
import json
import os
import uuid
from pathlib import Path

import numpy as np
import pytest

from recall.milvus_ann_search import main

pytestmark = [
    pytest.mark.unit,
    pytest.mark.skipif(importlib.util.find_spec("pymilvus") is None, reason="Milvus's client is on the modern stack"),
]
REAL, NO_REAL = os.environ.get("PADDLE_RANKER_MILVUS", ""), "PADDLE_RANKER_MILVUS names no Milvus: docs/setup.md"


@pytest.mark.parametrize("uri", ["rows.db", pytest.param(REAL, marks=pytest.mark.skipif(not REAL, reason=NO_REAL))])
def test_rows_are_put_whole_found_again_and_refused_by_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"of_{uuid.uuid4().hex}"
    texts = [f"标题{number}\tb" for number in range(30)] + ["水" * 20_000]
    vectors = np.random.default_rng(3).normal(size=(31, 8)).astype(np.float32)
    Path("texts.csv").write_text("\n".join(texts) + "\n", encoding="utf-8")
    np.save("vectors.npy", vectors)
    given = ["--data_path", "texts.csv", "--embedding_path", "vectors.npy", "--uri", uri, "--collection", name]
    for _ in range(2):  # a second insertion replaces the first
        assert main([*given, "--insert", "--batch_size", "12"]) == 0
        assert f"31 rows in {name}" in capsys.readouterr().out
    assert main([*given, "--search", "--index", "30", "--top_k", "31"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    products = vectors @ vectors[30]
    assert [one["index"] for one in found] == np.argsort(-products, kind="stable").tolist()
    assert {one["index"]: one["text"] for one in found} == dict(enumerate(texts))
    np.testing.assert_allclose([one["score"] for one in found], np.sort(products)[::-1], rtol=1e-5, atol=1e-6)

    Path("short.csv").write_text("".join(f"{text}\n" for text in texts[:7]), encoding="utf-8")
    np.save("short.npy", vectors[:7])  # a shorter corpus replaces all of a longer one
    short = ["--data_path", "short.csv", "--embedding_path", "short.npy", *given[4:]]
    assert main([*short, "--insert", "--search", "--top_k", "31"]) == 0
    said, *found_lines = capsys.readouterr().out.splitlines()
    assert f"7 rows in {name}" in said and {json.loads(line)["index"] for line in found_lines} == set(range(7))

    np.save("bad.npy", np.where(np.arange(31)[:, None] == 7, np.nan, vectors).astype(np.float32))
    Path("long.csv").write_text("\n".join([*texts[:3], "水" * 22_000, *texts[4:]]) + "\n", encoding="utf-8")
    texts_file, vectors_file, rest = given[1], given[3], given[6:]
    for data, embedding, address, more, says in (
        (texts_file, "bad.npy", uri, ["--insert"], "row 7: its vector"),
        ("long.csv", vectors_file, uri, ["--insert"], "line 4: 66,000 bytes"),
        (texts_file, vectors_file, uri, ["--search", "--index", "31"], "--index 31"),
        (texts_file, vectors_file, "http://127.0.0.1:1", ["--search"], "Milvus failed"),
        (texts_file, vectors_file, uri, [], "--insert or --search"),
    ):
        assert main(["--data_path", data, "--embedding_path", embedding, "--uri", address, *rest, *more]) != 0
        assert says in capsys.readouterr().err
