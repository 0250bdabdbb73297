"""Errors a user can act on. A command prints them in one line and ends with their exit status."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Optional, TypeVar

T = TypeVar("T")
_QUOTED = 80  # characters of an input that a message quotes
_LISTED = 200  # characters of the names that a message lists
_LONGEST = 800  # characters of a whole message


def quoted(value: object) -> str:
    """Return the `repr` of an input for a message; of a long text, its beginning and its length."""
    if isinstance(value, (str, bytes)) and len(value) > _QUOTED:
        return f"{value[:_QUOTED]!r}… ({len(value):,} {'characters' if isinstance(value, str) else 'bytes'})"
    return brief(repr(value))


def brief(text: str, most: int = _QUOTED) -> str:
    """Return a user's name or text for a message, without quotes; more than `most` characters are cut and counted."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def listed(names: Iterable[object]) -> str:
    """Return names joined by commas for a message; shorten a long list to its first names and a count."""
    shown: list[str] = []
    room, left = _LISTED, 0
    for name in map(brief, map(str, names)):
        room -= len(name) + 2
        if room >= 0 or not shown:
            shown.append(name)
        else:
            room, left = 0, left + 1
    return ", ".join(shown) + (f" and {left:,} more" if left else "")


def shortened(message: str) -> str:
    """Return a message of at most about 800 characters; a longer one loses its middle.

    Every error and every note passes through this function, so none grows with an input that it contains.
    """
    if len(message) <= _LONGEST:
        return message
    kept = _LONGEST // 2 - 20
    return f"{message[:kept]} […{len(message) - 2 * kept:,} characters…] {message[-kept:]}"


def is_interrupt(error: BaseException) -> bool:
    """Return whether an error is an interruption, even if Paddle has turned it into another error.

    Paddle raises an `OSError` if the interruption hit Python code that Paddle itself called, such as a backward pass.
    """
    return isinstance(error, KeyboardInterrupt) or "KeyboardInterrupt" in str(error)


def is_full(error: BaseException) -> bool:
    """Return whether an error says that a disk or quota is full, or that a file has its largest allowed size."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class RankerError(Exception):
    """A failure whose message says what is wrong, in which file, option or argument, and what to do next.

    Write input into a message by `quoted`, `brief` or `listed`; `shortened` cuts messages that are still too long.
    """

    exit_status = 1

    def __init__(self, message: str) -> None:
        super().__init__(shortened(message))


class UsageError(RankerError):
    """An option or argument is wrong: it is unknown, has a value out of range, or conflicts with another."""

    exit_status = 2


class ParameterError(UsageError):
    """A parameter is not valid: `parameter` is its name, `problem` the rest of the message.

    is_too_large: whether a limit refuses the value
    """

    def __init__(self, parameter: str, problem: str, *, is_too_large: bool = False):
        super().__init__(f"{parameter}: {problem}")
        self.parameter, self.problem, self.is_too_large = parameter, problem, is_too_large


class DataError(RankerError):
    """A file's content does not fit the use of the file; the message names file and line."""


def refuse_text(value: object, name: str, *kinds: type) -> None:
    """Raise `UsageError` if `value` is a text or a mapping in place of several texts or ids.

    Python would iterate over the text's characters, or over the mapping's keys.

    name: the argument's name, for the message
    kinds: types that items may have, checked if `value` is a list or tuple (default: text)
    """
    if isinstance(value, (list, tuple)):
        require_items(value, name, *kinds)
    if isinstance(value, (str, bytes, bytearray, Mapping)):
        what = "the text " if isinstance(value, str) else ""
        kind = "" if what else f" ({type(value).__name__})"
        instead = f", as in [{quoted(value)}]" if what else ""
        raise UsageError(f"{name} is {what}{quoted(value)}{kind}: expected several{instead}")


def require_pairs(queries: Sequence[str], titles: Sequence[str]) -> None:
    """Raise `UsageError` unless both are lists of texts, with a title for each query."""
    refuse_text(queries, "queries")
    refuse_text(titles, "titles")
    if len(queries) != len(titles):
        raise UsageError(f"{len(queries)} queries and {len(titles)} titles: give one title for each query")


def require_items(items: Iterable[T], name: str, *kinds: type) -> list[T]:
    """Return `items` as a list; raises `UsageError`, naming the item, if an item has another type.

    name: the argument's name, for the message
    kinds: types that items may have (default: text)
    """
    return list(checked_items(items, name, *kinds))


def checked_items(items: Iterable[T], name: str, *kinds: type) -> Iterator[T]:
    """Yield the items of `items`, checked as by `require_items`."""
    kinds = kinds or (str,)
    for place, item in enumerate(items):
        if not isinstance(item, kinds):
            wanted = "text" if str in kinds else f"a {kinds[0].__name__}, such as {kinds[0].__name__}(...)"
            shown = "None" if item is None else f"{quoted(item)} ({type(item).__name__})"
            raise UsageError(f"{name}[{place}] is {shown}: expected {wanted}")
        yield item


class InputError(DataError):
    """An array from the caller does not fit a model's input; `field` names the array, `problem` says what is wrong."""

    def __init__(self, field: str, problem: str):
        super().__init__(f"{field}: {problem}")
        self.field, self.problem = field, problem


class CheckpointError(RankerError):
    """A model folder or parameter file is missing, damaged, of another kind, or not safe to read."""


class DependencyError(RankerError):
    """An optional package is missing; the message holds the line that installs it."""


@contextmanager
def package_for(purpose: str, install: str) -> Iterator[None]:
    """Convert an `ImportError` in the block to a `DependencyError`.

        with package_for("reading PDFs", "'paddle-ranker[pdf]'"):
            import pypdfium2

    purpose: subject of the message
    install: arguments of `pip install`
    """
    try:
        yield
    except (ImportError, OSError) as error:  # an OSError if a shared library is missing
        raise DependencyError(f"{purpose} needs a missing package ({error}): pip install {install}") from error


PADDLE_INDEX = "https://www.paddlepaddle.org.cn/packages/stable/"  # PyPI's builds for GPUs end with Paddle 2.6.2
PADDLE_IS_MISSING = (
    "needs Paddle: pip install 'paddle-ranker[cpu]', or for GPUs (another CUDA version: docs/setup.md) "
    f"pip install 'paddle-ranker[gpu]' --extra-index-url {PADDLE_INDEX}cu126/"
)


def in_checkout(line: str) -> str:
    """Return advice that names a file of a checkout; in an installed wheel, append that it needs a checkout."""
    is_checkout = (Path(__file__).resolve().parents[1] / "scripts" / "setup.sh").is_file()
    return line if is_checkout else f"{line} (in a checkout of the project)"


def spelling_hint(word: str, candidates: Iterable[str]) -> str:
    """Return ` (did you mean ...?)` with the candidate that is closest to `word`, or "" if none is close.

    Case is ignored, and so is which characters separate words: `product_name` is close to `Product Name`.
    """
    plain = {re.sub(r"[\W_]+", " ", name).strip().lower(): name for name in candidates}
    close = difflib.get_close_matches(re.sub(r"[\W_]+", " ", word).strip().lower(), plain, n=1)
    return f" (did you mean {brief(plain[close[0]])}?)" if close else ""


def error_on_its_way(interrupt: BaseException) -> Optional[RankerError]:
    """Return the `RankerError` that was being handled when `interrupt` came, or None if none was.

    When a process fails, the launcher interrupts the others, which may by then be handling the broken connection.
    """
    context = interrupt.__context__
    while context is not None and not isinstance(context, RankerError):
        context = context.__context__
    return context


def one_line(error: Exception) -> str:
    """Return the line that a command prints for an error, `shortened`."""
    return shortened(_words(error))


def _words(error: Exception) -> str:
    if isinstance(error, RankerError):
        return " ".join(str(error).split("\n"))
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left on the disk{f' of {error.filename}' if error.filename else ''}: free some and run again"
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        return f"{error.filename or 'a file'}: larger than files may be here (ulimit -f); raise that limit"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}{f': {error.filename}' if error.filename else ''}"
    if isinstance(error, MemoryError):  # Paddle names the amount and the GPU
        match = re.search(r"Cannot allocate [\w.]+ memory on GPU \d+", str(error))
        return f"the memory does not suffice{f' ({match[0]})' if match else ''}: give a lower --batch_size"
    summary = brief(" ".join(str(error).split()), 300)
    return f"unexpected {type(error).__name__}: {summary}; run again with --debug for the traceback"
