"""A server's models on Ray Serve: replicas with rankers, towers and indexes; separate replicas for each shard.

Serve's proxy takes the connections. A replica has the server's own application, with the routes, limits, answers and
queue of `paddle-ranker serve`. It is ready when its models are loaded, and ends when its requests are answered.

    serve.run(application({"model": "checkpoint/best", "replicas": "1:4"}))
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional, cast

from paddle_ranker import runtime
from paddle_ranker.addresses import address_of, versions_of
from paddle_ranker.errors import RankerError, UsageError, quoted
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.options import Options, given_of, note, option, options_from, require_ray_device
from paddle_ranker.options.declare import fields_of, shown_name
from paddle_ranker.registry import load_named_plugins
from paddle_ranker.retrieval.index.shards import shard_folders
from paddle_ranker.scale.cluster import gpus_for, hide_other_gpus, require_ray
from paddle_ranker.serving.core.limits import API_KEY_VARIABLE
from paddle_ranker.serving.core.server_config import RANKER_SLOT, ServeConfig
from paddle_ranker.serving.slots.index_options import INDEX, IndexSlotOptions
from paddle_ranker.serving.slots.slot_kinds import SLOTS, fit_models, serve_options, served_by, with_found_models
from paddle_ranker.serving.slots.tower_options import TOWER_SLOT

if TYPE_CHECKING:
    from paddle_ranker.scale.remote_calls import Call

SERVER = "server"  # name of the deployment whose replicas have the models
_CALLS = 8  # most calls of a replica to one shard at the same time
_SHARD_SECONDS, _START_SECONDS = 5.0, 120.0  # time limits of a shard: for a call, and to start
_PLACE_SECONDS = 10.0  # for which a trial of a new version waits for a core
_AT_ONCE = 256  # most requests in a replica; those that wait for the engine share batches
_WANTED = 16  # requests per replica that Serve aims at when it starts and ends replicas
# Arguments that are no options: whether replicas must find a key in their environment, and the version of what was at
# each address when it was deployed.
NEEDS_KEY, FETCHED = "needs_key", "fetched"
_OF_SERVER = ("workers", "more_ports", "http_port")  # options of a server that replicas and Serve's proxy replace


@dataclass(frozen=True)
class ReplicaOptions(Options):
    """Options of a deployment in addition to those of the server."""

    replicas: str = option("1", help="replicas of the models: a number, or MIN:MAX, by how many requests there are")
    shards: tuple[str, ...] = option(
        (),
        several=True,
        help="in place of --index: an index in shards, or index folders that were built alike; each shard is searched "
        "by replicas of its own",
    )
    shard_replicas: str = option("1", help="replicas of each shard, as --replicas")
    partial: bool = option(False, help="answer without a shard that is down, and say so (default: refuse)")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("replicas", "shard_replicas"):
            least, most = bounds_of(getattr(self, name), name)
            if not 1 <= least <= most:
                raise UsageError(f"--{name} {getattr(self, name)}: expected 1 or more, and MIN:MAX in this order")
        for field in () if self.shards else given_of(self, ("shard_replicas", "partial")):
            raise UsageError(f"{shown_name(field)}: is about --shards; add these, or leave it out")


def bounds_of(text: str, name: str) -> tuple[int, int]:
    """Return (least, most) of a text that states a number of replicas, such as `2` or `1:4`.

    Raises `UsageError` if `text` states no such number.

    name: the option, for the error
    """
    least, _, most = text.partition(":")
    if not least.isdecimal() or not (most or least).isdecimal():
        raise UsageError(f"--{name} {quoted(text)}: expected a number, or MIN:MAX as in 1:4")
    return int(least), int(most or least)


def deploy_options(*more: type[Options]) -> type[Any]:
    """Return the options class of a deployment: the options of `serve` and `ReplicaOptions`."""
    load_named_plugins()
    SLOTS.load_plugins()
    return dataclasses.make_dataclass("DeployOptions", [], bases=(*more, ReplicaOptions, serve_options()), frozen=True)


def arguments_of(options: Any) -> dict[str, object]:
    """Return the options that differ from their defaults, JSON-ready for `application`.

    Existing paths become absolute, and links are resolved: a replica that starts later opens the same folders. What was
    fetched from an address is named by the address, with its version: each machine fetches its own copy, of no other.

    Raises `UsageError` for options that a deployment cannot honour.
    """
    require_ray_device(options.device)
    for field in given_of(options, _OF_SERVER):
        raise UsageError(f"{shown_name(field)}: replicas are --replicas, and Serve's proxy has one port; leave it out")
    if options.shards and (SLOTS[INDEX].folder(options) is not None or options.writable):
        raise UsageError(
            "--shards: are in place of --index, and documents are added where a shard's folder is: leave out --index "
            "and --writable"
        )
    arguments: dict[str, object] = {}
    names = {field.name for field in fields_of(deploy_options())} - {"debug", "port", "api_key"}
    for field in given_of(options, sorted(names)):
        name, value = field.name, getattr(options, field.name)
        if isinstance(value, Path) or name == "shards":
            paths = [value] if isinstance(value, Path) else [*value]
            texts = [
                address_of(str(path)) or (os.path.realpath(path) if os.path.exists(path) else str(path))
                for path in paths
            ]
            arguments[name] = texts[0] if isinstance(value, Path) else texts
        else:
            arguments[name] = [*value] if isinstance(value, tuple) else value
    if options.api_key is not None:
        arguments[NEEDS_KEY] = True
    if fetched := _fetched(options):
        arguments[FETCHED] = fetched
    config = config_of(options)
    for slot, kind in served_by(config).items():
        folder = kind.folder(config)
        if folder is None or slot not in (RANKER_SLOT, TOWER_SLOT):
            continue
        if os.path.realpath(folder) != os.path.abspath(folder):
            # The name in answers is the link's, as on the plain server.
            named = f"{slot}={config.name_of(slot, folder)}"
            arguments["served_name"] = [*cast(Sequence[str], arguments.get("served_name", ())), named]
    return arguments


def _fetched(options: Any) -> dict[str, str]:
    """Return the versions of what the options name at addresses, by address."""
    values = (getattr(options, field.name) for field in fields_of(deploy_options()))
    return versions_of(str(value) for value in values if isinstance(value, (str, Path)))


def options_of(args: Mapping[str, object]) -> Any:
    """Return the options with which a version was deployed; models at addresses are fetched.

    Raises `RankerError` if an address has another model than when the version was deployed.
    """
    named = {name: value for name, value in args.items() if name not in (NEEDS_KEY, FETCHED)}
    options = options_from(deploy_options(), **named)
    here = _fetched(options)
    for address, version in cast(Mapping[str, str], args.get(FETCHED, {})).items():
        if here.get(address) != version:
            raise RankerError(f"{address}: is no longer what it was when this was deployed; deploy again")
    return options


def application(args: Mapping[str, object]) -> Any:
    """Return a Serve application, for `serve.run` or as `import_path` of a configuration.

    args: options of `paddle-ranker deploy ray` by name, as `arguments_of` returns them
    """
    require_ray()
    from ray import serve

    options = options_of(args)
    shards = [
        serve.deployment(_Shard)
        .options(name=f"shard-{number}", max_ongoing_requests=_AT_ONCE, **_scaled(options.shard_replicas))
        .bind(str(folder))
        for number, folder in enumerate(shard for path in options.shards for shard in shard_folders(path))
    ]
    threads = threads_of(options)
    actor = {"num_cpus": threads, "num_gpus": gpus_for(LoadOptions.of(config_of(options)))}
    return (
        serve.deployment(serve.ingress()(_Replica))
        .options(
            name=SERVER,
            max_ongoing_requests=_AT_ONCE,
            max_queued_requests=options.connections,
            graceful_shutdown_timeout_s=options.drain_seconds,
            ray_actor_options=actor,
            **_scaled(options.replicas),
        )
        .bind(dict(args), *shards)
    )


def threads_of(options: Any) -> int:
    """Return how many CPU cores a replica requests from Ray: one for each of its threads."""
    return int((options.cpu_threads or 1) * options.streams)


def cores_of(options: Any) -> int:
    """Return how many CPU cores the smallest allowed numbers of replicas request. A shard's replica requests one."""
    shards = sum(len(shard_folders(path)) for path in options.shards)
    least, of_shard = bounds_of(options.replicas, "replicas")[0], bounds_of(options.shard_replicas, "shard_replicas")[0]
    return least * threads_of(options) + of_shard * shards


def _scaled(replicas: str) -> dict[str, object]:
    least, most = bounds_of(replicas, "replicas")
    if least == most:
        return {"num_replicas": least}
    scaling = {"min_replicas": least, "max_replicas": most, "target_ongoing_requests": _WANTED}
    return {"autoscaling_config": scaling}


def config_of(options: Any) -> ServeConfig:
    """Return the configuration of a replica's server. Raises `UsageError` if there is nothing to serve."""
    if options.shards:
        options = dataclasses.replace(options, index=Path(options.shards[0]))  # for its tower, and the routes
    return with_found_models(dataclasses.replace(options, cpu_threads=options.cpu_threads or 1))


class _Server:
    """A server's models and application in a process of Ray. Make it in an event loop, and await `load`.

    Args:
        args: as for `application`.
        shards: connects to the shards, if there are any.

    Attributes:
        app: the application.

    Raises the errors of the options.
    """

    def __init__(self, args: Mapping[str, object], shards: Callable[[], Sequence[Call]]):
        if args.get(NEEDS_KEY) and API_KEY_VARIABLE not in os.environ:
            raise UsageError(
                f"{socket.gethostname()}: {API_KEY_VARIABLE} is not set; set it where Ray is started, as it is where "
                "this is deployed"
            )
        options = options_of(args)
        config = config_of(options)
        hide_other_gpus()
        runtime.prepare_command(config.cpu_threads)
        from paddle_ranker.serving.core.byte_budget import ByteBudget
        from paddle_ranker.serving.core.logs import JsonLog, routed_logging
        from paddle_ranker.serving.core.metrics import Metrics
        from paddle_ranker.serving.http.admin import Controls
        from paddle_ranker.serving.process.worker import SWITCH_SECONDS, make_app, return_freed_memory
        from paddle_ranker.serving.slots.reload import Reloader
        from paddle_ranker.serving.slots.slots import Slots

        log, metrics = JsonLog(with_texts=config.log_texts), Metrics()
        self._left = ExitStack()  # when the process ends
        self._left.callback(log.close)
        self._left.enter_context(routed_logging(log))
        sys.setswitchinterval(SWITCH_SECONDS)
        self._left.callback(asyncio.ensure_future(return_freed_memory()).cancel)
        slots = self._slots = Slots({name: kind.make(config) for name, kind in served_by(config).items()})
        if options.shards:
            slots[INDEX] = _sharded_slot(config, shards, options.partial)
        self._reloader = Reloader(slots, metrics, log, partial(fit_models, config))
        self.app = make_app(
            slots,
            config,
            metrics,
            log=log if config.log_requests else None,
            controls=Controls(reload=_refuse_reload, protocols=["http"]),
            budget=ByteBudget(config.buffered),
        )

    async def load(self) -> None:
        """Load the models. Raises the errors of the models."""
        await self._reloader.load()

    def require_ready(self) -> None:
        """Raise `Fault` if a model is not loaded."""
        for slot in self._slots.values():
            slot.ready()

    async def close(self) -> None:
        await self._reloader.close(1.0)
        self._left.close()


class _Replica:
    """A replica of the deployment: loads a server's models and builds its application."""

    async def __init__(self, args: Mapping[str, object], *shards: Any):  # type: ignore[misc]  # as Serve allows
        self._args = args

        def calls() -> Sequence[Call]:
            for shard in shards:
                shard.process_id.remote().result(timeout_s=_START_SECONDS)
            return [_Transport(shard) for shard in shards]

        self._server = _Server(args, calls)
        await self._server.load()

    def __serve_build_asgi_app__(self) -> Any:
        return self._server.app

    def arguments(self) -> Mapping[str, object]:
        """Return the arguments of the application, by which the same version can be deployed again."""
        return self._args

    def check_health(self) -> None:
        """Raise `Fault` if a model is not loaded. Serve then replaces the replica."""
        self._server.require_ready()

    async def __del__(self) -> None:
        await self._server.close()


class _Trial:
    """An actor that opens the models and shards of a new version, as its replicas will."""

    def is_placed(self) -> bool:
        return True

    async def problem(self, args: Mapping[str, object]) -> Optional[str]:
        """Return why a replica would not start with the arguments `args`, or None."""
        from paddle_ranker.scale.shard_service import ShardService

        def calls() -> Sequence[Call]:
            threads = ThreadPoolExecutor(1)
            folders = [folder for path in options_of(args).shards for folder in shard_folders(path)]
            services = [ShardService(str(folder)) for folder in folders]
            return [lambda name, *args, to=to: threads.submit(to.call, name, *args) for to in services]

        try:
            server = _Server(args, calls)
            await server.load()
            server.require_ready()
        except (RankerError, OSError) as error:
            return str(error)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return None


def problem_of(args: Mapping[str, object]) -> Optional[str]:
    """Open the models of a new version in a process with a replica's resources; return why that failed, or None.

    If no machine has a core free, the process does without. If none has a GPU free, nothing is tried; a note says so.
    """
    ray = require_ray()
    options = options_of(args)
    cores, gpus = threads_of(options), gpus_for(LoadOptions.of(config_of(options)))
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(has.get("CPU", 0) >= cores and has.get("GPU", 0) >= gpus for has in machines):
        most = max(int(has.get("CPU", 0)) for has in machines)
        return f"no machine has {cores:,} cores{' and a GPU' * gpus} for a replica (the most cores: {most:,})"
    for number, seconds in ((cores, _PLACE_SECONDS), (0, None)):
        trial = ray.remote(num_cpus=number, num_gpus=gpus)(_Trial).remote()
        try:
            if ray.wait([trial.is_placed.remote()], timeout=seconds)[0]:
                return cast(Optional[str], ray.get(trial.problem.remote(dict(args))))
        except ray.exceptions.RayActorError as error:
            return f"the process that opened the new models has ended ({error})"
        finally:
            ray.kill(trial)
        if gpus:
            break
    note("note: all GPUs are in use, so that the new models are not tried before the replicas are replaced")
    return None


async def _refuse_reload() -> dict[str, object]:
    from paddle_ranker.serving.core.faults import UNAVAILABLE, Fault

    raise Fault(UNAVAILABLE, "one replica alone would reload its models; deploy again, which replaces all replicas")


class _Shard:
    """Replica of a shard's deployment: answers calls by the `ShardService` of the shard's folder, in threads."""

    def __init__(self, folder: str):
        from paddle_ranker.scale.shard_service import ShardService

        self._service = ShardService(folder)
        self._threads = ThreadPoolExecutor(max(2, runtime.usable_cores()), thread_name_prefix="shard")

    async def call(self, name: str, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._service.call, name, *args)

    def process_id(self) -> int:
        return os.getpid()

    def check_health(self) -> None:
        """Raise an error if the shard's folder cannot be read. Serve then replaces the replica."""
        self._service.call("facts", None, None)


class _Transport:
    """Transport of calls to a shard's deployment, a `Call` of `scale.remote_calls`.

    Errors of Serve are raised like errors of the shard.

    shard: Serve's handle of the deployment
    """

    def __init__(self, shard: Any):
        self._shard, self._threads = shard, ThreadPoolExecutor(_CALLS, thread_name_prefix="call")

    def __call__(self, name: str, *args: Any) -> Future[Any]:
        return self._threads.submit(self._answer, name, *args)

    def _answer(self, name: str, *args: Any) -> Any:
        answer = self._shard.call.remote(name, *args)
        try:
            return answer.result(timeout_s=_SHARD_SECONDS)
        except TimeoutError:
            answer.cancel()  # nobody waits for it
            raise


def _sharded_slot(config: ServeConfig, calls: Callable[[], Sequence[Call]], partial: bool) -> Any:
    """Return the server's slot for an index whose shards are elsewhere.

    config: the server's options
    calls: returns the calls of the shards, in their order
    partial: whether a search goes on without shards that fail
    """
    from paddle_ranker.retrieval.snapshots.searchable import Searchable
    from paddle_ranker.scale.remote import RemoteCollection
    from paddle_ranker.serving.slots.index_slot import IndexSlot

    class ShardedSlot(IndexSlot):
        """A slot of an index whose shards are elsewhere."""

        def open(self) -> Searchable:
            return RemoteCollection(calls(), partial=partial, timeout=_SHARD_SECONDS)

    assert isinstance(config, IndexSlotOptions)
    return ShardedSlot(config, config)
