"""A protocol of a plugin on the server's port: `RANK query<TAB>title`; the answer is a line with the probability.

If the server has a key, the request is `RANK query<TAB>title<TAB>key`.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any, Optional

from paddle_ranker.serving.core.faults import INVALID, Fault
from paddle_ranker.serving.core.limits import require_key
from paddle_ranker.serving.core.server_config import RANKER_SLOT
from paddle_ranker.serving.process.protocols import PROTOCOLS, PortProtocol, ProtocolHandler, ServerContext
from paddle_ranker.serving.slots.ranker_slot import RankerSlot
from paddle_ranker.serving.slots.services import CountedRequest, ScoringService

BEGINS, LONGEST = b"RANK ", 1 << 16


class LineProtocol(asyncio.Protocol):
    """A connection with one request at a time."""

    def __init__(self, context: ServerContext):
        self._context, self._counting, self._buffer = context, context.counting("line"), b""
        self._answering: Optional[asyncio.Task[None]] = None
        self._ending = False  # no further request is read

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._context.connections.add(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) > LONGEST:
            self.abort()
        elif b"\n" in self._buffer and self._answering is None and not self._ending:
            line, _, self._buffer = self._buffer.partition(b"\n")
            self._answering = asyncio.ensure_future(self._answer(line.removeprefix(BEGINS)))

    async def _answer(self, line: bytes) -> None:
        try:
            share = self._context.connections.budget.share()
            with share, self._counting() as record:  # `record` also logs the request
                share.reserve(len(line))
                answer = await _probability(
                    self._context.slots.of(RANKER_SLOT, RankerSlot), line, self._context.config.api_key, record
                )
        except Fault as fault:
            answer = f"error: {fault}"
        except Exception:
            logging.getLogger(__name__).exception("a line failed")
            answer = "error: internal error; see the server's log"
        self._transport.write(f"{answer}\n".encode())
        self._answering = None
        if self._ending:
            self._transport.close()
        else:
            self.data_received(b"")

    def connection_lost(self, exc: Optional[Exception]) -> None:
        self._context.connections.discard(self)
        if self._answering is not None:
            self._answering.cancel()  # takes the pair off the queue

    def shutdown(self) -> None:
        """Stop after the answers in flight; see `Connection`."""
        self._ending = True
        if self._answering is None:
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()


async def _probability(ranker: ScoringService, line: bytes, api_key: Optional[str], record: CountedRequest) -> str:
    try:
        query, title, *key = line.decode("utf-8").split("\t")
    except ValueError as error:
        raise Fault(INVALID, "expected query<TAB>title") from error
    require_key(api_key, "\t".join(key))
    record.note(1, queries=[query], titles=[title])
    scores = await ranker.score_pairs([query], [title])
    return f"{scores.probabilities[0]:.6f}"


async def _start(context: ServerContext) -> ProtocolHandler:
    return ProtocolHandler(partial(LineProtocol, context))


PROTOCOLS.add("line", PortProtocol("lines", BEGINS, _start))
