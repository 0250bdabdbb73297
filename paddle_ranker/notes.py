"""What a command says beside its results, on standard error: what was cut, left out, or chosen for the user."""

from __future__ import annotations

import os
import sys

from paddle_ranker.interrupts import is_first_process


def note(text: str) -> None:
    """Say something in a line; of several processes that a launcher started the first does.

    Where it cannot be written (a full disk, a reader that has gone) it is lost, and so are those after it: a note costs
    nobody the work that it is about.
    """
    if is_first_process():
        try:
            print(text, file=sys.stderr, flush=True)
        except OSError:
            # What was not written would be tried again at the end, and make the exit status 120.
            sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
