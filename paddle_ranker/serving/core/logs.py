"""Log lines of JSON on standard error, written by a thread: one for each request, and the log records of libraries.

A line that cannot be written (full disk, closed pipe, a reader that has stopped) is lost and counted; it neither fails
nor delays a request.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import QueueHandler, QueueListener
from typing import Optional

_MOST_WAITING, _MOST_CHARACTERS = 10_000, 32 << 20  # lines; characters of users' texts in them
_WRITE_EVERY = 0.1  # seconds
_WIDE_SPACE = "\u3000"  # frequent in Chinese texts, but not printable for Python
LOGGERS = ("paddle_ranker", "asyncio", "grpc", "mcp")


def utc(seconds: float) -> str:
    """Format seconds since 1970 as a time in UTC, 2026-11-22T09:03:13.123Z."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03d}Z"


class _Event(logging.LogRecord):
    """Log record of an event of the server, without process, thread and file, which take long to find."""

    def __init__(self, event: str, fields: dict[str, object]):
        self.created = time.time()
        self.fields = {"event": event, **fields}
        self.characters = _characters(fields.get("texts"))


def _characters(texts: object) -> int:
    """Return the number of characters in the texts of nested lists and dicts."""
    if isinstance(texts, str):
        return len(texts)
    parts = texts.values() if isinstance(texts, dict) else texts if isinstance(texts, (list, tuple)) else ()
    return sum(map(_characters, parts))


class JsonFormatter(logging.Formatter):
    """Formatter of log records as lines of JSON.

    For an exception, the line has its type and place. The exception's message, which may quote a user's text, is left
    out unless `with_texts` is set. Invisible characters are escaped, so that a text cannot control a terminal.
    """

    def __init__(self, with_texts: bool = False):
        super().__init__()
        self._with_texts = with_texts

    def format(self, record: logging.LogRecord) -> str:
        fields = record.fields if isinstance(record, _Event) else self._logged(record)
        line = {"time": utc(record.created), **fields}
        kept = {name: value for name, value in line.items() if value is not None}
        text = json.dumps(kept, ensure_ascii=False, default=str)
        return text if text.isprintable() else "".join(map(_visible, text))

    def _logged(self, record: logging.LogRecord) -> dict[str, object]:
        where = None
        message = record.getMessage() if self._with_texts or not record.exc_info else str(record.msg)
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            frames = traceback.extract_tb(error.__traceback__)
            where = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-8:]]
            message += f" ({type(error).__name__}{f': {error}' if self._with_texts else ''})"
        level = record.levelname.lower()
        return {"event": "log", "level": level, "logger": record.name, "message": message, "where": where}


def _visible(character: str) -> str:
    """Return a character for JSON. Control characters, marks of direction or width, and surrogates are escaped."""
    return character if character.isprintable() or character == _WIDE_SPACE else json.dumps(character)[1:-1]


class JsonLog(QueueHandler):
    """Log of JSON lines on a file descriptor (2: standard error), and handler for the libraries' logging.

    Attributes:
        lost: number of lines that could not be written.
    """

    def __init__(self, descriptor: int = 2, *, with_texts: bool = False):
        self._lines: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
        super().__init__(self._lines)
        self.setLevel(logging.WARNING)
        self.lost = 0
        self.taken = self.written = 0  # characters of users' texts; a single thread changes each
        writer = _LogHandler(self, descriptor)
        writer.setFormatter(JsonFormatter(with_texts))
        self._listener: Optional[QueueListener] = _Listener(self._lines, writer)
        self._listener.start()

    def write(self, event: str, **fields: object) -> None:
        """Log an event. Fields that are None are omitted."""
        self.enqueue(_Event(event, fields))

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Return the record unchanged, because the log's thread formats it."""
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        """Queue a record for the thread. Drop it if too many records wait, or too many characters of users' texts."""
        characters, waiting = getattr(record, "characters", 0), self.taken - self.written
        has_room = not (characters and waiting) or waiting + characters <= _MOST_CHARACTERS
        if has_room and self._lines.qsize() < _MOST_WAITING:
            self.taken += characters
            self._lines.put_nowait(record)
        else:
            self.lost += 1

    def close(self, seconds: float = 1.0) -> None:
        """Write the waiting lines, for at most `seconds`."""
        listener, self._listener = self._listener, None
        if listener is not None:
            ending = threading.Thread(target=listener.stop, daemon=True)
            ending.start()
            ending.join(seconds)
        super().close()


class _Listener(QueueListener):
    queue: queue.SimpleQueue[logging.LogRecord]

    def dequeue(self, block: bool) -> logging.LogRecord:
        """Return the next record.

        An empty queue is polled, since a wake-up for each record would cost the event loop time.
        """
        if self.queue.empty():
            time.sleep(_WRITE_EVERY)
        return super().dequeue(block)


class _LogHandler(logging.Handler):
    def __init__(self, log: JsonLog, descriptor: int):
        super().__init__()
        self._log, self._descriptor = log, descriptor

    def createLock(self) -> None:
        """Create no lock. A write that hangs would hold the lock, and the process would wait for it at its exit."""
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            data = memoryview(self.format(record).encode("utf-8", "replace") + b"\n")
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:
            self._log.lost += 1
        finally:
            self._log.written += getattr(record, "characters", 0)


@contextmanager
def routed_logging(log: JsonLog) -> Iterator[None]:
    """Send what the server and its libraries log through `logging` to `log`, until the `with` block ends."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger.handlers[:], logger.propagate, logger.level) for logger in loggers]
    for logger in loggers:
        logger.handlers[:] = [log]
        logger.propagate = False
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, (handlers, propagate, level) in zip(loggers, before):
            logger.handlers[:], logger.propagate = handlers, propagate
            logger.setLevel(level)
