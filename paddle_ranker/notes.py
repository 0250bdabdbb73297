"""What a command says beside its results, on standard error: what was cut, left out, or chosen for the user."""

from __future__ import annotations

import sys

from paddle_ranker.interrupts import is_first_process


def note(text: str) -> None:
    """Say something in a line; of several processes that a launcher started the first does."""
    if is_first_process():
        print(text, file=sys.stderr, flush=True)
