"""Errors on which a user can act. A command prints such an error in one line and ends with its exit status."""

from __future__ import annotations

import difflib
import errno
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Optional, TypeVar

T = TypeVar("T")
_QUOTED = 80  # characters of an input that a message quotes
_LISTED = 200  # characters of the names that a message lists
_LONGEST = 800  # characters of a whole message


def quoted(value: object) -> str:
    """Return the `repr` of an input for a message; a long text is shortened to its beginning and its length."""
    if isinstance(value, (str, bytes)) and len(value) > _QUOTED:
        return f"{value[:_QUOTED]!r}… ({len(value):,} {'characters' if isinstance(value, str) else 'bytes'})"
    return brief(repr(value))


def brief(text: str, most: int = _QUOTED) -> str:
    """Return a user's name or text for a message, without quotes.

    A text of more than `most` characters is shortened to its beginning and its length.
    """
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
    """Shorten a message to at most about 800 characters by leaving out its middle.

    Every error and every note passes through this function, so that a long input cannot make a message long.
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
    """Return whether an error says that a disk or a quota is full, or that a file has reached its maximum size."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class RankerError(Exception):
    """A failure whose message says what is wrong, in which file, option or argument, and what to do next.

    Use `quoted`, `brief` or `listed` to put input into a message. If the message is still too long, `shortened` cuts
    it.
    """

    exit_status = 1

    def __init__(self, message: str) -> None:
        super().__init__(shortened(message))


class UsageError(RankerError):
    """An option or argument is wrong: it is unknown, its value is out of range, or it conflicts with another option."""

    exit_status = 2


class ParameterError(UsageError):
    """A parameter is not valid: `parameter` is its name, `problem` the rest of the message.

    is_too_large: whether a limit refuses the value
    """

    def __init__(self, parameter: str, problem: str, *, is_too_large: bool = False):
        super().__init__(f"{parameter}: {problem}")
        self.parameter, self.problem, self.is_too_large = parameter, problem, is_too_large


class DataError(RankerError):
    """The content of data, usually of a file, does not fit its use; the message names the file and the line."""


def refuse_text(value: object, name: str, *kinds: type) -> None:
    """Raise `UsageError` if `value` is a single text, bytes or a mapping, where several texts or ids are expected.

    Without this check, Python would iterate over the text's characters, or over the mapping's keys. The items of a list
    or tuple are checked, too.

    name: the argument's name, for the message
    kinds: types that items may have (default: text)
    """
    if isinstance(value, (list, tuple)):
        require_items(value, name, *kinds)
    if isinstance(value, (str, bytes, bytearray, Mapping)):
        what = "the text " if isinstance(value, str) else ""
        kind = "" if what else f" ({type(value).__name__})"
        instead = f", as in [{quoted(value)}]" if what else ""
        raise UsageError(f"{name} is {what}{quoted(value)}{kind}: expected several{instead}")


def asking_about_keywords(cls: type[T]) -> type[T]:
    """Decorate a class: a keyword that a public method lacks raises `UsageError`, which asks about the nearest one."""

    def checked(method: Callable[..., object]) -> Callable[..., object]:
        parameters = inspect.signature(method).parameters
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            return method
        known = [*parameters][1:]  # without self

        @functools.wraps(method)
        def call(*arguments: object, **keywords: object) -> object:
            for name in keywords:
                if name not in parameters:
                    hint = spelling_hint(name, known)
                    raise UsageError(f"{method.__qualname__}: unknown argument {name}{hint}; it takes {listed(known)}")
            return method(*arguments, **keywords)

        return call

    for name, member in [*vars(cls).items()]:
        if inspect.isfunction(member) and (name == "__init__" or not name.startswith("_")):
            setattr(cls, name, checked(member))
    return cls


def require_pairs(queries: Sequence[str], titles: Sequence[str]) -> None:
    """Raise `UsageError` unless `queries` and `titles` are sequences of texts of the same length."""
    refuse_text(queries, "queries")
    refuse_text(titles, "titles")
    if len(queries) != len(titles):
        raise UsageError(f"{len(queries)} queries and {len(titles)} titles: give one title for each query")


def require_items(items: Iterable[T], name: str, *kinds: type) -> list[T]:
    """Return `items` as a list; raises `UsageError`, which names the item, if an item has none of the types `kinds`.

    name: the argument's name, for the message
    kinds: types that items may have (default: text)
    """
    return list(checked_items(items, name, *kinds))


def checked_items(items: Iterable[T], name: str, *kinds: type) -> Iterator[T]:
    """Yield `items`; raises `UsageError` as `require_items` does."""
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


def is_short_of_memory(error: BaseException) -> bool:
    """Return whether a library could not be loaded for want of memory; Paddle raises a `RuntimeError` then."""
    return bool(re.search("cannot map|failed to map|cannot allocate memory", str(error), re.IGNORECASE))


@contextmanager
def package_for(purpose: str, install: str) -> Iterator[None]:
    """Convert an `ImportError` or `OSError` in the block to a `DependencyError`.

        with package_for("reading PDFs", "'paddle-ranker[pdf]'"):
            import pypdfium2

    purpose: what the package is needed for, the subject of the message
    install: arguments of `pip install`
    """
    try:
        yield
    except (ImportError, OSError) as error:  # an OSError if a shared library is missing
        if is_short_of_memory(error):
            raise DependencyError(f"{purpose}: the memory does not suffice to load a library ({error})") from error
        raise DependencyError(f"{purpose} needs a missing package ({error}): pip install {install}") from error


PADDLE_INDEX = "https://www.paddlepaddle.org.cn/packages/stable/"  # PyPI's builds for GPUs end with Paddle 2.6.2
PADDLE_IS_MISSING = (
    "needs Paddle: pip install 'paddle-ranker[cpu]', or for GPUs (another CUDA version: docs/setup.md) "
    f"pip install 'paddle-ranker[gpu]' --extra-index-url {PADDLE_INDEX}cu126/"
)


def in_checkout(line: str) -> str:
    """Return `line`, which names a file of a checkout; if the package is not in a checkout, append this condition."""
    is_checkout = (Path(__file__).resolve().parents[1] / "scripts" / "setup.sh").is_file()
    return line if is_checkout else f"{line} (in a checkout of the project)"


def spelling_hint(word: str, candidates: Iterable[str]) -> str:
    """Return ` (did you mean ...?)` with the candidate that is closest to `word`, or "" if none is close.

    Case and the characters between words are ignored: `product_name` is close to `Product Name`.
    """
    close = nearest(word, candidates)
    return f" (did you mean {brief(close)}?)" if close else ""


def nearest(word: str, candidates: Iterable[str]) -> str:
    """Return the candidate that is closest to `word`, as `spelling_hint` compares them, or "" if none is close."""
    plain = {_plain_name(name): name for name in candidates}
    close = difflib.get_close_matches(_plain_name(word), plain, n=1)
    return plain[close[0]] if close else ""


def misspelt(name: str, candidates: Iterable[str]) -> str:
    """Return the candidate of which `name` is probably a misspelling, or "" if there is none.

    One letter of four to seven may differ, two of more; case and the characters between words always may, digits never.
    Of paths, such as `product.price`, one part may be misspelt.
    """
    from rapidfuzz.distance import OSA

    parts, found = [*map(_plain_name, name.split("."))], list[tuple[int, str]]()
    for candidate in candidates:
        others = [*map(_plain_name, candidate.split("."))]
        differ = [(part, other) for part, other in zip(parts, others) if part != other]
        if candidate == name or len(parts) != len(others) or len(differ) > 1:
            continue
        if not differ:
            return candidate
        part, other = differ[0]
        most = min(2, max(len(part), len(other)) // 4)
        distance = OSA.distance(part, other, score_cutoff=most)
        if distance <= most and re.sub(r"\D", "", part) == re.sub(r"\D", "", other):
            found.append((distance, candidate))
    return min(found, default=(0, ""))[1]


def _plain_name(name: str) -> str:
    return re.sub(r"[\W_]+", " ", name).strip().lower()


def error_on_its_way(interrupt: BaseException) -> Optional[RankerError]:
    """Return the `RankerError` that was being handled when `interrupt` came, or None if there was no such error.

    When a process fails, the launcher interrupts all other processes. These may already be handling the error that the
    connection to the failed process is broken.
    """
    context = interrupt.__context__
    while context is not None and not isinstance(context, RankerError):
        context = context.__context__
    return context


def one_line(error: Exception) -> str:
    """Return the line that a command prints for an error, `shortened`."""
    return shortened(_words(error))


def _words(error: BaseException) -> str:
    cause = error.__cause__ if isinstance(error, DependencyError) else None
    if cause is not None and is_short_of_memory(cause):  # the package is there
        return _words(cause)
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
    if is_short_of_memory(error):
        return f"the memory does not suffice to load a library ({summary})"
    return f"unexpected {type(error).__name__}: {summary}; run again with --debug for the traceback"
