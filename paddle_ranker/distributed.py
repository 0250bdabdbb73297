"""Train one model in several processes: each process gets a share of every batch, and the gradients are summed.

`python -m paddle.distributed.launch` starts the processes, on one machine or several, and numbers them in environment
variables. A step has the same effect as the step of a single process on the whole batch, since the gradient of a
share is weighted by its size.
"""

from __future__ import annotations

import errno
import math
import os
import selectors
import socket
import struct
import sys
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

import numpy as np
import paddle
from paddle import Tensor, nn

from paddle_ranker.errors import RankerError, brief
from paddle_ranker.options import note

_PORT_SECONDS = 120.0  # wait for the port to be free: twice as long as the system keeps a closed connection's port
_JOIN_SECONDS = 300.0  # wait for all processes to connect: loading Paddle from a cold shared disk takes minutes
_NOTE_SECONDS = 15.0
_GREETING = struct.Struct("!16sI")  # what a process sends first: `_WORD`, its rank
_WORD = b"paddle-ranker 01"
_STUCK_SECONDS = 3.0  # then a process exits after a peer has ended: gloo raises an error earlier, NCCL never does
BUCKET = 1 << 24  # maximum number of values summed at once: 64 MB of float32 in addition to the gradients


def launched() -> int:
    """Return how many processes the launcher started; 1 without a launcher."""
    return int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))


class ProcessGroup:
    """The processes of this training: all that the launcher started or, without a launcher, this process alone."""

    def __init__(self) -> None:
        self.size = launched()
        self.rank = int(os.environ.get("PADDLE_TRAINER_ID", "0"))
        self._waits = 0
        if self.size > 1:
            try:
                self._peers = _Peers(self.rank, self.size)
            except OSError as error:  # a process ended just when all had come
                raise RankerError(_broken(str(error))) from error
            if paddle.device.get_device() == "cpu":  # a GPU build would take NCCL, which sums nothing on a CPU
                os.environ.setdefault("PADDLE_DISTRI_BACKEND", "gloo")
            with self.together():
                paddle.distributed.init_parallel_env()

    @property
    def is_first(self) -> bool:
        """Whether this is the process that prints and saves."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until every process has called this method, however long that takes.

        The collective methods of this class fail if a process is 30 s late, which is gloo's timeout, and Paddle cannot
        change it. So call `wait` where one process may work for 30 s while all other processes have nothing to do.
        """
        if self.size == 1:
            return
        self._waits += 1
        with self.together():
            if self.is_first:
                self._peers.receive(self._waits)
                self._peers.send()
            else:
                self._peers.send()
                self._peers.receive(self._waits)

    def require_equal(self, values: Mapping[str, object]) -> None:
        """Raise `RankerError` in every process if the processes have different values, for example of options.

        values: this process's values, by name
        """
        if self.size == 1:
            return
        for facts in ({"the names of options and files": list(values)}, values):  # sums need arrays of one length
            digests = np.array([zlib.crc32(str(value).encode()) for value in facts.values()], "float64")
            differing = [name for name, equal in zip(facts, self.sum(digests) == self.size * digests) if not equal]
            if differing:
                here = ", ".join(f"{name} (here {brief(str(facts[name]))})" for name in differing[:4])
                raise RankerError(
                    f"the processes of this training differ in {here}: give every node the same options and the same "
                    "files, on a shared file system or as copies in the same places"
                )

    def broadcast(self, network: nn.Layer) -> None:
        """Copy the first process's parameters to every process."""
        if self.size > 1:
            with self.together():
                for tensor in network.state_dict().values():
                    paddle.distributed.broadcast(tensor, src=0)

    def sum_gradients(self, network: nn.Layer) -> None:
        """Replace every gradient by its sum over the processes."""
        if self.size == 1:
            return
        # Gradients are summed in buckets: each all-reduce costs 1 to 2 ms, independent of its size, and a small model
        # has 70 parameters.
        for bucket in buckets([p for p in network.parameters() if not p.stop_gradient]):
            gradients = [p.grad if p.grad is not None else paddle.zeros_like(p) for p in bucket]
            total = paddle.concat([gradient.reshape([-1]) for gradient in gradients])
            self.sum_tensor(total)
            for parameter, piece in zip(bucket, paddle.split(total, [math.prod(g.shape) for g in gradients])):
                whole = piece.reshape(parameter.shape)
                if parameter.grad is None:
                    parameter.grad = whole
                else:  # the attribute's setter would wait for the device
                    paddle.assign(whole, output=parameter.grad)

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of the processes' arrays of equal shape, in their dtype (float32 or float64)."""
        if self.size == 1:
            return values
        flat = values.reshape(-1)
        summed = np.empty_like(flat)
        for start in range(0, len(flat), BUCKET):  # a GPU's memory is the training's
            total = paddle.to_tensor(flat[start : start + BUCKET])
            with self.together():
                paddle.distributed.all_reduce(total)
                summed[start : start + BUCKET] = total.numpy()
        return summed.reshape(values.shape)

    def sum_tensor(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over the processes, without copying it from its device."""
        if self.size > 1:
            with self.together():
                paddle.distributed.all_reduce(tensor)

    def any(self, flag: bool) -> bool:
        """Return whether `flag` is True in any process."""
        return bool(self.sum(np.array([float(flag)]))[0])

    @contextmanager
    def together(self) -> Iterator[None]:
        """Run collective operations in the block; raise `RankerError` if one fails, as it does if a process has ended.

        On a GPU an operation is only queued, so the code that waits for the result must be in such a block, too.
        """
        if self.size == 1:
            yield
            return
        try:
            with self._peers.needed():
                yield
        except (RuntimeError, ValueError, OSError) as error:  # gloo, NCCL and `_Peers` raise these if a process is gone
            cause = self._peers.lost(within=1.0) or str(error).splitlines()[-1].strip()
            raise RankerError(_broken(cause)) from error


def _broken(cause: str) -> str:
    return (
        f"the connection to the other processes of this training broke ({cause}): one of them has ended or does not "
        "answer, and its own error is in its log (log/workerlog.<number>, on its node); --resume goes on from the last "
        "checkpoint"
    )


class _Peers:
    """Connections of this process. The first process is connected to every process, and every process to the first.

    Processes wait for each other by sending bytes over these connections, and notice at once if a process has ended.
    Paddle itself would wait for a lost process: for minutes while the processes connect, and for ever in NCCL. The
    connections use the port of Paddle's own store, which the first process opens afterwards.
    """

    def __init__(self, rank: int, size: int) -> None:
        place = os.environ.get("PADDLE_MASTER") or os.environ["PADDLE_TRAINER_ENDPOINTS"].split(",")[0]
        host, _, port = place.rpartition(":")
        self._links = _accept(int(port), size) if rank == 0 else {0: _connect(host, int(port), rank)}
        self._received = dict.fromkeys(self._links, 0)
        self._names = {peer: f"process {peer} on {link.getpeername()[0]}" for peer, link in self._links.items()}
        self._lost: list[str] = []
        self._needed_since = 0.0  # 0: this process works by itself
        self._changed = threading.Condition()
        for link in self._links.values():
            _notice_silence(link)
        _let_gloo_use(next(iter(self._links.values())).getsockname()[0])
        threading.Thread(target=self._watch, daemon=True).start()

    def send(self) -> None:
        for link in self._links.values():
            link.sendall(b".")

    def receive(self, count: int) -> None:
        """Wait until every peer has sent `count` bytes in total; raise `ConnectionError` if a peer ends before that."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._lost) or min(self._received.values()) >= count)
            if min(self._received.values()) < count:
                raise ConnectionError(self._lost[0])

    def lost(self, within: float) -> str:
        """Wait at most `within` seconds for a peer to end; return a text that names it, or "" if no peer ends."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._lost), within)
            return self._lost[0] if self._lost else ""

    @contextmanager
    def needed(self) -> Iterator[None]:
        """Mark the block as code that needs all peers: if a peer ends and the block then hangs, this process exits."""
        self._needed_since = time.monotonic()
        try:
            yield
        finally:
            self._needed_since = 0.0

    def _watch(self) -> None:
        """Receive the peers' bytes, and notice when a peer ends; runs in a thread.

        If this process has been in a block of `needed` for `_STUCK_SECONDS` after a peer ended, exit the process.
        """
        selector, lost_at = selectors.DefaultSelector(), 0.0
        for peer, link in self._links.items():
            selector.register(link, selectors.EVENT_READ, peer)
        while True:
            for key, _ in selector.select(0.2 if lost_at else None):
                data = b""
                with suppress(OSError):
                    data = self._links[key.data].recv(1024)
                with self._changed:
                    self._received[key.data] += len(data)
                    if not data:
                        selector.unregister(key.fileobj)
                        self._lost.append(f"{self._names[key.data]} has ended")
                        lost_at = lost_at or time.monotonic()
                    self._changed.notify_all()
            since = self._needed_since
            if lost_at and since and time.monotonic() - max(since, lost_at) > _STUCK_SECONDS:
                print(f"error: {_broken(self._lost[0])}", file=sys.stderr, flush=True)
                os._exit(1)


def _accept(port: int, size: int) -> dict[int, socket.socket]:
    """Accept the connections of all other processes; return them by rank.

    port: port to listen on
    size: number of processes

    Raises `RankerError` if a process does not connect, or if its connection breaks.
    """
    links: dict[int, socket.socket] = {}
    with _listen(port) as listener:
        began, is_noted = time.monotonic(), False
        listener.settimeout(0.5)
        while len(links) < size - 1:
            with suppress(OSError):  # the timeout, or a visitor who says nothing
                link, _ = listener.accept()
                link.settimeout(5.0)
                word, rank = _GREETING.unpack(link.recv(_GREETING.size).ljust(_GREETING.size))
                if word == _WORD and 0 < rank < size:
                    link.setblocking(False)
                    links[rank] = link
            for rank, link in links.items():
                if _has_ended(link):
                    raise RankerError(_broken(f"process {rank} on {link.getpeername()[0]} has ended"))
            missing = ", ".join(str(rank) for rank in range(1, size) if rank not in links)
            if missing and time.monotonic() - began > _NOTE_SECONDS and not is_noted:
                note(
                    f"these processes of the training have not started yet, see their output on their nodes: {missing}"
                )
                is_noted = True
            if missing and time.monotonic() - began > _JOIN_SECONDS:
                raise RankerError(_broken(f"not started within {_JOIN_SECONDS:.0f} s: {missing}"))
    for link in links.values():
        link.setblocking(True)
        link.sendall(_WORD)
    return links


def _connect(host: str, port: int, rank: int) -> socket.socket:
    """Connect to the first process, and wait until all processes are connected; return the connection.

    rank: rank of this process
    """
    end = time.monotonic() + _PORT_SECONDS + _JOIN_SECONDS
    while True:
        try:
            link = socket.create_connection((host, port), timeout=5.0)
            break
        except OSError as error:  # the first process listens only after it has loaded Paddle
            if time.monotonic() > end:
                raise RankerError(_broken(f"process 0 does not listen on {host}:{port}: {error}")) from error
            time.sleep(0.05)
    with suppress(OSError):
        link.settimeout(end - time.monotonic())
        link.sendall(_GREETING.pack(_WORD, rank))
        if link.recv(len(_WORD)) == _WORD:
            link.setblocking(True)
            return link
    raise RankerError(_broken(f"process 0 on {host} has ended"))


def _has_ended(link: socket.socket) -> bool:
    try:
        return not link.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _notice_silence(link: socket.socket) -> None:
    """Make a connection fail within 20 s after the other machine has lost power or network."""
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("KEEPIDLE", 5), ("KEEPINTVL", 5), ("KEEPCNT", 3), ("USER_TIMEOUT", 20_000)):
        if hasattr(socket, f"TCP_{name}"):  # Linux has all of them
            link.setsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_{name}"), value)


def _let_gloo_use(address: str) -> None:
    """Let gloo use the network interface that has `address`, an address of this machine.

    By default gloo uses the address of the host's name. Debian maps this name to 127.0.1.1, which other machines cannot
    reach.
    """
    if "GLOO_SOCKET_IFNAME" in os.environ or not sys.platform.startswith("linux"):
        return
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # an interface without an IPv4 address
                answer = fcntl.ioctl(probe.fileno(), 0x8915, struct.pack("256s", name.encode()[:15]))  # SIOCGIFADDR
                if socket.inet_ntoa(answer[20:24]) == address:
                    os.environ["GLOO_SOCKET_IFNAME"] = name


def _listen(port: int) -> socket.socket:
    """Listen on the port where the processes meet; wait if another program uses it.

    The launcher found the port free some seconds ago, but the system may have given it to another program since then.
    Raises `RankerError` if the port does not become free.
    """
    end, is_noted = time.monotonic() + _PORT_SECONDS, False
    while True:
        try:
            # Both this socket and Paddle's on the same port afterwards may be bound beside connections to that port.
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("", port))
            listener.listen(1024)
            return listener
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRINUSE or time.monotonic() >= end:
                raise RankerError(
                    f"port {port}, where the processes of this training meet, was free when the launcher chose it, and "
                    f"now cannot be used ({error.strerror}), often since another program uses it: start the training "
                    "once more, with PORT_RANGE=20000:32000 before the line"
                ) from error
        if not is_noted:
            note(f"port {port}, where the processes of this training meet, is in use: waiting until it is free")
            is_noted = True
        time.sleep(0.05)


def buckets(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    """Yield the tensors in order, in lists of at most `BUCKET` values in total; a larger tensor is alone in a list."""
    bucket, held = list[Tensor](), 0
    for tensor in tensors:
        size = math.prod(tensor.shape)  # `Tensor.size` takes ten times as long, in every step
        if bucket and held + size > BUCKET:
            yield bucket
            bucket, held = [], 0
        bucket.append(tensor)
        held += size
    if bucket:
        yield bucket
