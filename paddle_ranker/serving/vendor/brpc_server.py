"""The server in the place of Paddle Serving's C++ one: takes its command line, and answers on its port.

`deploy/cpp/serving` runs it; `python -m paddle_serving_server.serve` does where SERVING_BIN names that file. It ends
with the launcher, which passes no signal on. As the vendor's it listens on every address, unless
PADDLE_RANKER_SERVING_HOST names one.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from paddle_ranker import runtime
from paddle_ranker.errors import RankerError
from paddle_ranker.serving.core.config import MOST_STREAMS, ServeConfig
from paddle_ranker.serving.core.limits import API_KEY_VARIABLE
from paddle_ranker.serving.vendor.brpc_flags import Launch, read_launch

HOST_VARIABLE = "PADDLE_RANKER_SERVING_HOST"
EVERY_ADDRESS = "0.0.0.0"
HELP = f"""usage: deploy/cpp/start_server.sh --model FOLDER [--port 8600] [--thread 5] [...]

Serve a ranker in the place of Paddle Serving's C++ server, with its launcher's options.

  --model FOLDER           what export_to_serving.sh wrote for servers; an exported or a trained ranker, too
  --port INT               port of every protocol
  --thread INT             batches that are computed at once
  --gpu_ids INT            the GPU to use; the CPU where Paddle finds none
  --precision NAME         fp32, fp16, bf16 or int8
  --max_body_size INT      bytes of a request's body
  --enable_prometheus, --prometheus_port INT   metrics on a port of their own, too
  {HOST_VARIABLE}=127.0.0.1 in the environment narrows who can connect; {API_KEY_VARIABLE} asks callers for a key

What else the launcher has is taken, and noted where it has no meaning here. python -m paddle_ranker serve has more."""
_LOOK_SECONDS = 0.2  # between two looks at who started this process


def serve_config(launch: Launch) -> ServeConfig:
    """Return what the server is started with; a GPU that is not here becomes the CPU, and is noted."""
    device = "cpu"
    if launch.gpu is not None:
        runtime.prepare()
        if "gpu" in runtime.available_devices():
            device = f"gpu:{launch.gpu}"
        else:
            _note(f"GPU {launch.gpu} is asked for, and Paddle finds none here: using the CPU")
    cores = runtime.usable_cores()
    streams = min(launch.threads, cores) if device == "cpu" else min(launch.threads, MOST_STREAMS)
    return ServeConfig(
        model=launch.model,
        host=os.environ.get(HOST_VARIABLE) or EVERY_ADDRESS,
        port=launch.port,
        more_ports=() if launch.prometheus_port is None else (launch.prometheus_port,),
        precision=launch.precision,
        device=device,
        cpu_threads=max(1, cores // streams),
        streams=streams,
        batch_size=launch.batch_size,
        request_bytes=launch.request_bytes,
    )


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Serve until a signal comes or whoever started the process ends; return the exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    if {"--help", "-h"} & set(arguments):
        print(HELP)
        return 0
    try:
        launch = read_launch(arguments)
        for note in launch.notes:
            _note(note)
        config = serve_config(launch)
        threading.Thread(target=_end_with_the_launcher, args=(_ancestors(),), daemon=True).start()
        if launch.reload_file is not None:
            watched = (launch.reload_file, launch.reload_seconds)
            threading.Thread(target=_reload_with_the_file, args=watched, daemon=True).start()
        from paddle_ranker.serving.process.server import run

        return run(config)
    except RankerError as error:
        print(f"serving: error: {error}", file=sys.stderr)
        return error.exit_status


def _note(text: str) -> None:
    print(f"serving: note: {text}", file=sys.stderr, flush=True)


def _end_with_the_launcher(started_by: tuple[int, ...]) -> None:
    while _ancestors() == started_by:
        time.sleep(_LOOK_SECONDS)
    _note("the process that started this server has ended")
    os.kill(os.getpid(), signal.SIGTERM)


def _ancestors() -> tuple[int, ...]:
    """Return this process's parent and, where that is the shell that runs this command alone, the parent's parent.

    The kernel gives the children of a process that ends to another one, so these numbers change when either ends.
    """
    parent = os.getppid()
    try:
        command = Path(f"/proc/{parent}/cmdline").read_bytes().split(b"\0")
        fields = Path(f"/proc/{parent}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:  # ended this moment, or not Linux
        return (parent,)
    return (parent, int(fields[1])) if b"-c" in command[1:2] else (parent,)


def _reload_with_the_file(path: Path, seconds: float) -> None:
    """Reload the model whenever the file's time changes, as the C++ server does."""
    seen = _changed(path)
    while True:
        time.sleep(seconds)
        now = _changed(path)
        if now not in (seen, None):
            seen = now
            os.kill(os.getpid(), signal.SIGHUP)


def _changed(path: Path) -> Optional[int]:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


if __name__ == "__main__":
    sys.exit(main())
