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
from typing import Any

from paddle_ranker import runtime
from paddle_ranker.errors import UsageError, quoted
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.options import Options, given_of, option, options_from, require_ray_device
from paddle_ranker.options.declare import fields_of, shown_name
from paddle_ranker.registry import load_named_plugins
from paddle_ranker.retrieval.shards import shard_folders
from paddle_ranker.scale.cluster import gpus_for, hide_other_gpus, require_ray
from paddle_ranker.serving.core.index_options import INDEX, IndexSlotOptions
from paddle_ranker.serving.core.limits import API_KEY_VARIABLE
from paddle_ranker.serving.core.server_config import ServeConfig
from paddle_ranker.serving.core.slot_kinds import SLOTS, fit_models, serve_options, served_by, with_found_models

_CALLS = 8  # most calls of a replica to one shard at the same time
_SHARD_SECONDS, _START_SECONDS = 5.0, 120.0  # time limits of a shard: for a call, and to start
_AT_ONCE = 256  # most requests in a replica; those that wait for the engine share batches
_WANTED = 16  # requests per replica that Serve aims at when it starts and ends replicas
_NEEDS_KEY = "needs_key"  # whether replicas must find a key in their environment
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
    """Return the options that differ from their defaults, JSON-ready for `application`. Existing paths become absolute.

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
            texts = [os.path.abspath(path) if os.path.exists(path) else str(path) for path in paths]
            arguments[name] = texts[0] if isinstance(value, Path) else texts
        else:
            arguments[name] = [*value] if isinstance(value, tuple) else value
    if options.api_key is not None:
        arguments[_NEEDS_KEY] = True
    return arguments


def _options_of(args: Mapping[str, object]) -> Any:
    return options_from(deploy_options(), **{name: value for name, value in args.items() if name != _NEEDS_KEY})


def application(args: Mapping[str, object]) -> Any:
    """Return a Serve application, for `serve.run` or as `import_path` of a configuration.

    args: options of `paddle-ranker deploy ray` by name, as `arguments_of` returns them
    """
    require_ray()
    from ray import serve

    options = _options_of(args)
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
            name="server",
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


class _Replica:
    """A replica of the deployment: loads a server's models and builds its application."""

    async def __init__(self, args: Mapping[str, object], *shards: Any):  # type: ignore[misc]  # as Serve allows
        if args.get(_NEEDS_KEY) and API_KEY_VARIABLE not in os.environ:
            raise UsageError(
                f"{socket.gethostname()}: {API_KEY_VARIABLE} is not set; set it where Ray is started, as it is where "
                "this is deployed"
            )
        options = _options_of(args)
        config = config_of(options)
        hide_other_gpus()
        runtime.prepare_command(config.cpu_threads)
        from paddle_ranker.serving.core.byte_budget import ByteBudget
        from paddle_ranker.serving.core.logs import JsonLog, routed_logging
        from paddle_ranker.serving.core.metrics import Metrics
        from paddle_ranker.serving.core.reload import Reloader
        from paddle_ranker.serving.core.slots import Slots
        from paddle_ranker.serving.http.admin import Controls
        from paddle_ranker.serving.process.worker import SWITCH_SECONDS, make_app, return_freed_memory

        log, metrics = JsonLog(with_texts=config.log_texts), Metrics()
        self._left = ExitStack()  # when the replica ends
        self._left.callback(log.close)
        self._left.enter_context(routed_logging(log))
        sys.setswitchinterval(SWITCH_SECONDS)
        self._left.callback(asyncio.ensure_future(return_freed_memory()).cancel)
        slots = self._slots = Slots({name: kind.make(config) for name, kind in served_by(config).items()})
        if shards:
            slots[INDEX] = _sharded_slot(config, shards, options.partial)
        self._reloader = Reloader(slots, metrics, log, partial(fit_models, config))
        await self._reloader.load()
        self._app = make_app(
            self._slots,
            config,
            metrics,
            log=log if config.log_requests else None,
            controls=Controls(reload=_refuse_reload, protocols=["http"]),
            budget=ByteBudget(config.buffered),
        )

    def __serve_build_asgi_app__(self) -> Any:
        return self._app

    def check_health(self) -> None:
        """Raise `Fault` if a model is not loaded. Serve then replaces the replica."""
        for slot in self._slots.values():
            slot.ready()

    async def __del__(self) -> None:
        await self._reloader.close(1.0)
        self._left.close()


async def _refuse_reload() -> dict[str, object]:
    from paddle_ranker.serving.core.faults import UNAVAILABLE, Fault

    raise Fault(UNAVAILABLE, "one replica alone would reload its models; deploy again, which replaces all replicas")


class _Shard:
    """Replica of a shard's deployment: answers calls by the `ShardService` of the shard's folder, in threads."""

    def __init__(self, folder: str):
        from paddle_ranker.retrieval.shard_service import ShardService

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
    """Transport of calls to a shard's deployment, a `Call` of `retrieval.remote_calls`.

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


def _sharded_slot(config: ServeConfig, shards: Sequence[Any], partial: bool) -> Any:
    """Return the server's slot for an index whose shards are separate deployments.

    config: the server's options
    shards: Serve's handles of the deployments, in the order of the shards
    partial: whether a search goes on without shards that fail
    """
    from paddle_ranker.retrieval.remote import RemoteCollection
    from paddle_ranker.retrieval.searchable import Searchable
    from paddle_ranker.serving.core.index_slot import IndexSlot

    class ShardedSlot(IndexSlot):
        """A slot of an index whose shards are deployments."""

        def open(self) -> Searchable:
            for shard in shards:
                shard.process_id.remote().result(timeout_s=_START_SECONDS)
            return RemoteCollection([_Transport(shard) for shard in shards], partial=partial, timeout=_SHARD_SECONDS)

    assert isinstance(config, IndexSlotOptions)
    return ShardedSlot(config, config)
