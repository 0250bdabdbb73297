"""Read subtitles (SRT, WebVTT) as parts of some minutes: what is said, and the seconds of each line.

PyAV parses them; cues that follow each other within two seconds are one line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Union

from paddle_ranker.data.files.file_readers import FIRST_SECOND, LAST_SECOND, Part, Unread
from paddle_ranker.data.rows.formats import found_encoding, open_text
from paddle_ranker.errors import brief
from paddle_ranker.recordings.media import library, opened_media
from paddle_ranker.recordings.transcript import SpokenWord, transcript

_VERSION = 1  # raised when the same subtitles would give other parts
_PACKAGE = "'paddle-ranker[files]'"
_LONGEST = 240.0  # seconds after the first cue of a part from which on a cue begins another
_TEXT = 8  # the place of the text in a line of ASS, to which PyAV converts the cues
_STYLES, _SPACES = re.compile(r"\{\\[^}]*\}"), re.compile(r"\\[Nnh]")  # in such a text


def read(path: Path) -> Iterator[Union[Part, Unread]]:
    """Yield some minutes of subtitles at a time, named by their first second; see `Reader.read`."""
    with open_text(str(path), found_encoding(str(path))) as stream:
        data = stream.read()
    cues, problem = list[SpokenWord](), ""
    with opened_media(data, "srt,webvtt", f"{path}: no subtitles", _PACKAGE) as container:
        try:
            for packet in container.demux():
                text = "".join(shown.ass.decode("utf-8", "replace").split(",", _TEXT)[-1] for shown in packet.decode())
                if words := " ".join(_SPACES.sub(" ", _STYLES.sub("", text)).split()):
                    begin, length = (float(time * packet.time_base) for time in (packet.pts, packet.duration or 0))
                    cues.append(SpokenWord(f" {words}", begin, begin + length))
        except library(_PACKAGE).FFmpegError as error:
            problem = f"damaged after {len(cues):,} cues ({brief(error.strerror)})"
    starts = [0]
    for number, cue in enumerate(cues):
        if cue.begin - cues[starts[-1]].begin >= _LONGEST:
            starts.append(number)
    for start, end in zip(starts, [*starts[1:], len(cues)]):
        some = cues[start:end]
        text, places = transcript(some, 0.0)
        last = max((cue.end for cue in some), default=0.0)
        fields = {FIRST_SECOND: round(some[0].begin, 2), LAST_SECOND: round(last, 2)} if some else {}
        yield Part(f"{some[0].begin:.0f}" if len(starts) > 1 else "", text, fields, tuple(places))
    if problem:
        yield Unread("", problem)


def version() -> str:
    """Return a text that changes whenever the parts may change (`Reader.version`)."""
    return f"{_VERSION}, PyAV {library(_PACKAGE).__version__}"
