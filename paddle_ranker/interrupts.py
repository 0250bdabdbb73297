"""Ctrl-C and SIGTERM: a command ends on the first signal; a training first finishes its step and saves."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from types import FrameType
from typing import Any, Optional

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SCRIPT = "paddle-ranker"
_SAVING = b"\ninterrupted: this step is finished and saved for --resume; once more ends at once\n"
STATUS = 130  # exit status of an interrupted command
_COMPILED = (ExtensionFileLoader.create_module.__code__, ExtensionFileLoader.exec_module.__code__)


class Interrupted(KeyboardInterrupt):
    """A training was interrupted, and has saved the state from which `--resume` continues."""


_SERVERS = ("serve", "search-serve")  # commands that run until a signal stops them
_ENDING = (signal.SIGTERM, signal.SIGQUIT)
_WITHOUT_EFFECT = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM)


def is_server(arguments: Sequence[str]) -> bool:
    """Return whether a command line starts a server."""
    return bool(arguments) and arguments[0] in _SERVERS


def take_signals_of_server() -> None:
    """Let the signals that a server gets from its surroundings not kill it while it starts.

    Log rotation sends SIGHUP or SIGUSR1, containers SIGQUIT. A reload that is asked for before the models are loaded
    needs no more than the loading.
    """
    if threading.current_thread() is threading.main_thread():
        for number in _WITHOUT_EFFECT:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGQUIT, signal.getsignal(signal.SIGTERM))


class Interrupts:
    """A handler for the signals that end a command: within `taken`, SIGINT and SIGTERM raise `KeyboardInterrupt`.

    A signal during the initialisation of a compiled module prints a line and ends the process at once. Otherwise Python
    would turn the `KeyboardInterrupt` into an `ImportError`, and Paddle would report damaged files.

    prog: the command's name in that line
    of_server: whether the command is a server, which SIGTERM ends as it should

    Attributes:
        received: whether a signal has raised `KeyboardInterrupt`.
        status: exit status of the command after the last signal.
    """

    def __init__(self, prog: str = SCRIPT, *, of_server: bool = False) -> None:
        self.received, self.status = False, STATUS
        self._prog, self._of_server = prog, of_server

    @contextmanager
    def taken(self) -> Iterator[Interrupts]:
        """In the main thread, handle the signals until the block ends; a signal that is ignored stays ignored."""
        with _handled_by(self):
            yield self

    def __call__(self, signum: int, frame: Optional[FrameType]) -> None:
        """Raise `KeyboardInterrupt`; during the initialisation of a compiled module, report the signal and exit."""
        where = signal.Signals(signum).name if signum in _ENDING else ""
        self.status = 0 if self._of_server and where else STATUS
        if _is_in_compiled(frame):
            with suppress(OSError):  # `print` would raise if the signal came in the middle of another `print`
                os.write(2, f"{interrupt_line(self._prog, where)}\n".encode())
            os._exit(self.status)
        self.received = True
        if signum in _ENDING:
            signal.signal(signum, signal.SIG_IGN)  # a launcher's second SIGTERM would stop a clean-up
        raise KeyboardInterrupt(where)


def interrupt_line(prog: str, where: str = "") -> str:
    """Return the line that a command prints when it is interrupted.

    where: text to add that says when or by which signal, such as `SIGTERM`; "" adds nothing
    """
    return f"{prog}: interrupted{f' ({where})' if where else ''}"


class StopRequest:
    """A request to stop a training. Within `awaited`, the first signal sets `must_stop`, a second one stops at once.

    Attributes:
        must_stop: whether the training must stop.
    """

    def __init__(self) -> None:
        self.must_stop = False
        self._before: dict[int, Any] = {}

    @contextmanager
    def awaited(self) -> Iterator[StopRequest]:
        """In the main thread, handle the signals until the block ends; in other threads, do nothing."""
        with _handled_by(self) as self._before:
            for number in self._before:  # A signal would otherwise abort Paddle's blocking collective.
                signal.siginterrupt(number, False)
            # An earlier signal may have had no effect: Python drops exceptions raised while it deletes an object.
            self.must_stop = any(isinstance(old, Interrupts) and old.received for old in self._before.values())
            yield self

    def __call__(self, signum: int, frame: Optional[FrameType]) -> None:
        """Record the first signal. Pass later signals to the previous handler, except a launcher's repeated SIGTERM."""
        if not self.must_stop:
            self.must_stop = True
            if is_first_process():
                with suppress(BrokenPipeError):
                    os.write(2, _SAVING)  # `print` would raise if the signal came in the middle of another `print`
        elif signum == signal.SIGINT or not _is_launched():
            before = self._before.get(signum)
            if not callable(before):
                raise KeyboardInterrupt
            before(signum, frame)
        # Otherwise the launcher sent it: it sends SIGTERM three times, even if Ctrl-C has already reached this process.


def is_first_process() -> bool:
    """Return whether this process prints: it is the only process, or the first that a launcher started."""
    return os.environ.get("PADDLE_TRAINER_ID", "0") == "0"


def resume_line(prog: str, arguments: Sequence[str]) -> str:
    """Return the command line that resumes an interrupted training.

    prog: the command's name
    arguments: the arguments with which the training was started
    """
    words = _launcher() or _typed()
    if words[len(words) - len(arguments) :] != list(arguments):  # the training was called from Python
        words = [prog, *arguments]
    return shlex.join(_resuming(words))


def _resuming(words: Sequence[str]) -> list[str]:
    """Return a command's words with `--resume` at the end; earlier words such as `--resume false` are removed."""
    kept, value_may_follow = [], False
    for word in words:
        is_value = value_may_follow and not word.startswith("-")
        value_may_follow = word == "--resume"
        if not is_value and word.partition("=")[0] != "--resume":
            kept.append(word)
    return [*kept, "--resume"]


def _typed() -> list[str]:
    """Return the words of this process's command line as a user types them: `paddle-ranker` replaces Python's path."""
    words = _command_line("self")
    if len(words) > 1 and os.path.basename(words[1]) == SCRIPT:
        words[:2] = [SCRIPT if shutil.which(SCRIPT) == words[1] else words[1]]
    return words


def _launcher() -> list[str]:
    """Return the words of the launcher's command line if `paddle.distributed.launch` started this process, else []."""
    words = _command_line(str(os.getppid())) if _is_launched() else []
    return words if "paddle.distributed.launch" in words else []


def _command_line(process: str) -> list[str]:
    """Return the words of a process's command line, or [] if `/proc` does not have them.

    process: the process's id, or `self`
    """
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="surrogateescape").split("\0")[:-1]
    except OSError:
        return []


def _is_launched() -> bool:
    return int(os.environ.get("PADDLE_TRAINERS_NUM", "1")) > 1


def take_back_signals(handler: Any = None) -> None:
    """Restore the handler of SIGTERM, which importing Paddle or joining a Ray cluster replaces.

    handler: the handler to restore; None: the handler that Python knows, in case C++ code has replaced it
    """
    handler = signal.getsignal(signal.SIGTERM) if handler is None else handler
    # Only the main thread may set a handler, so only its handler can have been replaced.
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


@contextmanager
def _handled_by(handler: Any) -> Iterator[dict[int, Any]]:
    """Install `handler` in the block, in the main thread, for SIGINT and SIGTERM unless they are ignored.

    Yields the previous handlers by the signal's number, and restores them after the block.
    """
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in SIGNALS}
        before = {number: old for number, old in before.items() if old not in (signal.SIG_IGN, None)}
        for number in before:
            signal.signal(number, handler)
    try:
        yield before
    finally:
        for number, old in before.items():
            if signal.getsignal(number) is handler:
                signal.signal(number, old)


def _is_in_compiled(frame: Optional[FrameType]) -> bool:
    """Return whether a frame is part of the initialisation of a compiled module."""
    while frame is not None:
        if frame.f_code in _COMPILED:
            return True
        frame = frame.f_back
    return False
