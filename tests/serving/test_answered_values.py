"""Numbers and truth values are answered as such, whatever the file or the request has, and by all doors alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from paddle_ranker import Index
from paddle_ranker.commands import index as index_command
from paddle_ranker.commands import search
from tests.conftest import Call
from tests.serving.test_search import Site

pytestmark = pytest.mark.unit
CSV = "id,name,stock,price,ok,since,code\n" + "\n".join(
    f"a{n},saw {n},{n},{n}.50,{'TRUE' if n % 2 else 'false'},2024-01-0{1 + n % 9},0{n}2" for n in range(1, 30)
)
DECLARED = ["stock:number", "price:number", "ok:boolean", "since:date", "code:keyword", "sizes:number:list"]
FIRST = {"stock": 1, "price": 1.5, "ok": True, "since": "2024-01-02", "code": "012"}
# What is added: texts in place of values, values that are none, and what is typed already; and what is answered.
ADDED = {
    "stock": ("7", 7),
    "price": ("7.0", 7),
    "ok": ("True", True),
    "sizes": (["1", "2.5", "N/A"], [1, 2.5, None]),
    "code": (7, 7),
    "other": ("7", "7"),
}


@pytest.fixture(scope="module", params=["inferred", "declared", "shards"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("values")
    (root / "rows.csv").write_text(CSV, "utf-8")
    more = [] if request.param == "inferred" else [part for field in DECLARED for part in ("--field", field)]
    more += ["--shards", "2"] if request.param == "shards" else []
    built = ["build", "--corpus", str(root / "rows.csv"), "--output", str(root / "index"), *more]
    assert index_command.main(built) == 0
    return root / "index"


def test_all_doors_answer_the_same_types(folder: Path, call: Call) -> None:
    site = Site(index=folder)
    try:
        by_http = site.search('"saw 1"', top_k=1)["hits"][0]["fields"]
    finally:
        site.close()
    status, out, _ = call(search.main, '"saw 1"', "--index", folder, "--format", "json", "--top_k", 1)
    with Index(folder) as opened:
        answers: list[dict[str, Any]] = [by_http, json.loads(out)["results"][0]["fields"]]
        answers.append(dict(opened.search('"saw 1"')[0].fields))
    assert status == 0
    for answer in answers:
        answered = {name: answer[name] for name in FIRST}
        assert json.dumps(answered) == json.dumps(FIRST), answered


@pytest.mark.parametrize("name", ADDED)
def test_what_is_added_is_answered_alike(tmp_path: Path, name: str) -> None:
    given, kept = ADDED[name]
    rows = [{"id": f"a{n}", "text": f"saw {n}"} for n in range(3)]
    with Index.build(rows, tmp_path / "index", field=",".join(DECLARED)) as built:
        for _ in range(2):  # the second time nothing has changed
            built.add([{"id": "new", "text": "hammer", name: given}], new_fields=["other"])
            answer = built.search("hammer")[0].fields[name]
            assert json.dumps(answer) == json.dumps(kept)
        with pytest.raises(Exception, match="expected a number"):
            built.add([{"id": "bad", "text": "hammer", "stock": "many"}])
