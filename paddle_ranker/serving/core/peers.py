"""Whether the other side of a connection is there, seen without reading from it: a client that is not read from at the
moment, since enough of its requests wait, cannot be seen to leave otherwise.
"""

from __future__ import annotations

import asyncio
import select
from typing import NamedTuple

_LEFT = select.POLLERR | select.POLLHUP
_SENT_ALL = getattr(select, "POLLRDHUP", 0)  # Linux has it


class Peer(NamedTuple):
    """What the system knows of the other side.

    sent_all: it has closed its side; one that has left and one that waits for answers look the same
    left: it has reset the connection
    """

    sent_all: bool
    left: bool


def look_at(transport: asyncio.BaseTransport) -> Peer:
    """Look at the other side of an open transport."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), _SENT_ALL)
    state = next((events for _, events in poll.poll(0)), 0)
    return Peer(bool(state & (_SENT_ALL | _LEFT)), bool(state & _LEFT))
