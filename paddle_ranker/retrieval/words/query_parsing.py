"""Parse a query: its words, the phrases that a result must have, and the phrases that a result must not have.

query = parse_query('kubernetes "rolling update" -helm')
query.text, query.phrases, query.excluded     # 'kubernetes rolling update', ('rolling update',), ('helm',)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional

from paddle_ranker.errors import ParameterError, brief, quoted
from paddle_ranker.retrieval.values.bounds import LONGEST_QUERY, MOST_PARTS

_HEBREW = "\u05d0-\u05ea"  # between two of these letters, a quote belongs to the word (צה"ל)
# Signs that may begin a phrase, an exclusion, a required word; and what may end a phrase.
_SIGN = re.compile(rf'(?<![A-Za-z0-9{_HEBREW}])"|(?<=[{_HEBREW}])"(?![{_HEBREW}])|(?<!\S)[-+]')
_END = re.compile(rf'"(?![{_HEBREW}])|(?<![{_HEBREW}])"')
_SIGNED_WORD = re.compile(r"(?![A-Za-z](?!\S))[^\W\d_]\S*")
_AFTER_SUBTITLE = re.compile(r'"|(?<!\S)-|((?<=[^\s-])[-\u2010-\u2015\u2212\uff0d](?![-\w]))')


@dataclass(frozen=True)
class ParsedQuery:
    """Query without its quotes and signs.

    text: the query's words, including those in quotes
    phrases: texts in quotes, and words after plus signs, with the sign (see `required_word`). A result must have these
        phrases, see `LocalSnapshot.phrase_filter`
    excluded: texts in quotes and words, each after a minus sign; no result has any of these texts
    read: number of code points that were read of a query that was too long; None: the whole query was read
    """

    text: str
    phrases: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    read: Optional[int] = None


def parse_query(text: str, *, literal: bool = False) -> ParsedQuery:
    """Parse a query; only its first 1,000 code points are read.

    `"..."` and a plus sign before a word make a phrase; a minus sign before a word or a phrase excludes it. Other
    quotes, as in 学历“鄙视链”, are text. A sign is text within a word, and before a digit, another sign or a single
    letter (`ls -l`). So is a pair of minus signs around a subtitle (`鬼滅の刃 -無限列車編-`).

    literal: take all quotes and signs as text

    Raises `ParameterError` for a query of exclusions alone, for too many phrases and exclusions, and for a phrase that
    goes beyond the first 1,000 code points.
    """
    whole, text = text, text[:LONGEST_QUERY]
    read = len(text) if len(text) < len(whole) else None
    if literal or not _SIGN.search(text):
        return ParsedQuery(text, read=read)
    words, phrases, excluded = _parts(text, whole)
    if not phrases and not excluded:
        return ParsedQuery(text, read=read)
    words = " ".join(words.split())
    if not words:
        problem = f"{quoted(text)} says only what must not be there: add what to search for, or search literally"
        raise ParameterError("query", problem)
    return ParsedQuery(words, tuple(dict.fromkeys(phrases)), tuple(dict.fromkeys(excluded)), read)


def required_word(phrase: str) -> Optional[str]:
    """Return the word of a phrase that was written as a word after a plus sign; None for a phrase in quotes."""
    return phrase[1:] if phrase.startswith("+") and _SIGNED_WORD.fullmatch(phrase, 1) else None


def _parts(text: str, whole: str) -> tuple[str, list[str], list[str]]:
    """Return the words of a query as one text, its phrases, and its exclusions.

    whole: the query before it was cut to the first 1,000 code points
    """
    words, phrases, excluded = list[str](), list[str](), list[str]()
    start = position = 0  # end of the last phrase or exclusion; position from which signs are looked for
    while sign := _SIGN.search(text, position):
        position, parts, is_signed = sign.end(), excluded if sign[0] == "-" else phrases, sign[0] != '"'
        if not is_signed or text.startswith('"', position):
            begin, is_word = position + is_signed, False
            ending = _END.search(text, begin)
            end = -1 if ending is None else ending.start()
            is_cut = end < 0 <= whole.find('"', len(text))
            after = end + 1
        else:
            if (word := _SIGNED_WORD.match(text, position)) is None:
                continue
            subtitle = _AFTER_SUBTITLE.search(text, position) if parts is excluded else None
            if subtitle is not None and subtitle[1]:
                position = subtitle.end()
                continue
            (begin, end), is_word = word.span(), True
            is_cut = end == len(text) < len(whole) and not whole[end].isspace()
            after = end
        if is_cut:
            problem = f"{brief(whole[begin:])} does not end within the {LONGEST_QUERY:,} characters that are read"
            raise ParameterError("query", f"{problem}: shorten it, or search literally")
        if end < 0 or not (part := text[begin:end].strip()):
            continue
        words += [text[start : sign.start()], part if parts is phrases else ""]
        if parts is phrases:  # a phrase in quotes must not look like a word after a plus sign
            part = f"+{part}" if is_word else required_word(part) or part
        parts.append(part)
        start = position = after
        if len(phrases) + len(excluded) > MOST_PARTS:
            problem = f"{brief(text)} has more than the {MOST_PARTS} phrases and exclusions that are allowed"
            raise ParameterError("query", problem)
    return " ".join([*words, text[start:]]), phrases, excluded
