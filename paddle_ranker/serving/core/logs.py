"""What the server logs: lines of JSON on standard error, written by a thread of their own.

A line that cannot be written (a full disk, a closed pipe, a reader that has stopped) is lost and counted, and fails or
delays no request.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import traceback
from collections import deque
from typing import Any

_MOST_WAITING = 10_000  # lines
_WRITE_EVERY = 0.1  # seconds
_MOST_BYTES = 256 * 1024  # written at once
LOGGERS = ("paddle_ranker", "uvicorn", "asyncio", "grpc")


class JsonLog:
    """Write JSON lines to a file descriptor (2: standard error).

    Attributes: `lost`, lines that could not be written.
    """

    def __init__(self, descriptor: int = 2):
        self.lost = 0
        self._descriptor = descriptor
        self._waiting: deque[dict[str, Any]] = deque()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write_on, name="log", daemon=True)
        self._thread.start()

    def write(self, event: str, **fields: Any) -> None:
        """Log an event; fields that are None are left out."""
        if len(self._waiting) >= _MOST_WAITING:
            self.lost += 1
            return
        self._waiting.append({"time": time.time(), "event": event, **fields})

    def close(self, seconds: float = 1.0) -> None:
        """Write what waits, for so long at most."""
        self._closing.set()
        self._thread.join(seconds)

    def _write_on(self) -> None:
        while not self._closing.wait(_WRITE_EVERY):
            self._write_waiting()
        self._write_waiting()

    def _write_waiting(self) -> None:
        while self._waiting:
            lines: list[bytes] = []
            size = 0
            while self._waiting and size < _MOST_BYTES:
                lines.append(_line(self._waiting.popleft()))
                size += len(lines[-1])
            data = memoryview(b"".join(lines))
            try:
                while data:
                    data = data[os.write(self._descriptor, data) :]
            except OSError:
                self.lost += len(lines)


def _line(fields: dict[str, Any]) -> bytes:
    moment = fields["time"]
    stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(moment))}.{int(moment % 1 * 1000):03d}Z"
    kept = {name: value for name, value in fields.items() if value is not None}
    text = json.dumps({**kept, "time": stamp}, ensure_ascii=False, default=str)
    return text.encode("utf-8", "replace") + b"\n"


class JsonHandler(logging.Handler):
    """Give what libraries log to a `JsonLog`.

    Of an exception the kind and the place are written; its message, which may quote a user's text, `with_texts` alone.
    """

    def __init__(self, log: JsonLog, with_texts: bool):
        super().__init__(logging.WARNING)
        self._log, self._with_texts = log, with_texts

    def emit(self, record: logging.LogRecord) -> None:
        where = None
        message = record.getMessage() if self._with_texts or not record.exc_info else str(record.msg)
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            frames = traceback.extract_tb(error.__traceback__)
            where = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-8:]]
            message += f" ({type(error).__name__}{f': {error}' if self._with_texts else ''})"
        self._log.write("log", level=record.levelname.lower(), logger=record.name, message=message, where=where)


def route_logging(log: JsonLog, with_texts: bool) -> None:
    """Send what the server and its libraries log through `logging` to `log`."""
    handler = JsonHandler(log, with_texts)
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.propagate = False
        logger.setLevel(logging.WARNING)
