"""Infinity's own server as its command starts it: `... infinity_server FOLDER THREADS`.

The process becomes `infinity_emb v2`; a child prints the address once the server answers.
"""

from __future__ import annotations

import http.client
import os
import socket
import sys
import time
from pathlib import Path

_OPTIONS = ("--device", "cpu", "--engine", "torch", "--dtype", "float32", "--url-prefix", "/v1")
_QUIET = {
    "INFINITY_ANONYMOUS_USAGE_STATS": "0",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "INFINITY_LOG_LEVEL": "error",
}


def main() -> int:
    """Serve the model of FOLDER; does not return."""
    folder, threads = Path(sys.argv[1]), sys.argv[2]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if os.fork() == 0:
        _print_when_ready(port, os.getppid())
        os._exit(0)
    os.dup2(2, 1)  # nobody reads later output
    program = Path(sys.executable).with_name("infinity_emb")
    command = [str(program), "v2", "--model-id", str(folder / "hf"), "--host", "127.0.0.1", "--port", str(port)]
    os.execve(program, [*command, *_OPTIONS], {**os.environ, **_QUIET, "OMP_NUM_THREADS": threads})


def _print_when_ready(port: int, server: int) -> None:
    while os.getppid() == server:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/health")
            if connection.getresponse().status == http.client.OK:
                print(f"serving on http://127.0.0.1:{port}", flush=True)
                return
        except OSError:
            time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
