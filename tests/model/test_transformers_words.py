"""docs/convert.md's table of what transformers' BERT splits otherwise, made from the code over all characters.

The oracle is what transformers' BertTokenizerFast is made of: Hugging Face's BertNormalizer and BertPreTokenizer.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache

import pytest
from tokenizers import normalizers, pre_tokenizers

from paddle_ranker.encoding.tokenizers.text_rules import TextRules, WordSplitter
from paddle_ranker.encoding.unicode.table import unicode_table
from tests.checkout import IS_MODERN
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.unit
PAGE = REPOSITORY / "docs" / "convert.md"
BLOCK = 4096  # characters that are split in one call
HEADER = "| characters | here | transformers' BERT | how many, lower-casing; cased |\n| --- | --- | --- | --- |\n"
KINDS = {  # of `unicode_table`
    "p": "symbols (`＋`, `℃`, emoji) and later punctuation", "l": "letters and numbers", "m": "later marks",
    "i": "later format characters", "o": "marks that take a place", "u": "unassigned",
}  # fmt: skip
FEW = 8  # runs of characters: so many are listed
Words = list[list[str]]


def blocks() -> Iterator[list[str]]:
    """Yield all characters, a block at a time."""
    for start in range(0, sys.maxunicode + 1, BLOCK):
        codes = range(start, start + BLOCK)
        yield [chr(code) for code in codes if not 0xD800 <= code < 0xE000]


def by_character(words: list[str]) -> Words:
    """Return the words of each character, from those of a text that holds `sep` between two."""
    found: Words = [[]]
    for word in words:
        if word == "sep":
            found.append([])
        else:
            found[-1].append(word)
    return found


def fate(words: list[str]) -> str:
    """Return what became of a character between a and b."""
    if len(words) == 3:
        return "a word of its own"
    return "dropped" if words == ["ab"] else "attached"


@cache
def differences(lower: bool) -> dict[tuple[str, str, str], list[str]]:
    """Return the characters that differ, by kind, by what becomes of them here, and there."""
    splitter, kind = WordSplitter(TextRules(do_lower_case=lower)), unicode_table().kind
    normalizer, splits = normalizers.BertNormalizer(lowercase=lower), pre_tokenizers.BertPreTokenizer()
    found: dict[tuple[str, str, str], list[str]] = defaultdict(list)

    def split_there(text: str) -> list[str]:
        return [word for word, _ in splits.pre_tokenize_str(normalizer.normalize_str(text))]

    for chars in filter(None, blocks()):
        whole = "".join(chars)
        if splitter.split(whole) == [] and split_there(whole) == [whole]:  # all dropped here, and all attached there
            found[kind(chars[0]), "dropped", "attached"] += chars
            continue
        text = " sep ".join(f"a{char}b" for char in chars)
        for char, here, there in zip(chars, by_character(splitter.split(text)), by_character(split_there(text))):
            if here != there:
                in_parts = fate(here) == fate(there)  # which are others: it is decomposed here
                found[kind(char), "attached in parts" if in_parts else fate(here), fate(there)].append(char)
    return found


def runs(chars: list[str]) -> list[str]:
    """Return characters as `U+B2 ²`, and neighbours as `U+2B820 to U+2B91F`."""
    found: list[list[int]] = []
    for code in map(ord, chars):
        if found and code == found[-1][1] + 1:
            found[-1][1] = code
        else:
            found.append([code, code])
    return [
        f"U+{first:X} to U+{last:X}" if last > first + 1 else " ".join(f"U+{code:X}" for code in range(first, last + 1))
        for first, last in found
    ]


def table() -> str:
    """Return the table: a row for each kind and pair of fates, the most characters first."""
    both = {lower: differences(lower) for lower in (True, False)}
    rows = {}
    for key in {*both[True], *both[False]}:
        kind, here, there = key
        counts = [len(both[lower].get(key, [])) for lower in (True, False)]
        listed = runs(sorted({*both[True].get(key, []), *both[False].get(key, [])}))
        which = f": {', '.join(listed)}" if len(listed) <= FEW else ""
        rows[f"| {KINDS[kind]}{which} | {here} | {there} | {counts[0]:,}; {counts[1]:,} |\n"] = counts
    return HEADER + "".join(sorted(rows, key=lambda row: (-rows[row][0], -rows[row][1], row)))


@pytest.mark.slow
@pytest.mark.skipif(not IS_MODERN, reason="the table is of the newer tokenizers; the code is the same on both stacks")
def test_the_pages_table_is_what_the_code_does() -> None:
    assert table() in PAGE.read_text(encoding="utf-8"), f"docs/convert.md: put this table there\n{table()}"
