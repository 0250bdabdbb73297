"""Clusters of Ray: joined, or started on this machine for one command.

with connected("local"):
    ...  # ray.data, ray.serve
"""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from paddle_ranker.errors import DependencyError, RankerError, brief, quoted
from paddle_ranker.libraries import switch_off_telemetry
from paddle_ranker.runtime import usable_cores

LOCAL = "local"
_ANSWER_SECONDS = 5.0


@contextmanager
def connected(address: str, cores: int = 0) -> Iterator[None]:
    """Use a cluster; leave it, and end it if it was started here.

    address: `local` starts a cluster of this machine alone; `auto` or `HOST:PORT` join one that runs. Ray lets in only
        who has its token (`RAY_AUTH_TOKEN`, or the file `.ray/auth_token` in HOME)
    cores: of a local cluster; 0: all of this process

    A process that has joined a cluster already keeps using that one. Raises `RankerError` for a cluster that cannot be
    joined, `DependencyError` without Ray.
    """
    ray = require_ray()
    if ray.is_initialized():
        yield
        return
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    logging.getLogger("ray").setLevel(logging.ERROR)  # it warns that there is a token
    try:
        if address == LOCAL:
            ray.init(LOCAL, num_cpus=cores or usable_cores(), include_dashboard=False, **quiet)
        else:
            host, _, port = address.rpartition(":")
            if host and port.isdecimal():  # Ray itself tries for many minutes
                socket.create_connection((host, int(port)), _ANSWER_SECONDS).close()
            ray.init(address, **quiet)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise RankerError(
            f"--ray {quoted(address)}: cannot be joined ({brief(str(error))}); see that it runs (ray status), that "
            "this machine has its token, and the same versions of Ray and Python"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def require_ray():  # type: ignore[no-untyped-def]  # a module
    """Return the module `ray`; raises `DependencyError` if it is missing."""
    switch_off_telemetry()  # before it is imported
    try:
        import ray
    except ImportError as error:
        how = "pip install 'paddle-ranker[scale]'"
        if sys.version_info < (3, 10):
            how = "it needs Python 3.10 or later: bash scripts/setup.sh makes .venv"
        raise DependencyError(f"clusters need Ray ({error}): {how}") from error
    return ray
