"""Serve models by replicas on a Ray cluster: what `paddle-ranker serve` answers, on as many machines as it has.

paddle-ranker deploy ray --model checkpoint/best --ray local --replicas 2
paddle-ranker deploy ray --index index --model checkpoint/best --ray auto --replicas 1:4
paddle-ranker deploy ray --shards index-0 index-1 --model checkpoint/best --write service.yaml
paddle-ranker deploy ray --status
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any, Optional

from paddle_ranker.errors import RankerError, UsageError
from paddle_ranker.options import ClusterOptions, main_of, note, option, refuse_given
from paddle_ranker.options.declare import ANY_TEXT, fields_of
from paddle_ranker.runtime import usable_cores
from paddle_ranker.scale.cluster import LOCAL, connected
from paddle_ranker.scale.ray_serve import arguments_of, config_of, cores_of, deploy_options
from paddle_ranker.scale.releases import delete, release, status_of
from paddle_ranker.serving.slots.slot_kinds import served_by
from paddle_ranker.storage.atomic import check_writable, new_file

_RAY = "ray"
_OPEN_PORTS = (
    "note: --host is that of requests alone; Ray itself listens on ports of all interfaces, which ask for its token: "
    "keep other machines out by a firewall"
)
_OF_RUNNING = ("target", "ray", "ray_open", "name", "debug")  # options that say what runs
IMPORT_PATH = "paddle_ranker.scale.ray_serve:application"


@dataclass(frozen=True)
class TargetOptions(ClusterOptions):
    """Options that choose where models are deployed."""

    target: str = option(positional=True, help="what runs the replicas", choices=(_RAY,))
    ray: str = option(
        "auto",
        help="the cluster: local, of this machine, until this command ends; auto or HOST:PORT, one that runs",
        addresses=ANY_TEXT,
    )
    name: str = option("paddle-ranker", help="name of the application; an application of this name is replaced")
    route_prefix: str = option("/", help="beginning of the application's paths")
    write: Optional[str] = option(
        None, help="write this configuration for `serve deploy` and Kubernetes (KubeRay), and deploy nothing"
    )
    status: bool = option(False, help="show what runs under --name, and deploy nothing; status 1 if it does not answer")
    stop: bool = option(False, help="end what runs under --name when its requests are answered, and deploy nothing")

    def __post_init__(self) -> None:
        super().__post_init__()
        for chosen in ("status", "stop"):
            if getattr(self, chosen):
                others = {field.name for field in fields_of(type(self))} - {*_OF_RUNNING, chosen}
                refuse_given(self, sorted(others), f"is about a deployment; leave it out beside --{chosen}")
                if self.ray == LOCAL:
                    raise UsageError(f"--ray {LOCAL}: begins and ends with a command; leave it out beside --{chosen}")


def deploy(options: Any) -> Optional[int]:
    """Deploy models as an application of Ray Serve, or show or end one, or only write the configuration of one."""
    if options.status or options.stop:
        with connected(options.ray, allow_open=options.ray_open):
            _quiet_serve()
            if options.stop:
                delete(options.name)
                print(f"{options.name}: ended")
                return 0
            lines, is_healthy = status_of(options.name)
            print("\n".join(lines))
            return int(not is_healthy)
    arguments = arguments_of(options)
    config = config_of(options)
    served = " and ".join(str(kind.folder(config)) for kind in served_by(config).values())
    if options.write is not None:
        _write(options, arguments)
        return 0
    wanted = cores_of(options)
    with connected(options.ray, max(wanted, usable_cores()), allow_open=options.ray_open):
        import ray

        serve = _quiet_serve()
        if (cores := int(ray.cluster_resources().get("CPU", 0))) < wanted:
            note(f"note: the replicas ask for {wanted:,} cores, and the cluster has {cores:,}: some wait for machines")

        serve.start(http_options={"host": options.host, "port": options.port})
        _require_address(options)
        try:
            release(options.name, options.route_prefix, arguments)
        except RankerError as error:
            raise RankerError(f"{served}: not deployed: {error}") from error
        place = f"http://{options.host}:{options.port}{options.route_prefix}"
        print(f"serving {served} on {place} (Ray Serve, {options.replicas} replicas)", flush=True)
        if options.ray != LOCAL:
            print("deploy ray --status shows it, deploy ray --stop ends it")
            return 0
        note(_OPEN_PORTS)
        try:
            while True:
                time.sleep(1.0)
        except KeyboardInterrupt:
            delete(options.name)
    return 0


def _quiet_serve() -> Any:
    """Import Ray Serve, without its log in the command's output, and return the module."""
    from ray import serve

    logging.getLogger("ray.serve").setLevel(logging.ERROR)  # the import sets another level
    return serve


def _require_address(options: Any) -> None:
    """Raise `UsageError` if Ray Serve runs already and listens on an address other than the options'."""
    from ray.serve.context import _get_global_client

    client = _get_global_client()
    address = client and (client.http_config.host, client.http_config.port)
    if address and address != (options.host, options.port):
        raise UsageError(
            f"--host {options.host} --port {options.port}: Serve runs on this cluster already and listens on "
            f"{address[0]}, port {address[1]}; give these, or end it (deploy ray --stop)"
        )


def _write(options: Any, arguments: dict[str, object]) -> None:
    import yaml  # type: ignore[import-untyped]

    application = {
        "name": options.name,
        "route_prefix": options.route_prefix,
        "import_path": IMPORT_PATH,
        "args": arguments,
    }
    check_writable(options.write)
    with new_file(options.write) as stream:
        yaml.safe_dump(
            {"http_options": {"host": options.host, "port": options.port}, "applications": [application]},
            stream,
            sort_keys=False,
            allow_unicode=True,
        )
    print(f"{options.write}: deploy it with serve deploy, or in a RayService of Kubernetes")


def options_class() -> type[Any]:
    """Return the command's options class, which joins the options of the target, of `serve` and of replicas."""
    return deploy_options(TargetOptions)


main = main_of(deploy, options_class, __doc__)
