"""Serve an exported ranker as the tutorial's pipeline does: gRPC and HTTP, POST /ernie/prediction.

On the complete stack Paddle Serving's own pipeline server runs it, on the modern stack this project's.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from paddle_ranker import runtime
from paddle_ranker.errors import RankerError, UsageError
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.paddle_serving.launchers.brpc_server import EVERY_ADDRESS, HOST_VARIABLE
from paddle_ranker.paddle_serving.launchers.pipeline_config import PipelineConfig, read_pipeline_config
from paddle_ranker.serving.core.limits import API_KEY_VARIABLE

CONFIG = Path(__file__).resolve().parent / "config_nlp.yml"


@dataclass(frozen=True)
class WebServiceOptions(Options):
    config: str = option(str(CONFIG), help="file that states which model is served, and where")
    model_dir: Optional[str] = option(
        None, help="folder that export_to_serving.py wrote (default: the configuration's model_config)"
    )
    rpc_port: Optional[int] = option(None, help="port of gRPC (default: the configuration's)", minimum=1024)
    http_port: Optional[int] = option(None, help="port of HTTP (default: the configuration's)", minimum=1024)


def serve(options: WebServiceOptions) -> int:
    """Serve until a signal ends the server; return the exit status."""
    runtime.prepare()
    config = read_pipeline_config(
        Path(options.config),
        model=None if options.model_dir is None else Path(options.model_dir),
        rpc_port=options.rpc_port,
        http_port=options.http_port,
    )
    for note in config.notes:
        warn(note)
    if not config.model.is_dir():
        raise UsageError(
            f"{config.model}: there is no such folder; bash scripts/export_to_serving.sh makes the demo's, "
            "paddle-ranker export-serving yours; --model_dir, or model_config in --config, names it"
        )
    config.require_fetched()
    require_free_ports(config)
    if importlib.util.find_spec("paddle_serving_server") is None:
        return serve_here(config)
    return serve_by_paddle_serving(config)


def require_free_ports(config: PipelineConfig) -> None:
    """Raise `RankerError` if a port cannot be opened; the message names the option that chooses another port."""
    names = {"grpc": "rpc_port", "http": "http_port"}
    host = os.environ.get(HOST_VARIABLE) or EVERY_ADDRESS
    for protocol, port in config.ports.items():
        try:
            family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind) as probe:
                # Without this option, the port of an ended server stays blocked for a minute.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
                probe.listen()
        except OSError as error:
            reason = "another program listens there already" if error.errno == errno.EADDRINUSE else str(error)
            raise RankerError(f"--{names[protocol]} {port}: {reason}; choose another port") from error


def serve_by_paddle_serving(config: PipelineConfig) -> int:
    """Run Paddle Serving's pipeline server, which listens on every address and requires no API key."""
    for name in (HOST_VARIABLE, API_KEY_VARIABLE):
        if os.environ.get(name):
            warn(f"{name} is set, which Paddle Serving's pipeline ignores: it listens on every address, without a key")
    from paddle_ranker.paddle_serving.launchers import vendor_pipeline

    vendor_pipeline.run(config)
    return 0


def serve_here(config: PipelineConfig) -> int:
    """Run this project's server, which accepts gRPC, HTTP and its other protocols on every port."""
    unused = config.unused_values()
    if unused:
        warn(f"without effect on this server: {', '.join(unused)}")
    from paddle_ranker.serving.process.server import run

    host = os.environ.get(HOST_VARIABLE) or EVERY_ADDRESS
    return run(config.serve_config(host, os.environ.get(API_KEY_VARIABLE)))


def warn(text: str) -> None:
    """Print a note for the user."""
    print(f"web_service: note: {text}", file=sys.stderr, flush=True)


main = main_of(serve, WebServiceOptions, (__doc__ or "").partition("\n")[0])


if __name__ == "__main__":
    raise SystemExit(main())
