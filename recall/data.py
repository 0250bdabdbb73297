"""Training data of a tower: queries, the titles that answer them, and titles that do not; each text is encoded once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Optional, Union

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.array_types import Booleans, Floats, Integers
from paddle_ranker.data.files.pictures import ImageError, require_picture
from paddle_ranker.data.rows.records import LabeledPair, Pair, RecordFile, Text, Triple, open_as_one_of
from paddle_ranker.encoding.column_store import within
from paddle_ranker.encoding.columns import PICTURE, Columns, EncodedPairs, EncodedTexts
from paddle_ranker.errors import DataError, quoted
from paddle_ranker.metrics.ranking import RELEVANT
from paddle_ranker.model.tower import RowsOfTower, TextEncoder
from paddle_ranker.options import RowOptions
from paddle_ranker.options.input_files import folder_of
from paddle_ranker.training.mining import text_key
from paddle_ranker.training.training_options import TrainingOptions

Row = Union[LabeledPair, Triple, Pair, Text]
_KINDS = (LabeledPair, Triple, Pair)
_KEY_BITS = 31


@dataclass(frozen=True)
class Negatives:
    """Titles that do not answer an example's query: example i has `titles[offsets[i]:offsets[i + 1]]`, possibly none.

    offsets: `[n + 1]` int64; titles: `[m]` int64
    known_answers: number of titles that were left out, since they are known to answer the query as well as the
        example's title does
    """

    offsets: Integers
    titles: Integers
    known_answers: int = 0

    @classmethod
    def of(cls, titles: Iterable[Iterable[int]]) -> Negatives:
        """Join the indices of each example's negatives."""
        rows = [list(row) for row in titles]
        offsets = np.cumsum([0, *map(len, rows)])
        return cls(offsets, np.array([title for row in rows for title in row], np.int64))

    @property
    def most(self) -> int:
        return int(np.diff(self.offsets).max(initial=0))

    def draw(self, count: int, key: Sequence[int]) -> Integers:
        """Draw distinct titles of each example; return their indices in `titles`, `[n, count]`, padded with -1."""
        sizes = np.diff(self.offsets)
        owner = np.repeat(np.arange(len(sizes)), sizes)
        order = np.lexsort((np.random.default_rng(key).random(len(self.titles)), owner))
        place = self.offsets[:-1, None] + np.arange(count)
        is_there = np.arange(count) < sizes[:, None]
        drawn: Integers = np.where(is_there, order[np.where(is_there, place, 0)] if len(order) else 0, -1)
        return drawn


@dataclass(frozen=True)
class TextPairs:
    """Examples, n of them: a query, a title that answers it, and possibly titles that do not.

    queries, titles: the distinct texts
    query_of, title_of: index of each example's query and title, `[n]` int64
    negatives: titles that do not answer the examples' queries; None: the data have none
    texts: the distinct queries and titles themselves
    query_keys, title_keys: a number for each query and title, equal for texts that read the same (`text_key`)
    answers: for every pair of a query and its answer, both keys in one number, `query << 31 | title`, sorted
    grades: the highest label of each answer, `[answers]` float64; 1 without labels
    teacher: a teacher's logits, by the indices (query, title)
    """

    queries: Columns
    titles: Columns
    query_of: Integers
    title_of: Integers
    negatives: Optional[Negatives]
    texts: tuple[list[str], list[str]]
    query_keys: Integers
    title_keys: Integers
    answers: Integers
    grades: Floats
    teacher: dict[tuple[int, int], float]

    def __len__(self) -> int:
        return len(self.query_of)

    def within(self, options: TrainingOptions) -> TextPairs:
        """Return these pairs; encoded texts beyond `options.data_memory_mb` move to files in `options.save_dir`."""
        folder, memory = Path(options.save_dir), options.data_memory_mb << 20
        titles = _within(self.titles, folder, memory)
        queries = titles if self.queries is self.titles else _within(self.queries, folder, memory)
        return replace(self, queries=queries, titles=titles)

    def grades_of(self, queries: Integers, titles: Integers) -> Floats:
        """Return titles' grades for queries; 0 if a title is not known to answer.

        queries, titles: indices, whose shapes broadcast
        """
        codes = self.query_keys[queries] << _KEY_BITS | self.title_keys[titles]
        place = np.searchsorted(self.answers, codes).clip(max=len(self.answers) - 1)
        grades: Floats = np.where(self.answers[place] == codes, self.grades[place], 0.0)
        return grades

    def read_alike(self, queries: Integers, titles: Integers) -> Booleans:
        """Return whether each title reads like each query, `[queries, titles]` bool.

        queries, titles: indices, one dimension each
        """
        is_alike: Booleans = self.query_keys[queries][:, None] == self.title_keys[titles]
        return is_alike

    def without_known_negatives(self) -> TextPairs:
        """Return these pairs without negatives that are known to answer as well as the example's title does."""
        if self.negatives is None:
            return self
        owner = np.repeat(np.arange(len(self)), np.diff(self.negatives.offsets))
        grades = self.grades_of(self.query_of, self.title_of)
        is_worse = self.grades_of(self.query_of[owner], self.negatives.titles) < grades[owner]
        offsets = np.concatenate([[0], np.cumsum(is_worse)])[self.negatives.offsets]
        return replace(self, negatives=Negatives(offsets, self.negatives.titles[is_worse], int((~is_worse).sum())))

    def listed(self) -> tuple[Integers, Integers]:
        """Return the distinct pairs of a query with its titles and negatives: (queries, titles), indices `[m]` each."""
        queries, titles = [self.query_of], [self.title_of]
        if self.negatives is not None:
            queries.append(np.repeat(self.query_of, np.diff(self.negatives.offsets)))
            titles.append(self.negatives.titles)
        codes = np.unique(np.concatenate(queries) * len(self.titles) + np.concatenate(titles))
        return codes // len(self.titles), codes % len(self.titles)

    def teacher_of(self, queries: Integers, titles: Integers) -> NDArray[np.float32]:
        """Return the teacher's logits of the pairs (queries[i], titles[i]) of indices, `[m]`.

        Raises `DataError` for a pair without a teacher's logit.
        """
        logits = [self.teacher.get(pair) for pair in zip(queries.tolist(), titles.tolist())]
        for pair, logit in zip(zip(queries, titles), logits):
            if logit is None:
                query, title = quoted(self.texts[0][pair[0]]), quoted(self.texts[1][pair[1]])
                raise DataError(
                    f"the pair ({query}, {title}) has no teacher's score, which --loss learns from: let paddle-ranker "
                    "distill add the scores, or give --teacher FOLDER"
                )
        return np.array(logits, np.float32)


def _within(columns: Columns, folder: Path, memory: int) -> Columns:
    if isinstance(columns, (EncodedTexts, EncodedPairs)):
        return within(columns, folder, memory)
    return columns.cached(folder, memory)


def encode_rows(encoder: RowsOfTower, rows: Sequence[str], file: str, *, queries: bool = False) -> Columns:
    """Encode rows: texts, or paths of files, relative to the folder of `file`; pictures are decoded when needed."""
    if not isinstance(encoder, TextEncoder):
        return encoder.in_folder(folder_of(file)).files(rows)
    return encoder.encode_queries(rows) if queries else encoder.encode(rows)


class _Numbers(dict[str, int]):
    """A dict that numbers texts in the order in which they are first looked up."""

    def __missing__(self, text: str) -> int:
        self[text] = len(self)
        return self[text]


def open_rows(path: str, rules: Optional[RowOptions] = None) -> RecordFile[Row]:
    return open_as_one_of(path, _KINDS, rules)  # type: ignore[return-value]


class PictureCheck:
    """Check of rows: returns why a row's picture cannot be read, or None; each file is examined once.

    Args:
        queries, titles: the encoders of the rows' queries and titles.
        file: the file whose folder paths begin at.
    """

    def __init__(self, queries: RowsOfTower, titles: RowsOfTower, file: str):
        self._columns = (("query",) if queries.reads == PICTURE else ()) + (
            ("title", "neg_title", "text") if titles.reads == PICTURE else ()
        )
        self._folder, self._problems = folder_of(file), dict[str, Optional[str]]()

    def __call__(self, row: object) -> Optional[str]:
        paths = (getattr(row, name, None) for name in self._columns)
        return next(filter(None, (self._problem(path) for path in paths if path is not None)), None)

    def _problem(self, path: str) -> Optional[str]:
        if path not in self._problems:
            try:
                require_picture(self._folder / path)
                self._problems[path] = None
            except ImageError as error:
                self._problems[path] = str(error)
        return self._problems[path]


class _Read(NamedTuple):
    """Contents of rows, with texts as numbers.

    examples: (query, title)
    others: the negatives of each example, from triples
    judged: the titles of each query with their grades, from labelled pairs
    teacher: a teacher's logits
    """

    queries: _Numbers
    titles: _Numbers
    examples: list[tuple[int, int]]
    others: dict[tuple[int, int], list[int]]
    judged: dict[int, dict[int, float]]
    teacher: dict[tuple[int, int], float]


def _read(rows: Iterable[Row]) -> _Read:
    queries, titles, examples, others, judged, teacher = contents = _Read(_Numbers(), _Numbers(), [], {}, {}, {})
    for row in rows:
        title = titles[row.text if isinstance(row, Text) else row.title]
        pair = queries[row.text if isinstance(row, Text) else row.query], title
        score = getattr(row, "teacher_score", None)
        if score is not None:
            teacher[pair] = score
        if isinstance(row, LabeledPair):
            grades = judged.setdefault(pair[0], {})
            if row.label >= RELEVANT and grades.get(title, 0.0) < RELEVANT:
                examples.append(pair)
            grades[title] = max(row.label, grades.get(title, row.label))
        elif isinstance(row, Triple):
            negative = titles[row.neg_title]
            if row.neg_teacher_score is not None:
                teacher[pair[0], negative] = row.neg_teacher_score
            if pair not in others:
                examples.append(pair)
            others.setdefault(pair, []).append(negative)
        else:
            examples.append(pair)
    return contents


def encode_pairs(
    rows: Iterable[Row],
    encoder: RowsOfTower,
    name: str,
    query_encoder: Optional[RowsOfTower] = None,
    further: Iterable[str] = (),
) -> TextPairs:
    """Encode rows, all of one kind.

    A pair is an example. Triples of the same query and title are one example with several negatives. In labelled pairs,
    each title graded `RELEVANT` or above is an example, whose negatives are its query's titles of lower grades. A text
    alone is its own answer. A negative is dropped if another row states that it answers the query.

    Args:
        name: names the rows in messages.
        query_encoder: the queries' encoder, if it differs from the titles' encoder.
        further: titles beside those of the rows, which may become negatives.

    Raises `DataError` if there is no example.
    """
    queries, titles, examples, others, judged, teacher = _read(rows)
    for text in further:
        _ = titles[text]
    if not examples:
        raise DataError(f"{name}: holds no title that answers a query, so there is nothing to train on")
    of_query, of_title = np.array(examples, np.int64).T
    keys = _Numbers()
    query_keys, title_keys = (
        np.array([keys[text if reader.reads == PICTURE else text_key(text)] for text in texts], np.int64)
        for texts, reader in ((queries, query_encoder or encoder), (titles, encoder))
    )
    encoded = encode_rows(encoder, list(titles), name)
    of_queries = query_encoder or encoder
    has_one_prompt = not isinstance(encoder, TextEncoder) or encoder.query_prompt == encoder.text_prompt
    is_same = query_encoder is None and has_one_prompt and list(queries) == list(titles)
    answers, place = np.unique(query_keys[of_query] << _KEY_BITS | title_keys[of_title], return_inverse=True)
    grades_of = np.zeros(len(answers))
    np.maximum.at(grades_of, place, [judged[query][title] if judged else 1.0 for query, title in examples])
    pairs = TextPairs(
        encoded if is_same else encode_rows(of_queries, list(queries), name, queries=True),
        encoded,
        of_query,
        of_title,
        _negatives(examples, others, judged),
        (list(queries), list(titles)),
        query_keys,
        title_keys,
        answers,
        grades_of,
        teacher,
    )
    return pairs.without_known_negatives()


def _negatives(
    examples: Sequence[tuple[int, int]],
    others: Mapping[tuple[int, int], Sequence[int]],
    judged: Mapping[int, Mapping[int, float]],
) -> Optional[Negatives]:
    if judged:
        return Negatives.of(
            [title for title, grade in judged[query].items() if grade < judged[query][answer]]
            for query, answer in examples
        )
    return Negatives.of(dict.fromkeys(others[pair]) for pair in examples) if others else None
