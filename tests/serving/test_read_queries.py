"""A server says how it read a query: corrections, completions, synonyms, phrases, exclusions, better spellings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.retrieval.test_query_parsing import TEXTS, make
from tests.serving.test_search import Site

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("queries")
    make(folder / "index", {**TEXTS, **{f"n{n}": "docker image" for n in range(40)}, "typo": "doker"}).close()
    (folder / "synonyms.txt").write_text("laptop => notebook computer\n", "utf-8")
    made = Site(index=folder / "index", synonyms=folder / "synonyms.txt")
    yield made
    made.close()


@pytest.mark.parametrize(
    ("query", "asked", "said", "first"),
    [
        ("kubernetes", {}, {}, "kube"),
        ("kuberentes", {}, {"corrected": [{"from": "kuberentes", "to": ["kubernetes"], "by": "typing"}]}, "kube"),
        ("kuberentes", {"literal": True}, {}, None),
        ("平果手机", {}, {"corrected": [{"from": "平果", "to": ["苹果"], "by": "sound"}]}, "phone"),
        ("kub", {"prefix": True}, {"corrected": [{"from": "kub", "to": ["kubernetes"], "by": "prefix"}]}, "kube"),
        ("kub", {}, {}, None),
        ("laptop", {}, {"synonyms": [{"from": "laptop", "to": ["notebook computer"]}]}, "book"),
        ('"rolling update"', {}, {"phrases": ["rolling update"]}, "kube"),
        ('"rolling updates"', {}, {"unfound": ["rolling updates"]}, "kube"),
        (
            "+kuberentes +nowhere",
            {},
            {
                "corrected": [{"from": "kuberentes", "to": ["kubernetes"], "by": "typing"}],
                "phrases": ["+kubernetes"],
                "unfound": ["+nowhere"],
            },
            "kube",
        ),
        ("rolling -kubernetes", {}, {"excluded": ["kubernetes"]}, "dock"),
        ("doker", {}, {"did_you_mean": "docker"}, "typo"),
        ("doker", {"literal": True}, {}, "typo"),
    ],
)
def test_an_answer_says_how_the_query_was_read(
    site: Site, query: str, asked: dict[str, Any], said: dict[str, Any], first: str
) -> None:
    found = site.search(query, total=True, **asked)
    names = ("corrected", "synonyms", "phrases", "unfound", "excluded", "did_you_mean")
    assert {name: found[name] for name in names if name in found} == said
    assert [hit["id"] for hit in found["hits"]][:1] == ([first] if first else []) and found["query"] == query
    assert (found["total"] > 0) is bool(first)


def test_terms_say_what_they_stand_for_and_are_highlighted(site: Site) -> None:
    (hit,) = site.search("kuberentes", explain=True)["hits"]
    (term,) = hit["signals"]["words"]["terms"]
    assert (term["term"], term["for"], term["at"]) == ("kubernet", "kuberentes", [[0, 10]])
    assert hit["highlights"] == [{"start": 0, "end": 10, "level": 1}]
    (hit,) = site.search("kubernetes", explain=True)["hits"]
    assert "for" not in hit["signals"]["words"]["terms"][0]


def test_a_query_of_exclusions_alone_is_refused(site: Site) -> None:
    refused = site.ask("POST", "/v1/search", {"query": "-kubernetes"})
    assert refused.status_code == 422 and "only what must not be there" in refused.text
    assert site.ask("POST", "/v1/search", {"query": "-kubernetes", "literal": True}).status_code == 200
