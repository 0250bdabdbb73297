"""Ctrl-C and SIGTERM: a command ends on the first; a training finishes its step, and saves, before it does."""

from __future__ import annotations

import _thread
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Optional

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LATER_SECONDS = 0.05


class Interrupted(KeyboardInterrupt):
    """A training was interrupted, and has left what `--resume` goes on from."""


class Interrupts:
    """The signals that end a command: while `taken`, one of them raises `KeyboardInterrupt` where the command stands.

    Attribute: `received`, whether it did. What is being imported at that moment is imported to its end first: in the
    middle of a compiled module the exception becomes an ImportError, and Paddle says that its files are damaged.
    """

    def __init__(self) -> None:
        self.received = False
        self._is_postponed = False

    @contextmanager
    def taken(self) -> Iterator[Interrupts]:
        """Take the signals, in the main thread, until the block ends; one that is ignored stays so."""
        with _handled_by(self):
            yield self

    def __call__(self, signum: int, frame: Optional[FrameType]) -> None:
        """Raise `KeyboardInterrupt`, or send the signal again in a moment."""
        if _is_importing(frame):
            if not self._is_postponed:
                self._is_postponed = True
                later = threading.Timer(_LATER_SECONDS, self._again, (signum,))
                later.daemon = True
                later.start()
            return
        self.received = True
        if signum == signal.SIGTERM:
            signal.signal(signum, signal.SIG_IGN)  # a launcher sends it thrice: what is being cleaned up would stop
            raise KeyboardInterrupt("SIGTERM")
        raise KeyboardInterrupt

    def _again(self, signum: int) -> None:
        self._is_postponed = False
        # Not a signal of the system's: Paddle, once imported, has a handler of its own for SIGTERM.
        if sys.version_info >= (3, 10):
            _thread.interrupt_main(signum)
        else:
            _thread.interrupt_main()


def wait_for_imports() -> None:
    """Make Ctrl-C wait for imports in progress, from now on: for a process that is about to run a command."""
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, Interrupts())


class StopRequest:
    """A request to stop a training: while `awaited`, the first signal makes it, a second one ends the process.

    Attribute: `asked`.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    @contextmanager
    def awaited(self) -> Iterator[StopRequest]:
        """Take the signals, in the main thread, until the block ends."""
        with _handled_by(self) as self._before:
            # One may have come that was lost: Python drops what is raised while it deletes an object.
            for number in self._before:  # else it breaks what waits for another process, in Paddle's own code
                signal.siginterrupt(number, False)
            self.asked = any(isinstance(old, Interrupts) and old.received for old in self._before.values())
            yield self

    def __call__(self, signum: int, frame: Optional[FrameType]) -> None:
        """Record the first signal; pass a second one to the earlier handler."""
        if not self.asked:
            self.asked = True
            if is_first_process():
                # Not by print: the signal may have come in the middle of one.
                os.write(2, b"\ninterrupted: this step is finished and saved for --resume; once more ends at once\n")
        elif signum == signal.SIGINT or not _is_launched():
            before = self._before.get(signum)
            if not callable(before):
                raise KeyboardInterrupt
            before(signum, frame)
        # Else it is the launcher, which sends SIGTERM thrice, and also where Ctrl-C has reached this process already.


def is_first_process() -> bool:
    """Return whether this process prints: the only one, or the first that a launcher started."""
    return os.environ.get("PADDLE_TRAINER_ID", "0") == "0"


def resume_line(prog: str, arguments: Sequence[str]) -> str:
    """Return the line that goes on with the interrupted training that was started with these arguments."""
    words = [prog, *arguments]
    if sys.argv[len(sys.argv) - len(arguments) :] == list(arguments):  # they are this process's own
        typed = sys.argv if sys.argv[0].endswith(".py") else [*sys.argv[0].split(), *sys.argv[1:]]
        words = list(getattr(sys, "orig_argv", [sys.executable, *typed] if typed is sys.argv else typed))
    return shlex.join([*(_launcher() or words), *(() if "--resume" in arguments else ("--resume",))])


def _launcher() -> list[str]:
    """Return the command line of `paddle.distributed.launch` where that started this process, else nothing."""
    if not _is_launched():
        return []
    try:
        words = Path(f"/proc/{os.getppid()}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []
    return words if "paddle.distributed.launch" in words else []


def _is_launched() -> bool:
    return int(os.environ.get("PADDLE_TRAINERS_NUM", "1")) > 1


def take_back_signals() -> None:
    """Restore Python's handler of SIGTERM: importing Paddle replaces it by a C++ one."""
    handler = signal.getsignal(signal.SIGTERM)
    # Only the main thread may set one, and only it set one that could be lost.
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


@contextmanager
def _handled_by(handler: Any) -> Iterator[dict[int, Any]]:
    """Install `handler` for the signals that are not ignored; yield the earlier handlers, and restore them."""
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


def _is_importing(frame: Optional[FrameType]) -> bool:
    while frame is not None:
        if frame.f_code.co_name == "_find_and_load" and frame.f_globals.get("__name__") == "importlib._bootstrap":
            return True
        frame = frame.f_back
    return False
