"""Versions of a service on Ray Serve: replace the one that runs, show what runs, and end it. No dashboard is needed.

release("paddle-ranker", "/", {"model": "checkpoint/best", "replicas": "2"})
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Optional

from paddle_ranker.errors import RankerError, listed
from paddle_ranker.scale.ray_serve import FETCHED, NEEDS_KEY, SERVER, application, problem_of

_ASK_SECONDS = 30.0  # time limit of a question to a replica
_LOOK_SECONDS = 0.2
# The last line of a traceback; the name of an error is shown if it is one of Python's own.
_CAUSE = re.compile(r"^[ ]*(?:\w+\.[\w.]*(?:Error|Exception): |(?=\w*(?:Error|Exception)\b))", re.MULTILINE)


@dataclass(frozen=True)
class Version:
    """A version that an application of Serve runs: the arguments of `application`, and the beginning of its paths."""

    arguments: Mapping[str, object]
    route_prefix: str

    def run(self, name: str) -> None:
        """Deploy this version. Raises `RankerError` with the reason of a replica that does not start."""
        from ray import serve

        made = application(self.arguments)
        try:
            serve.run(made, name=name, route_prefix=self.route_prefix)
        except Exception as error:  # of Serve, whose types are many
            raise RankerError(_reason(name) or _cause(str(error))) from error


def release(name: str, route_prefix: str, arguments: Mapping[str, object]) -> None:
    """Deploy models as an application of Serve, in place of the version that runs under this name.

    The models of the new version are opened first, in a process of their own. If they, or a replica, cannot be opened,
    the version that ran goes on, and `RankerError` says why.
    """
    new, before, is_new = Version(arguments, route_prefix), running(name), name not in _applications()
    if not is_new and (problem := problem_of(arguments)) is not None:
        raise RankerError(f"{problem}; the version that runs goes on")
    try:
        new.run(name)
    except RankerError as error:
        if is_new and name in _applications():
            delete(name)  # Serve would try again for ever
        if before is None:
            raise
        try:
            before.run(name)
        except RankerError as second:
            raise RankerError(f"{error}; nor can the version before be served again: {second}") from error
        raise RankerError(f"{error}; the version before is served again") from error


def running(name: str) -> Optional[Version]:
    """Return the version that an application's replicas run; None if none of them answers."""
    from ray import serve

    found = _applications().get(name)
    if found is None:
        return None
    with suppress(Exception):  # of Serve, of Ray, or of a replica that ends
        replica = serve.get_deployment_handle(SERVER, name)
        return Version(replica.arguments.remote().result(timeout_s=_ASK_SECONDS), found["route_prefix"])
    return None


def status_of(name: str) -> tuple[list[str], bool]:
    """Return the state of an application, in lines, and whether it answers.

    Raises `RankerError` if there is no such application.
    """
    found = _require(name)
    version = running(name)
    lines = [f"{name}: {found['status'].lower()}, on {found['route_prefix']}"]
    if version is not None:
        options = {name: value for name, value in version.arguments.items() if name not in (FETCHED, NEEDS_KEY)}
        words = [f"--{option} {_shown(value)}" for option, value in options.items()]
        lines.append(f"  {' '.join(words)}")
    for deployment, state in found["deployments"].items():
        states = [replica["state"].lower() for replica in state["replicas"]]
        counts = ", ".join(f"{states.count(each)} {each}" for each in dict.fromkeys(states)) or "none"
        lines.append(f"  {deployment}: {state['status'].lower()}, replicas: {counts}")
    return [*lines, *filter(None, [_reason(name)])], found["status"] == "RUNNING"


def delete(name: str) -> None:
    """End an application when its requests are answered, and Serve with the last one; return when it has ended.

    Serve waits for the requests as long as the application's `--drain_seconds`. Raises `RankerError` if there is no
    such application.
    """
    import ray
    from ray import serve
    from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

    _require(name)
    serve.delete(name, _blocking=False)
    while name in _applications():
        time.sleep(_LOOK_SECONDS)
    if not _applications() and (client := _client()) is not None:
        # `serve.shutdown` would wait in a call that ends with the controller, which Ray reports as an error.
        ray.get(client._controller.graceful_shutdown.remote(wait=False))
        with suppress(ValueError):  # when there is no such actor any more
            while ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE):
                time.sleep(_LOOK_SECONDS)
        serve.shutdown()  # forgets the controller


def _shown(value: object) -> str:
    values = value if isinstance(value, (list, tuple)) else [value]
    return " ".join(shlex.quote(str(each).lower() if isinstance(each, bool) else str(each)) for each in values)


def _applications() -> Mapping[str, Any]:
    """Return what Serve's controller says of all applications, by name."""
    client = _client()
    return client.get_serve_details()["applications"] if client else {}


def _client() -> Any:
    """Return a client of Serve's controller, or None if Serve does not run."""
    from ray.serve.context import _get_global_client

    return _get_global_client(raise_if_no_controller_running=False)


def _require(name: str) -> Any:
    found = _applications()
    if name not in found:
        raise RankerError(f"--name {name}: nothing is deployed under this name; there is {listed(found) or 'nothing'}")
    return found[name]


def _reason(name: str) -> Optional[str]:
    """Return why replicas of an application do not start, whole and without the traceback; None if they do."""
    for state in _applications().get(name, {"deployments": {}})["deployments"].values():
        if state["status"] != "HEALTHY" and (message := state["message"]):
            return _cause(message)
    return None


def _cause(message: str) -> str:
    """Return the error of the last traceback in a message of Serve, or the message if it has none."""
    causes = [*_CAUSE.finditer(message)]
    return message[causes[-1].end() if causes else 0 :].strip()
