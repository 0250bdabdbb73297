"""Transcripts: spoken words, or cues of subtitles, as a text with the seconds of each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Optional

from paddle_ranker.data.files.placed_text import SpanPlace

_PARAGRAPH = 2.0  # seconds of a pause after which a line begins


class SpokenWord(NamedTuple):
    """Word that is said in a recording.

    text: the word; it starts with a space if a space separates it from the word before
    begin, end: seconds from the first sample
    probability: how sure the model is of the word; None if it does not say
    """

    text: str
    begin: float
    end: float
    probability: Optional[float] = None


def transcript(words: Iterable[SpokenWord], start: float) -> tuple[str, list[SpanPlace]]:
    """Join words to a text; return (text, places).

    A word's place has its start and end in code points of the text, then its begin and end in seconds of the recording.

    words: as `SpeechModel.words` yields them
    start: second of the recording at which the transcribed piece starts

    After a pause of two seconds, the text begins a line.
    """
    text, places, last = "", list[SpanPlace](), 0.0
    for word, begin, end, _ in words:
        if text and begin - last >= _PARAGRAPH:
            text += "\n"
        shown = word.strip() if not text or text.endswith("\n") else word.rstrip()
        first = len(text) + len(shown) - len(shown.lstrip())
        text, last = text + shown, end
        places.append((first, len(text), round(start + begin, 2), round(start + end, 2)))
    return text, places
