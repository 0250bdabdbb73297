"""Run several processes on one port: each has its own model, and the system gives each connection to one process.

This process imports no engine, so that it can fork a new worker at any time: it waits, replaces workers that have died,
and passes signals on.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Callable, NoReturn, Union

from paddle_ranker.errors import RankerError
from paddle_ranker.runtime import PROCESS_VARIABLE
from paddle_ranker.serving.core.metrics import MULTIPROCESS_VARIABLE
from paddle_ranker.serving.core.server_config import ServeConfig

_SOON = 10.0  # seconds; a worker that dies within them is restarted with a growing delay
_FIRST_DELAY, _LONGEST_DELAY = 0.5, 30.0
_WAIT = 0.5
_GRACE = 10.0  # seconds that a worker may take to end after those for requests in flight
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass
class _Slot:
    """State of a worker.

    number: index of the worker, from 0
    pid: id of its process; 0 if it is not running
    started: time at which its process was started
    due: time at which its next process is to start
    failures: how often in a row its process ended soon after its start, or before it was ready
    is_stale: whether a reload was requested before its process was ready
    """

    number: int
    pid: int = 0
    started: float = 0.0
    due: float = 0.0
    failures: int = 0
    is_stale: bool = False


def supervise(config: ServeConfig, sockets: Sequence[socket.socket], announce: Callable[[], None]) -> int:
    """Keep `config.workers` workers running until SIGTERM or SIGINT. Return the exit status.

    sockets: the listening sockets
    announce: called once, when all workers are ready

    Raises `RankerError` if a worker fails at the first start, before it is ready. The reason is on standard error.
    """
    with TemporaryDirectory(prefix="paddle_ranker_") as folder:
        os.environ[MULTIPROCESS_VARIABLE] = folder
        try:
            return _Supervisor(config, sockets, announce).run()
        finally:
            del os.environ[MULTIPROCESS_VARIABLE]


class _Supervisor:
    def __init__(self, config: ServeConfig, sockets: Sequence[socket.socket], announce: Callable[[], None]):
        self._config, self._sockets, self._announce = config, sockets, announce
        self._slots = [_Slot(number) for number in range(config.workers)]
        self._ready: set[int] = set()  # pids
        self._announced = False
        self._stopping = 0  # number of signals to stop so far
        self._stop_by = float("inf")  # time at which remaining workers are killed
        self._life, self._life_end = os.pipe()  # the pipe ends with this process
        self._ready_pipe, self._ready_end = os.pipe()  # workers write their pid when they are ready
        self._wake, self._wake_end = os.pipe()
        self._received: list[int] = []

    def run(self) -> int:
        for descriptor in (self._wake, self._wake_end, self._ready_pipe):
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
            for descriptor in (
                self._life,
                self._life_end,
                self._ready_pipe,
                self._ready_end,
                self._wake,
                self._wake_end,
            ):
                os.close(descriptor)

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
            select.select([self._wake, self._ready_pipe], [], [], _WAIT)
            with suppress(BlockingIOError):
                os.read(self._wake, 4096)
            self._receive()

    def _pass_on_signals(self) -> None:
        while self._received:
            number = self._received.pop(0)
            if number == signal.SIGCHLD:
                continue
            if number != signal.SIGHUP:
                self._stopping += 1
                self._stop_by = time.monotonic() + self._config.drain_seconds + _GRACE
            for slot in self._slots:
                slot.is_stale |= number == signal.SIGHUP and slot.pid not in self._ready
                if slot.pid and (number != signal.SIGHUP or slot.pid in self._ready):
                    # A terminal's Ctrl-C has reached the workers already: a second signal would end them at once.
                    with suppress(ProcessLookupError):
                        os.kill(slot.pid, signal.SIGTERM if number == signal.SIGINT else number)
            if self._stopping > 1:
                os._exit(128 + number)

    def _start(self, slot: _Slot) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        first = not self._announced
        # A program that clears old files from the temporary directory may have removed the folder.
        os.makedirs(os.environ[MULTIPROCESS_VARIABLE], mode=0o700, exist_ok=True)
        # Signals to the worker wait until it has replaced the handlers that it inherits from this process.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            pid = os.fork()
            if pid == 0:
                os.environ[PROCESS_VARIABLE] = str(slot.number)
                self._run_worker(first, before)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        slot.pid, slot.started, slot.is_stale = pid, time.monotonic(), False

    def _run_worker(self, first: bool, mask: set[Union[int, signal.Signals]]) -> NoReturn:
        """Run a worker in this process, which was forked for it. End the process afterwards.

        first: whether this is the server's start, at which a failure ends the server
        mask: signals that were blocked before the fork
        """
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (*_SIGNALS, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            for descriptor in (self._life_end, self._ready_pipe, self._wake, self._wake_end):
                os.close(descriptor)
            os.setpgid(0, 0)  # a terminal's Ctrl-C is for the supervisor, which passes it on
            from paddle_ranker.serving.process.worker import Worker

            supervisor = os.getppid()
            worker = Worker(
                self._config,
                self._sockets,
                early=first,
                on_ready=lambda: _send_ready(self._ready_end),
                pass_on_reload=lambda: os.kill(supervisor, signal.SIGHUP),
                parent=self._life,
            )
            status = worker.run()
        except (RankerError, OSError) as error:
            print(f"worker {os.getpid()}: {error}", file=sys.stderr)
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def _receive(self) -> None:
        """Read from the pipe which workers are ready. Once all workers are ready, announce the server."""
        with suppress(BlockingIOError):
            for word in os.read(self._ready_pipe, 4096).split():
                self._ready.add(int(word))
            for slot in self._slots:
                if slot.is_stale and slot.pid in self._ready:  # its files may have been replaced since it read them
                    slot.is_stale = False
                    os.kill(slot.pid, signal.SIGHUP)
        if not self._announced and all(slot.pid in self._ready for slot in self._slots):
            self._announced = True
            self._announce()

    def _reap(self) -> None:
        """Find workers whose processes have ended, and set when each is started again."""
        for slot in self._slots:
            if not slot.pid:
                continue
            pid, status = os.waitpid(slot.pid, os.WNOHANG)
            if not pid:
                continue
            was_ready, now = pid in self._ready, time.monotonic()
            self._ready.discard(pid)
            slot.pid = 0
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


def _send_ready(descriptor: int) -> None:
    os.write(descriptor, f"{os.getpid()}\n".encode())


def _remove_gauges(pid: int) -> None:
    """Remove a dead worker's gauges from the metrics. Its counts stay."""
    for path in Path(os.environ[MULTIPROCESS_VARIABLE]).glob(f"gauge_live*_{pid}.db"):
        path.unlink(missing_ok=True)
