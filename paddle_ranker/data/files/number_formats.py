"""Show numbers of spreadsheets as their number formats do, where that is more than digits.

shown_number(90887, "0000000")    # "0090887"
shown_number(0.153, "0.0%")       # "15.3%"
shown_number(1.1284722, "[h]:mm") # "27:05"
shown_number(1234.5, "#,##0.00")  # None: the number itself says as much
"""

from __future__ import annotations

import re
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import NamedTuple, Optional

# Formats that files name by number alone
BUILT_IN = {5: "$#,##0", 6: "$#,##0", 7: "$#,##0.00", 8: "$#,##0.00", 9: "0%", 10: "0.00%", 18: "h:mm AM/PM",
            19: "h:mm:ss AM/PM", 20: "h:mm", 21: "h:mm:ss", 45: "mm:ss", 46: "[h]:mm:ss"}  # fmt: skip
_TOKEN = re.compile(
    r'"(?P<quoted>[^"]*)"?|\\(?P<escaped>.)|_.?|\*.?|\[\$(?P<currency>[^\]-]*)[^\]]*\]|\[(?P<elapsed>h+|m+|s+)\]'
    r"|\[(?P<condition>[<>=][^\]]*)\]|\[[^\]]*\]|(?P<half>AM/PM|A/P)|(?P<general>General)|(?P<time>h+|m+|s+)(?P<part>\.0+)?"
    r"|(?P<digits>[0#?.,]+)|(?P<percent>%)|(?P<other>[a-z/@])|(?P<sign>.)",
    re.IGNORECASE | re.DOTALL,
)
_PIECE = re.compile(r'"[^"]*"?|\\.?|\[[^\]]*\]?|;|[^;"\\\[]+', re.DOTALL)  # a semicolon ends a section
_LARGEST, _LONGEST = 1e15, 255  # numbers with all of their digits; characters of a format


class _Token(NamedTuple):
    """Part of a format: a literal text, digits, a percent sign, or a unit of time."""

    kind: str
    text: str


def shown_number(value: float, code: str) -> Optional[str]:
    """Return a number as a format shows it; None for a date, and for a format that shows nothing but the number."""
    if len(code) > _LONGEST or not abs(value) < _LARGEST:
        return None
    sections = _sections(code)
    number = abs(value)
    place = 0 if value > 0 or len(sections) < 2 else 1 if value < 0 else 2 if len(sections) > 2 else 0
    tokens = sections[place] if sections else None
    if not tokens:
        return None
    kinds = {token.kind for token in tokens}
    sign = "-" if value < 0 and place == 0 else ""
    if kinds & {"h", "m", "s"}:
        return sign + _time(number, tokens) if kinds & {"h", "s", "elapsed"} else None
    if "digits" not in kinds:
        text = "".join(token.text for token in tokens).strip()
        return text if any(map(str.isalnum, text)) else None
    shown = sign + _number(number, tokens)
    places = [at for at, token in enumerate(tokens) if token.kind == "digits"]
    between = any(token.text.strip() for token in tokens[places[0] : places[-1]] if token.kind == "literal")
    has_more = between or any(token.kind == "percent" or token.text.strip(" -()#0?.,") for token in tokens)
    return shown.strip() if has_more or re.match(r"-?0\d", shown) else None


@lru_cache(maxsize=1 << 10)
def _sections(code: str) -> list[Optional[list[_Token]]]:
    """Return the parts of a format for positive numbers, negative numbers and zero; None for one that is not shown."""
    sections = [""]
    for match in _PIECE.finditer(code):
        if match[0] == ";":
            sections.append("")
        else:
            sections[-1] += match[0]
    return [_tokens(section) for section in sections[:3]]


def _tokens(section: str) -> Optional[list[_Token]]:
    tokens = list[_Token]()
    for match in _TOKEN.finditer(section):
        kind = match.lastgroup or ""
        if kind in ("condition", "general", "other"):
            return None  # dates, fractions, scientific notation, texts
        if kind == "half":
            tokens.append(_Token("half", match[0]))
        elif match["elapsed"] or match["time"]:
            unit = match["elapsed"] or match["time"]
            tokens += [_Token("elapsed", unit[0].lower())] if match["elapsed"] else []
            tokens.append(_Token(unit[0].lower(), unit + (match["part"] or "")))
        elif kind in ("digits", "percent"):
            tokens.append(_Token(kind, match[0]))
        elif kind:
            tokens.append(_Token("literal", match[kind]))
    return tokens


def _time(days: float, tokens: list[_Token]) -> str:
    """Return a part of a day, or a number of days, as hours, minutes and seconds."""
    elapsed = next((token.text for token in tokens if token.kind == "elapsed"), "")
    places = max((len(token.text.partition(".")[2]) for token in tokens if token.kind == "s"), default=0)
    total = Decimal(repr(days)) * 86400
    finest = {"s": 1, "m": 60, "h": 3600}[min((t.kind for t in tokens if t.kind in "hms"), key="smh".index)]
    # Excel cuts minutes and hours, and rounds seconds.
    exact = total.quantize(Decimal(1).scaleb(-places) if finest == 1 else Decimal(1), ROUND_HALF_UP)
    hours, minutes, seconds = exact // 3600, exact // 60 % 60, exact % 60
    if elapsed == "m":
        minutes = exact // 60
    elif elapsed == "s":
        seconds = exact
    elif not elapsed:
        hours %= 24
    half = "AM" if hours < 12 else "PM"
    if any(token.kind == "half" for token in tokens):
        hours = hours % 12 or Decimal(12)
    values, parts = {"h": hours, "m": minutes, "s": seconds}, list[str]()
    for kind, text in tokens:
        if kind in values:
            width, whole = len(text.partition(".")[0]), int(values[kind])
            rest = f".{int((values[kind] - whole).scaleb(places)):0{places}d}" if kind == "s" and places else ""
            parts.append(f"{whole:0{width}d}{rest}")
        elif kind != "elapsed":
            parts.append(half if kind == "half" else text)
    return "".join(parts)


def _number(value: float, tokens: list[_Token]) -> str:
    """Return a number with the digits, the separators and the texts of a format."""
    pattern = "".join(token.text for token in tokens if token.kind == "digits")
    whole_places, _, places = pattern.partition(".")
    scaled = Decimal(repr(value)) * 100 ** sum(token.kind == "percent" for token in tokens)
    scaled = scaled.scaleb(-3 * sum(len(part) - len(part.rstrip(",")) for part in (whole_places, places)))
    places = places.replace(",", "")
    exact = format(scaled.quantize(Decimal(1).scaleb(-len(places)), ROUND_HALF_UP), "f")
    digits, _, rest = exact.partition(".")
    least = len(places.rstrip("#?"))
    rest = rest[:least] + rest[least:].rstrip("0")
    wanted = whole_places.rstrip(",")
    digits = digits.lstrip("0").rjust(wanted.count("0"), "0")
    if "," in wanted:
        digits = re.sub(r"(?<=\d)(?=(?:\d{3})+$)", ",", digits)
    holes = sum(token.kind == "digits" and "." not in token.text for token in tokens)
    if holes > 1 and "." not in pattern:
        return _spread(digits, tokens)
    fraction = f".{rest}" if rest else ""
    parts, is_written = list[str](), False
    for kind, text in tokens:
        if kind == "digits":
            parts.append("" if is_written else digits + fraction)
            is_written = True
        else:
            parts.append(text)
    return "".join(parts)


def _spread(digits: str, tokens: list[_Token]) -> str:
    """Return digits among the texts of a format such as `(000) 000-0000`, from the right."""
    parts, left = list[str](), digits
    count = sum(token.kind == "digits" for token in tokens)
    for kind, text in reversed(tokens):
        if kind == "digits":
            count -= 1
            width = len(text) if count else len(left)
            parts.append(left[len(left) - width :] if width else "")
            left = left[: len(left) - width]
        else:
            parts.append(text)
    return "".join(reversed(parts))
