"""Repeat the rows of a training file with changed queries: words inserted, substituted, deleted or swapped.

paddle-ranker augment --input train.tsv --output augmented.tsv
paddle-ranker augment --input train.tsv --output augmented.tsv --ways delete,swap --rate 0.2 --copies 2
"""

from __future__ import annotations

import os
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Optional, Union
from unicodedata import category

from paddle_ranker.data.rows.records import LabeledPair, Pair, RecordFile, Triple, open_as_one_of, write_records
from paddle_ranker.errors import DataError, UsageError
from paddle_ranker.lexical.analyser import jieba_segmenter
from paddle_ranker.options import LabelOptions, main_of, note, option
from paddle_ranker.options.input_files import paths_of
from paddle_ranker.storage.atomic import check_writable
from paddle_ranker.storage.streams import output_free_for
from paddle_ranker.unicode.characters import HAN, SYLLABLES, UNSPACED_SCRIPTS, in_brackets

Row = Union[LabeledPair, Triple, Pair]
_HAN = in_brackets(HAN)
_RUNS = re.compile(rf"(\s*)([{_HAN}]+|[^\s{_HAN}]+)")
_UNSPACED = re.compile(f"[{in_brackets((*HAN, *SYLLABLES, *UNSPACED_SCRIPTS))}]")


class QueryWord(NamedTuple):
    """Word of a query.

    before: what stands between the word and the one before; None for neighbours that the text has not
    after: signs that follow the word
    """

    text: str
    before: Optional[str] = None
    after: str = ""


Ways = Callable[[list[QueryWord], int, random.Random, Sequence[str]], list[QueryWord]]


def words_of(text: str) -> list[QueryWord]:
    """Split a text at spaces, and Chinese into jieba's words; `joined` gives the same text, without outer spaces."""
    found = list[QueryWord]()
    for space, run in _RUNS.findall(text):
        for number, piece in enumerate(jieba_segmenter().lcut(run) if re.match(f"[{_HAN}]", run) else [run]):
            before, word = "" if number else space, _without_signs(piece)
            if found and not (before or word):
                found[-1] = found[-1]._replace(after=found[-1].after + piece)
            else:
                found.append(QueryWord(word or piece, before, piece[len(word) :] if word else ""))
    return found


def _without_signs(piece: str) -> str:
    """Return a piece of a text without the punctuation at its end; the signs of C# and 5% belong to a word."""
    end = len(piece)
    while end and category(piece[end - 1])[0] == "P" and piece[end - 1] not in "#%&@*":
        end -= 1
    return piece[:end]


def joined(words: Sequence[QueryWord]) -> str:
    """Join words; new neighbours have a space between them, unless one of them is of a script without spaces."""
    text = ""
    for word in words:
        between = word.before
        if between is None:
            between = "" if any(map(_UNSPACED.match, (text[-1:], word.text[:1]))) else " "
        text += (between if text else "") + word.text + word.after
    return text


def insert(words: list[QueryWord], place: int, draw: random.Random, known: Sequence[str]) -> list[QueryWord]:
    """Insert a drawn word before the word at a place."""
    return [*words[:place], QueryWord(draw.choice(known)), *_beside_a_new_one(words[place:])]


def substitute(words: list[QueryWord], place: int, draw: random.Random, known: Sequence[str]) -> list[QueryWord]:
    """Put a drawn word in the place of a word."""
    other = words[place]._replace(text=draw.choice(known), before=words[place].before or None)
    return [*words[:place], other, *_beside_a_new_one(words[place + 1 :])]


def delete(words: list[QueryWord], place: int, draw: random.Random, known: Sequence[str]) -> list[QueryWord]:
    """Delete the word at a place."""
    return [*words[:place], *_beside_a_new_one(words[place + 1 :])]


def swap(words: list[QueryWord], place: int, draw: random.Random, known: Sequence[str]) -> list[QueryWord]:
    """Swap the word at a place with another word."""
    other = draw.choice([number for number in range(len(words)) if number != place])
    texts = {place: words[other].text, other: words[place].text}
    beside = {*texts, *(number + 1 for number in texts)}
    return [
        word._replace(text=texts.get(number, word.text), before=word.before or None) if number in beside else word
        for number, word in enumerate(words)
    ]


def _beside_a_new_one(words: Sequence[QueryWord]) -> list[QueryWord]:
    return [word._replace(before=word.before or None) if number == 0 else word for number, word in enumerate(words)]


# A way changes the words of a query at a place, with a generator, and words of all queries to draw from.
WAYS: dict[str, Ways] = {"insert": insert, "substitute": substitute, "delete": delete, "swap": swap}


@dataclass(frozen=True)
class AugmentOptions(LabelOptions):
    input_file: str = option(
        help="labelled pairs (query, title, label), triples, or pairs of a query and its answer",
        name="input",
        files=True,
    )
    output_file: str = option(help="file to write the rows to, and behind them the changed ones", name="output")
    ways: str = option(
        ",".join(WAYS),
        help="how queries are changed, each in one of these ways, drawn; words are drawn from all queries of --input",
        joins=",",
    )
    rate: float = option(0.1, help="share of a query's words that change, at least one word", above=0, maximum=1)
    copies: int = option(1, help="changed copies of each query", minimum=1)
    seed: int = option(1000, help="draws ways, places and words", minimum=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = [way for way in self.chosen if way not in WAYS]
        if unknown or len({*self.chosen}) < len(self.chosen):
            raise UsageError(f"--ways {self.ways}: name some of {', '.join(WAYS)}, each once")
        if os.path.realpath(self.output_file) in map(os.path.realpath, paths_of(self.input_file)):
            raise UsageError("--input and --output must be different files")

    @property
    def chosen(self) -> list[str]:
        return [way.strip() for way in self.ways.split(",")]


def changed_query(query: str, options: AugmentOptions, copy: int, known: Sequence[str]) -> str:
    """Return a query with `--rate` of its words changed in one way, drawn at random; "" if no word is left.

    The ways and the number of changes, max(1, rate * words), are those of Wei and Zou, 2019, "EDA: easy data
    augmentation techniques for boosting performance on text classification tasks", with words of the data in place of
    a dictionary's synonyms, as in the way `random` of PaddleNLP's dataaug.
    """
    draw = random.Random(f"{options.seed}\t{copy}\t{query}")  # by SHA-512: the same everywhere
    words, way = words_of(query), draw.choice(options.chosen)
    for _ in range(max(1, int(options.rate * len(words)))):
        if len(words) < (2 if way in ("swap", "delete") else 1):
            return ""
        words = WAYS[way](words, draw.randrange(len(words)), draw, known)
    return joined(words)


def augmented(rows: Sequence[Row], options: AugmentOptions, counts: Counter[str]) -> Iterator[Row]:
    """Yield the rows, and behind them the rows of each changed query, with titles and labels unchanged.

    counts: receives the number of queries that did not change, or became another query of the file
    """
    of_query: dict[str, list[Row]] = {}
    for row in rows:
        of_query.setdefault(row.query, []).append(row)
    known = [word.text for query in of_query for word in words_of(query)]
    taken = {*of_query}
    yield from rows
    for copy in range(options.copies):
        for query, own in of_query.items():
            changed = changed_query(query, options, copy, known)
            if not changed.strip() or changed in taken:
                counts["copies that would be empty or another query"] += 1
                continue
            taken.add(changed)
            counts["queries"] += 1
            yield from (replace(row, query=changed) for row in own)


def run(options: AugmentOptions) -> None:
    """Read rows, write them with copies, and print how many were written."""
    with output_free_for(options.output_file):
        check_writable(options.output_file)
        source: RecordFile[Row] = open_as_one_of(options.input_file, (LabeledPair, Triple, Pair), options)  # type: ignore[assignment]
        rows = list(source)
        if not rows:
            raise DataError(f"{options.input_file}: has no rows to change")
        if lacking := source.beside(*(name for layout in type(rows[0]).layouts for name in layout), "position"):
            note(f"note: {options.output_file}: will lack {lacking} of {options.input_file}")
        counts = Counter[str]()
        written = write_records(options.output_file, augmented(rows, options, counts))
        print(
            f"wrote {written:,} rows to {options.output_file}: {source.report()}, and {written - len(rows):,} of "
            f"{counts['queries']:,} changed queries"
        )
        if left_out := counts["copies that would be empty or another query"]:
            print(f"left out: {left_out:,} copies that would be empty or another query of the file")


main = main_of(run, AugmentOptions, __doc__)
