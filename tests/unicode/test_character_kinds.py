"""The table of characters: every Python splits every text alike, and the table is what its program makes."""

from __future__ import annotations

import hashlib
import json
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from paddle_ranker.encoding.tokenizers.text_rules import WordSplitter
from paddle_ranker.lexical.tokens import bigrams, letters
from paddle_ranker.unicode import build_table
from paddle_ranker.unicode.character_kinds import FILE, LETTER, UNCOMMON, kind_of_category, normalise, unicode_table

pytestmark = pytest.mark.unit


def rare_texts() -> Iterator[str]:
    """Texts with every code point below U+32000 but for most ideographs and syllables, which no version changes."""
    codes = [code for code in range(0x32000) if not (0x3500 < code < 0x9F00 or 0xAC10 < code < 0xD700)]
    for start in range(0, len(codes), 1024):
        yield " ".join(f"{char} a{char}b" for char in map(chr, codes[start : start + 1024]))


# As Python 3.11 split and normalised them by its own tables, Unicode 14.0, before there was a table here.
def test_words_and_letters_are_the_same_on_every_python() -> None:
    splitter, words, plain = WordSplitter(), hashlib.sha256(), hashlib.sha256()
    for text in rare_texts():
        words.update("|".join(splitter.split(text)).encode())
        plain.update(letters(text).encode("utf-8", "surrogatepass"))
    assert (words.hexdigest()[:16], plain.hexdigest()[:16]) == ("c24ba83aaf8728b7", "665fe61e9a66cfad")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a🫠b", ["a", "🫠", "b"]),  # 2021, Unicode 14: a symbol
        ("a🫨b", ["ab"]),  # 2022, Unicode 15: unassigned, and so dropped
        ("Ⱟ", ["ⱟ"]),  # a pair of letters of Unicode 14
        ("\u9ffd\u9fff", ["\u9ffd", "\u9fff"]),  # ideographs of Unicode 14
        ("a\u1734b", ["a\u1734b"]),  # a mark that Unicode 14 made one that is kept
        ("a\u302e\u1715b", ["a\u1715\u302eb"]),  # classes 224 and 9, the second of Unicode 14
        ("a\u1ac1\u302e", ["a\u302e"]),
    ],
)
def test_characters_that_not_every_python_knows(text: str, words: list[str]) -> None:
    assert WordSplitter().split(text) == words


def test_lexical_tokens_of_characters_that_not_every_python_knows() -> None:
    assert letters("Ⱟ🫠\U00010781🫨\U0001e030") == "ⱟː"  # a modifier of Unicode 14 is compatible with ː; not 15's
    assert bigrams("\u9ffdaⱟ") == ["\u9ffda", "aⱟ"]
    assert normalise("Ａ\U0001e030e\u1ac2\u0301") == "a\ufffde\ufffd\u0301"


@pytest.mark.parametrize("marks", ["\u0301\u0316", "\u0344\u0316", "\u0f73", "\uff9e\u0301", "\u064e\u0651"])
def test_of_thousands_of_marks_a_character_keeps_some(marks: str) -> None:
    """To sort them all would take Python seconds, in which no other thread runs."""
    kept = unicodedata.normalize("NFD", normalise(f"e{marks * 3000}f"))
    assert len(kept) == 32 and kept[0] + kept[-1] == "ef"
    few = f"e{marks * 8}กำ" * 50
    assert normalise(few) == unicodedata.normalize("NFKC", few)


def test_what_needs_no_table_is_as_the_table_has_it() -> None:
    table, common = unicode_table(), [char for char in map(chr, range(0x10000)) if not UNCOMMON.match(char)]
    assert len(common) > 23_000
    assert all(table.settle(char) == char and (table.kind(char) == LETTER) == char.isalnum() for char in common)


def test_the_tables_program_makes_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build_table.main(["--oldest", sys.executable, "--output_file", str(tmp_path / "table.json")]) == 0
    made, shipped = json.loads((tmp_path / "table.json").read_text()), json.loads(FILE.read_text())
    assert made["young"] == {} and made["unicode"] == made["oldest"] == unicodedata.unidata_version
    assert f"Unicode {unicodedata.unidata_version}, 0 characters" in capsys.readouterr().out
    if made["unicode"] == shipped["unicode"]:
        assert made["kinds"] == shipped["kinds"]
    # A Python that knows nothing of the young ones finds the same facts in them.
    young = {int(code, 16) for code in shipped["young"]}
    if all(unicodedata.category(chr(code)) != "Cn" for code in young):
        assert build_table.make_table("13.0.0", set(range(sys.maxunicode + 1)) - young)["young"] == shipped["young"]
    assert build_table.main(["--oldest", "no-such-python"]) == 1
    assert "no-such-python: does not run" in capsys.readouterr().err


def test_pythons_own_table_differs_in_characters_of_other_versions_alone() -> None:
    table = unicode_table()
    changed = [
        code
        for code in range(sys.maxunicode + 1)
        if (category := unicodedata.category(chr(code))) != "Cn"
        and table.kind(chr(code)) != "u"
        and table.kind(chr(code)) != kind_of_category(category)
    ]
    assert changed == ([0x1734] if unicodedata.unidata_version < table.version else [])
