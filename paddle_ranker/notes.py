"""Print notes beside a command's results, in an output whose reader may leave (`| head`)."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from contextvars import ContextVar
from typing import Any, Optional, Protocol, TextIO, cast

from paddle_ranker.addresses import with_addresses
from paddle_ranker.errors import shortened
from paddle_ranker.interrupts import is_first_process


@contextmanager
def reader_may_leave(*, out: bool = True) -> Iterator[None]:
    """Let the block continue after the reader of its output has left (`| head`); further output is lost.

    out: whether this applies to both standard output and standard error; False: to standard error only
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed before the start (`>&-`)
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    output = redirect_stdout(cast(TextIO, _Output(sys.stdout))) if out else nullcontext()
    with redirect_stderr(cast(TextIO, _Output(sys.stderr))), output:
        yield


class _Output:
    """A stream that ignores further output after its reader has left (`| head`), instead of raising an error."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            forget_unwritten(self._stream)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            forget_unwritten(self._stream)


def forget_unwritten(output: TextIO) -> None:
    """Flush a stream; if that fails, discard the stream's output, so that Python does not flush it again at exit."""
    try:
        output.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())


def json_text(value: object, indent: Optional[int] = None) -> str:
    """Return a value as JSON to print; escape non-ASCII characters unless the encoding of standard output is UTF."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return json.dumps(value, ensure_ascii=not encoding.lower().startswith("utf"), indent=indent)


def note(text: str) -> None:
    """Print a note on standard error, such as the number of skipped rows. Only the first process prints.

    If the note cannot be written, for example because a disk is full, this note and all later notes are lost: a note
    must not stop the work.
    """
    if is_first_process():
        try:
            print(shortened(with_addresses(text)), file=sys.stderr, flush=True)
        except OSError:
            # At its exit, Python would try to write the rest again, and make the exit status 120.
            sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def note_counts(counts: Mapping[str, int]) -> None:
    """Note each count that is not 0, followed by its name, as in `3 pairs were cut to 64 tokens`."""
    for name, count in counts.items():
        if count:
            note(f"{count:,} {name}")


class Counted(Protocol):
    """Object with counts for a command's report, such as an encoder that counts the texts that it cut."""

    def counts(self) -> Mapping[str, int]:
        """Return the counts so far; a key is the text that follows the count in a report: `{"pairs were cut": 3}`."""
        ...


_COUNTED: list[list[Counted]] = []  # a list for each running command; not per thread: its threads open models, too


_UNCOUNTED: ContextVar[bool] = ContextVar("uncounted", default=False)


@contextmanager
def uncounted() -> Iterator[None]:
    """Make `note_at_end` do nothing in the block.

    A server, which opens models repeatedly, needs this: `note_at_end` would keep every model in memory.
    """
    before = _UNCOUNTED.set(True)
    try:
        yield
    finally:
        _UNCOUNTED.reset(before)


@contextmanager
def counting() -> Iterator[list[Counted]]:
    _COUNTED.append([])
    try:
        yield _COUNTED[-1]
    finally:
        _COUNTED.pop()


def note_at_end(counted: Counted, instead_of: Sequence[Counted] = ()) -> None:
    """Print the counts of `counted` when the running command ends. If no command is running, do nothing.

    instead_of: objects registered earlier that are no longer reported, because `counted` includes their counts
    """
    if _COUNTED and not _UNCOUNTED.get():
        _COUNTED[-1][:] = [other for other in _COUNTED[-1] if all(other is not part for part in instead_of)]
        _COUNTED[-1].append(counted)


@functools.cache
def note_once(text: str) -> None:
    """Print a note as `note` does, but each text only once per process, for example when a model is opened twice."""
    note(text)
