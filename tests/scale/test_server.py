"""A server whose index is in shards elsewhere, against one that has the same folders itself."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest

from paddle_ranker.errors import UsageError
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.index.shards import open_shards
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.work.turns import idle
from paddle_ranker.scale.remote import RemoteCollection
from paddle_ranker.scale.remote_calls import Call
from paddle_ranker.scale.shard_service import ShardService
from tests.serving_cases import OpenedSite, close_slots
from tests.tiny import write_index, write_ranker, write_tower

pytestmark = pytest.mark.parity
WORDS = ["深度学习", "水稻病害", "老年人护理", "语言文化", "经济增长", "教育法律"]
DOCUMENTS = [
    Document(f"d{6 * n + m}", f"{one}在{other}中的研究", {"year": 2000 + n * m, "lang": "en" if m % 3 else "zh"})
    for n, one in enumerate(WORDS)
    for m, other in enumerate(WORDS)
]


class Transport:
    """Calls that end in an error while `is_down`, and once at a call named `fails_at`."""

    def __init__(self, pool: ThreadPoolExecutor, service: ShardService):
        self._pool, self._service, self.is_down, self.fails_at = pool, service, False, ""

    def __call__(self, name: str, *args: Any) -> Future[Any]:
        if self.is_down or name == self.fails_at:
            raise ConnectionError("the machine is gone")
        return self._pool.submit(self._service.call, name, *args)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    base = tmp_path_factory.mktemp("shards")
    tower = write_tower(base / "tower")
    write_ranker(base / "ranker")
    shares = DOCUMENTS[:5], DOCUMENTS[5:20], DOCUMENTS[20:]
    return [write_index(base / f"shard{number}", tower, share) for number, share in enumerate(shares)]


@pytest.fixture
def sites(
    folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[OpenedSite, OpenedSite, list[Transport]]]:
    """Return a server of the folders, and one of the same folders elsewhere with the transports to them."""
    options = {"index": folders[0], "model": folders[0].with_name("ranker"), "writable": True}
    with ThreadPoolExecutor(8) as pool:
        transports = [Transport(pool, ShardService(folder)) for folder in folders]
        calls: list[Call] = [*transports]
        opened, made = [open_shards(folders), RemoteCollection(calls, partial=True)], list[OpenedSite]()
        for one in opened:
            monkeypatch.setattr(Collection, "open", lambda *_, one=one, **__: one)
            made.append(OpenedSite(**options))
        yield made[0], made[1], transports
        for site in made:
            close_slots(site.slots)


def said(site: OpenedSite, **asked: Any) -> dict[str, Any]:
    response = site.ask("POST", "/v1/search", asked)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    for name in ("took_ms", "search_id", "cursor"):
        answer.pop(name, None)
    return answer


def test_a_server_answers_from_shards_elsewhere(sites: tuple[OpenedSite, OpenedSite, list[Transport]]) -> None:
    here, elsewhere, transports = sites
    everything = {"explain": True, "total": True, "facets": ["year", "lang"], "snippet": 9, "rank_top": 5}
    for asked in (
        {"query": "水稻病害研究", **everything},
        {"query": '"教育法律" 老年人 -水稻病害', **everything, "where": {"year": {"gte": 2003}}},
        {"query": "水到病害", "top_k": 3, "cursor": "", "sort": ["-year"], "group_by": "content"},
    ):
        found, wanted = said(elsewhere, **asked), said(here, **asked)
        assert found.pop("shards") == {"total": 3, "failed": 0} and "shards" not in wanted
        assert found == wanted and wanted["hits"]
    facts, wanted = (one.ask("GET", "/v1/index").json() for one in (elsewhere, here))
    assert facts == {**wanted, "suggest": False} and facts["facets"]  # no titles are read from elsewhere
    assert elsewhere.ask("GET", "/v1/documents/d30").json() == here.ask("GET", "/v1/documents/d30").json()

    transports[1].fails_at = "documents_of"  # after its documents are found
    assert said(elsewhere, query="水稻病害", rank_top=5)["shards"] == {"total": 3, "failed": 1}
    for one in transports:
        one.is_down = True
    refused = elsewhere.ask("POST", "/v1/search", {"query": "水稻病害"})
    assert refused.status_code == 503 and "a shard of the index fails" in refused.text
    for one in transports:
        one.is_down, one.fails_at = False, ""
    assert said(elsewhere, query="水稻病害")["shards"] == {"total": 3, "failed": 0}


SENT: dict[str, Any] = {
    "search": lambda answer: answer._replace(
        result=[one._replace(scores=one.scores * np.nan) for one in answer.result]
    ),
    "counts": lambda answer: answer._replace(result=answer.result[:-1]),
    "matches": lambda answer: answer._replace(result=-1),
    "facet_values": lambda answer: answer._replace(result=None),
    "values": lambda answer: answer._replace(result=[float("inf")] * len(answer.result)),
    "explain_words": lambda answer: answer._replace(result={}),
    "documents_of": lambda answer: answer._replace(result={}),
    "facts": lambda answer: "facts",
    "field_values": lambda answer: 3,
    "common_types": lambda answer: answer._replace(result={}),
    "scale": lambda answer: answer._replace(result=None),
    "first": lambda answer: answer._replace(result=answer.result * 2),
}


@pytest.mark.thorough(keep=12)
@pytest.mark.parametrize("error", [None, SystemExit("of its choice"), UsageError("of its choice")])
@pytest.mark.parametrize("name", SENT)
def test_what_a_shard_sends_is_never_an_error_of_the_server(
    sites: tuple[OpenedSite, OpenedSite, list[Transport]], name: str, error: Optional[BaseException]
) -> None:
    _, elsewhere, transports = sites
    call = transports[1].__class__.__call__

    class Lying(Transport):
        lies = 0

        def __call__(self, called: str, *args: Any) -> Future[Any]:
            future, lie = call(self, called, *args), Future[Any]()
            if called != name:
                return future
            Lying.lies += 1
            if error is not None:
                lie.set_exception(error)
            else:
                with idle():  # the shard computes in this process, perhaps with one core
                    lie.set_result(SENT[name](future.result()))
            return lie

    transports[1].__class__ = Lying
    asked: dict[str, Any] = {
        "query": "水稻病害研究",
        "explain": True,
        "total": True,
        "facets": ["lang"],
        **({"sort": ["-year"]} if name == "first" else {"rank_top": 5, "group_by": "year"}),
    }
    found = said(elsewhere, **asked)
    if name in ("search", "first", "counts", "matches", "facet_values", "values", "explain_words", "documents_of"):
        assert Lying.lies and found["shards"] == {"total": 3, "failed": 1} and found["hits"]
    for path in ("/v1/index", "/v1/documents/d30", "/v1/documents/d7"):
        answer = elsewhere.ask("GET", path)
        assert answer.status_code in (200, 404, 503), (path, answer.text)
    for transport in (transports[0], transports[2]):
        transport.is_down = True
    assert elsewhere.ask("POST", "/v1/search", asked).status_code in (200, 503)
    for path in ("/v1/index", "/v1/documents/d30"):
        assert elsewhere.ask("GET", path).status_code in (200, 404, 503), path


def test_a_server_of_shards_elsewhere_only_searches_them(sites: tuple[OpenedSite, OpenedSite, list[Transport]]) -> None:
    _, elsewhere, _ = sites
    for method, path, body in (
        ("POST", "/v1/documents", {"documents": [{"id": "new", "text": "水稻"}]}),
        ("DELETE", "/v1/documents", {"ids": ["d1"]}),
        ("GET", "/v1/documents", None),
    ):
        refused = elsewhere.ask(method, path, body)
        assert refused.status_code == 503 and "only searches" in refused.text
