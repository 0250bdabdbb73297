"""Use a cluster of Ray: join one, or start one on this machine for a command.

with connected("local"):
    ...  # ray.data, ray.serve
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from paddle_ranker.errors import DependencyError, RankerError, brief, quoted
from paddle_ranker.interrupts import take_back_signals
from paddle_ranker.libraries import switch_off_telemetry
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.options import AUTO_DEVICE, require_ray_device
from paddle_ranker.runtime import usable_cores
from paddle_ranker.scoring.engines.engine_registry import AUTO, DEFAULT, DYGRAPH, ENGINES, EngineKind, exported_engines

LOCAL = "local"
_ANSWER_SECONDS = 5.0


@contextmanager
def connected(address: str, cores: int = 0) -> Iterator[None]:
    """Use a cluster of Ray in the block. At the end, leave the cluster, or end it if this call started it.

    address: `local` starts a cluster on this machine alone; `auto` or `HOST:PORT` join a running one. Ray admits only
        processes with the token of the cluster (`RAY_AUTH_TOKEN`, or the file `.ray/auth_token` in HOME)
    cores: CPU cores of a cluster that is started; 0: all that this process may use

    If this process is in a cluster already, the block uses that cluster and does not leave it. Raises `RankerError` for
    a cluster that cannot be joined, `DependencyError` without Ray.
    """
    ray = require_ray()
    if ray.is_initialized():
        yield
        return
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    logging.getLogger("ray").setLevel(logging.ERROR)  # Ray warns that there is a token
    handler = signal.getsignal(signal.SIGTERM)
    try:
        if address == LOCAL:
            ray.init(LOCAL, num_cpus=cores or usable_cores(), include_dashboard=False, **quiet)
        else:
            host, _, port = address.rpartition(":")
            if host and port.isdecimal():  # Ray itself tries for many minutes
                socket.create_connection((host, int(port)), _ANSWER_SECONDS).close()
            ray.init(address, **quiet)
        take_back_signals(handler)  # Ray's handler would end the process at once, with a traceback
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise RankerError(
            f"--ray {quoted(address)}: cannot be joined ({brief(str(error))}); see that it runs (ray status), that "
            "this machine has its token, and the same versions of Ray and Python"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def gpus_for(load: LoadOptions) -> int:
    """Return how many GPUs a process that opens a model with the options `load` must request from Ray: 0 or 1.

    For the device `auto`, the result is 1 if a machine of the cluster has a GPU and the engine would compute on that
    GPU. A Ray task on such a machine finds this out, since packages and GPUs differ between machines. The task requests
    no GPU, since all may be in use, for example by an earlier version of a service.

    Raises `UsageError` for a device with an index, or of another kind than cpu, gpu and auto.
    """
    require_ray_device(load.device)
    if load.device != AUTO_DEVICE:
        return int(load.device == "gpu")
    ray = require_ray()
    if not ray.is_initialized():
        ray.init()
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    machines = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU", 0) >= 1]
    if not machines:
        return 0
    names = exported_engines() if load.engine == AUTO else [load.engine or DEFAULT]
    kinds = [ENGINES[DEFAULT if name == DYGRAPH else name] for name in names]  # both choose a device as Paddle does
    on_machine = NodeAffinitySchedulingStrategy(machines[0], soft=True)
    # `max_calls`: the process, which has loaded Paddle, ends.
    ask = ray.remote(num_cpus=0, max_calls=1, scheduling_strategy=on_machine)(_use_gpu)
    return int(ray.get(ask.remote(kinds, load.precision)))


def _use_gpu(kinds: Sequence[EngineKind], precision: str) -> bool:
    """Return whether one of the engines, in this precision, would compute on a GPU of this machine.

    If Ray has hidden the GPUs from this process, they become visible again.
    """
    if not os.environ.get("CUDA_VISIBLE_DEVICES", "0"):  # older versions of Ray hide GPUs from tasks that request none
        del os.environ["CUDA_VISIBLE_DEVICES"]
    devices = [kind.device_for(precision) for kind in kinds]
    return any(device is None or device.name != "cpu" for device in devices)


def hide_other_gpus() -> None:
    """Hide all GPUs from this process of Ray if it has requested none. Call this before Paddle is imported.

    Ray leaves all GPUs visible to such processes, and each would take the first one.
    """
    if not require_ray().get_gpu_ids():
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"


def require_ray():  # type: ignore[no-untyped-def]  # a module
    """Import Ray and return the module. Raises `DependencyError` if it is missing."""
    switch_off_telemetry()  # before it is imported
    try:
        import ray
    except ImportError as error:
        how = "pip install 'paddle-ranker[scale]'"
        if sys.version_info < (3, 10):
            how = "it needs Python 3.10 or later: bash scripts/setup.sh makes .venv"
        raise DependencyError(f"clusters need Ray ({error}): {how}") from error
    return ray
