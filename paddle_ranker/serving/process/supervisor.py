"""Run several processes on one port: each has its own model, and the system gives each connection to one process.

This process imports no engine, so that it can fork a new worker at any time: it waits, replaces workers that have died
or hang, and passes signals on. It is linked with each worker by a pair of sockets, on which lines of JSON pass:

| from a worker | meaning |
| --- | --- |
| `{}` | the event loop runs; sent every two seconds |
| `{"digest": "..."}` | its models are loaded, or loaded anew; the digest says which they are |
| `{"failed": "..."}` | a reload failed for this reason |
| `{"reload": true}` | a caller asks for a reload by all workers |

| to a worker | meaning |
| --- | --- |
| `{"all_ready": true}` | all workers were ready once |
| `{"outcomes": [...]}` | the digest or the reason of each worker, after the reload that it asked for |

Workers must agree: if their digests differ after a start or a reload, all of them reload.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Callable, NoReturn, Optional, Union

from paddle_ranker.errors import RankerError
from paddle_ranker.libraries import SHARED_MEMORY
from paddle_ranker.runtime import PROCESS_VARIABLE
from paddle_ranker.serving.core.metrics import MULTIPROCESS_VARIABLE
from paddle_ranker.serving.core.server_config import ServeConfig

_SOON = 10.0  # seconds; a worker that dies within them is restarted with a growing delay
_FIRST_DELAY, _LONGEST_DELAY = 0.5, 30.0
_WAIT = 0.5
_GRACE = 10.0  # seconds that a worker may take to end after those for requests in flight
_SILENT = 20.0  # seconds without a sign of life after which a worker is killed
_ROUNDS = 3  # reloads in a row, at most, until the workers agree
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)


@dataclass
class _Slot:
    """State of a worker.

    number: index of the worker, from 0
    pid: id of its process; 0 if it is not running
    started: time at which its process was started
    due: time at which its next process is to start
    failures: how often in a row its process ended soon after its start, or before it was ready
    is_stale: whether a reload was requested before its process was ready
    link: the supervisor's end of the pair of sockets
    unread: bytes of an incomplete line from the worker
    heard: time of the last sign of life; 0 before the first
    digest: digest of the worker's models; None until they are loaded
    outcome: what became of the present reload, `{"digest": ...}` or `{"failed": ...}`; None until it ends
    asks: whether the worker waits for the outcomes of a reload
    """

    number: int
    pid: int = 0
    started: float = 0.0
    due: float = 0.0
    failures: int = 0
    is_stale: bool = False
    link: Optional[socket.socket] = None
    unread: bytes = b""
    heard: float = 0.0
    digest: Optional[str] = None
    outcome: Optional[dict[str, Any]] = None
    asks: bool = False

    def send(self, message: dict[str, Any]) -> None:
        """Send a message to the worker, which may have ended."""
        if self.link is not None:
            with suppress(OSError):
                self.link.sendall(json.dumps(message).encode() + b"\n")

    def received(self) -> list[dict[str, Any]]:
        """Return the complete messages that the worker has sent."""
        if self.link is None:
            return []
        with suppress(OSError):
            self.unread += self.link.recv(1 << 16)
        *lines, self.unread = self.unread.split(b"\n")
        return [json.loads(line) for line in lines]

    def end(self) -> None:
        """Forget the worker's process, which has ended."""
        if self.link is not None:
            self.link.close()
        self.pid, self.link, self.unread, self.heard = 0, None, b"", 0.0
        self.digest, self.outcome, self.asks = None, None, False


def supervise(config: ServeConfig, sockets: Sequence[socket.socket], announce: Callable[[], None]) -> int:
    """Keep `config.workers` workers running until SIGTERM or SIGINT. Return the exit status.

    sockets: the listening sockets
    announce: called once, when all workers are ready

    Raises `RankerError` if a worker fails at the first start, before it is ready. The reason is on standard error.
    """
    with _metrics_folder() as folder:
        if folder:
            os.environ[MULTIPROCESS_VARIABLE] = folder
        try:
            return _Supervisor(config, sockets, announce).run()
        finally:
            os.environ.pop(MULTIPROCESS_VARIABLE, None)


def _metrics_folder() -> AbstractContextManager[Optional[str]]:
    """Return a new folder for the workers' metrics, deleted at the end; None if no folder can be written to.

    Shared memory comes first: containers with a read-only file system have it, and nothing clears it of old files.
    """
    for parent in (SHARED_MEMORY, None):
        with suppress(OSError):
            return TemporaryDirectory(prefix="paddle_ranker_", dir=parent)
    print("warning: no folder can be written to, so /metrics shows one worker at a time", file=sys.stderr)
    return nullcontext()


class _Supervisor:
    def __init__(self, config: ServeConfig, sockets: Sequence[socket.socket], announce: Callable[[], None]):
        self._config, self._sockets, self._announce = config, sockets, announce
        self._slots = [_Slot(number) for number in range(config.workers)]
        self._announced = False
        self._is_reloading, self._rounds = False, 0
        self._stopping = 0  # number of signals to stop so far
        self._stop_by = float("inf")  # time at which remaining workers are killed
        self._wake, self._wake_end = os.pipe()
        self._received: list[int] = []

    def run(self) -> int:
        for descriptor in (self._wake, self._wake_end):
            os.set_blocking(descriptor, False)
        previous = {number: signal.signal(number, self._note) for number in (*_SIGNALS, signal.SIGCHLD)}
        waker = signal.set_wakeup_fd(self._wake_end, warn_on_full_buffer=False)
        try:
            self._loop()
            return 0
        finally:
            signal.set_wakeup_fd(waker)
            for number, handler in previous.items():
                signal.signal(number, handler)
            for slot in self._slots:
                if slot.pid:
                    with suppress(ProcessLookupError):
                        os.kill(slot.pid, signal.SIGKILL)
                    os.waitpid(slot.pid, 0)
                slot.end()
            os.close(self._wake)
            os.close(self._wake_end)

    def _note(self, number: int, frame: object) -> None:
        self._received.append(number)

    def _loop(self) -> None:
        while True:
            self._pass_on_signals()
            self._reap()
            if self._stopping and not any(slot.pid for slot in self._slots):
                return
            now = time.monotonic()
            if now > self._stop_by:
                print("workers that did not end in time are killed", file=sys.stderr, flush=True)
                return
            for slot in self._slots:
                if not slot.pid and not self._stopping and slot.due <= now:
                    self._start(slot)
            links = {slot.link.fileno(): slot for slot in self._slots if slot.link is not None}
            heard, _, _ = select.select([self._wake, *links], [], [], _WAIT)
            with suppress(BlockingIOError):
                os.read(self._wake, 4096)
            for descriptor in set(heard) & links.keys():
                self._receive(links[descriptor])
            self._kill_silent()
            self._agree()

    def _pass_on_signals(self) -> None:
        while self._received:
            number = self._received.pop(0)
            if number == signal.SIGCHLD:
                continue
            if number == signal.SIGHUP:
                self._rounds = 0
                self._reload()
                continue
            self._stopping += 1
            leaving = self._config.stop_after_seconds
            self._stop_by = time.monotonic() + leaving + self._config.drain_seconds + _GRACE
            for listener in self._sockets:  # else the port would stay open when the workers have closed it
                listener.close()
            for slot in self._slots:
                if slot.pid:
                    with suppress(ProcessLookupError):
                        os.kill(slot.pid, signal.SIGTERM)
            if self._stopping > 1:
                shutil.rmtree(os.environ.get(MULTIPROCESS_VARIABLE, ""), ignore_errors=True)  # it is in memory
                os._exit(128 + number)

    def _reload(self) -> None:
        """Make all workers reload. A worker that still loads its models reloads them afterwards."""
        self._is_reloading = True
        for slot in self._slots:
            slot.outcome, slot.is_stale = None, slot.digest is None
            if slot.pid and slot.digest is not None:
                with suppress(ProcessLookupError):
                    os.kill(slot.pid, signal.SIGHUP)

    def _start(self, slot: _Slot) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        first = not self._announced
        if MULTIPROCESS_VARIABLE in os.environ:
            # A program that clears old files from the temporary directory may have removed the folder.
            os.makedirs(os.environ[MULTIPROCESS_VARIABLE], mode=0o700, exist_ok=True)
        # Signals to the worker wait until it has replaced the handlers that it inherits from this process.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        ours, theirs = socket.socketpair()
        try:
            pid = os.fork()
            if pid == 0:
                os.environ[PROCESS_VARIABLE] = str(slot.number)
                ours.close()
                self._run_worker(theirs, first, before)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        ours.setblocking(False)
        slot.pid, slot.link, slot.started, slot.is_stale = pid, ours, time.monotonic(), False

    def _run_worker(self, link: socket.socket, first: bool, mask: set[Union[int, signal.Signals]]) -> NoReturn:
        """Run a worker in this process, which was forked for it. End the process afterwards.

        link: the worker's end of the pair of sockets
        first: whether this is the server's start, at which a failure ends the server
        mask: signals that were blocked before the fork
        """
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (*_SIGNALS, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            os.close(self._wake)
            os.close(self._wake_end)
            for slot in self._slots:  # a link ends with the supervisor's process
                if slot.link is not None:
                    slot.link.close()
            os.setpgid(0, 0)  # a terminal's Ctrl-C is for the supervisor, which passes it on
            from paddle_ranker.serving.process.worker import Worker

            status = Worker(self._config, self._sockets, early=first, supervisor=link).run()
        except (RankerError, OSError) as error:
            print(f"worker {os.getpid()}: {error}", file=sys.stderr)
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def _receive(self, slot: _Slot) -> None:
        """Read a worker's messages. Once all workers are ready, announce the server."""
        for message in slot.received():
            slot.heard = time.monotonic()
            if "reload" in message:
                slot.asks, self._rounds = True, 0
                self._reload()
            elif message:
                is_first = slot.digest is None
                slot.digest = message.get("digest", slot.digest)
                slot.outcome = message
                if is_first and self._announced:
                    slot.send({"all_ready": True})
                if slot.is_stale:  # its files may have been replaced since it read them
                    slot.is_stale, slot.outcome = False, None
                    os.kill(slot.pid, signal.SIGHUP)
        if not self._announced and all(slot.digest is not None for slot in self._slots):
            self._announced = True
            for slot in self._slots:
                slot.send({"all_ready": True})
            self._announce()

    def _kill_silent(self) -> None:
        """Kill workers whose event loop has stopped. Workers that have not begun their event loop are left alone."""
        for slot in self._slots:
            if slot.pid and slot.heard and time.monotonic() - slot.heard > _SILENT:
                print(f"worker {slot.pid} hangs and is killed", file=sys.stderr, flush=True)
                slot.heard = 0.0
                os.kill(slot.pid, signal.SIGKILL)

    def _agree(self) -> None:
        """When a reload has ended in all workers, report it; make all reload if their models differ."""
        running = [slot for slot in self._slots if slot.pid]
        if self._stopping or not self._announced or any(slot.digest is None for slot in running):
            return
        if self._is_reloading and any(slot.outcome is None for slot in running):
            return
        if self._is_reloading:
            self._is_reloading = False
            for slot in self._slots:
                if slot.asks:
                    slot.asks = False
                    slot.send({"outcomes": [other.outcome for other in running]})
        if len({slot.digest for slot in running}) > 1 and self._rounds < _ROUNDS:
            self._rounds += 1
            print("the workers serve different models: all of them reload", file=sys.stderr, flush=True)
            self._reload()

    def _reap(self) -> None:
        """Find workers whose processes have ended, and set when each is started again."""
        for slot in self._slots:
            if not slot.pid:
                continue
            pid, status = os.waitpid(slot.pid, os.WNOHANG)
            if not pid:
                continue
            was_ready, now = slot.digest is not None, time.monotonic()
            slot.end()
            _remove_gauges(pid)
            if self._stopping:
                continue
            if not self._announced and not was_ready:
                raise RankerError("a worker could not be started; what it said is above")
            soon = now - slot.started < _SOON or not was_ready
            slot.failures = slot.failures + 1 if soon else 0
            delay = min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** (slot.failures - 1)) if slot.failures else 0.0
            slot.due = now + delay
            how = (
                f"by signal {os.WTERMSIG(status)}"
                if os.WIFSIGNALED(status)
                else f"with status {os.WEXITSTATUS(status)}"
            )
            print(f"worker {pid} ended {how}; another one starts in {delay:g} seconds", file=sys.stderr, flush=True)


def _remove_gauges(pid: int) -> None:
    """Remove a dead worker's gauges from the metrics. Its counts stay."""
    folder = os.environ.get(MULTIPROCESS_VARIABLE)
    for path in Path(folder).glob(f"gauge_live*_{pid}.db") if folder else ():
        path.unlink(missing_ok=True)
