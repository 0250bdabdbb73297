"""Use a cluster of Ray: join one, or start one on this machine for a command.

with connected("local"):
    ...  # ray.data, ray.serve
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from paddle_ranker.errors import DependencyError, RankerError, UsageError, quoted
from paddle_ranker.interrupts import take_back_signals
from paddle_ranker.libraries import AUTO_DEVICE, switch_off_telemetry
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.options import require_ray_device
from paddle_ranker.options.declare import require_cluster
from paddle_ranker.runtime import usable_cores
from paddle_ranker.scoring.engines.engine_registry import AUTO, DEFAULT, DYGRAPH, ENGINES, EngineKind, exported_engines
from paddle_ranker.storage.atomic import make_private_file

LOCAL, _RUNNING = "local", "auto"
_ANSWER_SECONDS = 5.0
_REMOVALS, _ENDING_SECONDS = 20, 0.1  # attempts to delete the folder of a cluster that ends, and the time between two
_ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"  # a call of Ray's head that needs the token and changes nothing


@contextmanager
def connected(address: str, cores: int = 0, *, allow_open: bool = False) -> Iterator[None]:
    """Use a cluster of Ray in the block. At the end, leave the cluster, or end it if this call started it.

    address: `local` starts a cluster on this machine alone; `auto` or `HOST:PORT` join a running one. Ray admits only
        processes with the token of the cluster (`RAY_AUTH_TOKEN`, or the file `.ray/auth_token` in HOME)
    cores: CPU cores of a cluster that is started; 0: all that this process may use
    allow_open: whether a running cluster may be joined that admits processes without a token

    If this process is in a cluster already, the block uses that cluster and does not leave it. Raises `RankerError` for
    a cluster that cannot be joined, `UsageError` for one without a token, `DependencyError` without Ray.
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
            _set_mode("token")
            _keep_token_private()
            ray.init(LOCAL, num_cpus=cores or usable_cores(), include_dashboard=False, **quiet)
        else:
            ray.init(_admitted(address, allow_open), **quiet)
        take_back_signals(handler)  # Ray's handler would end the process at once, with a traceback
    except RankerError:
        raise
    except Exception as error:  # Ray raises plain ones, too, for example if a machine is too busy to start in time
        what = "be started" if address == LOCAL else "be joined"
        how = "see that it runs (ray status), and that this machine has the same versions of Ray and Python"
        if address == LOCAL:
            how = "run the command again when this machine is less busy"
        raise RankerError(f"--ray {quoted(address)}: cannot {what} ({error}); {how}") from error
    session = _session_of(ray) if address == LOCAL else None
    try:
        yield
    finally:
        ray.shutdown()
        if session is not None:
            _remove_session(session)


def _session_of(ray: Any) -> Path:
    """Return the folder of logs and sockets, in the temporary folder, of the cluster that this process has started."""
    return Path(ray._private.worker._global_node.get_session_dir_path())


def _remove_session(session: Path) -> None:
    """Delete the folder of a cluster that has ended, and the link to it: Ray keeps both for ever."""
    latest = session.with_name("session_latest")
    with suppress(OSError):
        if os.readlink(latest) in (session.name, str(session)):
            latest.unlink()
    for _ in range(_REMOVALS):  # a process that ends may still write a log
        shutil.rmtree(session, ignore_errors=True)
        if not session.exists():
            return
        time.sleep(_ENDING_SECONDS)


def _admitted(address: str, allow_open: bool) -> str:
    """Return the `HOST:PORT` of a running cluster, and let this process show the token if the cluster asks for one.

    Ray itself does so only for clusters that it finds on this machine (ray-project/ray#66248), and tries for minutes
    where nobody listens or the token is wrong.
    """
    from ray._private.services import canonicalize_bootstrap_address

    if address == _RUNNING and (stated := os.environ.get("RAY_ADDRESS")):
        require_cluster(stated, "RAY_ADDRESS")
    found = canonicalize_bootstrap_address(address)
    host, _, port = (found or "").rpartition(":")
    if not host:
        raise UsageError(f"RAY_ADDRESS {LOCAL}: no cluster would be joined; give --ray {LOCAL}, or unset it")
    socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS).close()
    _set_mode("disabled")
    if _admits(f"{host}:{port}"):
        if not allow_open:
            raise UsageError(
                f"--ray {quoted(address)}: the cluster asks for no token, so whoever reaches it runs code on all its "
                "machines and reads what they read; start it with RAY_AUTH_MODE=token (ray get-auth-token --generate), "
                "or accept this by --ray_open true"
            )
        return f"{host}:{port}"
    _set_mode("token")
    if not _token_loader().has_token(ignore_auth_mode=True):
        problem = "and this machine has none"
    elif not _admits(f"{host}:{port}"):
        problem = "and that of this machine is another one"
    else:
        return f"{host}:{port}"
    raise RankerError(
        f"--ray {quoted(address)}: the cluster asks for its token, {problem}; copy the head's .ray/auth_token to HOME, "
        "or set RAY_AUTH_TOKEN"
    )


def _admits(address: str) -> bool:
    """Return whether a cluster answers this process, as it is now. Raises `ConnectionError` if nobody answers."""
    import grpc
    from ray._private.grpc_utils import init_grpc_channel

    with init_grpc_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(_ALIVE)(b"", timeout=_ANSWER_SECONDS)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAUTHENTICATED:
                raise ConnectionError(error.details()) from error
            return False
        return True


def _set_mode(mode: str) -> None:
    """Let Ray in this process, and in those that it starts, use the token or not: `token` or `disabled`."""
    from ray._raylet import Config  # type: ignore[attr-defined]

    os.environ["RAY_AUTH_MODE"] = mode
    Config.initialize("")  # Ray has read the variable when it was imported


def _token_loader() -> Any:
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

    return AuthenticationTokenLoader.instance()


def _keep_token_private() -> None:
    """Make a token if there is none, and let only this user read the file in HOME. Ray makes it for all to read."""
    file = Path.home() / ".ray" / "auth_token"
    if not _token_loader().has_token(ignore_auth_mode=True):
        from ray._private.authentication.authentication_token_generator import generate_new_authentication_token

        file.parent.mkdir(mode=0o700, exist_ok=True)
        make_private_file(file, generate_new_authentication_token())
        _token_loader().reset_cache()
    if file.exists() and file.stat().st_mode & 0o077:
        file.chmod(0o600)


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
