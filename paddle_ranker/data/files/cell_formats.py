"""Read numbers, dates, truth values and lists in the cells of a table, in the spelling of each column.

    spelling = Spellings()
    for cell in ("1.299,00 €", "89,90 €"):
        spelling.add(cell)
    spelling.chosen().read("89,90 €")    # 89.9

A spelling is chosen only if it fits all values of the column. Numbers as in JSON and ISO 8601 dates need no spelling.
Codes that begin with a zero, such as `007`, stay texts. `spelling_of` returns the spelling that a field declares by its
format.
"""

from __future__ import annotations

import csv
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import date, datetime
from datetime import time as time_of_day
from functools import cache, lru_cache, partial
from math import isfinite
from operator import methodcaller
from typing import NamedTuple, Optional, Union

from paddle_ranker.errors import brief, listed

Cell = Union[bool, int, float, str, list[str]]
Read = Callable[[str], Cell]  # raises ValueError for a cell of another spelling

# Shift JIS has a backslash for the yen.
_CURRENCIES = (
    r"(?:NT|HK|US|AU?|CA?|R)?\$|[€£¥₩₹₽฿元円\\]|EUR|USD|GBP|CHF|CNY|RMB|JPY|CAD|AUD|PLN|SEK|NOK|DKK|INR|HUF|kr|zł|Kč|Ft"
)
_UNITS = f"(?:{_CURRENCIES}|%|kg|g|km|m|cm|mm|ml|l|GB|MB|KB|TB)?"
# A sign stands before the digits, or before a currency: -$5.
_NUMBER = re.compile(
    rf"(?P<outer>-(?={_CURRENCIES}))?(?P<before>{_UNITS}) ?(?P<sign>[-+]?)(?P<digits>\d[\d.,' ]*?) ?(?P<after>{_UNITS})"
)
_PLAIN = re.compile(r"\s*[-+]?(?:0|[1-9]\d*|(?=\.\d))(?:\.\d*)?(?:[eE][-+]?\d+)?\s*", re.ASCII)
_TELEPHONE = re.compile(r"\s*\+\d{8}")  # a plus before so many digits begins no number
_ISO = re.compile(r"\d{4}-\d\d(-\d\d([T ].*)?)?")
_UNMISTAKABLE = {"date": _ISO, "boolean": re.compile("true|false", re.IGNORECASE)}
_TYPOGRAPHY = str.maketrans("\u2212’", "-'")
# Texts by which people and pandas mark a missing value, in columns of any type but text
NO_VALUES = frozenset(
    ["", "nan", "-nan", "n/a", "#n/a", "#n/a n/a", "na", "#na", "n.a.", "null", "none", "<na>", "nat"]
    + ["-", "--", "\u2013", "\u2014"]
    + [f"{sign}1.#{name}" for sign in ("", "-") for name in ("ind", "qnan")]
)
# Errors of formulas, as Excel writes them in each language, and LibreOffice: #DIV/0!, #NAME?, #ÜBERLAUF!, Err:502
_ERROR = re.compile(r"#[^\W\d_]{2,16}(?:/0)?[!?]|#getting_data|err:\d{3}")
_ITEM = re.compile(r"""\s*(?:'([^']*)'|"([^"]*)")\s*(?:,|$)""")
_MARKS = {".": ",", ",": "."}  # mark of decimals -> mark of thousands
_TRUTHS = (
    ("yes", "no"), ("y", "n"), ("ja", "nein"), ("ja", "nee"), ("wahr", "falsch"), ("oui", "non"), ("vrai", "faux"),
    ("sí", "no"), ("si", "no"), ("sim", "não"), ("да", "нет"), ("是", "否"), ("はい", "いいえ"), ("tak", "nie"),
)  # fmt: skip
_TRUTH_WORDS = frozenset(("true", "false", *(word for pair in _TRUTHS for word in pair)))
TYPE_NAMES = {"number": "numbers", "date": "dates", "boolean": "truth values"}
_AMBIGUOUS = ("%d/%m/%Y", "%m/%d/%Y"), ("%d-%m-%Y", "%m-%d-%Y")  # the first of each has the day first
_DATES = (
    "%d.%m.%Y", "%d.%m.%y", *_AMBIGUOUS[0], *_AMBIGUOUS[1], "%Y/%m/%d", "%Y.%m.%d", "%Y年%m月%d日", "%d %b %Y",
    "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%d-%b-%Y",
)  # fmt: skip
# Names of months in English, German, French and Spanish, from which `readings` makes %b
_MONTHS = {
    name: month
    for month, names in {
        "Jan": "jan january januar jänner janv janvier ene enero",
        "Feb": "feb february februar febr févr février febrero",
        "Mar": "mar march märz mars marzo",
        "Apr": "apr april avr avril abr abril",
        "May": "may mai mayo",
        "Jun": "jun june juni juin junio",
        "Jul": "jul july juli juil juillet julio",
        "Aug": "aug august août ago agosto",
        "Sep": "sep sept september septembre septiembre",
        "Oct": "oct october okt oktober octobre octubre",
        "Nov": "nov november novembre noviembre",
        "Dec": "dec december dez dezember déc décembre dic diciembre",
    }.items()
    for name in names.split()
}
_WORD = re.compile(r"([^\W\d_]+)\.?")
_IN_DATE = re.compile(r"(?<=\d)\. (?=[A-Z])| (?:de|à|um) ")  # what stands between the parts of a date besides a space
_DATE_AND_TIME = re.compile(
    r"(?P<date>.+?)(?:,? (?P<time>\d{1,2}:\d\d(?::\d\d)?(?: [AP]M)?)(?: (?P<zone>UTC|[-+]\d\d:?\d\d))?)?", re.IGNORECASE
)
_TIMES = ("", " %H:%M", " %H:%M:%S", ", %H:%M", ", %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
_SEPARATORS = (", ", "; ", ";", "|", "、")
LIST = "list"  # type of a spelling whose values are lists
_LONGEST_ITEM, _LONGEST = 40, 100  # characters of an item of a list, and of any other value
_MANY_ITEMS = 1.2  # values are lists if they have at least this many items on average
_ENDS = (".", "!", "?", "。", "！", "？")
# Values that a person takes for dates, in any order
_DATE_LIKE = re.compile(
    r"(?P<one>\d{1,4})(?P<mark>[-./])(?P<two>\d{1,2})(?P=mark)\d{1,4}(?:[T ,].{1,20})?"
    r"|\d{1,2}\.?[ -][^\W\d_]{3,9}\.?[ -]\d{2,4}(?:[ ,].{1,20})?|[^\W\d_]{3,9}\.? \d{1,2}, \d{4}(?:[ ,].{1,20})?"
    r"|\d{4}年\d{1,2}月(?:\d{1,2}日)?.{,20}|\d{4}-\d\d"
)
_SHOWN = 3  # values of a form, in a message
_MOST_ITEMS = 1 << 16  # distinct items of a list that are counted
_MARKUP = re.compile(
    r"</(?:p|div|span|section|article|h[1-6]|ul|ol|li|table|td|tr|a|b|i|u|em|strong|blockquote|pre|code)>"
    r"|<br ?/?>|<img ",
    re.IGNORECASE,
)


class ValueSpelling(NamedTuple):
    """A way to write a column's values, such as numbers with decimal commas.

    type: "number", "date", "boolean" or "list"
    format: name of the spelling, such as "1.234,5"; a field may declare it
    read: called with a cell; returns its number, truth value, ISO 8601 date or list
    unit: unit of all numbers of a column, such as €; "": they have none
    """

    type: str
    format: str
    read: Read
    unit: str = ""

    def value(self, cell: str) -> Optional[Cell]:
        """Return a cell's value, or None if the value is missing.

        If the type is "date", ISO 8601 dates stay texts; if it is "boolean", `true` and `false` stay texts.

        Raises `ValueError` for a cell of another spelling.
        """
        if is_no_value(cell):
            return None
        unmistakable = _UNMISTAKABLE.get(self.type)
        return cell if unmistakable is not None and unmistakable.fullmatch(cell.strip()) else self.read(cell)


def is_plain_number(text: str) -> bool:
    """Return whether a text is a number as JSON has them, also with a plus; codes such as `007` are not."""
    return _PLAIN.fullmatch(text) is not None and _TELEPHONE.match(text) is None


class _Look:
    """Values of a column that look like those of a type.

    count: how many there are
    forms: by form, such as `0.0.0` of a date: the first value, and the number of its row
    """

    def __init__(self) -> None:
        self.count, self.forms = 0, dict[str, tuple[str, int]]()

    def add(self, cell: str, form: str, row: int) -> None:
        self.count += 1
        if len(self.forms) < _SHOWN:
            self.forms.setdefault(form, (cell, row))

    def __str__(self) -> str:
        return listed(f"{brief(cell)} (line {row:,})" if row else brief(cell) for cell, row in self.forms.values())


class Spellings:
    """Spellings of numbers, dates and lists that fit all values of a column; `add` is called with each value."""

    def __init__(self) -> None:
        self.count = 0
        self._needs_none, self._has_point = True, False
        self._looks = {kind: _Look() for kind in (*TYPE_NAMES, "")}  # by the type that values look like; "": none
        self._left = dict(_SPELLINGS)
        self._units: set[tuple[str, str]] = set()
        self._items = {separator: Counter[str]() for separator in _SEPARATORS}

    def add(self, cell: str, row: int = 0) -> None:
        """Drop the spellings that do not fit `cell`, a further value of the column; `row` is its row's number."""
        cell = cell.strip()
        if is_no_value(cell):
            return
        self.count += 1
        match = _NUMBER.fullmatch(_plain(cell))
        kind, form = _look_of(cell, match)
        self._looks[kind].add(cell, form, row)
        self._needs_none &= is_plain_number(cell) or any(map(methodcaller("fullmatch", cell), _UNMISTAKABLE.values()))
        self._has_point |= "." in cell
        if len(cell) > _LONGEST and not cell.startswith(("[", "{")):
            self._left.clear()
        for name, spelling in [*self._left.items()]:
            try:
                spelling.read(cell)
            except ValueError:
                del self._left[name]
        if self._left and match is not None:
            self._units.add((match["before"], match["after"]))
        if cell.startswith(("{", "[")) or cell.endswith(_ENDS):  # JSON and sentences have commas, too
            self._items.clear()
        for separator, items in [*self._items.items()]:
            split = cell.split(separator, _MOST_ITEMS)
            items.update(split)
            if len(items) > _MOST_ITEMS or max(map(len, split)) > _LONGEST_ITEM:
                del self._items[separator]

    @property
    def has_decimal_comma(self) -> bool:
        """Whether the column's numbers, or its dates with points, show that the table writes decimal commas."""
        if not self.count:
            return False
        are_dates = any(f"%d.%m.%Y{time}" in self._left for time in _TIMES)
        return are_dates or (_COMMA in self._left and _POINT not in self._left)

    def chosen(self, decimal_comma: bool = False) -> Optional[ValueSpelling]:
        """Return the spelling by which to read the column, or None if its values stay as they are.

        decimal_comma: whether another column of the table has decimal commas; days then come before months
        """
        if not self.count or (self._needs_none and not (decimal_comma and self._has_point)):
            return None
        left = [spelling for spelling in self._left.values() if spelling.type != "number" or len(self._units) <= 1]
        if decimal_comma:
            left.sort(key=lambda spelling: spelling.format == _POINT)
        elif self.doubtful_dates:
            return None
        for spelling in left:
            if self._needs_none and spelling.format == _POINT:
                return None  # as JSON writes them, so that 1.10 and 1.1 can still be told apart
            unit = "".join(*self._units) if self._units and spelling.type == "number" else ""
            return spelling._replace(unit=unit)
        for separator, items in self._items.items():
            total = sum(items.values())
            if total >= _MANY_ITEMS * self.count and 2 * len(items) <= total:
                return _list_spelling(separator)
        return None

    def close(self) -> None:
        """Free the items of lists, after the last call of `chosen`."""
        self._items.clear()

    @property
    def doubtful_dates(self) -> tuple[str, ...]:
        """The two possible formats if days and months could be swapped (first the one with days first), else ()."""
        for pair in _AMBIGUOUS:
            for time in _TIMES:
                formats = tuple(date + time for date in pair)
                if self.count and self._left.keys() >= {*formats}:
                    return formats
        return ()

    def looks_like(self) -> str:
        """Return the type, number or date, that most values look like; "" if they look like none of both."""
        return next((kind for kind in ("number", "date") if 2 * self._looks[kind].count > self.count), "")

    def doubt(self) -> str:
        """Return why the values stay texts although most look like those of a type; "" if they do not."""
        if not self.count or self._needs_none:
            return ""
        kind = max(TYPE_NAMES, key=lambda name: self._looks[name].count)
        look, others = self._looks[kind], self.count - self._looks[kind].count
        if 2 * look.count <= self.count:
            return ""
        if not others:
            return f"its {TYPE_NAMES[kind]} are written in several ways, such as {look}"
        different = next(other for name, other in self._looks.items() if name != kind and other.count)
        return f"{others:,} of {self.count:,} values are no {TYPE_NAMES[kind]}, such as {different}"

    @property
    def has_doubtful_points(self) -> bool:
        """Whether the values are plain numbers with points, all of which could separate thousands, as in `1.299`."""
        return self.count > 0 and self._needs_none and self._has_point and _COMMA in self._left


def _read_number(decimal: str, cell: str) -> Union[int, float]:
    match = _NUMBER.fullmatch(_plain(cell))
    if match is None:
        raise ValueError("no number")
    whole, mark, rest = match["digits"].strip().partition(decimal)
    first, *groups = re.split(rf"[{re.escape(_MARKS[decimal])}' ]", whole)
    is_code = (len(whole) > 1 and whole[0] == "0") or _TELEPHONE.match(cell) is not None
    marks = {*whole} - {*"0123456789"}
    if is_code or len(marks) > 1 or not first.isdigit() or (groups and len(first) > 3):
        raise ValueError("a code")
    if any(len(group) != 3 or not group.isdigit() for group in groups) or (mark and not rest.isdigit()):
        raise ValueError("no groups of thousands")
    number = f"{match['outer'] or ''}{match['sign']}{first}{''.join(groups)}"
    return float(f"{number}.{rest}") if mark else int(number)


def _read_truth(words: tuple[str, str], cell: str) -> bool:
    return words.index(cell.strip().lower()) == 0


def _read_date(style: str, cell: str) -> str:
    moment = datetime.strptime(cell.strip(), style)
    return moment.isoformat() if "%H" in style or "%I" in style else moment.date().isoformat()


def _read_written_list(cell: str) -> list[str]:
    """Parse a list as Python and JSON write it: `['a', 'b']`."""
    text = cell.strip()
    if not (text.startswith("[") and text.endswith("]")):
        raise ValueError("no list")
    try:
        items = json.loads(text)
    except (ValueError, RecursionError):
        items, inner, place = [], text[1:-1], 0
        while place < len(inner):
            match = _ITEM.match(inner, place)
            if match is None:
                raise ValueError("no list of texts") from None
            items.append(match[1] if match[1] is not None else match[2])
            place = match.end()
    if not all(isinstance(item, (str, int, float)) for item in items):
        raise ValueError("no list of texts and numbers")
    return items


def _read_array(cell: str) -> list[str]:
    """Parse a one-dimensional array as Postgres writes it: `{a,"b, c"}`."""
    text = cell.strip()
    inner = text[1:-1]
    if not (text.startswith("{") and text.endswith("}")) or "{" in inner or re.search(r"[\"']?: |'", inner):
        raise ValueError("no array")
    try:
        items = next(csv.reader([inner], escapechar="\\", strict=True), [])
    except csv.Error as error:
        raise ValueError("no array") from error
    return [item for item in items if item != "NULL"]


def has_markup(cell: str) -> bool:
    """Return whether a text has tags of HTML."""
    return _MARKUP.search(cell) is not None


def cell_text(value: object) -> str:
    """Return the text of a cell's value: numbers as in JSON, dates as in ISO 8601, "" for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime) and value.time() == time_of_day(0):
        value = value.date()
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return value.isoformat() if isinstance(value, (date, time_of_day)) else shown_value(value)


def shown_value(value: object) -> str:
    """Return a value as text; a whole number without decimals."""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    return str(value)


def is_no_value(cell: str) -> bool:
    """Return whether a cell stands for a missing value, such as `N/A`, or for a formula's error, such as `#DIV/0!`."""
    if len(cell) >= 32:
        return False
    text = cell.strip().lower()
    return text in NO_VALUES or (text[:1] in ("#", "e") and _ERROR.fullmatch(text) is not None)


def _plain(cell: str) -> str:
    return unicodedata.normalize("NFKC", cell.strip()).translate(_TYPOGRAPHY)


def _look_of(cell: str, number: Optional[re.Match[str]]) -> tuple[str, str]:
    """Return (type, form): the type of which a person takes a value to be, or "", and how it is written.

    number: match of `_NUMBER` for the cell
    """
    if number is not None and _is_number(cell):
        return "number", re.sub(r"\d+", "0", f"{number['before']}{number['digits'].strip()}{number['after']}")
    if cell.lower() in _TRUTH_WORDS:
        return "boolean", next(str(pair) for pair in (*_TRUTHS, ("true", "false")) if cell.lower() in pair)
    date = _DATE_LIKE.fullmatch(cell) if len(cell) <= _LONGEST_ITEM else None
    if date is None:
        return "", cell
    # Days and months have the same form, unless one of them is above 12.
    order = "" if date["one"] is None else f"{len(date['one']) > 2}{date['one'] > '12'}{date['two'] > '12'}"
    return "date", re.sub(r"\d+", "0", cell) + order


def _is_number(cell: str) -> bool:
    for decimal in _MARKS:
        try:
            _read_number(decimal, cell)
        except ValueError:
            continue
        return True
    return False


def _read_list(separator: str, cell: str) -> list[str]:
    return [item for item in map(str.strip, cell.split(separator)) if item]


@cache  # so that equal spellings are equal
def _list_spelling(separator: str) -> ValueSpelling:
    return ValueSpelling(LIST, separator, partial(_read_list, separator))


_POINT, _COMMA = "1,234.5", "1.234,5"
_MONTH_STYLES, _MONTH_LIKE = ("%b %Y", "%Y年%m月"), re.compile(r"[A-Z][a-z]{2} \d{4}")
# By precedence. A decimal point comes before a decimal comma, by which `1,234` would be another number.
_SPELLINGS = {
    spelling.format: spelling
    for spelling in (
        ValueSpelling(LIST, "['a', 'b']", _read_written_list),
        ValueSpelling(LIST, "{a,b}", _read_array),
        ValueSpelling("number", _POINT, partial(_read_number, ".")),
        ValueSpelling("number", _COMMA, partial(_read_number, ",")),
        *(ValueSpelling("boolean", "/".join(words), partial(_read_truth, words)) for words in _TRUTHS),
        *(ValueSpelling("date", date + time, partial(_read_date, date + time)) for date in _DATES for time in _TIMES),
    )
}


def spelling_of(type: str, format: str) -> ValueSpelling:
    """Return the spelling that has a type and a format; raises `ValueError`, listing the type's formats, if none has.

    type: see `ValueSpelling.type`; any other type has no formats
    """
    spelling = _SPELLINGS.get(format)
    if spelling is not None and spelling.type == type:
        return spelling
    if type == LIST and format in (",", *_SEPARATORS):
        return _list_spelling(format)
    formats = [other.format for other in _SPELLINGS.values() if other.type == type]
    if type == LIST:
        formats += [",", *_SEPARATORS]
    elif type == "date":
        formats = [*_DATES, "these followed by", *_TIMES[1:]]
    raise ValueError(listed(map(repr, formats)))


def readings(text: str, type: str, spelling: Optional[ValueSpelling] = None) -> list[Union[int, float, str]]:
    """Return the numbers, the ISO 8601 dates and months, or the keyword that a text may stand for, the likeliest first.

    A text is read as its column's spelling, then as JSON or ISO 8601, then in all other spellings, and dates with the
    names of months in English, German, French or Spanish. A time without seconds stays one. A keyword with a digit,
    such as 20:06 or R4-F4, is itself; others may be words of any question.

    type: "number", "date" or "keyword"; no text stands for values of other types
    """
    if type == "keyword":
        return [text] if any(map(str.isdigit, text)) else []
    text = _plain(text)
    if type == "number" and any(map(str.isdigit, text)):
        return list(dict.fromkeys(_numbers_in(text, spelling)))
    return list(dict.fromkeys(_dates_in(text, spelling))) if type == "date" and len(text) <= _LONGEST_ITEM else []


def _numbers_in(text: str, spelling: Optional[ValueSpelling]) -> Iterator[Union[int, float]]:
    reads: list[Read] = [] if spelling is None or spelling.type != "number" else [spelling.read]
    reads += [float] if is_plain_number(text) else []
    reads += [partial(_read_number, decimal) for decimal in _MARKS]
    for read in reads:
        with suppress(ValueError):
            number = read(text)
            if isinstance(number, (int, float)) and isfinite(number):
                yield number


@lru_cache(maxsize=256)  # a search reads its query for each field, twice
def _dates_in(text: str, spelling: Optional[ValueSpelling]) -> tuple[str, ...]:
    dates = list[str]()
    if spelling is not None and spelling.type == "date":
        with suppress(ValueError):
            dates.append(str(spelling.read(text)))
    if _ISO.fullmatch(text):
        dates.append(text)
    in_english = _WORD.sub(lambda word: _MONTHS.get(word[1].lower(), word[0]), text)
    match = _DATE_AND_TIME.fullmatch(_IN_DATE.sub(" ", in_english))
    if match is None or not (_DATE_LIKE.fullmatch(match["date"]) or _MONTH_LIKE.fullmatch(match["date"])):
        return tuple(dates)
    for style in (*_DATES, *_MONTH_STYLES):
        with suppress(ValueError):
            day = datetime.strptime(match["date"], style).date().isoformat()[: None if "%d" in style else 7]
            for time in _times_in(match["time"]) if match["time"] else [""]:
                dates.append(f"{day}{time}{(match['zone'] or '').replace('UTC', 'Z')}")
    return tuple(dates)


def _times_in(text: str) -> Iterator[str]:
    for style in {time.lstrip(", ") for time in _TIMES[1:]}:
        with suppress(ValueError):
            moment = datetime.strptime(text, style)
            yield f"T{moment.time().isoformat('seconds' if '%S' in style else 'minutes')}"
