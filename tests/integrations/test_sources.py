"""What all frameworks' classes share: sources here and behind a URL agree; wrong arguments are refused by name."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from paddle_ranker import Index, Ranker
from paddle_ranker.errors import UsageError
from paddle_ranker.integrations.sources import RankSource, SearchSource, VectorSource, saved_source, where_of
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from paddle_ranker.serving.clients.client_errors import ServerError
from tests.integrations.conftest import KEY

pytestmark = pytest.mark.server
TEXTS = ["quiet mouse", "a keyboard with flat keys", "a mouse"]


def test_a_search_here_and_one_behind_a_url_agree(made: SimpleNamespace, url: str) -> None:
    for options in ({}, {"by": ["words"]}, {"rank_top": 0}, {"by": ["words"], "rank_top": 0}, {"rank_top": 1}):
        here = SearchSource(made.hybrid, made.ranker, options=options)
        there = SearchSource(url=url, key=KEY, options=options)
        found, served = here.search("mouse", 3), there.search("mouse", 3)
        assert [one._replace(score=None) for one in found] == [one._replace(score=None) for one in served]
        scores = [[float("nan") if one.score is None else one.score for one in each] for each in (found, served)]
        np.testing.assert_allclose(scores[0], scores[1], rtol=1e-5)
    assert [one.score is None for one in found] == [False, True, True]  # behind the one that the ranker ordered
    assert found[0].metadata.keys() == {"name", "price", "brand"}
    where = where_of([("price", "<", 50), ("price", ">=", 19.5), ("brand", "in", ["Acme"])])
    for source in (here, there):
        assert {one.id for one in source.search("mouse", 3, where)} == {"a0", "a2"}


def test_scores_and_vectors_here_and_behind_a_url_agree(made: SimpleNamespace, url: str) -> None:
    ranker, texts = Ranker.load(made.ranker), ["", *TEXTS, " "]
    for source in (RankSource(made.ranker), RankSource(ranker), RankSource(url=url, key=KEY)):
        expected = [(title.index + 1, title.probability) for title in ranker.rank("mouse", TEXTS)]
        ranked = source.rank("mouse", texts)
        assert [place for place, _ in ranked] == [*(place for place, _ in expected), 0, 4]
        np.testing.assert_allclose([one for _, one in ranked], [*(one for _, one in expected), 0, 0], rtol=1e-5)
        assert source.rank("mouse", texts, 2) == ranked[:2] and source.rank("mouse", []) == []
        queries = ["keys", "mouse", "keys", "mouse", "mouse"]
        scores = [0, *ranker.score(queries[1:4], TEXTS), 0]
        np.testing.assert_allclose(source.score(queries, texts), scores, rtol=1e-5)
    tower = Tower.open(made.tower)
    for vectors in (VectorSource(made.tower), VectorSource(tower), VectorSource(url=url, key=KEY)):
        np.testing.assert_allclose(vectors.vectors(TEXTS), tower.vectors(TEXTS), atol=1e-5)
        np.testing.assert_allclose(vectors.query_vectors(TEXTS), tower.query_vectors(TEXTS), atol=1e-5)


def test_sources_are_opened_once_by_all_threads_and_again_from_a_pickle(
    made: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    load = Ranker.load

    def counted(*given: Any) -> Ranker:
        opened.append(given)
        return load(*given)

    monkeypatch.setattr(Ranker, "load", counted)
    source = RankSource(made.ranker)
    assert not opened
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: source.score(["mouse"] * 3, TEXTS).tolist(), range(16)))
    assert len(opened) == 1 and answers == answers[:1] * 16
    again = pickle.loads(pickle.dumps((source, SearchSource(Index(made.index)))))  # noqa: S301
    assert again[0].score(["mouse"] * 3, TEXTS).tolist() == answers[0]
    assert again[1].search("keys", 1)[0].id == "a3"


def test_a_server_that_refuses_and_one_that_is_not_there_are_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PADDLE_RANKER_API_KEY", raising=False)
    with pytest.raises(ServerError, match=r"http://127\.0\.0\.1:\d+: status 401"):
        SearchSource(url=url).search("mouse", 3)
    with pytest.raises(ServerError, match="status 401"):
        VectorSource(url=url, key="another").vectors(TEXTS)
    monkeypatch.setenv("PADDLE_RANKER_API_KEY", KEY)
    assert SearchSource(url=f"{url}/").search("mouse", 1)
    with pytest.raises(ServerError, match="'spelt' is no field"):
        SearchSource(url=url).search("mouse", 3, {"spelt": 1})
    with pytest.raises(ServerError, match=r"http://127\.0\.0\.1:9: "):
        RankSource(url="http://127.0.0.1:9").rank("mouse", TEXTS)
    with pytest.raises(ServerError, match="status 404"):
        SearchSource(url=f"{url}/below").search("mouse", 1)


@pytest.mark.parametrize(
    "kind, arguments, message",
    [
        (SearchSource, {}, "index and url: neither given"),
        (SearchSource, {"index": "x", "url": "http://h"}, "index and url: both given"),
        (SearchSource, {"url": "http://h", "ranker": "r"}, "the server at url has its own ranker"),
        (SearchSource, {"index": "x", "key": "k"}, "are of the server at url"),
        (SearchSource, {"index": "x", "options": {"top_k": 3}}, "top_k is no option"),
        (RankSource, {"ranker": "x", "timeout": 3.0}, "are of the server at url"),
        (RankSource, {}, "ranker and url: neither"),
        (VectorSource, {"tower": "x", "model": "m"}, "are of the server at url"),
    ],
)
def test_arguments_without_effect_are_refused(kind: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        kind(**arguments)


@pytest.mark.parametrize(
    "url, message",
    [
        ("localhost:8600", "expected http://"),
        ("ftp://host", "expected http://"),
        ("http://", "expected http://"),
        ("http://host:x", "url http://host:x: "),
        ("http://host?key=k", "expected http://"),
        ("https://me:secret@host", "holds a user or a password"),
        (7, "url"),
    ],
)
def test_a_url_that_is_none_is_refused_without_its_secrets(url: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        RankSource(url=url).rank("mouse", TEXTS)
    assert "secret" not in str(refused.value)


def test_filters_hold_what_an_index_can_compare() -> None:
    conditions = [("a", ">", 1), ("a", "<=", 5), ("b", "==", "x"), ("c", "in", [1, 2]), ("d", "not in", [3])]
    expected = {"a": {"gt": 1, "lte": 5}, "b": {"eq": "x"}, "c": {"in": [1, 2]}, "d": {"ne": 3}}
    assert where_of(conditions) == expected and where_of([]) == {}
    for wrong in ([("a", "text_match", "x")], [("a", "not in", [1, 2])], [("a", ">", 1), ("a", ">", 2)]):
        with pytest.raises(UsageError, match="filter of 'a'"):
            where_of(wrong)


def test_an_open_model_is_not_saved(made: SimpleNamespace) -> None:
    assert saved_source("index", Index(made.index)) == str(made.index) == saved_source("index", made.index)
    with pytest.raises(UsageError, match=r"ranker: Ranker is open, .*give its folder"):
        saved_source("ranker", Ranker.load(made.ranker))
