"""This project's server in place of Paddle Serving's C++ server, with the same command line, on the same port.

`deploy/cpp/serving` runs it. So does the launcher, `python -m paddle_serving_server.serve`, if SERVING_BIN names that
file. It ends when the launcher ends, since the launcher passes no signals on. Like the vendor's server it listens on
all addresses, unless PADDLE_RANKER_SERVING_HOST names one.

    serving -enable_model_toolkit -num_threads 5 -port 8600 -use_calib=False -resource_path workdir_8600 ...
    python -m paddle_serving_server.serve --model serving_server --port 8600 --thread 5 --ir_optim True

A flag has one dash or two. Its value is the next argument, or follows `=`. Unknown flags are ignored, with a note.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from google.protobuf import text_format

from paddle_ranker import runtime
from paddle_ranker.errors import CheckpointError, RankerError, UsageError
from paddle_ranker.paddle_serving.messages import messages
from paddle_ranker.serving.core.limits import API_KEY_VARIABLE, Limits
from paddle_ranker.serving.core.server_config import MOST_STREAMS, ServeConfig
from paddle_ranker.serving.slots.slot_kinds import config_for

HOST_VARIABLE = "PADDLE_RANKER_SERVING_HOST"
EVERY_ADDRESS = "0.0.0.0"
HELP = f"""usage: deploy/cpp/start_server.sh --model FOLDER [--port 8600] [--thread 5] [...]

Serve a ranker or a tower in the place of Paddle Serving's C++ server, with its launcher's options.

  --model FOLDER           what export_to_serving.sh or export_recall.sh wrote for servers; an exported or a
                           trained model, too
  --port INT               port of every protocol
  --thread INT             batches that are computed at once
  --gpu_ids INT            the GPU to use; the CPU where Paddle finds none
  --precision NAME         fp32, fp16, bf16 or int8
  --max_body_size INT      bytes of a request's body
  --enable_prometheus, --prometheus_port INT   metrics on a port of their own, too
  {HOST_VARIABLE}=127.0.0.1 in the environment narrows who can connect; {API_KEY_VARIABLE} asks callers for a key

What else the launcher has is taken, and noted where it has no meaning here. paddle-ranker serve has more."""
_LOOK_SECONDS = 0.2  # between two checks whether the launcher has ended

PORT, THREADS, PROMETHEUS_PORT, RELOAD_SECONDS = 9393, 4, 19393, 10  # the launcher's own defaults
WITH_VALUES = (
    *("port", "num_threads", "thread", "precision", "max_body_size", "prometheus_port", "reload_interval_s"),
    *("resource_path", "resource_file", "model", "gpu_id", "gpu_ids", "runtime_thread_num", "batch_infer_size"),
    *("max_concurrency", "request_cache_size"),
    # How the C++ server computes, and where its files are; without effect here.
    *("inferservice_path", "inferservice_file", "workflow_path", "workflow_file", "workdir", "bthread_concurrency"),
)
SWITCHES = (  # their values may be left out
    *("enable_prometheus", "use_calib", "use_trt"),
    *("enable_model_toolkit", "ir_optim", "mem_optim_off", "use_mkl"),  # without effect here
)
# Other values of these flags ask for features that this server does not have.
_UNSUPPORTED = {"max_concurrency": "0", "request_cache_size": "0", "use_calib": "false", "use_trt": "false"}
_LAUNCHERS_BODY, _LAUNCHERS_BATCH = 512 * 1024 * 1024, 32  # the launcher's defaults, which it always passes
_TRUE, _FALSE = ("true", "1", "yes", "t", "y"), ("false", "0", "no", "f", "n")


@dataclass(frozen=True)
class Launch:
    """A parsed command line of the launcher.

    model: folder of the model
    threads: number of batches that may be computed at once
    gpu: index of the requested GPU; None: the CPU
    batch_size: maximum number of pairs in a batch; if the launcher passes its default, 32, this server's default
    request_bytes: limit of a request's body; if the launcher passes its default, 512 MiB, this server's default
    prometheus_port: a further port for metrics; None: no such port
    reload_file: the model is reloaded whenever this file's time changes, which is checked every `reload_seconds`
    notes: messages to the user about options that this server does not have
    """

    model: Path
    port: int = PORT
    threads: int = THREADS
    precision: str = "fp32"
    gpu: Optional[int] = None
    batch_size: int = ServeConfig.batch_size
    request_bytes: int = Limits().request_bytes
    prometheus_port: Optional[int] = None
    reload_file: Optional[Path] = None
    reload_seconds: float = RELOAD_SECONDS
    notes: tuple[str, ...] = ()


def read_launch(arguments: Sequence[str]) -> Launch:
    """Parse a command line, and read the files that it names.

    Raises `UsageError` for an invalid value or if no model is named, `CheckpointError` if the launcher's files are
    missing or damaged, or do not name exactly one model.
    """
    flags, notes = _read_flags(arguments)
    for name, harmless in _UNSUPPORTED.items():
        value = flags.get(name, [harmless])[-1].lower()
        if value != harmless and not (harmless == "false" and value in _FALSE):
            notes.append(f"-{name} {value}: this server has none, and does without")
    engine = _engine(flags)
    gpus = _gpus(flags, engine)
    if gpus[1:]:
        notes.append(f"--gpu_ids {','.join(map(str, gpus))}: this server uses {gpus[0]} alone; start one for each GPU")
    threads = _number(flags, "num_threads", _number(flags, "thread", THREADS, 1), 1)
    batch_infer_size = _number(flags, "batch_infer_size", engine.batch_infer_size or _LAUNCHERS_BATCH, 1)
    return Launch(
        model=Path(engine.model_dir),
        port=_number(flags, "port", PORT, 0, 65535),
        # The number of batches of its queue that the C++ server computes at once; 0: one for each request.
        threads=_number(flags, "runtime_thread_num", engine.runtime_thread_num, 0) or threads,
        precision=flags.get("precision", ["fp32"])[-1].lower(),
        gpu=next((number for number in gpus[:1] if number >= 0), None),
        batch_size=_own_default(_LAUNCHERS_BATCH, batch_infer_size, Launch.batch_size),
        request_bytes=_own_default(
            _LAUNCHERS_BODY, _number(flags, "max_body_size", _LAUNCHERS_BODY, 1), Launch.request_bytes
        ),
        prometheus_port=_number(flags, "prometheus_port", PROMETHEUS_PORT, 1, 65535)
        if _is_on(flags, "enable_prometheus")
        else None,
        reload_file=Path(engine.reloadable_meta) if engine.reloadable_meta else None,
        reload_seconds=_number(flags, "reload_interval_s", RELOAD_SECONDS, 1),
        notes=tuple(notes),
    )


def _read_flags(arguments: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Return the values of each known flag by its name, and notes about ignored words."""
    flags: dict[str, list[str]] = {}
    notes = []
    place = 0
    while place < len(arguments):
        name, equals, value = arguments[place].lstrip("-").partition("=")
        is_flag = arguments[place].startswith("-")
        place += 1
        if not is_flag:
            notes.append(f"{name}: not a flag, passed over")
            continue
        values = [value] if equals else []
        while not equals and place < len(arguments) and not _is_flag(arguments[place]):
            if name in SWITCHES and arguments[place].lower() not in (*_TRUE, *_FALSE):
                break
            values.append(arguments[place])
            place += 1
        if name not in (*WITH_VALUES, *SWITCHES):
            notes.append(f"-{' '.join([name, *values])}: not known here, passed over")
        elif not values and name in WITH_VALUES:
            raise UsageError(f"-{name}: give it a value")
        else:
            flags[name] = values or ["true"]
    return flags, notes


def _is_flag(word: str) -> bool:
    return word.startswith("-") and not word[1:].isdigit()


def _is_on(flags: dict[str, list[str]], name: str) -> bool:
    value = flags.get(name, ["false"])[-1].lower()
    if value not in (*_TRUE, *_FALSE):
        raise UsageError(f"-{name} {value}: give true or false")
    return value in _TRUE


def _number(flags: dict[str, list[str]], name: str, default: int, least: int, most: Optional[int] = None) -> int:
    if name not in flags:
        return default
    value = flags[name][-1]
    if not value.isdigit() or int(value) < least or (most is not None and int(value) > most):
        raise UsageError(f"-{name} {value}: give a number, {least} {f'to {most}' if most else 'or more'}")
    return int(value)


def _own_default(launchers: int, value: int, default: int) -> int:
    """Return `default` if `value` equals `launchers`, else `value`.

    The launcher passes its own default, `launchers`, even if the user gives no value. `default` is this server's.
    """
    return default if value == launchers else value


def _engine(flags: dict[str, list[str]]) -> Any:
    """Return the EngineDesc in the launcher's files, or a new one for the folder that `--model` names."""
    if "model" in flags:
        if len(flags["model"]) != 1:
            raise UsageError(f"--model {' '.join(flags['model'])}: this server has one model; start one for each")
        return messages().ModelToolkitConf().engines.add(model_dir=flags["model"][0])
    if "resource_path" not in flags:
        raise UsageError("names no model: give --model FOLDER, or -resource_path and -resource_file of the launcher")
    folder = Path(flags["resource_path"][-1])
    resource = _read(folder / flags.get("resource_file", ["resource.prototxt"])[-1], messages().ResourceConf())
    paths = list(zip(resource.model_toolkit_path, resource.model_toolkit_file))
    engines = [engine for path in paths for engine in _read(Path(*path), messages().ModelToolkitConf()).engines]
    if len(engines) != 1:
        raise CheckpointError(
            f"{folder}: its files name {len(engines)} models; this server has one: start one for each"
        )
    if not engines[0].model_dir:
        raise CheckpointError(f"{folder / paths[0][1]}: names no model_dir; start it with the launcher again")
    return engines[0]


def _read(path: Path, message: Any) -> Any:
    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), message, allow_unknown_field=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: is not there; start the server with its launcher, which writes it") from error
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: is not what the launcher writes ({error})") from error


def _gpus(flags: dict[str, list[str]], engine: Any) -> list[int]:
    numbers = [
        number for value in flags.get("gpu_ids", flags.get("gpu_id", [])) for number in value.split(",") if number
    ]
    if any(not number.lstrip("-").isdigit() for number in numbers):
        raise UsageError(f"--gpu_ids {' '.join(numbers)}: give numbers of GPUs")
    return [int(number) for number in numbers] or (list(engine.gpu_ids) if engine.use_gpu else [])


def serve_config(launch: Launch) -> ServeConfig:
    """Return the server's configuration. If Paddle does not find the requested GPU, print a note and use the CPU."""
    device = "cpu"
    if launch.gpu is not None:
        runtime.prepare()
        if runtime.finds_gpu():
            device = f"gpu:{launch.gpu}"
        else:
            _note(f"GPU {launch.gpu} is asked for, and Paddle finds none here: using the CPU")
    cores = runtime.usable_cores()
    streams = min(launch.threads, cores) if device == "cpu" else min(launch.threads, MOST_STREAMS)
    return config_for(
        launch.model,
        host=os.environ.get(HOST_VARIABLE) or EVERY_ADDRESS,
        port=launch.port,
        more_ports=() if launch.prometheus_port is None else (launch.prometheus_port,),
        precision=launch.precision,
        device=device,
        cpu_threads=max(1, cores // streams),
        streams=streams,
        batch_size=launch.batch_size,
        request_bytes=launch.request_bytes,
        allowed_hosts=("*",),  # the vendor's server answers every host
    )


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Serve until SIGTERM or SIGINT, or until the process that started this one ends. Return the exit status."""
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
    """Return the process id of the parent. If the parent is a shell that runs with `-c`, also return its parent's id.

    When a process ends, the kernel gives its children another parent, so the ids change when either process ends.
    """
    parent = os.getppid()
    try:
        command = Path(f"/proc/{parent}/cmdline").read_bytes().split(b"\0")
        fields = Path(f"/proc/{parent}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:  # the parent has just ended, or this is not Linux
        return (parent,)
    return (parent, int(fields[1])) if b"-c" in command[1:2] else (parent,)


def _reload_with_the_file(path: Path, seconds: float) -> None:
    """Reload the model whenever the file's time changes, as the C++ server does."""
    seen = _modified_at(path)
    while True:
        time.sleep(seconds)
        now = _modified_at(path)
        if now not in (seen, None):
            seen = now
            os.kill(os.getpid(), signal.SIGHUP)


def _modified_at(path: Path) -> Optional[int]:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


if __name__ == "__main__":
    sys.exit(main())
