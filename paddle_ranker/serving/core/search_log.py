"""Log of searches, clicks and judgments: lines of JSON in a folder, written by a thread.

    log = SearchLog(Path("log"))
    shown = Shown("doc-12", {"words": 3, "ranked": 1}, 0.957, digest_of("苹果手机最新报价"))
    log.search(SearchLine(new_search_id(), "苹果手机", {"index": 7}, [shown], {}))
    log.feedback(FeedbackLine("s1", "苹果手机", "doc-12", "click", position=1)).result()  # now it is on the disk

    lines = LogReader(Path("log"))
    for line in lines:  # SearchLine or FeedbackLine
        ...
    print(lines.damaged)

A line has the fields of `SearchLine` or `FeedbackLine`, and nothing else: no address, no user agent, no cookie. Each
process writes its own files, so a line that a kill has cut off is always the last of its file.
"""

from __future__ import annotations

import hmac
import json
import logging
import os
import queue
import secrets
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Optional, TypeVar, Union

from paddle_ranker.errors import RankerError
from paddle_ranker.serving.core.logs import utc
from paddle_ranker.storage.atomic import make_folder, make_private_file, sync
from paddle_ranker.storage.untrusted import Unchecked

EVENTS = ("click", "relevant", "irrelevant", "judged", "unjudged")
_JUDGMENTS = {"irrelevant": 0, "relevant": 1}
_SUFFIX = ".jsonl"
_SYNC_EVERY = 0.1  # seconds that a search's line may wait, to be synced with others; feedback is synced at once
_MOST_WAITING = 32 << 20  # characters of lines that wait in memory if the disk hangs
_SEARCHES_SHARE = 7 / 8  # share of the room in memory and on the disk for searches; the rest is for feedback
_SECRET = "secret"  # file of a log's folder, with what signs its searches' ids
_FRAME, _PER_SHOWN = 500, 100  # estimated characters of a line, and per shown document, beside texts and ids
_MEASURED_EVERY = 1 << 20  # bytes that a process writes before it measures the folder again, as others write, too
_UNSEEN = dict.fromkeys(map(ord, "\u00ad\u200b\u2060\ufeff"))  # soft hyphen, spaces without width, byte order mark
LOG_MB = 1024  # default maximum of MiB of all files


def _now() -> str:
    return utc(time.time())


def digest_of(text: str) -> str:
    """Return the digest of a document's text, which shows later whether the text has changed since it was logged.

    Texts that look alike have equal digests: characters are composed (NFC), and runs of white space become one space
    first.
    """
    shown = " ".join(unicodedata.normalize("NFC", text.translate(_UNSEEN)).split())
    return blake2b(shown.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def new_search_id() -> str:
    """Return a new id of a search, for the log. Answers have it with a signature, see `SearchIds`."""
    return secrets.token_hex(8)


class SearchIds:
    """Ids of searches as answers have them: the id of the log, and a signature of id and query.

    So feedback can be about answers alone, and about their queries: nobody makes up searches to lift a query among the
    suggestions. The log has no signatures, so whoever reads it can forge none.

    Args:
        secret: signs the ids; replicas that share their callers need the same.
    """

    def __init__(self, secret: bytes):
        self._secret = secret

    def given_out(self, id: str, query: str) -> str:
        """Return the id of an answer for the log's id."""
        return f"{id}-{self._signature(id, query)}"

    def logged(self, given: str, query: str) -> Optional[str]:
        """Return the log's id for that of an answer, or None if it was not given out for this query."""
        id, _, signature = given.rpartition("-")
        return id if hmac.compare_digest(signature, self._signature(id, query)) else None

    def _signature(self, id: str, query: str) -> str:
        text = f"{id} {query}".encode("utf-8", "surrogatepass")
        return hmac.new(self._secret, b"search " + text, "sha256").hexdigest()[:24]


class LogError(RankerError):
    """A line could not be written to the log."""


@dataclass(frozen=True)
class Shown:
    """A document of an answer, for the log.

    id: the document's id
    ranks: the document's rank, from 1, by name of each stage whose list had it: "words", "vectors", "fused", "ranked"
    probability: the ranker's; None if the document was not ranked
    digest: digest of the document's text, see `digest_of`
    read: (start, end) in code points of the part of the text that the ranker read, or whose vector matched; None if
        that is the whole text
    """

    id: str
    ranks: Mapping[str, int]
    probability: Optional[float]
    digest: str
    read: Optional[Sequence[int]] = None


@dataclass(frozen=True)
class SearchLine:
    """A search that was answered.

    search_id: id of the search, which feedback on it names
    query: the query, as much of it as was used
    versions: versions of the index and of the models, JSON-ready
    shown: the documents of the answer, in its order
    parameters: the request's parameters, JSON-ready; `offset` is the number of results before the first shown one
    time: in UTC, 2026-11-22T09:03:13.123Z
    model_text: the query as towers and rankers read it, with corrections; None if it equals `query`
    nothing_close: True if no document was close, else None
    lead: by which share the first document's fused score is above the second's; None if scores did not order them
    """

    search_id: str
    query: str
    versions: Mapping[str, object]
    shown: Sequence[Shown]
    parameters: Mapping[str, object]
    time: str = field(default_factory=_now)
    model_text: Optional[str] = None
    nothing_close: Optional[bool] = None
    lead: Optional[float] = None

    @property
    def sureness(self) -> float:
        """How sure the first answer is, from 0 to 1: its probability, or without one its lead; 0 with `nothing_close`.

        It is 1 for further pages, and where scores did not order the documents.
        """
        if self.first_position > 1 or not self.shown:
            return 1.0
        if self.nothing_close:
            return 0.0
        sureness = self.lead if self.shown[0].probability is None else self.shown[0].probability
        return 1.0 if sureness is None else sureness

    @property
    def first_position(self) -> int:
        """The position of the first shown document, from 1."""
        offset = self.parameters.get("offset", 0)
        return 1 + (offset if isinstance(offset, int) else 0)


@dataclass(frozen=True)
class FeedbackLine:
    """A click on a search's result, or a judgment of it.

    event: a name in `EVENTS`; "judged" has a `label`, "unjudged" takes a judgment back
    position: rank of the result when it was shown, from 1
    dwell_ms: milliseconds that the reader spent on the result
    time: as in `SearchLine`
    """

    search_id: str
    query: str
    id: str
    event: str
    position: Optional[int] = None
    label: Optional[int] = None
    dwell_ms: Optional[int] = None
    time: str = field(default_factory=_now)

    @property
    def judgment(self) -> Optional[int]:
        """The label that the event gives: `label`, 1 for "relevant", 0 for "irrelevant", or None for other events."""
        return self.label if self.event == "judged" else _JUDGMENTS.get(self.event)


LogLine = Union[SearchLine, FeedbackLine]
L = TypeVar("L", Shown, SearchLine, FeedbackLine)


def _without_none(item: object) -> dict[str, object]:
    return {name: value for name, value in vars(item).items() if value is not None}


def _as_json(line: LogLine) -> bytes:
    if isinstance(line, SearchLine):
        content = {**_without_none(line), "shown": [_without_none(document) for document in line.shown]}
    else:
        content = _without_none(line)
    content = {"time": content.pop("time"), **content}
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"


def parse_line(data: bytes) -> LogLine:
    """Parse a line of a log. Raises `ValueError`, `KeyError` or `TypeError` if `data` is no such line."""
    try:
        content: Unchecked = json.loads(data)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if "shown" in content:
        content["shown"] = [_checked(Shown(**{"probability": None, **document})) for document in content["shown"]]
        return _checked(SearchLine(**content))
    line = _checked(FeedbackLine(**content))
    if line.event not in EVENTS:
        raise ValueError(line.event)
    return line


_TYPES: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("search_id", "query", "id", "digest", "event", "time"), (str,)),
    **dict.fromkeys(("versions", "parameters", "ranks"), (dict,)),
    **dict.fromkeys(("position", "label", "dwell_ms"), (int, type(None))),
    "shown": (list,),
    "probability": (int, float, type(None)),
    "model_text": (str, type(None)),
    "nothing_close": (bool, type(None)),
    "lead": (int, float, type(None)),
    "read": (list, type(None)),
}


def _checked(line: L) -> L:
    """Return `line` (or a shown document). Raises `TypeError` or `ValueError` if a field's value is not valid."""
    for name, value in vars(line).items():
        if not isinstance(value, _TYPES[name]):
            raise TypeError(name)
    if isinstance(line, Shown) and line.read is not None:
        start, end = line.read
        if not (type(start) is type(end) is int and 0 <= start <= end):
            raise ValueError("read")
    return line


class SearchLog:
    """Writer of a log. Thread-safe.

    A thread writes and syncs several searches together. Callers never wait for that. If the disk cannot be written to,
    the searches are lost and counted. Feedback is synced before it is confirmed.

    Args:
        folder: folder of the log, created if missing; several processes may share it.
        rotate_mb: MiB after which a new file is begun. Closed files may be moved away at any time.
        most_mb: maximum MiB of all files in the folder; beyond it, lines are lost as on a full disk. Searches may fill
            seven eighths of it, so that there is always room for feedback.

    Attributes:
        folder: the folder.
        lost: number of lines that could not be written.

    Raises `RankerError` if the folder cannot be written to.
    """

    def __init__(self, folder: Path, *, rotate_mb: int = 64, most_mb: int = LOG_MB):
        self.folder, self.lost = make_folder(folder), 0
        self._rotate_bytes, self._most = rotate_mb << 20, most_mb << 20
        self._left = self._fresh = 0  # bytes until the folder is full; bytes until it is measured again
        self._file: Optional[_LogFile] = None
        self._waiting: queue.SimpleQueue[tuple[LogLine, int, Optional[Future[None]]]] = queue.SimpleQueue()
        self._size, self._counting = 0, threading.Lock()  # characters that wait
        self._has_lines, self._urgent = threading.Event(), threading.Event()
        self._closing = self._failing = self._drops_searches = False
        self._thread = threading.Thread(target=self._write_all, name="search-log", daemon=True)
        self._thread.start()

    def search(self, line: SearchLine) -> None:
        """Log a search. Returns at once and raises nothing. A line that cannot be written is counted in `lost`."""
        ids = sum(len(document.id) for document in line.shown)
        size = _FRAME + len(line.query) + ids + _PER_SHOWN * len(line.shown) + len(str(line.parameters))
        if not self._put(line, size, None):
            self._lose(1, "the disk is too slow")
        self._has_lines.set()

    def feedback(self, line: FeedbackLine) -> Future[None]:
        """Log feedback. The future resolves when the line is on the disk, or has a `LogError` if that fails."""
        future = Future[None]()
        future.set_running_or_notify_cancel()  # so that a caller that leaves cannot cancel the line
        if not self._put(line, _FRAME + len(line.query) + len(line.id), future):
            future.set_exception(LogError(f"{self.folder}: too many lines wait for the disk; try again later"))
        self._urgent.set()
        self._has_lines.set()
        return future

    def size(self) -> int:
        """Return the bytes of all files of the folder."""
        return sum(map(_size_of, self.folder.glob(f"*{_SUFFIX}")))

    def secret(self) -> bytes:
        """Return what signs the ids of this folder's searches: the content of its file `secret`, made if it is missing.

        All processes of a folder have the same. Raises `RankerError` if the file cannot be made or read.
        """
        path = self.folder / _SECRET
        try:
            if not path.exists():
                make_private_file(path, secrets.token_hex(32))
            return path.read_bytes()
        except OSError as error:
            raise RankerError(f"{path}: what signs the searches' ids cannot be kept there ({error})") from error

    def close(self, seconds: float = 5.0) -> None:
        """Write the waiting lines, for at most `seconds`. Later lines are lost."""
        self._closing = True
        self._urgent.set()
        self._has_lines.set()
        self._thread.join(seconds)

    def _put(self, line: LogLine, size: int, future: Optional[Future[None]]) -> bool:
        most = _MOST_WAITING * (_SEARCHES_SHARE if future is None else 1)
        with self._counting:
            if self._closing or self._size + size > most:
                return False
            self._size += size
        self._waiting.put((line, size, future))
        return True

    def _write_all(self) -> None:
        while not self._closing:
            self._has_lines.wait()
            self._urgent.wait(_SYNC_EVERY)
            self._has_lines.clear()
            self._urgent.clear()
            self._write_waiting()
        self._write_waiting()
        if self._file is not None:
            self._file.close()

    def _write_waiting(self) -> None:
        waiting = []
        while not self._waiting.empty():
            waiting.append(self._waiting.get())
        if not waiting:
            return
        futures = [future for _, _, future in waiting if future is not None]
        try:
            searches = self._fitting([_as_json(line) for line, _, future in waiting if future is None])
            feedback = [_as_json(line) for line, _, future in waiting if future is not None]
            self._append(b"".join(searches + feedback))  # feedback follows the search that it is about
        except Exception as error:  # the disk fails, or a line is no JSON
            problem = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            self._lose(len(futures) if self._drops_searches else len(waiting), problem)
            for future in futures:
                future.set_exception(LogError(f"the log cannot be written ({problem})"))
        else:
            if self._failing and not self._drops_searches:
                self._failing = False
                logging.getLogger(__name__).warning("%s: is written again; %d lines are lost", self.folder, self.lost)
            for future in futures:
                future.set_result(None)
        finally:
            with self._counting:
                self._size -= sum(size for _, size, _ in waiting)

    def _fitting(self, searches: list[bytes]) -> list[bytes]:
        """Return `searches`, lines to write, or [] if they would fill the room that is reserved for feedback."""
        if not searches:
            return []
        try:
            self._check_room(sum(map(len, searches)), self._most * (1 - _SEARCHES_SHARE))
        except LogError as error:
            self._drops_searches = True
            self._lose(len(searches), str(error))
            return []
        self._drops_searches = False
        return searches

    def _append(self, data: bytes) -> None:
        if not data:
            return
        self._check_room(len(data))
        if self._file is not None and (self._file.size >= self._rotate_bytes or self._file.is_deleted):
            self._file.close()
            self._file = None
        if self._file is None:
            self._file = _LogFile(make_folder(self.folder))
        self._left, self._fresh = self._left - len(data), self._fresh - len(data)
        try:
            self._file.append(data)
        except OSError:
            if not self._file.cut():
                self._file = None
            raise

    def _check_room(self, size: int, reserved: float = 0) -> None:
        """Raise `LogError` if `size` more bytes would exceed the folder's maximum less `reserved` bytes."""
        if size > min(self._fresh, self._left - reserved):
            self._left = self._most - self.size()
            self._fresh = _MEASURED_EVERY
            if size > self._left - reserved:
                problem = f"it has the {self._most >> 20:,} MiB of --search_log_mb: move older files away"
                raise LogError(problem)

    def _lose(self, lines: int, problem: str) -> None:
        with self._counting:
            self.lost += lines
            was_failing, self._failing = self._failing, True
        if not was_failing:
            message = "%s: the log of searches cannot be written (%s); searches go on without it"
            logging.getLogger(__name__).warning(message, self.folder, problem)


class _LogFile:
    """A new file of a log, open for appending. `size` counts the bytes that are on the disk."""

    def __init__(self, folder: Path):
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        path = folder / f"{stamp}-{secrets.token_hex(4)}{_SUFFIX}"
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        self.size = 0
        sync(folder)  # puts the name on the disk, too

    @property
    def is_deleted(self) -> bool:
        """Whether the file was deleted by another program, so that nobody would read further lines."""
        return os.fstat(self._descriptor).st_nlink == 0

    def append(self, data: bytes) -> None:
        """Write and sync lines. After an `OSError`, the caller must call `cut`."""
        left = memoryview(data)
        while left:
            left = left[os.write(self._descriptor, left) :]
        os.fdatasync(self._descriptor)
        self.size += len(data)

    def cut(self) -> bool:
        """Remove the bytes of a failed `append`. Return whether that worked, so that more lines can be appended."""
        try:
            os.ftruncate(self._descriptor, self.size)
        except OSError:
            self.close()
            return False
        return True

    def close(self) -> None:
        with suppress(OSError):
            os.close(self._descriptor)


def _size_of(path: Path) -> int:
    with suppress(FileNotFoundError):  # it was moved away
        return path.stat().st_size
    return 0


class LogReader:
    """Iterator over the lines of a log, file by file, oldest file first.

    Each loop over the reader yields the lines added since the last loop ended, so a growing log can be followed. Lines
    that cannot be parsed are skipped and counted. Times never decrease within a file: if the clock was set back, a line
    gets the time of the line above it.

    Args:
        folder: folder of the log, or a folder to which its files were moved.
        wanted: called with a line's bytes; returns whether to parse it (default: always). Lines that it rejects are
            skipped and not counted.

    Attributes:
        damaged: number of lines that could not be parsed, including the incomplete last line of a file.

    Raises `RankerError` if the folder is missing.
    """

    def __init__(self, folder: Path, wanted: Optional[Callable[[bytes], bool]] = None):
        if not folder.is_dir():
            raise RankerError(f"{folder}: no such folder; name the one that the server was given as --search_log")
        self._folder, self._wanted = folder, wanted
        self._read: dict[str, int] = {}  # bytes of each file that were read
        self._latest: dict[str, str] = {}  # time of each file's lines so far
        self._unfinished: set[str] = set()
        self._skipped = 0

    @property
    def damaged(self) -> int:
        return self._skipped + len(self._unfinished)

    def __iter__(self) -> Iterator[LogLine]:
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            yield from self._new_lines(path)

    def _new_lines(self, path: Path) -> Iterator[LogLine]:
        self._unfinished.discard(path.name)
        done = self._read.get(path.name, 0)
        try:
            opened = path.open("rb")
        except FileNotFoundError:  # it was moved away
            return
        with opened as stream:
            stream.seek(done)
            for data in stream:
                if not data.endswith(b"\n"):
                    self._unfinished.add(path.name)
                    return
                done += len(data)
                self._read[path.name] = done
                if self._wanted is not None and not self._wanted(data):
                    continue
                try:
                    line = parse_line(data)
                    latest = max(line.time, self._latest.get(path.name, ""))
                except (ValueError, KeyError, TypeError):
                    self._skipped += 1
                    continue
                self._latest[path.name] = latest
                yield line if line.time == latest else replace(line, time=latest)
