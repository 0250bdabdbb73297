"""Errors a user can act on. A command prints them in one line and ends with their exit status."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Sequence
from typing import Optional


def is_interrupt(error: BaseException) -> bool:
    """Return whether an error is an interruption, even if Paddle has turned it into another error.

    Paddle raises an `OSError` if the interruption hit Python code that Paddle itself called, such as a backward pass.
    """
    return isinstance(error, KeyboardInterrupt) or "KeyboardInterrupt" in str(error)


def is_full(error: BaseException) -> bool:
    """Return whether an error says that a disk, a quota or a file can take no more."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class RankerError(Exception):
    """A failure whose message says what was found, where it was found, and what to do next."""

    exit_status = 1


class UsageError(RankerError):
    """The command line itself is wrong: an unknown option, a value out of range, options that conflict."""

    exit_status = 2


class DataError(RankerError):
    """A file's content does not fit the use of the file; the message names file and line."""


class InputError(DataError):
    """An array from the caller does not fit a model's input; `field` names the array, `problem` says what is wrong."""

    def __init__(self, field: str, problem: str):
        super().__init__(f"{field}: {problem}")
        self.field, self.problem = field, problem


class CheckpointError(RankerError):
    """A model folder or parameter file is missing, damaged, of another kind, or not safe to read."""


class DependencyError(RankerError):
    """An optional package is missing; the message holds the line that installs it."""


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Return ` (did you mean ...?)` with the closest known word, or "" if no known word is close."""
    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def error_on_its_way(interrupt: BaseException) -> Optional[RankerError]:
    """Return the `RankerError` that was being handled when `interrupt` came, or None if there was none.

    When a process fails, the launcher interrupts the others, while they may already handle the broken connection.
    """
    context = interrupt.__context__
    while context is not None and not isinstance(context, RankerError):
        context = context.__context__
    return context


def one_line(error: Exception) -> str:
    """Return the line that a command prints for an error."""
    if isinstance(error, RankerError):
        return " ".join(str(error).split("\n"))
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left on the disk{f' of {error.filename}' if error.filename else ''}: free some and run again"
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        return f"{error.filename or 'a file'}: larger than files may be here (ulimit -f); raise that limit"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}{f': {error.filename}' if error.filename else ''}"
    summary = " ".join(str(error).split())[:300]
    return f"unexpected {type(error).__name__}: {summary}; run again with --debug for the traceback"
