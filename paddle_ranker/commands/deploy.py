"""Serve models by replicas on a Ray cluster: what `paddle-ranker serve` answers, on as many machines as it has.

paddle-ranker deploy ray --model checkpoint/best --ray local --replicas 2
paddle-ranker deploy ray --index index --model checkpoint/best --ray auto --replicas 1:4
paddle-ranker deploy ray --shards index-0 index-1 --model checkpoint/best --write service.yaml
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any, Optional

from paddle_ranker.errors import RankerError, UsageError, brief
from paddle_ranker.options import Options, main_of, note, option
from paddle_ranker.runtime import usable_cores
from paddle_ranker.scale.cluster import LOCAL, connected
from paddle_ranker.scale.ray_serve import application, arguments_of, config_of, cores_of, deploy_options
from paddle_ranker.serving.core.slot_kinds import served_by
from paddle_ranker.storage.atomic import check_writable, new_file

_RAY = "ray"
_OPEN_PORTS = (
    "note: --host is that of requests alone; Ray itself listens on ports of all interfaces, which ask for its token: "
    "keep other machines out by a firewall"
)
IMPORT_PATH = "paddle_ranker.scale.ray_serve:application"


@dataclass(frozen=True)
class TargetOptions(Options):
    """Options that choose where models are deployed."""

    target: str = option(positional=True, help="what runs the replicas", choices=(_RAY,))
    ray: str = option(
        "auto",
        help="the cluster: local, of this machine, until this command ends; auto or HOST:PORT, one that runs",
    )
    name: str = option("paddle-ranker", help="name of the application; an application of this name is replaced")
    route_prefix: str = option("/", help="beginning of the application's paths")
    write: Optional[str] = option(
        None, help="write this configuration for `serve deploy` and Kubernetes (KubeRay), and deploy nothing"
    )


def deploy(options: Any) -> None:
    """Deploy models as an application of Ray Serve, or only write the application's configuration."""
    arguments = arguments_of(options)
    config = config_of(options)
    served = " and ".join(str(kind.folder(config)) for kind in served_by(config).values())
    if options.write is not None:
        _write(options, arguments)
        return
    wanted = cores_of(options)
    with connected(options.ray, max(wanted, usable_cores())):
        import ray
        from ray import serve

        if (cores := int(ray.cluster_resources().get("CPU", 0))) < wanted:
            note(f"note: the replicas ask for {wanted:,} cores, and the cluster has {cores:,}: some wait for machines")

        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        try:
            serve.start(http_options={"host": options.host, "port": options.port})
            _require_address(options)
            serve.run(application(arguments), name=options.name, route_prefix=options.route_prefix)
        except RuntimeError as error:  # of a replica that does not start
            raise RankerError(f"{served}: not deployed ({brief(_cause(error))}); see serve status") from error
        place = f"http://{options.host}:{options.port}{options.route_prefix}"
        print(f"serving {served} on {place} (Ray Serve, {options.replicas} replicas)", flush=True)
        if options.ray != LOCAL:
            print("serve status shows it, serve shutdown ends it")
            return
        note(_OPEN_PORTS)
        try:
            while True:
                time.sleep(1.0)
        except KeyboardInterrupt:
            serve.shutdown()


def _require_address(options: Any) -> None:
    """Raise `UsageError` if Ray Serve runs already and listens on an address other than the options'."""
    from ray.serve.context import _get_global_client

    client = _get_global_client()
    address = client and (client.http_config.host, client.http_config.port)
    if address and address != (options.host, options.port):
        raise UsageError(
            f"--host {options.host} --port {options.port}: Serve runs on this cluster already and listens on "
            f"{address[0]}, port {address[1]}; give these, or end it (serve shutdown)"
        )


def _cause(error: RuntimeError) -> str:
    """Return the line of an error's traceback that names the cause; without a traceback, the whole error."""
    lines = [line.strip() for line in str(error).splitlines() if "Error: " in line]
    return lines[-1] if lines else str(error)


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
