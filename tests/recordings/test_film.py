"""Films: their length, the frames that are read, and what is refused."""

from __future__ import annotations

import io
import os
import queue
import signal
import threading
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Union

import numpy as np
import pytest

from paddle_ranker.data.files.file_readers import MOST_PIECES, Part, Unread
from paddle_ranker.data.files.reader_pool import ChildProcess
from paddle_ranker.errors import DataError
from paddle_ranker.recordings import film

pytestmark = pytest.mark.unit
av = pytest.importorskip("av", reason="needs: pip install 'paddle-ranker[film]'")
RED, GREEN, BLUE, GREY = (220, 20, 20), (20, 220, 20), (20, 20, 220), (120, 120, 120)
CODECS = {"mp4": "libx264", "mov": "libx264", "mkv": "libx264", "webm": "libvpx-vp9", "avi": "mpeg4"}


def make(
    colours: Sequence[tuple[int, int, int]],
    kind: str = "mp4",
    codec: str = "",
    seconds: float = 2,
    rate: Union[int, Fraction] = 10,
    size: tuple[int, int] = (64, 48),
    key_frames: int = 7,
    turn: int = 0,
    **options: str,
) -> bytes:
    """Return a film that shows each colour for some seconds; its left half is darker.

    key_frames: a frame of so many is a key frame
    turn: degrees, counterclockwise, by which players turn the frames
    """
    with TemporaryDirectory() as folder:
        path = Path(folder, f"film.{kind}")
        with av.open(str(path), "w", options=options) as container:
            _write(container, colours, codec or CODECS[kind], seconds, rate, size, key_frames, turn)
        return path.read_bytes()


def _write(
    container: Any,
    colours: Sequence[tuple[int, int, int]],
    codec: str,
    seconds: float,
    rate: Union[int, Fraction],
    size: tuple[int, int],
    key_frames: int,
    turn: int,
) -> None:
    stream = container.add_stream(codec, rate=rate)
    stream.width, stream.height, stream.gop_size = *size, key_frames
    stream.pix_fmt = {"png": "rgb24", "ffv1": "yuv444p", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
    if turn:
        stream.set_display_rotation(turn)
    container.start_encoding()
    for colour in colours:
        pixels = np.broadcast_to(np.asarray(colour, np.uint8), (size[1], size[0], 3)).copy()
        pixels[:, : size[0] // 2] //= 2
        for _ in range(round(seconds * rate)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
    container.mux(stream.encode(None))


def without_pictures(kind: str = "mp4") -> bytes:
    """Return a file of sound alone, a second of silence."""
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        for start in range(0, 16_000, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16_000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n/etc/hostname\n#EXT-X-ENDLIST\n"


def bad_films() -> dict[str, tuple[bytes, str]]:
    """Return films that are refused, by name, each with what the refusal says."""
    whole = make((RED, GREEN))
    empty = make((), "avi")
    return {
        "cut.mp4": (whole[:-400], "damaged or cut short"),
        "head.webm": (make((RED,), "webm")[:300], "damaged or cut short|no moving pictures|no frames"),
        "sound.mp4": (without_pictures(), "no moving pictures"),
        "frames.avi": (empty, "has no frames|damaged or cut short|no moving pictures"),
        "huge.avi": (make((GREY,), "avi", "mjpeg", 0.1, size=(8000, 6000)), "8,000 x 6,000 pixels"),
        "photo.mp4": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "begins otherwise"),
        "list.mp4": (PLAYLIST, "begins otherwise"),
        "text.mp4": (b"no film at all", "begins otherwise"),
        "noise.mp4": (b"\0\0\0\x18ftypisom" + bytes(range(256)) * 40, "damaged or cut short"),
        "nothing.mp4": (b"", "it is empty"),
    }


def every_frame(path: Path) -> list[tuple[float, Any]]:
    """Return all frames of a film and when each is seen, decoded in one go."""
    with av.open(str(path)) as container:
        return [(float(one.pts * one.time_base), one.to_ndarray(format="rgb24")) for one in container.decode(video=0)]


class Counting(film.FrameReader):
    """Counts the frames that are decoded."""

    decoded = 0

    def _decoded(self, source: Union[Path, bytes]) -> Iterator[tuple[float, Any]]:
        for one in super()._decoded(source):
            self.decoded += 1
            yield one


@pytest.mark.parametrize("kind", CODECS)
@pytest.mark.parametrize("key_frames", [1, 7, 1000])
def test_the_frame_of_a_second_is_the_one_that_players_show(kind: str, key_frames: int, tmp_path: Path) -> None:
    path = tmp_path / f"film.{kind}"
    path.write_bytes(make((RED, GREEN, BLUE, GREY), kind, key_frames=key_frames))
    assert [*film.read(path)] == [Part("", "", {"first_second": 0, "last_second": 8})]
    frames = every_frame(path)
    assert len(frames) == 80
    for seconds in ([0, 2, 4, 6], [0.31, 1.94, 2.02, 2.07, 7.55, 9, 0.5], [7.95, 3.3, 3.3], np.arange(0, 8, 0.5)):
        reader = Counting()
        for second in seconds:
            expected = [pixels for seen, pixels in frames if seen <= second + 1e-9][-1]
            np.testing.assert_array_equal(reader.read(path, float(second)), expected)
    few, most = Counting(), {1: 8, 7: 30, 1000: 80}[key_frames]
    for second in (0, 7.0):
        few.read(path, second)
    assert few.decoded <= most, "frames before the last key frame need not be decoded"


def test_frames_are_upright_and_of_any_size(tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    path.write_bytes(make((RED,), "mkv", "ffv1", size=(1, 1)))
    assert next(film.read(path)) == Part("", "", {"first_second": 0, "last_second": 2})
    assert film.FrameReader().read(path, 0).shape == (1, 1, 3)
    if not hasattr(av.video.stream.VideoStream, "set_display_rotation"):
        pytest.skip("this PyAV writes no turned films")
    path.write_bytes(make((RED,), "mp4", turn=90))
    pixels = film.FrameReader().read(path, 0)  # the darker left half is below
    assert pixels.shape == (64, 48, 3) and pixels[48, 24, 0] < 150 < pixels[16, 24, 0]


def test_a_long_film_has_frames_further_apart_which_is_said(tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    path.write_bytes(make([RED] * 31, "mkv", seconds=100, rate=Fraction(1, 100)))
    part, said = film.read(path)
    assert part == Part("", "", {"first_second": 0, "last_second": 3100})
    assert said == Unread("", f"it is searched by a frame each {3100 / MOST_PIECES:.1f} seconds, not each 2")


@pytest.mark.parametrize("kind", ["webm", "mp4", "avi"])
def test_a_film_whose_end_is_missing_counts_up_to_there(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"film.{kind}"
    rng = np.random.default_rng(0)
    colours = [(int(a), int(b), int(c)) for a, b, c in rng.integers(0, 255, (40, 3))]
    whole = make(colours, kind, seconds=0.5, movflags="faststart")
    path.write_bytes(whole[: len(whole) * 2 // 3])
    part, said = film.read(path)
    assert isinstance(part, Part) and 1 < float(str(part.fields["last_second"])) < 19, part
    assert isinstance(said, Unread) and "from second" in said.reason and "missing, or damaged" in said.reason
    assert film.FrameReader().read(path, 19).shape == (48, 64, 3)


def test_a_playlist_opens_nothing(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(PLAYLIST)
    with pytest.raises(DataError, match="is no film in MP4, MOV"):
        [*film.read(path)]


def test_frames_of_a_film_in_memory_are_equally_far_apart() -> None:
    found = [pixels[24, 48] for pixels in film.sampled_frames(make((RED, GREEN, BLUE, GREY)))]
    assert len(found) == 16
    for number, colour in enumerate((RED, GREEN, BLUE, GREY)):
        assert all(np.abs(one.astype(int) - colour).max() < 25 for one in found[4 * number : 4 * number + 4])


@pytest.mark.parametrize(
    "matrix, expected",
    [((1, 0, 0, 1), [[1, 2], [3, 4]]), ((-1, 0, 0, 1), [[2, 1], [4, 3]]), ((1, 0, 0, -1), [[3, 4], [1, 2]]),
     ((-1, 0, 0, -1), [[4, 3], [2, 1]]), ((0, 1, -1, 0), [[3, 1], [4, 2]]), ((0, -1, 1, 0), [[2, 4], [1, 3]]),
     ((0, 1, 1, 0), [[1, 3], [2, 4]]), ((0, -1, -1, 0), [[4, 2], [3, 1]])],
)  # fmt: skip
def test_frames_are_turned_and_mirrored_by_their_matrix(
    matrix: tuple[int, int, int, int], expected: list[list[int]]
) -> None:
    a, b, c, d = (65536 * number for number in matrix)
    stored = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], np.int32).tobytes()

    class Frame:
        side_data = {"DISPLAYMATRIX": stored}

        def to_ndarray(self, format: str) -> Any:
            return np.repeat(np.array([[1, 2], [3, 4]], np.uint8)[:, :, None], 3, axis=2)

    assert film._upright(Frame())[:, :, 0].tolist() == expected


def test_a_probe_that_a_busy_machine_delays_refuses_no_film(monkeypatch: pytest.MonkeyPatch) -> None:
    children: queue.Queue[ChildProcess] = queue.Queue()
    child = ChildProcess()
    children.put(child)
    monkeypatch.setattr(film, "_children", lambda: children)
    monkeypatch.setattr(film, "PROBE_SECONDS", 0.2)
    film._try_tables(make((RED,)))
    assert child._process is not None
    os.kill(child._process.pid, signal.SIGSTOP)
    timer = threading.Timer(1.0, os.kill, (child._process.pid, signal.SIGCONT))
    timer.start()
    try:
        film._try_tables(make((RED,)))
    finally:
        timer.join()
        child.close()
