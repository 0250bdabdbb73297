"""Train one model in several processes: each process gets a share of every batch, and the gradients are summed.

`python -m paddle.distributed.launch` starts the processes and numbers them in environment variables. A step equals the
step of a single process on the whole batch: each share's gradient is weighted by its part of the batch.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import paddle
from paddle import Tensor, nn
from paddle.base import core

from paddle_ranker.errors import RankerError
from paddle_ranker.options import note

_PORT_SECONDS = 120.0  # twice as long as the system keeps the port of a closed connection
BUCKET = 1 << 24  # maximum number of values summed at once: 64 MB of float32 in addition to the gradients


class ProcessGroup:
    """The processes of this training; a single process if the launcher started no others."""

    def __init__(self) -> None:
        self.size = int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))
        self.rank = int(os.environ.get("PADDLE_TRAINER_ID", "0"))
        self._waits = 0
        if self.size > 1:
            if self.is_first:
                _wait_for_port(os.environ.get("PADDLE_MASTER", ""))
            with _naming_the_cause():
                paddle.distributed.init_parallel_env()

    @property
    def is_first(self) -> bool:
        """Return True if this process prints and saves."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until every process has called this method, however long that takes.

        The other methods fail if a process is 30 s behind, which is gloo's timeout; Paddle does not change it. So call
        `wait` wherever one process may spend that long on work that the others skip. The processes meet through the
        TCP store by which they found each other; a call costs about 0.1 s.
        """
        if self.size == 1:
            return
        self._waits += 1
        with _naming_the_cause():
            store, place = core.create_or_get_global_tcp_store(), f"wait {self._waits}"
            here = store.add(place, 1)
            while here < self.size:
                time.sleep(0.01)
                here = store.add(place, 0)

    def broadcast(self, network: nn.Layer) -> None:
        """Copy the first process's parameters to every process."""
        if self.size > 1:
            with _naming_the_cause():
                for tensor in network.state_dict().values():
                    paddle.distributed.broadcast(tensor, src=0)

    def sum_gradients(self, network: nn.Layer) -> None:
        """Replace every gradient by its sum over the processes."""
        if self.size == 1:
            return
        # Gradients are summed in buckets: each all-reduce costs 1 to 2 ms, independent of its size, and a small model
        # has 70 parameters.
        for bucket in _buckets([p for p in network.parameters() if not p.stop_gradient]):
            gradients = [p.grad if p.grad is not None else paddle.zeros_like(p) for p in bucket]
            total = paddle.concat([gradient.reshape([-1]) for gradient in gradients])
            _all_reduce(total)
            for parameter, piece in zip(bucket, paddle.split(total, [g.size for g in gradients])):
                parameter.grad = piece.reshape(parameter.shape)

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of an array over the processes, in its dtype (float32 or float64)."""
        if self.size == 1:
            return values
        total = paddle.to_tensor(values)
        _all_reduce(total)
        summed: np.ndarray = total.numpy()
        return summed

    def any(self, flag: bool) -> bool:
        """Return whether `flag` holds in any process."""
        return bool(self.sum(np.array([float(flag)]))[0])


def _wait_for_port(place: str) -> None:
    """Wait until no other program uses the port of `place` (host:port), where the processes meet.

    The launcher found it free, but that was seconds ago, and the system may give this port to any program's connection.
    Raises `RankerError` if the port does not become free.
    """
    port, end = place.rpartition(":")[2], time.monotonic() + _PORT_SECONDS
    is_noted = False
    while port.isdecimal() and not _is_free(int(port)):
        if time.monotonic() >= end:
            raise RankerError(
                f"port {port}, where the processes of this training meet, was free when the launcher chose it, and now "
                "another program uses it: start the training once more, with PORT_RANGE=20000:32000 before the line"
            )
        if not is_noted:
            note(f"port {port}, where the processes of this training meet, is in use: waiting until it is free")
            is_noted = True
        time.sleep(0.05)


def _is_free(port: int) -> bool:
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # Paddle sets it as well
        try:
            tried.bind(("", port))
        except OSError as error:
            return error.errno != errno.EADDRINUSE  # Paddle reports any other error
    return True


def _buckets(parameters: list[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for parameter in parameters:
        if bucket and sum(p.size for p in bucket) + parameter.size > BUCKET:
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket


def _all_reduce(tensor: Tensor) -> None:
    with _naming_the_cause():
        paddle.distributed.all_reduce(tensor)


@contextmanager
def _naming_the_cause() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError, OSError) as error:  # gloo, NCCL and the store raise these if a process is gone
        raise RankerError(
            f"the connection to the other processes of this training broke ({str(error).splitlines()[-1].strip()}): "
            "one of them has ended or does not answer, and its own error is in its log (log/workerlog.<number>); "
            "--resume goes on from the last checkpoint"
        ) from error
