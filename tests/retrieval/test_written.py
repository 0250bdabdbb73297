"""A query that is one word with signs finds first what has it as it is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.stages.search import SearchSettings
from paddle_ranker.retrieval.stages.search_engine import SearchEngine
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo
from paddle_ranker.retrieval.stored.schema import Field, Schema

pytestmark = pytest.mark.unit
# Each word with its signs, and how it is written otherwise.
WORDS = {
    "I/O": ("IO", "I-O", "I O"),
    "e-mail": ("email", "e mail", "e/mail"),
    "TCP/IP": ("TCP IP", "TCPIP", "tcp-ip"),
    "don't": ("dont", "don t", "don-t"),
    "AT&T": ("ATT", "at t", "AT-T"),
    "node.js": ("nodejs", "node js", "node-js"),
    "COVID-19": ("COVID19", "covid 19", "covid/19"),
    "rock'n'roll": ("rock n roll", "rocknroll", "rock-n-roll"),
    "snake_case": ("snakecase", "snake case", "snake-case"),
}


@pytest.mark.parametrize("fields", [("",), ("", "accents+german")])
@pytest.mark.parametrize("word", WORDS)
def test_what_is_written_so_comes_first(word: str, fields: tuple[str, ...], tmp_path: Path) -> None:
    more = [Field(f"more{n}", "text", analyser=options) for n, options in enumerate(fields[1:])]
    info = IndexInfo(WordsInfo("standard"), None, schema=Schema((*more,)))
    others = [f"of {' and '.join([text] * times)}" for text in WORDS[word] for times in (1, 2, 5)]
    with Collection.create(tmp_path / "index", info) as collection:
        collection.writer.add(Document(f"a{n}", text) for n, text in enumerate(others))
        collection.writer.add(
            [Document("z1", f"a text of many words that says what {word} is"), Document("z2", f"The {word}.")]
        )
        collection.writer.add(Document(f"b{n}", f"other words {n}") for n in range(20))
        engine = SearchEngine(collection, SearchSettings())
        for query in (word, word.upper()):
            (found,) = engine.run([query])
            assert {one.id for one in found.results()[:2]} == {"z1", "z2"}, [one.id for one in found.results()]
        explained = collection.snapshot().explain_words(engine.run([word])[0].query.words, ["z1"])["z1"]
        assert word.lower() in explained and not any("\0" in term for term in explained)
