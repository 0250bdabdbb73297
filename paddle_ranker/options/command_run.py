"""Run a command, from its arguments to an exit status, and print notes in addition to its results."""

from __future__ import annotations

import codecs
import functools
import io
import json
import os
import re
import stat
import sys
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stderr, redirect_stdout
from contextvars import ContextVar
from typing import Any, Callable, Optional, Protocol, TextIO, Union, cast

from paddle_ranker.addresses import with_addresses
from paddle_ranker.errors import (
    PADDLE_IS_MISSING,
    DependencyError,
    RankerError,
    error_on_its_way,
    is_full,
    one_line,
    shortened,
)
from paddle_ranker.interrupts import STATUS, Interrupted, Interrupts, interrupt_line, is_first_process, resume_line
from paddle_ranker.libraries import ensure_home, switch_off_telemetry
from paddle_ranker.options.declare import Options, given_of, require_inputs, shown_name
from paddle_ranker.options.input_files import reread_pipes
from paddle_ranker.options.parser import OptionsT, parse_options
from paddle_ranker.registry import load_named_plugins

_BYTES = "bytes_of_names"  # how standard error shows what its encoding lacks: `_escaped`


def run_command(
    run: Callable[[OptionsT], object],
    options_class: Union[type[OptionsT], Callable[[], type[OptionsT]]],
    argv: Optional[Sequence[str]],
    description: str,
    prog: Optional[str] = None,
    *,
    ends_with_reader: bool = False,
) -> int:
    """Parse the options, call `run` with them, and turn every error into one line and an exit status.

    The exit status is 0 for success, 1 for failure, 2 for wrong usage and 130 for an interruption. `--debug` also shows
    the traceback.

    run: runs the command; if it returns a whole number, this is the exit status
    options_class: the options class; if plugins add options, a function that returns the class
    ends_with_reader: whether the command ends, with status 0, if the reader of its output leaves (`| head`). This suits
        commands that print a line per row. Other commands finish their work, but their later output is lost
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    _escape_unprintable()
    prog = prog or os.path.basename(sys.argv[0])
    switch_off_telemetry()
    ensure_home()
    with Interrupts(prog).taken() as interrupts, reader_may_leave(out=not ends_with_reader), ExitStack() as stack:
        debug = "--debug" in arguments
        try:
            load_named_plugins()
            options_type = options_class if isinstance(options_class, type) else options_class()
            stack.enter_context(reread_pipes(arguments))
            options: Any = parse_options(options_type, arguments, prog, description)
            debug = options.debug
            require_inputs(options, stack)
            options.look_up()
            with _counting() as counted:
                result = run(options)
            note_counts(sum((Counter(source.counts()) for source in counted), Counter()))
            sys.stdout.flush()  # an error in writing the last of the output is an error like any other
            return result if isinstance(result, int) else 0
        except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
            _forget_unwritten(sys.stdout)
            return 0
        except SystemExit:  # raised by --help
            _forget_unwritten(sys.stdout)
            raise
        except KeyboardInterrupt as interrupt:
            if debug:
                traceback.print_exc()
            error = error_on_its_way(interrupt)
            return _report(prog, error) if error else _report_interrupt(prog, arguments, interrupt)
        except Exception as error:
            if isinstance(error, OSError):
                _forget_unwritten(sys.stdout)
                if is_full(error) and error.filename is None and _output_can_be_full():
                    error.filename = "standard output"
            if debug:
                traceback.print_exc()
            # After an interruption, an exception that it caused in other code is not an error.
            if interrupts.received:
                return _report_interrupt(prog, arguments, error)
            return _report(prog, error)


def main_of(
    run: Callable[[OptionsT], object],
    options_class: Union[type[OptionsT], Callable[[], type[OptionsT]]],
    description: Optional[str],
    *,
    prog: Optional[str] = None,
    ends_with_reader: bool = False,
) -> Callable[..., int]:
    """Return a command's `main(argv=None)`, which passes `argv` and the arguments of this function to `run_command`."""

    def main(argv: Optional[Sequence[str]] = None) -> int:
        return run_command(run, options_class, argv, description or "", prog=prog, ends_with_reader=ends_with_reader)

    return main


def _report(prog: str, error: Exception) -> int:
    if isinstance(error, ModuleNotFoundError) and str(error.name).partition(".")[0] == "paddle":
        error = DependencyError(PADDLE_IS_MISSING)
    print(f"{prog}: error: {with_addresses(one_line(error))}", file=sys.stderr)
    return error.exit_status if isinstance(error, RankerError) else 1


def _report_interrupt(prog: str, arguments: Sequence[str], interrupt: BaseException) -> int:
    where = str(interrupt) if isinstance(interrupt, KeyboardInterrupt) else ""
    print(interrupt_line(prog, where), file=sys.stderr)
    if isinstance(interrupt, Interrupted) and is_first_process():
        print(f"to go on: {resume_line(prog, arguments)}", file=sys.stderr)
    return STATUS


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
            _forget_unwritten(self._stream)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            _forget_unwritten(self._stream)


def _forget_unwritten(output: TextIO) -> None:
    """Flush a stream; if that fails, discard the stream's output, so that Python does not flush it again at exit."""
    try:
        output.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())


def _output_can_be_full() -> bool:
    """Return whether writing to standard output can fail because a disk is full: it is a file, or a device file.

    Terminals and pipes are never full.
    """
    try:
        mode = os.fstat(sys.stdout.fileno()).st_mode
        return stat.S_ISREG(mode) or (stat.S_ISCHR(mode) and not sys.stdout.isatty())
    except (OSError, ValueError):
        return False


def _escape_unprintable() -> None:
    """Make `print` escape characters that the encoding of standard output lacks, as Python does on standard error.

    Otherwise a command would end at the first Chinese title if a terminal or PYTHONIOENCODING is limited to ASCII.
    Standard error shows the bytes of a file's name that is not UTF-8.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
    codecs.register_error(_BYTES, _escaped)
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors=_BYTES)


def _escaped(error: UnicodeError) -> tuple[Union[str, bytes], int]:
    r"""Escape what an encoding lacks; a byte of a file's name that is not UTF-8 becomes `\xe9`, as in shells' `$''`."""
    text, end = codecs.backslashreplace_errors(error)
    return re.sub(r"\\udc([89a-f][0-9a-f])", r"\\x\1", str(text)), end


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


def note_without_effect(options: Options, names: Iterable[str], why: str) -> None:
    """Print a note that names the given options among `names`, which have no effect, and says why."""
    given = given_of(options, names)
    if given:
        note(f"note: {', '.join(map(shown_name, given))}: without effect here; {why}")


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
def _counting() -> Iterator[list[Counted]]:
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
