"""Types of fields of recordings, films and subtitles, with their readers; importing this module registers them."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING

from paddle_ranker.data.files.file_readers import FIRST_SECOND, LAST_SECOND, add_reader
from paddle_ranker.recordings.media import FILM_BEGINNINGS
from paddle_ranker.retrieval.stored.schema import A_PIXEL, FIELD_TYPES, FieldTower, file_type, suffix_by

if TYPE_CHECKING:
    from paddle_ranker.model.load_options import LoadOptions

_SECONDS = {FIRST_SECOND: "number", LAST_SECOND: "number"}
# A WAV of 50 ms.
_SILENCE = struct.pack(
    "<4sI4s4sIHHIIHH4sI", b"RIFF", 1636, b"WAVE", b"fmt ", 16, 1, 1, 16000, 32000, 2, 16, b"data", 1600
)
_SILENCE += bytes(1600)


def _open_film_tower(folder: Path, options: LoadOptions, batch_size: int) -> FieldTower:
    from paddle_ranker.recordings.towers import FilmTower

    return FilmTower.open(folder, options, batch_size)


def _open_sound_tower(folder: Path, options: LoadOptions, batch_size: int) -> FieldTower:
    from paddle_ranker.recordings.towers import SoundTower

    return SoundTower.open(folder, options, batch_size)


# Some minutes at once, with Whisper's largest model.
add_reader("paddle_ranker.recordings.speech", "seconds", _SECONDS, seconds=3600, memory=16 << 30)
add_reader("paddle_ranker.recordings.film", "seconds", _SECONDS, piece=2, has_words=False)
add_reader("paddle_ranker.recordings.subtitles", "seconds", _SECONDS)
FIELD_TYPES.add(
    "recording",
    file_type(
        "a recording, whose speech is read (WAV, FLAC, Ogg, MP3)",
        {"wav": "audio/wav", "flac": "audio/flac", "ogg": "audio/ogg", "mp3": "audio/mpeg"},
        suffix_by(
            (rb"(RIFF|RF64).{4}WAVE", "wav"),
            (rb"fLaC", "flac"),
            (rb"OggS", "ogg"),
            (rb"ID3|\xff[\xe2-\xff]", "mp3"),
        ),
        _open_sound_tower,
        _SILENCE,
        "speech",
    ),
)
FIELD_TYPES.add(
    "film",
    file_type(
        "a film, searched by its frames (MP4, MOV, WebM, MKV, AVI)",
        {
            "mp4": "video/mp4",
            "mov": "video/quicktime",
            "webm": "video/webm",
            "mkv": "video/x-matroska",
            "avi": "video/x-msvideo",
        },
        suffix_by(*FILM_BEGINNINGS),
        _open_film_tower,
        A_PIXEL,
        "film",
        examples=("picture",),
    ),
)
FIELD_TYPES.add(
    "subtitles",
    file_type(
        "subtitles (SRT, WebVTT), read some minutes at a time",
        {"srt": "application/x-subrip", "vtt": "text/vtt"},
        suffix_by((rb"(?:\xef\xbb\xbf)?WEBVTT", "vtt"), (rb".*-\0?-\0?>", "srt")),
        reader="subtitles",
    ),
)
