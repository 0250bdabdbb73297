"""Infer the schema of a collection from its rows: the type of each field by its values, the title, what is searched."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Optional, Protocol

from paddle_ranker.data.files.cell_formats import TYPE_NAMES
from paddle_ranker.data.files.file_readers import READERS
from paddle_ranker.data.rows.documents import TITLES
from paddle_ranker.data.rows.field_paths import MOST_PARTS, Paths
from paddle_ranker.errors import brief, listed
from paddle_ranker.retrieval.stored.schema import FIELD_TYPES, TEXT, TITLE_WEIGHT, Field, Schema
from paddle_ranker.retrieval.values.typed_values import STORED, CommonTypes
from paddle_ranker.unicode.characters import UNIT, UNSPACED, fold, shape_of

_SUMMARISED = 4  # a field is a summary if `text` has at least this many times as many characters
_SHOWN = 8  # spellings of missing values that are shown
# What programs add to a number; the zeros behind other decimals, as in 1.10, can tell versions and sections apart.
_PADDING = re.compile(r"^[\s+]+|^\s*-(?=0(?:\.0*)?\s*$)|\.0*\s*$|\s+$")
_SHOWN_OTHERS, _MOST_SPELLED = 3, 1 << 16  # values that do not fit, in a message; numbers whose spellings are compared
_STAYS = {"keyword": "text", STORED: "as it is"}  # what a field of a type stays, in a message
_LONG = 40  # texts of several words are searched if they have at least this many characters on average
# Codes such as article numbers are searched, too: values without spaces, nearly all of which differ.
_CODE, _FEWEST_CODES, _MOST_CODES, _DIFFERENT = re.compile(r"(?!.*://)\S{1,64}"), 20, 1 << 20, 0.9


class _Row(Protocol):
    @property
    def id(self) -> Optional[str]: ...

    @property
    def text(self) -> str: ...

    @property
    def fields(self) -> Mapping[str, object]: ...


class _FieldFacts:
    """Facts about the values of a field that have been read so far."""

    def __init__(self) -> None:
        self.types = CommonTypes()
        self.characters = self.apart = 0
        self.are_texts, self.are_codes, self.has_lists = True, True, False
        self.hashes = set[int]()  # hashes of the first values, while all values may be codes
        self.no_values: dict[str, None] = {}  # spellings of missing values, such as N/A
        self.fitting = Counter[str]()  # how many values fit a type
        self.others = {
            kind: dict[str, str]() for kind in TYPE_NAMES
        }  # by type: the first that do not fit it, and where
        self.spelled: dict[float, tuple[str, str]] = {}  # spellings of the first different numbers, and where
        self.alike = ""  # two spellings of one number, and where

    @property
    def count(self) -> int:
        """Number of values."""
        return self.types.valued + self.types.missing

    def add(self, value: object, place: str) -> None:
        """Count a value of the document that `place` names."""
        self.has_lists |= isinstance(value, list)
        for item in value if isinstance(value, list) else [value]:
            before = self.types.missing
            self._note_type(item, self.types.add(item), place)
            self.are_texts &= isinstance(item, str)
            if isinstance(item, str):
                self.characters += len(item)
                self.are_codes = self.are_codes and _CODE.fullmatch(item) is not None
                if self.are_codes and len(self.hashes) < _MOST_CODES:
                    self.hashes.add(hash(item))
                self.apart += " " in item or not {" ", UNIT, UNSPACED}.isdisjoint(shape_of(fold(item)))
                if self.types.missing > before and len(self.no_values) < _SHOWN:
                    self.no_values[item] = None

    def _note_type(self, item: object, fits: Sequence[str], place: str) -> None:
        """Note which types a value fits, and whether another spelling of its number has been seen."""
        if not fits or self.types.valued == 0:
            return
        for kind in TYPE_NAMES:
            if kind in fits:
                self.fitting[kind] += 1
            elif len(self.others[kind]) < _SHOWN_OTHERS:
                self.others[kind].setdefault(_shown(item), place)
        if isinstance(item, str) and "number" in fits and not self.alike:
            number, spelling = float(item), _PADDING.sub("", item)
            if len(self.spelled) < _MOST_SPELLED or number in self.spelled:
                first, at = self.spelled.setdefault(number, (spelling, place))
                if first != spelling:
                    self.alike = f"{first} ({at}) and {spelling} ({place})"

    def doubt(self, kind: str) -> str:
        """Return why a field is of type `kind` although most values fit another type; "" if they do not."""
        if self.alike and kind not in TYPE_NAMES and self.fitting["number"] == self.types.valued:
            return f"{self.alike} would be one number"
        best = max(TYPE_NAMES, key=lambda name: self.fitting[name])
        others = self.types.valued - self.fitting[best]
        if kind in TYPE_NAMES or not others or 2 * self.fitting[best] <= self.types.valued:
            return ""
        where = listed(f"{brief(value)} ({place})" for value, place in self.others[best].items())
        return f"{others:,} of {self.types.valued:,} values are no {TYPE_NAMES[best]}, such as {where}"

    def field(self, name: str, is_title: bool, text_length: float) -> Field:
        """Return the field that fits the values.

        text_length: mean length of the documents' texts, in characters
        """
        kind, count = self.types.type, self.count
        if kind in TYPE_NAMES and not (kind == "number" and self.alike):
            return Field(name, kind, list=self.has_lists)
        if self.are_texts and not self.has_lists:
            if is_title:
                return Field(name, TEXT, TITLE_WEIGHT, title=True)
            if self.characters >= _LONG * count and 2 * self.apart > count:
                is_summary = _SUMMARISED * self.characters <= text_length * count
                return Field(name, TEXT, TITLE_WEIGHT if is_summary else 1.0)
            if self.are_codes and len(self.hashes) >= max(_FEWEST_CODES, _DIFFERENT * min(count, _MOST_CODES)):
                return Field(name, TEXT, literal=True)
        return Field(name, "keyword" if self.are_texts else STORED, list=self.has_lists and self.are_texts)


def folder_fields(declared: Sequence[Field]) -> tuple[Field, ...]:
    """Return the declared fields, and for each type of files a field of its name, if no declared field has either."""
    names, types = {field.name for field in declared}, {field.type for field in declared}
    FIELD_TYPES.load_plugins()
    of_files = [name for name, kind in FIELD_TYPES.items() if kind.media_types and name not in names | types]
    return (*declared, *(Field(name, name) for name in of_files))


def with_part_fields(schema: Schema) -> Schema:
    """Add to a schema the fields that readers give to parts of files, and, if files are read, a title field."""
    names, more = {field.name for field in schema.fields}, dict[str, Field]()
    if schema.read_files and schema.title is None:
        more["title"] = Field("title", TEXT, TITLE_WEIGHT, title=True)
    for field in schema.read_files:
        for name, kind in READERS[FIELD_TYPES[field.type].reader].fields.items():
            more.setdefault(name, Field(name, kind))
    fields = (*schema.fields, *(field for name, field in more.items() if name not in names))
    return replace(schema, fields=tuple(sorted(fields, key=_schema_order)))


def infer_schema(
    rows: Iterable[_Row],
    declared: Sequence[Field] = (),
    note: Callable[[str], None] = lambda text: None,
    title: Optional[str] = None,
    doubted: Container[str] = (),
) -> Schema:
    """Return a schema with the declared fields, and a field for each other name whose type fits its values.

    A field called `title` or `name` is the title, unless another title is declared. A field of long texts is searched;
    if the texts are much shorter than `text`, it is a summary with a higher weight. A field of different codes, such as
    article numbers, is searched without corrections. In a field of numbers, dates or truth values, `N/A`, `NaN` and the
    like count as missing.

    note: called with a message if some values of a field count as missing, if most but not all values fit a type, and
        if a field has objects with so many members that they are stored as they are
    title: a name for the title field that is preferred to `title` and `name`; None: no such name
    doubted: names of fields about whose type the reader of the rows has said more
    """
    values: dict[str, _FieldFacts] = {}
    names = {field.name for field in declared}
    count, characters, paths = 0, 0, Paths(*Schema(tuple(declared)).paths)
    for row in rows:
        count += 1
        characters += len(row.text)
        for name, value in paths.of(row.fields).items():
            if value is not None and value != "":
                values.setdefault(name, _FieldFacts()).add(value, f"document {row.id or count}")
    values = {name: facts for name, facts in values.items() if facts.count and not paths.is_dropped(name)}
    has_title = any(field.title for field in declared)
    titles = [
        name
        for title_name in (title, *TITLES)
        for name in values
        if title_name is not None and name.lower() == title_name.lower() and name not in names
    ]
    fields = list(declared)
    for name in sorted(values.keys() - names):
        is_title = not has_title and titles[:1] == [name]
        is_whole = name in paths.whole
        fields.append(Field(name, STORED) if is_whole else values[name].field(name, is_title, characters / count))
        has_title |= fields[-1].title
    for field in fields:
        field_values = values.get(field.name)
        if field.name in paths.whole:
            note(f"{field.name}: holds objects with more than {MOST_PARTS} different members, which are stored and not "
                 f"searched; --field {field.name}.MEMBER:TYPE declares one that is")  # fmt: skip
        is_inferred = field.name not in names and field.name not in doubted
        if field_values is not None and is_inferred and (doubt := field_values.doubt(field.type)):
            note(f"{field.name} stays {_STAYS.get(field.type, field.type)}: {doubt}")
        if field_values is not None and field_values.types.missing and field.type in ("boolean", "number", "date"):
            missing = field_values.types.missing
            count, stand = field_values.types.valued + missing, "stands" if missing == 1 else "stand"
            spellings = ", ".join(field_values.no_values)
            note(f"{field.name}: {missing:,} of {count:,} values {stand} for none ({spellings})")
    return Schema(tuple(sorted(fields, key=_schema_order)))


def _schema_order(field: Field) -> tuple[bool, bool, str]:
    return not field.title, not field.is_text, field.name


def schema_lines(schema: Schema, examples: Mapping[str, object]) -> list[str]:
    """Return the schema as lines for people: each field as `--field` takes it, and an example of the field's values."""
    rows = [str(field) for field in (*schema.fields, *(field for field in schema.words if field not in schema.fields))]
    width = max(map(len, rows), default=0)
    shown = {row: brief(" ".join(_shown(examples.get(row.partition(":")[0], "")).split())) for row in rows}
    return [f"  {row:{width}}  {shown[row]}".rstrip() for row in rows]


def _shown(value: object) -> str:
    """Return a text as it is, and another value as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
