"""Words of every script that Unicode has: found and suggested however they are typed, highlighted where they stand.

A sample of the scripts runs with all tests, all of them with `bash scripts/test.sh --all`.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Iterator
from datetime import date
from functools import lru_cache
from pathlib import Path

import pytest

from paddle_ranker.lexical.analyser import STOP_WORDS, standard
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.stages.search import Search, SearchSettings
from paddle_ranker.retrieval.stages.search_engine import SearchEngine
from paddle_ranker.retrieval.stages.suggestions import Completions
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo
from paddle_ranker.unicode.character_kinds import LETTER, MARK, OTHER, unicode_table
from paddle_ranker.unicode.characters import UNIT, UNSPACED, class_of, fold

_SAMPLE = 12  # scripts of a usual run
_LEAST = 12  # letters of a script
_NO_SCRIPTS = {"MODIFIER", "MATHEMATICAL", "HALFWIDTH", "FULLWIDTH", "PARENTHESIZED", "CIRCLED", "SQUARED", "COMBINING"}


@lru_cache(maxsize=1)
def scripts() -> dict[str, tuple[list[str], list[str]]]:
    """Return the letters and the marks of each script, by the beginning of their names."""
    table, found = unicode_table(), dict[str, tuple[list[str], list[str]]]()
    for kind, first, last in table.runs():
        for code in range(first, min(last, 0x1FFFF) + 1) if kind in (LETTER, MARK, OTHER) else ():
            char = chr(code)
            script = unicodedata.name(char, "NONE").partition(" ")[0].partition("-")[0]
            if script in _NO_SCRIPTS or fold(char) != char or (not char.isalpha() and kind == LETTER):
                continue
            letters, marks = found.setdefault(script, ([], []))
            if kind == LETTER and len(letters) < 400:
                letters.append(char)
            elif kind != LETTER and unicodedata.normalize("NFD", char) == char:
                marks.append(char)
    return {script: chars for script, chars in sorted(found.items()) if len(chars[0]) >= _LEAST}


def _document(script: str) -> tuple[str, list[str], int]:
    """Return a text of a script; its words, pairs of words and units; and the least size of what is typed of them."""
    draw, (letters, marks) = random.Random(script), scripts()[script]
    is_spaced = class_of(letters[0]) not in (UNIT, UNSPACED)
    units = [draw.choice(letters) + (draw.choice(marks) if marks and draw.random() < 0.4 else "") for _ in range(40)]
    sizes = [draw.randint(2, 5) if is_spaced else draw.randint(1, 3) for _ in range(6)]
    rows = [[draw.choice(units) for _ in range(size)] for size in sizes]
    words = [unicodedata.normalize("NFC", "".join(row)) for row in rows]
    joiner = " " if is_spaced else ""
    pairs = [words[n] + joiner + words[n + 1] for n in range(5)]
    own = [] if is_spaced else [unicodedata.normalize("NFC", unit) for row in rows for unit in row]
    return joiner.join(words), [*dict.fromkeys([*words, *pairs, *own])], 2 if is_spaced else 1


def _typed(part: str) -> Iterator[str]:
    forms = (part, unicodedata.normalize("NFD", part), part.upper(), part.lower())
    yield from dict.fromkeys(form for form in forms if fold(form) == fold(part))


def _searched(collection: Collection, queries: list[str], prefix: bool = False) -> list[Search]:
    return SearchEngine(collection, SearchSettings(prefix=prefix)).run(queries, 20)


def _check(folder: Path, names: list[str]) -> None:
    texts = {script: _document(script) for script in names}
    collection = Collection.create(folder, IndexInfo(WordsInfo("standard"), None))
    collection.writer.add([Document(script, text) for script, (text, _, _) in texts.items()])
    completions, missed = Completions([text for text, _, _ in texts.values()], standard.fold), list[str]()
    for script, (text, parts, least) in texts.items():
        parts = [part for part in parts if fold(part) not in STOP_WORDS]
        queries = [form for part in parts for form in _typed(part)]
        for query, search in zip(queries, _searched(collection, queries)):
            is_marked = _is_marked(search, text, query)
            if script not in [result.id for result in search.results()] or not is_marked:
                missed.append(f"{script}: {query!r} in {text!r}, marked {is_marked}")
        quoted = [f'"{query}"' for query in queries]
        for query, search in zip(quoted, _searched(collection, quoted)):
            if search.query.unfound or script not in [result.id for result in search.results()]:
                missed.append(f"{script}: {query} in {text!r}")
        begun = [part[:-1] for part in parts if len(part) > least]
        for query, search in zip(begun, _searched(collection, begun, prefix=True)):
            if script not in [result.id for result in search.results()]:
                missed.append(f"{script}: {query!r} while typing, in {text!r}")
        for query in [form for part in begun for form in _typed(part)]:
            if text not in [suggestion.text for suggestion in completions.find(query, 8)]:
                missed.append(f"{script}: {query!r} suggests nothing of {text!r}")
    assert not missed, f"{len(missed)} of {len(names)} scripts: " + "\n".join(missed[:40])


def _is_marked(search: Search, text: str, query: str) -> bool:
    """Return whether what stands where the query does is marked from its beginning to its end."""
    folded, part = fold(text), fold(query)
    if len(folded) != len(text):
        return True
    marked = {n for start, end, _ in search.query.shared_words.highlights(text) for n in range(start, end)}
    starts = [n for n in range(len(text)) if folded.startswith(part, n)]
    return any({n for n in range(start, start + len(part)) if text[n] != " "} <= marked for start in starts)


@pytest.mark.unit
def test_words_of_some_scripts(tmp_path: Path) -> None:
    often = ["THAI", "LAO", "KHMER", "MYANMAR", "HANGUL", "HIRAGANA", "DEVANAGARI", "ARABIC"]
    _check(tmp_path / "index", [*often, *random.Random(date.today().toordinal()).sample([*scripts()], _SAMPLE)])


@pytest.mark.slow
def test_words_of_all_scripts(tmp_path: Path) -> None:
    _check(tmp_path / "index", [*scripts()])
