"""Ctrl-C and SIGTERM: a command ends on the first signal; a training first finishes its step and saves."""

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
    """A training was interrupted, and has saved the state from which `--resume` continues."""


class Interrupts:
    """A handler for the signals that end a command: within `taken`, SIGINT and SIGTERM raise `KeyboardInterrupt`.

    Attribute: `received`, whether a signal has raised it. A signal during an import waits until the import has ended:
    inside a compiled module the exception would become an ImportError, and Paddle would report damaged files.
    """

    def __init__(self) -> None:
        self.received = False
        self._is_postponed = False

    @contextmanager
    def taken(self) -> Iterator[Interrupts]:
        """Handle the signals until the block ends, in the main thread only; ignored signals stay ignored."""
        with _handled_by(self):
            yield self

    def __call__(self, signum: int, frame: Optional[FrameType]) -> None:
        """Raise `KeyboardInterrupt`, or during an import send the signal again in a moment."""
        if _is_importing(frame):
            if not self._is_postponed:
                self._is_postponed = True
                later = threading.Timer(_LATER_SECONDS, self._again, (signum,))
                later.daemon = True
                later.start()
            return
        self.received = True
        if signum == signal.SIGTERM:
            signal.signal(signum, signal.SIG_IGN)  # a launcher sends SIGTERM three times: others would stop a clean-up
            raise KeyboardInterrupt("SIGTERM")
        raise KeyboardInterrupt

    def _again(self, signum: int) -> None:
        self._is_postponed = False
        # Not by a signal of the operating system: Paddle, once imported, has its own C++ handler for SIGTERM.
        if sys.version_info >= (3, 10):
            _thread.interrupt_main(signum)
        else:
            _thread.interrupt_main()


def wait_for_imports() -> None:
    """From now on delay Ctrl-C until an import in progress has ended; for a process that is about to run a command."""
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, Interrupts())


class StopRequest:
    """A request to stop a training: within `awaited`, the first signal sets `asked`, a second one ends the process.

    Attribute: `asked`, whether a signal has asked for the stop.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    @contextmanager
    def awaited(self) -> Iterator[StopRequest]:
        """Handle the signals until the block ends, in the main thread only."""
        with _handled_by(self) as self._before:
            for number in self._before:  # else a signal breaks Paddle's C++ code that waits for another process
                signal.siginterrupt(number, False)
            # An earlier signal may have had no effect: Python drops exceptions raised while it deletes an object.
            self.asked = any(isinstance(old, Interrupts) and old.received for old in self._before.values())
            yield self

    def __call__(self, signum: int, frame: Optional[FrameType]) -> None:
        """Record the first signal; pass later ones to the earlier handler, but ignore a launcher's repeated SIGTERM."""
        if not self.asked:
            self.asked = True
            if is_first_process():
                # `print` would raise if the signal came in the middle of another `print`.
                os.write(2, b"\ninterrupted: this step is finished and saved for --resume; once more ends at once\n")
        elif signum == signal.SIGINT or not _is_launched():
            before = self._before.get(signum)
            if not callable(before):
                raise KeyboardInterrupt
            before(signum, frame)
        # Else the launcher sent it: it sends SIGTERM three times, even if Ctrl-C has already reached this process.


def is_first_process() -> bool:
    """Return whether this process prints: it is the only process, or the first that a launcher started."""
    return os.environ.get("PADDLE_TRAINER_ID", "0") == "0"


def resume_line(prog: str, arguments: Sequence[str]) -> str:
    """Return the command line that resumes an interrupted training, which was started with these arguments."""
    words = [prog, *arguments]
    if sys.argv[len(sys.argv) - len(arguments) :] == list(arguments):  # they are this process's own
        typed = sys.argv if sys.argv[0].endswith(".py") else [*sys.argv[0].split(), *sys.argv[1:]]
        words = list(getattr(sys, "orig_argv", [sys.executable, *typed] if typed is sys.argv else typed))
    return shlex.join([*(_launcher() or words), *(() if "--resume" in arguments else ("--resume",))])


def _launcher() -> list[str]:
    """Return the command line of `paddle.distributed.launch` if it started this process, else an empty list."""
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
    """Restore Python's handler of SIGTERM, which importing Paddle replaces with a C++ handler."""
    handler = signal.getsignal(signal.SIGTERM)
    # Only the main thread may set a handler, so only its handler can have been replaced.
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


@contextmanager
def _handled_by(handler: Any) -> Iterator[dict[int, Any]]:
    """Install `handler` for the signals that are not ignored; yield a dict of the earlier handlers and restore them."""
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
