"""Read a dict of strings as Python prints it, `{'query': "it's"}`, without evaluating anything.

The published tutorial's clients send `str(item)`; its servers evaluated that, or replaced quotes and hoped.
"""

from __future__ import annotations

import re
import sys

_STRING = re.compile(r"""\s*(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)")\s*""", re.DOTALL)
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
_SIMPLE = {"\\": "\\", "'": "'", '"': '"', "n": "\n", "r": "\r", "t": "\t"}


def read_printed_dict(text: str) -> dict[str, str]:
    """Return the dict that `str` printed as `text`; raises `ValueError` where it is anything else."""
    text = text.strip()
    if not (text.startswith("{") and text.endswith("}")):
        raise ValueError("not a dict")
    found: dict[str, str] = {}
    place, end = 1, len(text) - 1
    while place < end:
        key, place = _string(text, place, ":")
        value, place = _string(text, place, ",}")
        found[key] = value
    if place != len(text):
        raise ValueError("ends too early")
    return found


def _string(text: str, place: int, ends: str) -> tuple[str, int]:
    """Return the string literal at `place`, and the place after the character of `ends` that follows it."""
    match = _STRING.match(text, place)
    if match is None or text[match.end() : match.end() + 1] not in tuple(ends):
        raise ValueError(f"no string at character {place}")
    literal = match.group(1) if match.group(1) is not None else match.group(2)
    return _ESCAPE.sub(_unescaped, literal), match.end() + 1


def _unescaped(match: re.Match[str]) -> str:
    escape = match.group(1)
    if len(escape) > 1:
        number = int(escape[1:], 16)
        if number > sys.maxunicode:
            raise ValueError(f"no such character \\{escape}")
        return chr(number)
    if escape not in _SIMPLE:
        raise ValueError(f"unknown escape \\{escape}")
    return _SIMPLE[escape]
