"""Decide whether the first row of a table is a header, and map its names to columns.

    read_header(["anchor", "positive"], role, "train.tsv").places    # {"query": 0, "title": 1}
    read_header(["水稻", "水稻病害诊断"], role, "train.tsv")    # None: a row of data

`TableRole.find` maps the keys of JSON lines by the same names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Optional

from paddle_ranker.data.rows.labels import looks_numeric
from paddle_ranker.errors import DataError, listed
from paddle_ranker.unicode.characters import HAN, SYLLABLES, UNSPACED_SCRIPTS, in_brackets

Names = tuple[str, ...]

# The first name of each column is this toolkit's. Others come from sentence-transformers, FlagEmbedding, BEIR,
# MS MARCO, GLUE, CLUE and other Chinese data sets. If a table has several names of a column, the first listed counts.
_CONTENTS = (
    "contents", "content", "body", "passage", "passage_text", "document", "document_text", "doc", "doc_text",
    "paragraph", "sentence", "正文", "内容", "文档", "文章", "段落", "句子", "语料",
)  # fmt: skip
QUERY = (
    "query", "text_a", "查询", "anchor", "question", "sentence1", "sentence_1", "sentence_a", "sent1", "text1",
    "text_1", "question1", "query1", "premise", "search_query", "query_text", "问题", "问句", "提问", "搜索词",
    "检索词", "查询词", "文本1", "文本_1", "句子1", "文本a", "句子a",
)  # fmt: skip
TITLE = (
    "title", "text_b", "标题", "positive", "pos", "positive_passage", "pos_passage", "positive_doc", "pos_doc",
    "answer", "response", "sentence2", "sentence_2", "sentence_b", "sent2", "text2", "text_2", "question2", "query2",
    "hypothesis", "candidate", "context", "product_title", "docs", "passages", "documents", "答案", "回答", "正例",
    "正样本", "候选", "文本2", "文本_2", "句子2", "文本b", "句子b", "text", "文本", *_CONTENTS,
)  # fmt: skip
NEGATIVE = (
    "neg_title", "negative", "neg", "negative_passage", "neg_passage", "negative_doc", "neg_doc", "hard_negative",
    "负例", "负样本", "反例", "负例标题",
)  # fmt: skip
LABEL = (
    "label", "标签", "labels", "relevance", "relevancy", "relevant", "rel", "is_relevant", "grade", "gold_label",
    "judgement", "judgment", "is_duplicate", "similarity", "score", "scores", "label_idx", "target", "相关性",
    "相关度", "等级", "打分", "分数", "得分", "评分",
)  # fmt: skip
SCORE = ("recall_score", "score", "bm25_score", "分数", "得分")
DESCRIPTION = ("description", "abstract", "summary", "描述", "简介", "摘要")
HEADING = ("title", "text_b", "标题", "题目")
QUERY_ID = ("query_id", "qid", "topic", "topic_id", "查询id", "问题id")
DOCUMENT_ID = ("corpus_id", "docid", "doc_id", "document_id", "docno", "pid", "passage_id", "文档id")
ID = ("id", "_id", *DOCUMENT_ID, "编号")
TEXT = ("text", "文本", *_CONTENTS)
COLUMN_NAMES: Mapping[str, Names] = {  # for each column of a role, the names that it may have in a file
    "id": ID,
    "query": QUERY,
    "title": TITLE,
    "neg_title": NEGATIVE,
    "label": LABEL,
    "recall_score": SCORE,
    "teacher_score": ("teacher_score", "pos_scores"),
    "neg_teacher_score": ("neg_teacher_score", "neg_scores"),
    "position": ("position",),
    "places": ("places",),
    "neg_places": ("neg_places",),
    "text": TEXT,
}
# Any of these names makes the first row a header. Other names do so in twos, or if they are the whole row.
_SYNONYMS = {"text_a": "query", "text_b": "title", "查询": "query", "标题": "title", "标签": "label", "文本": "text"}
_OTHERS = (
    *QUERY_ID, "iteration", "iter", "url", "uri", "link", "source", "doi", "isbn", "lang", "language", "date", "time",
    "year", "category", "class", "type", "domain", "split", "author", "authors", "keywords", "tags", "abstract",
    "summary", "metadata", "index", "idx", "rank", "tag", "prompt", "name", "qid1", "qid2", "id1", "id2", "id_1",
    "id_2", "image_1", "image_2", "来源", "链接", "网址", "日期", "时间", "年份", "类别", "分类", "类型", "领域",
    "作者", "关键词", "摘要", "语言", "序号",
)  # fmt: skip
_LISTED = frozenset([*_OTHERS, *DOCUMENT_ID, *HEADING, *(name for names in COLUMN_NAMES.values() for name in names)])
_NAME = re.compile(r"[^\W\d][\w .:/()+-]{0,39}")  # possible name of a column that is not listed
_IDENTIFIER = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)+")  # an identifier of a program, unlike text
_ABBREVIATED = re.compile(r"[a-z]{1,4}[ _-]?[\d+-]?")
_ENDINGS = [name for name in (*QUERY, *TITLE, *NEGATIVE, *LABEL) if not name.isascii() or len(name) > 2]
_NAMED = re.compile(
    f"^[^ _]{{1,3}}({'|'.join(ending for ending in _ENDINGS if not ending.isascii())})$"
    f"|^([^ _-]+[ _-]){{1,2}}({'|'.join(ending for ending in _ENDINGS if ending.isascii())})$"
)
_LONGEST_NAME, _SHORTEST_TEXT = 24, 8  # characters; other scripts than Latin have longer words
_UNSPACED = in_brackets((*HAN, *SYLLABLES, *UNSPACED_SCRIPTS))
_WORDS = re.compile(f"[{_UNSPACED}]+|(?:(?![{_UNSPACED}])[^\\W_])+")
_OF_UNSPACED = re.compile(f"[{_UNSPACED}]")
_UNSPACED_WIDTH = 2.5  # letters of a Latin text for each character of a Chinese text that says the same
_WIDEST_NAME, _NAME_WORDS = 30, 3  # width and words of the longest name of a column that is judged by its form
_FEWEST_ROWS = 3  # minimum rows below a header that is judged by its form
_FAR_SHORTER = 0.5  # maximum width of a header, as a share of the median of the rows below
_SHOWN = 4  # maximum names of a column in a message, the first excluded


@dataclass(frozen=True)
class TableRole:
    """Columns of a kind of table, such as pairs or qrels.

    what: noun for its rows in messages
    columns: for each column, the names that it may have in a file, by precedence
    needed: required columns
    """

    what: str
    columns: Mapping[str, Names]
    needed: Names

    def find(self, cells: Sequence[str]) -> Header:
        """Map the names in `cells` to the role's columns; the header may lack columns."""
        names = tuple(map(plain_name, cells))
        keys = list(map(key_of, names))
        places: dict[str, int] = {}
        for column, accepted in self.columns.items():
            place = next((keys.index(name) for name in accepted if name in keys), None)
            if place is not None and place not in places.values():
                places[column] = place
        return Header(names, places)

    def reads(self, cells: Sequence[str]) -> bool:
        """Return whether `cells`, a first row, name all required columns."""
        return _is_header(cells) and not self.lacks(self.find(cells))

    def lacks(self, header: Header) -> str:
        """List the required columns that a header lacks, with possible names, for a message; "" if it lacks none."""
        missing = [column for column in self.needed if column not in header.places]
        return ", ".join(f"{column} (or {', '.join(self.columns[column][1:_SHOWN])}, …)" for column in missing)


@dataclass(frozen=True)
class Header:
    """Column names in the first row of a table, or keys of an object.

    names: the names, in lower case
    places: for each column of the role that was found, its position in `names`
    """

    names: Names
    places: Mapping[str, int]

    @property
    def others(self) -> list[int]:
        """Positions in `names` that are not columns of the role."""
        return sorted({*range(len(self.names))} - {*self.places.values()})

    def report(self) -> str:
        """Describe the columns with their names in the file, and the unused columns, for messages."""
        shown = [
            column if self.names[place] == column else f"{column} ({self.names[place]})"
            for column, place in sorted(self.places.items(), key=lambda item: item[1])
        ]
        others = [self.names[place] or "a column without a name" for place in self.others]
        return listed(shown) + (f"; not used: {listed(others)}" if others else "")


def read_header(
    cells: Sequence[str],
    role: TableRole,
    path: str,
    choice: Optional[bool] = None,
    hint: str = "",
    *,
    has_option: bool = True,
) -> Optional[Header]:
    """Return the header if the first row of a table is a header, else None.

    A row is a header if a cell is a name of this toolkit, if two cells are known names of columns, or if all cells are
    known names or identifiers with an underscore. A header that does not fit the role is refused, never read as data.

    cells: the first row
    choice: value of the user's `--header`: whether the row is a header; if None, this is detected
    hint: end of the message about a missing column
    has_option: whether the user has an option that sets `choice`, for messages

    Raises `DataError` for a header that lacks a required column, repeats a column, or, if `choice` is None, has a cell
    that cannot be a name.
    """
    if choice is False or not (choice or _is_header(cells)):
        return None
    header = role.find(cells)
    what = "type --header false" if has_option else "put a line of the columns' names above it"
    data = "" if choice else f"; if it is data, {what}"
    if lacking := role.lacks(header):
        raise DataError(
            f"{path}: the header has {listed(header.names)}, but {role.what} need {lacking} too{hint}{data}"
        )
    columns = [_SYNONYMS.get(name, name) for name in header.names]
    for name in dict.fromkeys(columns):
        if columns.count(name) > 1 and name in role.columns:
            raise DataError(f"{path}, line 1: the header names the column {name} more than once{data}")
    odd = [name for name in (header.names[place] for place in header.others) if name and not _NAME.fullmatch(name)]
    if odd and choice is None:
        raise DataError(
            f"{path}, line 1: {listed(header.names[place] for place in header.places.values())} name columns, but "
            f"{listed(odd)} names none{data}{', and else --header true' if has_option else ''}"
        )
    return header


def is_doubtful(cells: Sequence[str], others: Sequence[Sequence[str]]) -> bool:
    """Return whether `cells`, a first row without known column names, may still be a header.

    It may be a header if all its cells look like names, which are short (q, s1, src) or end in a column's name
    (用户问题, user question), and if each row below it, in `others`, has a text and does not look like names. It may
    also be one by its form alone, see `_stands_apart`.
    """
    are_texts = all(any(map(_is_text, row)) and not _may_name(row) for row in others)
    looks_named = len(cells) > 1 and bool(others) and are_texts and _may_name(cells)
    return looks_named or _stands_apart(cells, [row for row in others if len(row) == len(cells)])


def _stands_apart(cells: Sequence[str], others: Sequence[Sequence[str]]) -> bool:
    """Return whether a first row differs from the rows below it in all ways in which a header differs from data.

    Its cells are a few words each, and the query's are not repeated, while most rows below repeat words of the query.
    Its words do not occur in the rows below. It is narrower than each row below, and far narrower than most; or it is
    in another script (with or without spaces between words) than all cells below. A row of data in random order is the
    narrowest of n + 1 rows with probability 1 / (n + 1), and is seldom unlike its neighbours in the other ways, too.
    """
    texts = [place for place in range(len(cells)) if not all(looks_numeric(row[place]) for row in others)]
    if len(texts) < 2 or len(others) < _FEWEST_ROWS:
        return False
    first, rows = [cells[place] for place in texts], [[row[place] for place in texts] for row in others]
    names = list(map(_words, first))
    if not all(map(_is_short_name, first)) or _repeats_words(names) or not all(names):
        return False
    words = [list(map(_words, row)) for row in rows]
    repeating, known = sum(map(_repeats_words, words)), set[str]().union(*(cell for row in words for cell in row))
    if 2 * repeating < len(rows) or not known.isdisjoint(set[str]().union(*names)):
        return False
    widths, width = [sum(map(_width, row)) for row in rows], sum(map(_width, first))
    is_narrow = width < min(widths) and width < _FAR_SHORTER * median(widths)
    script, *scripts = [{bool(_OF_UNSPACED.search(cell)) for cell in row} for row in [first, *rows]]
    is_of_other_script = len(script) == 1 and script.isdisjoint(set[bool]().union(*scripts))
    return is_narrow or is_of_other_script


def _words(cell: str) -> set[str]:
    """Return a text's words: in scripts without spaces, each two adjacent characters."""
    words = set[str]()
    for word in _WORDS.findall(cell.lower()):
        is_unspaced = len(word) > 1 and _OF_UNSPACED.match(word)
        words.update((word[place : place + 2] for place in range(len(word) - 1)) if is_unspaced else [word])
    return words


def _repeats_words(cells: Sequence[set[str]]) -> bool:
    """Return whether a cell repeats words of the first cell, which holds the query."""
    return not cells[0].isdisjoint(set[str]().union(*cells[1:]))


def _width(cell: str) -> float:
    return len(cell) + (_UNSPACED_WIDTH - 1) * len(_OF_UNSPACED.findall(cell))


def _is_short_name(cell: str) -> bool:
    name = cell.strip()
    return bool(_NAME.fullmatch(name)) and _width(name) <= _WIDEST_NAME and len(name.split()) <= _NAME_WORDS


def _is_text(cell: str) -> bool:
    return len(cell.strip()) >= (_SHORTEST_TEXT if cell.isascii() else _SHORTEST_TEXT // 2)


def _may_name(cells: Sequence[str]) -> bool:
    words = list(map(plain_name, cells))
    return len({*words}) == len(words) and all(
        _ABBREVIATED.fullmatch(word) or (len(word) <= _LONGEST_NAME and _NAMED.search(word)) for word in words
    )


def names_columns(cells: Sequence[str]) -> bool:
    """Return whether any of the cells is a known name of a column."""
    return any(key_of(plain_name(cell)) in _LISTED for cell in cells)


def _is_header(cells: Sequence[str]) -> bool:
    names = set(map(plain_name, cells))
    known_names = {name for name in names if key_of(name) in _LISTED}
    if any(key_of(name) in COLUMN_NAMES or key_of(name) in _SYNONYMS for name in names) or len(known_names) > 1:
        return True
    return (len(cells) > 1 or bool(known_names)) and all(map(_IDENTIFIER.fullmatch, names - known_names))


def key_of(name: str) -> str:
    """Return a column's name in the form in which names are compared: with underscores for spaces and hyphens."""
    return re.sub("[ -]", "_", name)


def plain_name(cell: str) -> str:
    """Return a column's name in lower case, without quotes and spaces around it."""
    return unquoted(cell).lower()


def unquoted(cell: str) -> str:
    """Return a column's name without quotes and spaces around it."""
    cell = cell.strip()
    return cell[1:-1].strip() if len(cell) > 1 and cell[0] == cell[-1] in "\"'" else cell
