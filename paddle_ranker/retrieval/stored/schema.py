"""Schema of a collection: the fields of its documents, their types, and how they are searched, embedded and ranked.

schema = Schema((Field("title", "text", weight=3.0, title=True), TEXT_FIELD))
schema.searched(document)  # [["手册"], ["如何使用"]]: the texts that BM25F counts, in the order of `schema.words`
schema.model_text(document, "如何使用")  # "手册 如何使用": the text that towers and rankers read
"""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple, Optional, Protocol, Union

from paddle_ranker.array_types import Vectors
from paddle_ranker.data.files.cell_formats import LIST, ValueSpelling, cell_text, readings, spelling_of
from paddle_ranker.data.files.file_readers import READERS, Reader, is_file_name
from paddle_ranker.data.files.placed_text import PlacedText
from paddle_ranker.data.rows.field_paths import BETWEEN, by_path, text_of_values, value_at, with_texts
from paddle_ranker.data.rows.labels import number_of
from paddle_ranker.errors import DataError, UsageError, listed, quoted, spelling_hint
from paddle_ranker.lexical.analyser import Analyser, analyser, pieces
from paddle_ranker.lexical.tokens import STANDARD, Tokenizer, tokenizer_named
from paddle_ranker.registry import Registry
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.values.typed_values import STORED, TYPES
from paddle_ranker.storage.declared import Between, Count
from paddle_ranker.storage.untrusted import Unchecked

if TYPE_CHECKING:
    from paddle_ranker.data.rows.documents import Declared, FileFields
    from paddle_ranker.data.rows.records import DocumentRow
    from paddle_ranker.model.load_options import LoadOptions

TEXT = "text"  # name of the field that every document has, and of its type
# Weights of titles and summaries, and of the words of keywords, numbers and dates; largest weight.
TITLE_WEIGHT, VALUE_WEIGHT, MOST_WEIGHT = 5.0, 0.5, 1000.0
MOST_FIELDS = 1000  # distinct fields of all documents: each field takes 4 bytes of every document
_LONGEST_TITLE = 256  # characters; a longer title is not compared with queries
_SLOT = re.compile(r"\{([^{}]*)\}")
_FACET = "facet"  # what a text field is with its type
_OF_TYPE = -1.0  # a weight that stands for the weight of the field's type
_OPTIONS_OF_WORDS = ("weight=NUMBER", "analyser=NAME+NAME", "literal")  # of fields that can be searched
_OPTIONS_OF_ALL = ("list", "label=TEXT", "unit=TEXT", "format=FORMAT")
FIRST_BYTES = 1 << 16  # bytes of a file from which its format is detected
PLACES = "places"  # name of the field with the places of a document's words in its file
_ALIASES = {
    "jpg": ("jpeg",),
    "tif": ("tiff",),
    "heic": ("heif", "hif"),
    "ogg": ("oga", "opus"),
    "mp4": ("m4v",),
    "csv": ("tsv",),
    "xlsx": ("xlsm", "xlsb"),
    "html": ("htm", "xhtml"),
}  # of suffixes
# Of the web, without the name of a user, which would hide the host.
_ADDRESS, _LONGEST_ADDRESS = re.compile(r"https?://[^\s/?#@\\]+(?:[/?#]\S*)?", re.IGNORECASE), 4096
ADDRESS_TYPES = ("url", "picture-url")  # types of fields whose values are addresses
_BETWEEN_ITEMS = ", "  # joins a list of texts for towers and rankers


# A PNG of one pixel.
A_PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mP4//8/AAX+Av4zEpUUAAAAAElFTkSuQmCC"
)


class FieldTower(Protocol):
    """Model that makes the vectors of a vector field, `[n, size]`."""

    def vectors(self, values: Sequence[Unchecked]) -> Vectors:
        """Return the vectors of values of the field, or of examples; a file is given as bytes or a `FilePiece`."""
        ...

    def query_vectors(self, queries: Sequence[str]) -> Vectors:
        """Return the vectors of queries; raises `UsageError` if the tower reads no texts, only files."""
        ...

    def query_read(self, query: str) -> Optional[int]:
        """Return how many code points of a query the tower reads; None if all, or if that is not known."""
        ...


OpenTower = Callable[[Path, "LoadOptions", int], FieldTower]  # (folder, options, batch size) to the tower


def _open_text_tower(folder: Path, options: LoadOptions, batch_size: int) -> FieldTower:
    from paddle_ranker.retrieval.vectors.text_vectors import Tower

    return Tower.open(folder, options, batch_size, for_search=True)


def open_picture_tower(folder: Path, options: LoadOptions, batch_size: int) -> FieldTower:
    from paddle_ranker.retrieval.vectors.field_towers import FileTower

    return FileTower.open(folder, options, batch_size)


def _nothing(path: Path) -> str:
    return ""


def _not_checked(data: bytes) -> None:
    pass


def _no_file(data: bytes) -> str:
    raise ValueError("this field takes no files")


class FieldType(NamedTuple):
    """Type of fields.

    fits: called with a value, or with each item of a list; returns whether a field of this type may hold it
    what: describes the values, for messages and help texts
    values: name in `typed_values.TYPES` of the type by which filters, facets, groups and sorting compare the values
    weight: weight of the values' words in searches, if a field states none; 0: the values are not searched
    is_text: whether the values are texts of several words, which may be titles and whose words are no facets
    open_tower: opens the tower of a vector field of this type; None if fields of this type have no vectors

    For types whose values are files:
    media_types: media types by the suffix of the files' names
    suffix_of: called with a file's bytes, or with its first `FIRST_BYTES` if the type has a reader; returns the suffix;
        raises `ValueError` for a file of another type; decodes nothing
    check: called with the bytes of a file that is added; raises `ValueError` if the file is damaged
    sample: bytes of a file, to try a tower that reads no texts
    reader: name in `READERS` of the reader of the files' words; "" if words are not read
    examples: further types of files that may be examples of a search in a field of this type
    not_read: called with a file's path; returns which part of the file is ignored, for a report; "": no part
    """

    fits: Callable[[object], bool]
    what: str
    values: str = "keyword"
    weight: float = 0.0
    is_text: bool = False
    media_types: Mapping[str, str] = {}
    suffix_of: Callable[[bytes], str] = _no_file
    check: Callable[[bytes], None] = _not_checked
    open_tower: Optional[OpenTower] = None
    sample: bytes = b""
    reader: str = ""
    examples: tuple[str, ...] = ()
    not_read: Callable[[Path], str] = _nothing


def file_type(
    what: str,
    media_types: Mapping[str, str],
    suffix_of: Callable[[bytes], str],
    open_tower: Optional[OpenTower] = None,
    sample: bytes = b"",
    reader: str = "",
    examples: tuple[str, ...] = (),
    not_read: Callable[[Path], str] = _nothing,
    check: Callable[[bytes], None] = _not_checked,
) -> FieldType:
    """Return a `FieldType` whose values are files."""

    def fits(value: object) -> bool:
        return isinstance(value, str) and is_file_name(value) and value.partition(".")[2] in media_types

    return FieldType(
        fits,
        what,
        media_types=media_types,
        suffix_of=suffix_of,
        check=check,
        open_tower=open_tower,
        sample=sample,
        reader=reader,
        examples=examples,
        not_read=not_read,
    )


def _is_address(value: object) -> bool:
    """Return whether a value is an address that a page may link to: http or https, a host, no spaces."""
    return isinstance(value, str) and len(value) <= _LONGEST_ADDRESS and _ADDRESS.fullmatch(value) is not None


def _is_read(suffix: str) -> bool:
    """Return whether files of a suffix are read here; some need a package that may be missing."""
    from paddle_ranker.data.files.pictures import PHONE_SUFFIXES, reads_format

    kind = PHONE_SUFFIXES.get(suffix)
    return kind is None or reads_format(kind)


def suffix_by(*beginnings: tuple[bytes, str]) -> Callable[[bytes], str]:
    """Return a function that finds a file's suffix by its first bytes; raises `ValueError` if no pattern matches.

    beginnings: pairs of a regular expression and a suffix
    """

    def suffix_of(data: bytes) -> str:
        for pattern, suffix in beginnings:
            if re.match(pattern, data, re.S | re.I):
                return suffix
        raise ValueError("it begins otherwise" if data else "it is empty")

    return suffix_of


FIELD_TYPES: Registry[FieldType] = Registry("field type", "--field", recipes="contents")
FIELD_TYPES.add(
    TEXT,
    FieldType(
        lambda value: isinstance(value, str),
        "text, searched by words",
        weight=1.0,
        is_text=True,
        open_tower=_open_text_tower,
    ),
)
for _name, _what, _weight in (
    ("keyword", "a text, a number or a truth value", VALUE_WEIGHT),
    ("number", "a number", VALUE_WEIGHT),
    ("date", "an ISO 8601 date or time of the years 1 to 9999", VALUE_WEIGHT),
    ("boolean", "true or false", 0.0),  # such words tell nothing
    (STORED, "anything", 0.0),
):
    FIELD_TYPES.add(_name, FieldType(TYPES[_name].fits, _what, _name, _weight))
for _name, _what in (
    ("url", "an address of the web (http, https), which titles in the search page lead to"),
    ("picture-url", "the address of a picture on the web (http, https), which the search page shows"),
):
    FIELD_TYPES.add(_name, FieldType(_is_address, _what))
PICTURE_TYPES = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp", "gif": "image/gif", "bmp": "image/bmp",
             "tif": "image/tiff", "avif": "image/avif", "heic": "image/heic"}  # fmt: skip
FIELD_TYPES.add(
    "table",
    file_type(
        "a table (CSV, Excel, ODS, Parquet, HTML), read some rows at a time",
        {
            "csv": "text/csv",
            "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
            "xls": "application/vnd.ms-excel",
            "ods": "application/vnd.oasis.opendocument.spreadsheet",
            "parquet": "application/vnd.apache.parquet",
            "html": "text/html",
        },
        suffix_by(
            (rb"PK\x03\x04.{26}mimetypeapplication/vnd\.oasis\.opendocument\.spreadsheet", "ods"),
            (rb"PK\x03\x04", "xlsx"),
            (rb"\xd0\xcf\x11\xe0|\x09[\0\2\4\x08][\4\x06\x08\x10]\0", "xls"),
            (rb"PAR1", "parquet"),
            (rb"(?:\xef\xbb\xbf)?\s*<[a-z!?]", "html"),
            (rb"(?=[^\0]+\Z)|\xff\xfe|\xfe\xff|\x1f\x8b", "csv"),
        ),
        reader="table",
    ),
)


FIELD_TYPES.add(
    "document",
    file_type(
        "a text document (DOCX, ODT, PPTX, EPUB, XML, Jupyter notebook), read by headings or slides",
        {
            "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            "odt": "application/vnd.oasis.opendocument.text",
            "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
            "epub": "application/epub+zip",
            "xml": "application/xml",
            "ipynb": "application/x-ipynb+json",
        },
        suffix_by(
            (rb"PK\x03\x04.{26}mimetypeapplication/epub\+zip", "epub"),
            (rb"PK\x03\x04.{26}mimetypeapplication/vnd\.oasis\.opendocument\.text", "odt"),
            (rb"PK\x03\x04(?:(?!ppt/).)*word/", "docx"),
            (rb"PK\x03\x04.*ppt/", "pptx"),
            (rb"(?:\xef\xbb\xbf)?\s*<|\xff\xfe<|\xfe\xff\0<", "xml"),
            (rb"(?:\xef\xbb\xbf)?\s*\{", "ipynb"),
        ),
        reader="office",
    ),
)


@dataclass(frozen=True)
class Field:
    """Declared field of documents.

    type: a name in `FIELD_TYPES`
    weight: factor of the frequencies of the field's words; 0: the field is not searched; default: its type's
    title: whether the field is the title, which results show, and which precedes each passage for towers and rankers
    list: whether a document may have several values
    analyser: options of a searched field's analyser, see `lexical.analyser.analyser`
    literal: whether queries are never corrected to words of this searched field
    label: name that the search page shows in place of `name`
    unit: unit that the search page shows after numbers, such as €
    format: spelling of the values in files, see `data.cell_formats.spelling_of`; "": detected from a file's column
    facet: whether the values of a text field are a facet, too
    """

    name: str
    type: str
    weight: Annotated[float, Between(0, MOST_WEIGHT)] = _OF_TYPE
    title: bool = False
    list: bool = False
    analyser: str = ""
    literal: bool = False
    label: str = ""
    unit: str = ""
    format: str = ""
    facet: bool = False

    def __post_init__(self) -> None:
        if self.weight == _OF_TYPE:
            object.__setattr__(self, "weight", FIELD_TYPES[self.type].weight if self.type in FIELD_TYPES else 0.0)

    @classmethod
    def parse_several(cls, text: str) -> tuple[Field, ...]:
        """Parse fields that are joined by commas; a comma that no NAME:TYPE follows belongs to an option."""
        FIELD_TYPES.load_plugins()
        before_field = rf",(?=[^,:]+:(?:{'|'.join(map(re.escape, FIELD_TYPES))})(?:[:,+]|$))"
        return tuple(cls.parse(part) for part in re.split(before_field, text) if part)

    @classmethod
    def parse(cls, text: str) -> Field:
        """Parse `title:text:weight=3:title`, `brand:text+facet` or `tags:keyword:list`; else raise `UsageError`.

        A format is the last option, as it may have a colon.
        """
        name, _, rest = text.partition(":")
        rest, has_format, format = rest.partition(":format=")
        kind, *options = rest.split(":")
        kind, *more = kind.split("+")
        field = cls(name, kind, facet=more == [_FACET])
        if not name or kind not in FIELD_TYPES:
            expected = f"expected NAME:TYPE with a type of {listed(FIELD_TYPES)}{spelling_hint(kind, FIELD_TYPES)}"
            raise UsageError(f"--field {quoted(text)}: {expected}")
        if more and not (field.facet and field.is_text):
            raise UsageError(
                f"--field {quoted(text)}: expected NAME:{TEXT}+{_FACET}, or NAME:TYPE with one type; other types than "
                f"{TEXT} are facets by themselves"
            )
        can_be_searched = field.is_searched
        for option in options:
            key, _, value = option.partition("=")
            weight = number_of(value) if key == "weight" and can_be_searched else None
            if weight is not None and (0 < weight <= MOST_WEIGHT or (weight == 0 and not field.is_text)):
                field = replace(field, weight=float(weight))
            elif option == "title" and field.is_text:
                field = replace(field, title=True)
            elif option == "literal" and can_be_searched:
                field = replace(field, literal=True)
            elif key in ("label", "unit") and value:
                field = replace(field, label=value) if key == "label" else replace(field, unit=value)
            elif option == "list":
                field = replace(field, list=True)
            elif key == "analyser" and value and can_be_searched:
                analyser(value)  # raises with the choices
                field = replace(field, analyser=value)
            else:
                of_words = _OPTIONS_OF_WORDS if can_be_searched else ()
                choices = listed((*of_words, *["title"] * field.is_text, *_OPTIONS_OF_ALL))
                raise UsageError(
                    f"--field {quoted(text)}: {quoted(option)} is no option of a {kind} field; expected {choices}"
                )
        if not has_format:
            return field
        try:
            spelling_of(field._values, format)
        except ValueError as error:
            choices = str(error) or "none: such values are kept as they are"
            raise UsageError(f"--field {quoted(text)}: the format is {quoted(format)}, expected {choices}") from None
        return replace(field, format=format)

    @property
    def _values(self) -> str:
        return LIST if self.list else self.type

    def in_format(self, spelling: Optional[ValueSpelling]) -> Field:
        """Return the field with the format of a spelling, and with its unit if the field declares none.

        If the spelling is of another type or None, the field is unchanged.
        """
        if spelling is None or spelling.type != self._values:
            return self
        return replace(self, format=spelling.format, unit=self.unit or spelling.unit)

    @property
    def spelling(self) -> Optional[ValueSpelling]:
        """Spelling of the values by the format; None without a format. Raises `ValueError` for an unknown format."""
        return spelling_of(self._values, self.format) if self.format else None

    def readings(self, text: str) -> Sequence[Union[int, float, str]]:
        """Return the numbers, dates or keyword that a query may stand for in this field, the likeliest first.

        See `data.cell_formats.readings`; none are returned if the field has other values, or texts that are no codes.
        """
        if self.is_text and not self.literal:
            return []
        if self.unit:
            text = text.removeprefix(self.unit).removesuffix(self.unit)
        return readings(text, FIELD_TYPES[self.type].values, self.spelling)

    @property
    def is_searched(self) -> bool:
        """Whether words are searched in the field."""
        return self.weight > 0

    @property
    def is_text(self) -> bool:
        """Whether the values are texts of several words."""
        return FIELD_TYPES[self.type].is_text

    @property
    def is_literal(self) -> bool:
        """Whether queries are never corrected to words of the field, which are numbers or dates or declared so."""
        return self.literal or FIELD_TYPES[self.type].values in ("number", "date")

    @property
    def is_embedded(self) -> bool:
        """Whether a tower may make vectors of the field's values."""
        return FIELD_TYPES[self.type].open_tower is not None

    @property
    def examples(self) -> tuple[str, ...]:
        """Types of the files that searches in the field may give as examples."""
        return (self.type, *FIELD_TYPES[self.type].examples)

    def problem(self, value: object) -> str:
        """Return the reason why a value does not fit the field; "" if the value fits. The value None always fits."""
        items = value if isinstance(value, list) and (self.list or self.type == "stored") else [value]
        for item in items:
            if item is not None and not FIELD_TYPES[self.type].fits(item):
                return f"{self.name} is {quoted(item)}, expected {FIELD_TYPES[self.type].what}"
        return ""

    def __str__(self) -> str:
        weight = "" if self.weight == FIELD_TYPES[self.type].weight else f":weight={self.weight:g}"
        words = f":analyser={self.analyser}" if self.analyser else ""
        flags = f"{':title' * self.title}{':list' * self.list}{':literal' * self.literal}"
        shown = "".join(
            f":{key}={text}"
            for key, text in (("label", self.label), ("unit", self.unit), ("format", self.format))
            if text
        )
        return f"{self.name}:{self.type}{f'+{_FACET}' * self.facet}{weight}{flags}{words}{shown}"


TEXT_FIELD = Field(TEXT, TEXT)


@dataclass(frozen=True)
class Schema:
    """Declared fields of a collection; documents may have further fields, which are stored and can be filtered.

    fields: the declared fields; an undeclared `text` is a text field of weight 1
    template: text for towers and rankers: `{text}` stands for the passage, `{NAME}` for a field; "": title and passage
    passage_tokens: maximum length, in the tower's tokens, of the passages of `text` that get vectors; 0: the whole text
        gets one vector
    passage_overlap: maximum number of tokens at the end of a passage that the next passage repeats
    """

    fields: Annotated[tuple[Field, ...], Between(0, MOST_FIELDS)] = ()
    template: str = ""
    passage_tokens: Count = 0
    passage_overlap: Count = 0

    def __post_init__(self) -> None:
        names = Counter(field.name for field in self.fields)
        for name, times in names.items():
            if times > 1:
                raise UsageError(f"--field {name}: is given twice; give it once")
        if sum(field.title for field in self.fields) > 1:
            titles = listed(field.name for field in self.fields if field.title)
            raise UsageError(f"--field: {titles} are titles; name one")
        if any(field.name == TEXT and not field.is_text for field in self.fields) or "id" in names:
            raise UsageError("--field: id and text are what every document has; text can only be a text field")
        for field in self.fields:
            if field.list and (field.title or field.name == TEXT):
                raise UsageError(f"--field {field}: a title, and text, is one text; leave out list")
            if field.list and FIELD_TYPES[field.type].reader:
                raise UsageError(f"--field {field}: a document is a part of one file; leave out list")
        for name in _SLOT.findall(self.template):
            if name != TEXT and name not in names:
                raise UsageError(f"--template {quoted(self.template)}: {quoted(name)} is no declared field")
        if self.template and f"{{{TEXT}}}" not in self.template:
            raise UsageError(f"--template {quoted(self.template)}: lacks {{text}}, where the passage stands")
        if 2 * self.passage_overlap > self.passage_tokens:
            raise UsageError(f"--passage_overlap {self.passage_overlap}: is above half of --passage_tokens")

    @cached_property
    def words(self) -> tuple[Field, ...]:
        """The searched fields in the order of declaration, with `text`, which comes first if it is not declared."""
        searched = tuple(field for field in self.fields if field.is_searched)
        return searched if any(field.name == TEXT for field in searched) else (TEXT_FIELD, *searched)

    @cached_property
    def files(self) -> tuple[Field, ...]:
        """Fields whose values are files."""
        return tuple(field for field in self.fields if FIELD_TYPES[field.type].media_types)

    @cached_property
    def examples(self) -> tuple[str, ...]:
        """Types of the files that searches may give as examples, each once."""
        return tuple(dict.fromkeys(kind for field in self.files for kind in field.examples))

    @cached_property
    def read_files(self) -> tuple[Field, ...]:
        """Fields of files whose words are read when a document is added."""
        return tuple(field for field in self.files if FIELD_TYPES[field.type].reader)

    @property
    def part_fields(self) -> set[str]:
        """Names of the fields that readers give to parts of files, such as `page`."""
        return {name for field in self.read_files for name in READERS[FIELD_TYPES[field.type].reader].fields}

    @cached_property
    def file_fields(self) -> FileFields:
        """The field that takes a folder's file, by its suffix, and the fields whose files are read for their words."""
        from paddle_ranker.data.rows.documents import FileFields

        by_suffix = dict[str, str]()
        for field in self.files:
            for suffix in filter(_is_read, FIELD_TYPES[field.type].media_types):
                for alias in (suffix, *_ALIASES.get(suffix, ())):
                    by_suffix.setdefault(alias, field.name)
        return FileFields(by_suffix, frozenset(field.name for field in self.read_files))

    @cached_property
    def spellings(self) -> Declared:
        """Spelling of the values of declared fields, by name; None for fields whose values are stored as spelled.

        Fields whose spelling is detected from a file's column are left out.
        """
        return {field.name: field.spelling for field in self.fields
                if field.format or not (field.list or field.type in ("number", "date", "boolean"))}  # fmt: skip

    def reader_of(self, document: Document) -> Optional[Reader]:
        """Return the reader of the file from which a document's words were read; None without such a file."""
        kinds = (FIELD_TYPES[field.type].reader for field in self.read_files if document.fields.get(field.name))
        return next((READERS[kind] for kind in kinds), None)

    def file_names(self, document: Document) -> set[str]:
        """Return the names of the files in a document's fields."""
        values = [document.fields.get(field.name) for field in self.files]
        return {str(item) for value in values if value for item in (value if isinstance(value, list) else [value])}

    @cached_property
    def weights(self) -> tuple[float, ...]:
        return tuple(field.weight for field in self.words)

    def weights_by(self, others: Mapping[str, float]) -> tuple[float, ...]:
        """Return the weight of each field in `words`: its value in `others`, by name, or else the schema's weight.

        Raises `UsageError` for a name that is not in `words`.
        """
        names = [field.name for field in self.words]
        if unknown := sorted(others.keys() - {*names}):
            raise UsageError(f"weights of the fields {listed(unknown)}: words are searched in {listed(names)}")
        return tuple(others.get(field.name, field.weight) for field in self.words)

    def tokenizers(self, name: str) -> list[Tokenizer]:
        """Return the tokenizer of each field in `words`; for `standard`, an analyser with the field's options."""
        if name != STANDARD:
            return [tokenizer_named(name)] * len(self.words)
        return [analyser(field.analyser) for field in self.words]

    @property
    def analyser(self) -> Analyser:
        """The analyser of the field `text`, which also decides which words of results are highlighted."""
        return analyser(next(field.analyser for field in self.words if field.name == TEXT))

    def type_of(self, name: str) -> str:
        """Return the declared type of a field's values, a name in `typed_values.TYPES`; "" if none is declared."""
        kind = next((field.type for field in self.fields if field.name == name), STORED)
        return "" if kind == STORED else FIELD_TYPES[kind].values

    def field(self, name: str) -> Field:
        """Return a declared field, or `text`; raises `UsageError` for another name."""
        fields = {TEXT: TEXT_FIELD, **{field.name: field for field in self.fields}}
        if name not in fields:
            raise UsageError(f"{quoted(name)} is no declared field, only {listed(fields)} are")
        return fields[name]

    @property
    def title(self) -> Optional[str]:
        """The name of the title field, or None."""
        return next((field.name for field in self.fields if field.title), None)

    @cached_property
    def title_index(self) -> int:
        """The index in `words` of the title field; without a title field, of `text`."""
        return [field.name for field in self.words].index(self.title or TEXT)

    @cached_property
    def _template(self) -> str:
        return self.template or (f"{{{self.title}}} {{{TEXT}}}" if self.title not in (None, TEXT) else "")

    def searched(self, document: Document) -> list[list[str]]:
        """Return a document's texts in each searched field, in the order of `words`.

        A field has one text, or one per item of a list, or none, and a number has one per spelling. A phrase must be
        within a single text.
        """
        return [
            _texts_of(document, field.name)
            if field.is_text
            else [text for item in _items_of(document, field.name) for text in _spellings(item)]
            for field in self.words
        ]

    @cached_property
    def paths(self) -> tuple[frozenset[str], frozenset[str]]:
        """Names of the fields that are stored, whose objects are not taken apart; names of the declared fields."""
        stored = frozenset(field.name for field in self.fields if field.type == STORED)
        return stored, frozenset(field.name for field in self.fields)

    @cached_property
    def _typed(self) -> tuple[dict[str, str], frozenset[str]]:
        """Types of the fields of numbers and truth values, by path; names of the fields in which they lie."""
        types = {field.name: FIELD_TYPES[field.type].values for field in self.fields}
        typed = {name: type for name, type in types.items() if type in ("number", "boolean")}
        parts = (name.split(BETWEEN) for name in typed)
        return typed, frozenset(BETWEEN.join(path[:end]) for path in parts for end in range(1, len(path) + 1))

    def with_values(self, fields: Mapping[str, object]) -> dict[str, object]:
        """Return fields with each text of a declared field of numbers or truth values as what it stands for.

        `N/A` and its like become null. Texts that stand for no such value stay, to be refused by `check`.
        """
        types, outer = self._typed

        def value_of(path: str, text: str) -> object:
            try:
                value = TYPES[types[path]].read(text) if path in types else None
            except ValueError:
                return text
            return text if path not in types else None if value is None else value.json()

        return {name: with_texts(value, value_of, name) if name in outer else value for name, value in fields.items()}

    def values(self, document: Document) -> dict[str, object]:
        """Return the values of a document's fields by path; objects in stored fields are not taken apart."""
        return by_path(document.fields, *self.paths)

    def text_of(self, fields: Mapping[str, object]) -> str:
        """Return the text of a document without a text: its title, else the values of its fields."""
        title = value_at(fields, self.title) if self.title is not None else None
        return title if isinstance(title, str) and title.strip() else text_of_values(fields)

    def identity(self, document: Document) -> str:
        """Return a text made of the document's text and fields, to find documents that have both in common."""
        fields = json.dumps(dict(document.fields), sort_keys=True, default=str)
        return f"{document.text}\0{fields}" if document.fields else document.text

    def title_key(self, text: str) -> str:
        """Return the folded words of a title or a query, without punctuation; "" for a very long text.

        If the schema has no title field, a document's text is its title.
        """
        title_analyser = analyser(self.field(self.title or TEXT).analyser)
        folded = title_analyser.fold(text) if len(text) <= _LONGEST_TITLE else ""
        return " ".join(piece for _, piece, _ in pieces(folded)) or folded.strip()

    def key_of(self, document: Document) -> str:
        """Return the `title_key` of a document's title."""
        return self.title_key(_text_of(document, self.title or TEXT))

    @property
    def model_fields(self) -> set[str]:
        """Names of the fields that `model_text` reads, with `text`."""
        return {TEXT, *_SLOT.findall(self._template)}

    def model_text(self, document: Document, text: Optional[str] = None) -> str:
        """Return the input text of towers and rankers for a passage of a document (default: its whole text)."""
        text = document.text if text is None else text
        if not self._template:
            return text
        values = {TEXT: text}

        def value(slot: re.Match[str]) -> str:
            name = slot[1]
            if name not in values:
                field_text = _text_of(document, name)
                values[name] = (
                    "" if field_text == document.text else field_text
                )  # the text of some documents is the title
            return values[name]

        if not isinstance(text, PlacedText):
            return _SLOT.sub(value, self._template).strip()
        before, _, after = (_SLOT.sub(value, part) for part in self._template.partition(f"{{{TEXT}}}"))
        return before.lstrip() + text + after.rstrip()

    def name_of(self, document: Document) -> Optional[str]:
        """Return a document's title; None if the schema has no title field, or the title is empty."""
        return None if self.title is None else (_text_of(document, self.title) or None)

    def check(self, document: Union[Document, DocumentRow]) -> None:
        """Raise `DataError` if a value of a document does not fit its field."""
        for field in self.fields:
            problem = field.problem(value_at(document.fields, field.name)) if field.name != TEXT else ""
            if problem:
                raise DataError(f"document {quoted(document.id or document.text)}: {problem}; correct it")


def _items_of(document: Document, name: str) -> list[object]:
    value: object = document.text if name == TEXT else value_at(document.fields, name)
    return [item for item in (value if isinstance(value, list) else [value]) if item is not None and item != ""]


def _texts_of(document: Document, name: str) -> list[str]:
    return [*map(cell_text, _items_of(document, name))]


def _spellings(value: object) -> list[str]:
    """Return the texts by which a value is found: a fraction as it is and, like a price, with two decimals."""
    if isinstance(value, bool):
        return []
    if not isinstance(value, float):
        return [str(value)]
    plain, price = f"{value:.15g}", f"{value:.2f}"
    return [plain] if value.is_integer() or plain == price else [plain, price]


def _text_of(document: Document, name: str) -> str:
    return _BETWEEN_ITEMS.join(_texts_of(document, name))
