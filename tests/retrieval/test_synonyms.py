"""Synonyms of several words: found where they stand together, in a folder, in shards and on a server."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.index.shards import open_shards
from paddle_ranker.retrieval.stages.search import SearchSettings
from paddle_ranker.retrieval.stages.search_engine import SearchEngine
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo
from paddle_ranker.retrieval.stored.schema import Field, Schema
from paddle_ranker.retrieval.words.synonyms import Synonyms
from tests.elsewhere import elsewhere
from tests.serving.test_search import Site

pytestmark = pytest.mark.unit

SYNONYMS = "usa, united states of america\nnyc => new york\nlaptop => 笔记本\ncar, automobile\n"
WITH_SYNONYMS = {
    "trip": "A trip to the USA",
    "states": "Travels in the United  States of America, and of the united states of america",
    "nations": "the united nations and the states of matter of america",
    "town": "NYC, a city",
    "york": "The New York subway",
    "things": "new things of york and new yorkshire, new",
    "book": "便宜笔记本电脑",
    "signs": "日记 笔 本子",
    "lap": "a laptop",
    "cars": "cars of today",
    "automobiles": "automobiles of today",
}


@pytest.mark.parametrize(
    ("query", "wanted", "marked"),
    [
        ("usa", ["trip", "states"], "United  States of America"),
        ("United States of America", ["states", "nations", "trip"], "USA"),
        ("nyc", ["town", "york"], "New York"),
        ("laptop", ["lap", "book"], "笔记本"),
        ("car", ["cars", "automobiles"], "automobiles"),
        ("automobile", ["automobiles", "cars"], "cars"),
    ],
)
def test_synonyms_stand_as_a_whole_below_what_was_typed(
    query: str, wanted: list[str], marked: str, tmp_path: Path
) -> None:
    (tmp_path / "synonyms").write_text(SYNONYMS, "utf-8")
    synonyms, every = Synonyms(tmp_path / "synonyms"), list(WITH_SYNONYMS.items())
    schema = Schema((Field("name", "text", title=True), Field("kind", "keyword")))

    def add(name: str, some: Sequence[tuple[str, str]]) -> Path:
        info = IndexInfo(WordsInfo("standard"), None, schema=schema)
        with Collection.create(tmp_path / name, info) as made:
            for id, text in some:
                made.writer.add([Document(id, text, {"name": f"a {id}x", "kind": id})], merge=False)
        return tmp_path / name

    folders = [add("one", every[:4]), add("two", every[4:])]
    both, answers = add("both", every), []
    for way in (Collection.open(both), open_shards(folders), *elsewhere(folders)):
        (found,) = SearchEngine(way, SearchSettings(synonyms=synonyms)).run([query])
        results = found.results()
        assert [one.id for one in results] == wanted and results[0].score > results[-1].score
        assert found.total() == len(wanted) and found.facets(["kind"])["kind"].keys() == {f'"{id}"' for id in wanted}
        explained = way.snapshot().explain_words(found.query.words, wanted)
        for one in results:
            assert sum(explained[one.id].values()) == pytest.approx(one.score, abs=1e-9)
            assert len(explained[one.id]) <= len(query.split())
        answers.append((results, explained, way.snapshot().words_given(found.query.words)))
    assert all(one == answers[0] for one in answers)
    site = Site(index=both, synonyms=tmp_path / "synonyms")
    try:
        (hit,) = [one for one in site.search(query, explain=True)["hits"] if marked in one["text"]]
        assert next(hit["text"][one["start"] : one["end"]] for one in hit["highlights"]) == marked
        (term,) = hit["signals"]["words"]["terms"]
        assert term["for"] == query.lower()
    finally:
        site.close()
