"""Find out whether the other side of a connection is still there, without reading from the connection.

While enough of a client's requests wait, the server does not read from it, and would not see otherwise that it leaves.
"""

from __future__ import annotations

import asyncio
import select
from typing import NamedTuple

_LEFT = select.POLLERR | select.POLLHUP
_SENT_ALL = getattr(select, "POLLRDHUP", 0)  # Linux has it


class Peer(NamedTuple):
    """What the system knows of the other side.

    sent_all: the other side sends nothing more: it has left, or it waits for answers, which looks the same
    left: the other side has reset the connection
    """

    sent_all: bool
    left: bool


def look_at(transport: asyncio.BaseTransport) -> Peer:
    """Return the state of the other side of an open transport."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), _SENT_ALL)
    state = next((events for _, events in poll.poll(0)), 0)
    return Peer(bool(state & (_SENT_ALL | _LEFT)), bool(state & _LEFT))
