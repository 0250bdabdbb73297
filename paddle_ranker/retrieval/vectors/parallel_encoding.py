"""Compute the vectors of many texts, in order, in this process or in several processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Union

from paddle_ranker.array_types import Vectors
from paddle_ranker.errors import RankerError
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.options import note_at_end
from paddle_ranker.retrieval.vectors.text_vectors import Tower, text_parts
from paddle_ranker.runtime import PROCESS_VARIABLE, prepare, usable_cores
from paddle_ranker.storage.untrusted import Unchecked

Connection = Unchecked  # of multiprocessing

_ENDED = "a process that makes vectors has ended; there may be too little memory: take fewer --processes"


@dataclass(frozen=True)
class EncodePlan:
    """Settings for computing vectors of texts.

    source, options, batch_size, folder: as for `Tower.open`
    queries: whether the texts are queries
    processes: number of processes, among which texts and threads are divided
    """

    source: str
    options: LoadOptions
    batch_size: int = 256
    queries: bool = False
    processes: int = 1
    folder: Path = Path()

    def open_tower(self) -> Tower:
        return Tower.open(self.source, self.options, self.batch_size, folder=self.folder)


class Encoding:
    """Work of computing the vectors of texts; counts texts that are truncated."""

    def __init__(self, plan: EncodePlan):
        self.plan, self._cut, self._length = plan, 0, 0
        note_at_end(self)

    def counts(self) -> dict[str, int]:
        """Return how many texts the other processes truncated, by message."""
        return {f"texts were cut to {self._length} tokens": self._cut}

    def run(self, texts: Iterable[str]) -> Iterator[Vectors]:
        """Yield the vectors of the texts, `[n, size]`, some thousand at a time; without texts, one empty array."""
        if self.plan.processes == 1:
            yield from self.plan.open_tower().stream(texts, self.plan.queries)
        else:
            yield from self._by_processes(texts)

    def _by_processes(self, texts: Iterable[str]) -> Iterator[Vectors]:
        parts = text_parts(texts)
        with ExitStack() as stack:
            idle = [stack.enter_context(closing(_start(self.plan, number))) for number in range(self.plan.processes)]
            busy: deque[Connection] = deque()
            for worker in idle:
                part = next(parts, None if busy else [])
                if part is not None:
                    worker.send(part)
                    busy.append(worker)
            while busy:
                worker = busy.popleft()
                vectors, cut = self._received(worker)
                self._cut += cut
                part = next(parts, None)
                if part is not None:
                    worker.send(part)
                    busy.append(worker)
                yield vectors

    def _received(self, worker: Connection) -> tuple[Vectors, int]:
        try:
            answer = worker.recv()
        except (EOFError, OSError) as error:
            raise RankerError(_ENDED) from error
        if isinstance(answer, str):
            raise RankerError(answer)
        vectors, cut, self._length = answer
        return vectors, cut


def _start(plan: EncodePlan, number: int) -> Connection:
    """Start a process that computes vectors; return the connection to it, which ends the process when it is closed."""
    threads = plan.options.threads or max(1, usable_cores() // plan.processes)
    plan = replace(plan, options=replace(plan.options, threads=threads))
    context = multiprocessing.get_context("spawn")  # a forked process would have locks that no thread releases
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, plan, number), daemon=True)
    process.start()
    theirs.close()  # so that `ours` reports the end of the process
    return ours


def _work(connection: Connection, plan: EncodePlan, number: int) -> None:
    """Receive lists of texts and send their vectors, until the connection is closed or the parent process is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first process ends this one
    os.environ["PADDLE_TRAINER_ID"] = str(number)  # only the first process prints notes
    os.environ[PROCESS_VARIABLE] = str(number)
    answer: Union[str, tuple[Vectors, int, int]]
    try:
        prepare(plan.options.threads)
        tower = plan.open_tower()
        while True:
            texts = connection.recv()
            before = tower.cut
            vectors = tower.query_vectors(texts) if plan.queries else tower.vectors(texts)
            connection.send((vectors, tower.cut - before, tower.encoder.max_length))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except Exception as error:
        answer = f"{error}" if isinstance(error, RankerError) else f"{type(error).__name__}: {error}"
        connection.send(answer)
