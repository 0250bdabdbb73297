"""Start the server: ports, processes, and the line that prints its addresses."""

from __future__ import annotations

import dataclasses
import errno
import importlib.util
import os
import resource
import socket
import sys
from contextlib import suppress

from paddle_ranker import runtime
from paddle_ranker.errors import DependencyError, RankerError
from paddle_ranker.registry import load_named_plugins
from paddle_ranker.serving.core.limits import API_KEY_VARIABLE
from paddle_ranker.serving.core.metrics import MULTIPROCESS_VARIABLE
from paddle_ranker.serving.core.server_config import ServeConfig
from paddle_ranker.serving.http.endpoints import ENDPOINTS
from paddle_ranker.serving.process.protocols import BACKLOG, PROTOCOLS
from paddle_ranker.serving.slots.slot_kinds import served_by

_FILES_OF_CONNECTION, _OTHER_FILES = 3, 128  # a gRPC connection has a pipe to grpcio; models, threads, an index
_PACKAGES = ("starlette", "uvicorn", "httptools", "pydantic", "prometheus_client", "grpc", "google")  # google.protobuf


def run(config: ServeConfig) -> int:
    """Serve until a signal ends it. Return the exit status.

    At SIGTERM or SIGINT it stops accepting, answers requests in flight and returns 0. A second signal ends the process
    at once. At SIGHUP it reloads the models, and switches to the new ones if all pass their checks.

    Raises `RankerError` if a port is taken, `DependencyError` if a package is missing, `CheckpointError` and the like
    if a model cannot be loaded.
    """
    # Another program's, such as the gunicorn that started this process. Plugins may import what reads it.
    os.environ.pop(MULTIPROCESS_VARIABLE, None)
    require_packages()
    load_named_plugins()  # not every caller has loaded them
    served_by(config)
    config = fit_connections(config)
    sockets = listen(config)
    try:
        if not (config.is_loopback or config.api_key):
            print(
                f"warning: {config.host} is open to other machines, and everyone who reaches it may ask: set "
                f"{API_KEY_VARIABLE}, or listen on 127.0.0.1",
                file=sys.stderr,
            )
        threads = config.cpu_threads or max(1, runtime.usable_cores() // config.workers)
        config = dataclasses.replace(config, cpu_threads=threads)
        runtime.prepare_command(threads)
        if config.workers > 1:
            from paddle_ranker.serving.process.supervisor import supervise

            return supervise(config, sockets, lambda: announce(config, sockets))
        from paddle_ranker.serving.process.worker import Worker

        return Worker(config, sockets, on_ready=lambda: announce(config, sockets)).run()
    finally:
        for listener in sockets:
            listener.close()


def require_packages() -> None:
    """Raise `DependencyError` if a package that the server needs is not installed."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise DependencyError(f"serving needs {', '.join(missing)}: pip install 'paddle-ranker[serving]'")


def listen(config: ServeConfig) -> list[socket.socket]:
    """Return listening sockets, one for each of the configuration's ports. `http_port`, if set, comes last.

    Raises `RankerError` for a port on which it cannot listen.
    """
    sockets: list[socket.socket] = []
    for port in (*config.ports, *(() if config.http_port is None else (config.http_port,))):
        try:
            addresses = socket.getaddrinfo(config.address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, kind, protocol, _, address = addresses[0]
            listener = socket.socket(family, kind, protocol)
            sockets.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else a port rests for a minute
            _keep_alive(listener)
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError as error:
            for opened in sockets:
                opened.close()
            reason = f"cannot listen there ({error.strerror or error})"
            if error.errno == errno.EADDRINUSE:
                reason = "another program listens there already; choose another --port (0: a free one)"
            raise RankerError(f"{config.host}:{port}: {reason}") from error
        listener.setblocking(False)
    return sockets


def announce(config: ServeConfig, sockets: list[socket.socket]) -> None:
    """Print the served models and the addresses."""
    places = [_url(listener.getsockname()) for listener in sockets]
    count = len(config.ports)
    kinds = served_by(config)
    served = " and ".join(str(kind.folder(config)) for kind in kinds.values())
    titles = ", ".join(sorted((protocol.title for protocol in PROTOCOLS.values()), key=str.lower))
    alone = "".join(f" and {place} (HTTP)" for place in places[count:])
    print(f"serving {served} on {' and '.join(places[:count])} ({titles}){alone}", flush=True)
    for endpoint in ENDPOINTS.values():
        if kinds.keys() >= {*endpoint.slots}:
            for what, path in endpoint.announced(config).items():
                print(f"{what}: {places[0]}{path}", flush=True)
    notify_system()


def notify_system() -> None:
    """Tell systemd that the server is ready, if systemd has started it with `Type=notify`."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
            notified.sendto(b"READY=1", f"\0{address[1:]}" if address.startswith("@") else address)


def _url(address: tuple[str, int]) -> str:
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"http://{host}:{address[1]}"


def fit_connections(config: ServeConfig) -> ServeConfig:
    """Raise this process's limit of open files to what `config.connections` take, or else lower `connections`."""
    wanted = _FILES_OF_CONNECTION * config.connections + _OTHER_FILES
    allowed = allow_open_files(wanted)
    if allowed >= wanted:
        return config
    most = max(1, (allowed - _OTHER_FILES) // _FILES_OF_CONNECTION)
    print(
        f"warning: this process may open {allowed:,} files, so each worker takes {most:,} connections and not "
        f"--connections {config.connections:,}: raise the limit to {wanted:,} (ulimit -n, LimitNOFILE=)",
        file=sys.stderr,
    )
    return dataclasses.replace(config, connections=most)


def allow_open_files(wanted: int) -> int:
    """Raise this process's limit of open files to `wanted`, as far as the system allows. Return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    return wanted if soft == resource.RLIM_INFINITY else min(soft, wanted)


_SILENCE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}  # seconds, seconds between tries, tries
_UNTAKEN_MS = 60_000  # the system closes a connection whose peer has received nothing for this long


def _keep_alive(listener: socket.socket) -> None:
    """Make the system close connections that `listener` accepts once their peer is gone, or takes nothing for 60 s."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in {**_SILENCE, "TCP_USER_TIMEOUT": _UNTAKEN_MS}.items():
        if hasattr(socket, name):
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
