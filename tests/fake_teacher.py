"""A server on a port of this machine that answers requests as a test tells it to, well or badly."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
from typing import Any, Callable

Reply = Callable[[dict[str, Any]], bytes]


class Broken(bytes):
    """What is sent before the connection is closed."""


def http(content: bytes, status: int = 200, **headers: str) -> bytes:
    """Return an answer as it goes over the wire."""
    named = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(content)}\r\n{named}\r\n".encode() + content


def answered(content: object) -> bytes:
    return http(json.dumps(content).encode())


def score_of(query: str, title: str) -> float:
    """Return what the fake teacher gives a pair, a logit."""
    return (len(title) - len(query)) / 8


def tei(asked: dict[str, Any]) -> bytes:
    """Answer as Text Embeddings Inference does, best first."""
    scored = [{"index": i, "score": score_of(asked["query"], text)} for i, text in enumerate(asked["texts"])]
    return answered(sorted(scored, key=lambda one: -one["score"]))


class Server:
    """A port of 127.0.0.1 that answers request after request with what the replies return, the last one for ever.

    Attributes: `replies`, which may be changed; `bodies` and `heads` of the requests; `most`, how many were answered at
    a time; `over`, set when the block ends.
    """

    def __init__(self, *replies: Reply):
        self.replies = replies
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._now = self.most = 0
        self.bodies: list[dict[str, Any]] = []
        self.heads: list[str] = []
        self.over = threading.Event()
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/rerank"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *raised: object) -> None:
        self.over.set()
        with contextlib.suppress(OSError):  # it is closed already
            self._listener.shutdown(socket.SHUT_RDWR)  # which `accept` notices
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve_until_left, args=(connection,), daemon=True).start()

    def _serve_until_left(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as stream:
            while line := stream.readline():
                head = [line]
                while head[-1] not in (b"\r\n", b""):
                    head.append(stream.readline())
                text = b"".join(head).decode()
                length = re.search(r"^content-length: *(\d+)", text, re.M | re.I)
                asked = json.loads(stream.read(int(length[1]))) if length else {}
                with self._lock:
                    number = len(self.bodies)
                    self.bodies.append(asked)
                    self.heads.append(text)
                    self._now += 1
                    self.most = max(self.most, self._now)
                reply = self.replies[min(number, len(self.replies) - 1)](asked)
                with self._lock:
                    self._now -= 1
                connection.sendall(reply)
                if isinstance(reply, Broken):
                    return
