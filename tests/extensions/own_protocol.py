"""A protocol of one's own on the server's port: `RANK query<TAB>title` asks, a line with the probability answers."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Optional

from paddle_ranker.serving.core.faults import Fault
from paddle_ranker.serving.process.protocols import PROTOCOLS, PortProtocol, ProtocolHandler, ServerContext

BEGINS, LONGEST = b"RANK ", 1 << 16


class LineProtocol(asyncio.Protocol):
    """A connection; one request at a time."""

    def __init__(self, context: ServerContext):
        self._context, self._buffer = context, b""
        self._answering: Optional[asyncio.Task[None]] = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) > LONGEST:
            self.abort()
        elif b"\n" in self._buffer and self._answering is None:
            line, _, self._buffer = self._buffer.partition(b"\n")
            self._answering = asyncio.ensure_future(self._answer(line.removeprefix(BEGINS)))

    async def _answer(self, line: bytes) -> None:
        try:
            query, title = line.decode("utf-8").split("\t")
            scores = await self._context.ranker.score_pairs([query], [title])
            self._transport.write(f"{scores.probabilities[0]:.6f}\n".encode())
        except (Fault, ValueError) as error:
            self._transport.write(f"error: {error}\n".encode())
        self._answering = None
        self.data_received(b"")

    def connection_lost(self, exc: Optional[Exception]) -> None:
        self._context.connections.discard(self)
        if self._answering is not None:
            self._answering.cancel()  # takes the pair off the queue

    def check(self, now: float) -> None:
        """Close where nothing is asked for too long; here connections may stay."""

    def shutdown(self) -> None:
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()


async def _start(context: ServerContext) -> ProtocolHandler:
    return ProtocolHandler(partial(LineProtocol, context))


PROTOCOLS.add("line", PortProtocol("lines", BEGINS, _start))
