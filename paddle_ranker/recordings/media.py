"""Open sounds and films by PyAV, which is ffmpeg's code: formats and codecs are limited, reading is a step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Union

from paddle_ranker.data.files.metering import SteppingFile
from paddle_ranker.errors import DataError, brief, package_for

MediaSource = Union[Path, bytes, IO[bytes]]
# First bytes of films, as regular expressions, with the suffix of each format
FILM_BEGINNINGS = (
    (rb".{4}(ftypqt|moov|mdat|wide)", "mov"),
    (rb".{4}ftyp(?!hei|hev|mif|msf|avi)", "mp4"),
    (rb"\x1a\x45\xdf\xa3.{,64}webm", "webm"),
    (rb"\x1a\x45\xdf\xa3", "mkv"),
    (rb"RIFF.{4}AVI ", "avi"),
)
_MOST_STREAMS = 64  # of a file; each takes memory, whatever its size


@contextmanager
def opened_media(source: MediaSource, formats: str, problem: str, package: str) -> Iterator[Any]:
    """Open a file; yield its PyAV container. Raises `DataError` that begins with `problem` if it cannot be read.

    source: path, bytes, or stream of a file
    formats: ffmpeg's names of the formats; none of them opens further files or addresses, as playlists do
    package: requirement with the packages, for the message if PyAV is missing
    """
    av = library(package)
    if isinstance(source, Path):
        with source.open("rb") as opened, opened_media(opened, formats, problem, package) as container:
            yield container
        return
    file = SteppingFile(source) if isinstance(source, bytes) else source
    try:
        container = av.open(file, options={"format_whitelist": formats, "max_streams": str(_MOST_STREAMS)})
    except av.FFmpegError as error:
        raise DataError(f"{problem} ({brief(error.strerror)})") from None
    with container:
        yield container


def library(package: str) -> Any:
    """Return PyAV; raises `DependencyError`, which names `package`, if it is missing."""
    with package_for("reading sounds, films and subtitles", package):
        import av
    return av
