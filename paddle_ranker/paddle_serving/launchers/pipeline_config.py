"""The configuration file of Paddle Serving's pipeline: the values that this server and the vendor's both use."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from paddle_ranker import runtime
from paddle_ranker.errors import CheckpointError, UsageError, in_checkout, quoted
from paddle_ranker.model.exported import INPUTS
from paddle_ranker.model.model_folder import identify
from paddle_ranker.paddle_serving.serving_files import fetched_alias
from paddle_ranker.serving.core.server_config import MOST_STREAMS, ServeConfig
from paddle_ranker.serving.slots.slot_kinds import config_for

CPU, GPU, TENSORRT, XPU = 0, 1, 2, 4  # device_type; -1: as `devices` says
# Precisions of Paddle Serving's predictor by device; for any other it computes in fp32 without a warning.
_VENDORS_PRECISIONS = {CPU: ("fp32", "bf16"), GPU: ("fp32",), TENSORRT: ("fp32", "fp16"), XPU: ("fp32",)}
_PORTS = ("rpc_port", "http_port")
# Values that this project's server uses, too; it reports all other values as unused.
_FOLLOWED = (
    *_PORTS,
    "op.*.concurrency",
    "op.*.timeout",
    "op.*.batch_size",
    "op.*.auto_batching_timeout",
    *(f"op.*.local_service_conf.{name}" for name in ("client_type", "model_config", "device_type", "devices")),
    *(f"op.*.local_service_conf.{name}" for name in ("thread_num", "precision", "fetch_list")),
)
_ALWAYS = (
    "op.*.local_service_conf.ir_optim",
    "op.*.local_service_conf.mem_optim",
)  # this server always has them on


@dataclass(frozen=True)
class PipelineConfig:
    """The configuration of a pipeline with one op, a ranker or a tower.

    values: the file's values as the vendor's server needs them: the model's folder as an absolute path, the requested
        ports, the CPU if there is no GPU, and a device number
    service: name of the op and of the service
    model: folder of the model
    device: cpu, gpu:0, ...
    notes: messages to the user about values of the file that are not used as written
    """

    values: Mapping[str, Any]
    service: str
    model: Path
    device: str
    notes: tuple[str, ...] = ()

    @property
    def op(self) -> Mapping[str, Any]:
        """The values under the op's name."""
        return self.values["op"][self.service]

    @property
    def ports(self) -> dict[str, int]:
        """The ports to listen on by protocol: `grpc`, `http` or both."""
        return {name: int(self.values[port]) for name, port in zip(("grpc", "http"), _PORTS) if self.values.get(port)}

    def serve_config(self, host: str, api_key: Optional[str]) -> ServeConfig:
        """Return the configuration for this project's server."""
        local = self.op["local_service_conf"]
        ports = list(self.ports.values())
        timeout = self.op.get("timeout", -1)
        wait = self.op.get("auto_batching_timeout", -1)
        return config_for(
            self.model,
            host=host,
            port=ports[0],
            more_ports=tuple(ports[1:]),
            precision=local.get("precision", "fp32"),
            device=self.device,
            cpu_threads=local.get("thread_num", 2),
            streams=min(MOST_STREAMS, self.op.get("concurrency", 1)),
            workers=self.values["worker_num"] if self.values.get("build_dag_each_worker") else 1,
            # The vendor's batch_size counts requests that are joined, so 1 is no limit of pairs computed at once.
            batch_size=self.op["batch_size"] if self.op.get("batch_size", 1) > 1 else ServeConfig.batch_size,
            max_wait_us=int(wait * 1000) if wait > 0 else 0,
            deadline_seconds=timeout / 1000 if timeout > 0 else ServeConfig.deadline_seconds,
            api_key=api_key,
            pipeline_service=self.service,
            allowed_hosts=("*",),  # the vendor's server answers every host
        )

    def require_fetched(self) -> None:
        """Raise `CheckpointError` if `fetch_list` names an output that the model does not have."""
        folder_type = identify(self.model)
        if folder_type.kind is None or folder_type.info is None:
            return
        aliases = folder_type.info.export.get("aliases", {}) if folder_type.info.export else {}
        usual = fetched_alias(folder_type.kind.signature(folder_type.info))
        fetched = next((alias for name, alias in aliases.items() if name not in INPUTS), usual)
        unknown = [str(name) for name in self.op["local_service_conf"].get("fetch_list") or () if name != fetched]
        if unknown:
            raise CheckpointError(
                f"fetch_list: the model returns {fetched}, not {', '.join(unknown)}; change that in the configuration"
            )

    def require_vendors_precision(self) -> None:
        """Raise `CheckpointError` if the vendor's server cannot compute in the configured precision."""
        local = self.op["local_service_conf"]
        offered = _VENDORS_PRECISIONS[local["device_type"]]
        if local["precision"] not in offered:
            raise CheckpointError(
                f"precision {local['precision']}: with device_type {local['device_type']} Paddle Serving's pipeline "
                f"computes in {' or '.join(offered)}; change that in the configuration, or type paddle-ranker serve"
            )

    def unused_values(self) -> list[str]:
        """Return the names of values that this project's server does not use, such as `dag.tracer.interval_s`."""
        followed = set(_FOLLOWED) | {name for name in _ALWAYS if _at(self.values, name, self.service)}
        if self.values.get("build_dag_each_worker"):
            followed |= {"worker_num", "build_dag_each_worker"}
        unused = [
            name for name in _paths(self.values) if name.replace(f"op.{self.service}.", "op.*.", 1) not in followed
        ]
        local, path = self.op["local_service_conf"], f"op.{self.service}.local_service_conf"
        if local["device_type"] == TENSORRT:
            unused.append(f"{path}.device_type 2 (the GPU computes without TensorRT)")
        if "," in local["devices"]:
            unused.append(f"{path}.devices but the first (start a server for each)")
        return unused


def read_pipeline_config(
    path: Path,
    *,
    model: Optional[Path] = None,
    rpc_port: Optional[int] = None,
    http_port: Optional[int] = None,
    finds_gpu: Callable[[], bool] = runtime.finds_gpu,
) -> PipelineConfig:
    """Read a configuration file.

    model, rpc_port, http_port: if given, they replace the file's values
    finds_gpu: returns whether Paddle finds a GPU; called if the configuration asks for one

    Raises `UsageError` if the file does not exist, and `CheckpointError` if it is not YAML or has an invalid value.
    """
    values = _load(path)
    for name, port in zip(_PORTS, (rpc_port, http_port)):
        if port is not None:
            values[name] = port
        _check(values, path, name, int, None)
    if not any(values.get(name) for name in _PORTS):
        raise CheckpointError(f"{path}: has neither rpc_port nor http_port: give one, or both")
    _check(values, path, "worker_num", int, 1)
    _check(values, path, "build_dag_each_worker", bool, False)
    service, op = _only_op(values, path)
    for name, kind, default in (
        ("concurrency", int, 1),
        ("timeout", (int, float), -1),
        ("batch_size", int, 1),
        ("auto_batching_timeout", (int, float), -1),
    ):
        _check(op, path, name, kind, default)
    local = op.get("local_service_conf")
    if not isinstance(local, dict) or op.get("server_endpoints"):
        raise CheckpointError(f"{path}: op.{service} has no local_service_conf: the model runs in this server itself")
    if local.get("client_type", "local_predictor") != "local_predictor":
        raise CheckpointError(
            f"{path}: op.{service}.local_service_conf.client_type is {quoted(local['client_type'])}, "
            "expected local_predictor"
        )
    local["client_type"] = "local_predictor"
    _check(local, path, "thread_num", int, 2)
    _check(local, path, "device_type", int, -1)
    _check(local, path, "precision", str, "fp32")
    local["precision"] = local["precision"].lower()
    _check(local, path, "fetch_list", list, None)
    folder = _model_folder(path, local, model)
    local["model_config"] = str(folder)
    device, notes = _device(local, finds_gpu)
    return PipelineConfig(values, service, folder, device, notes)


def _load(path: Path) -> dict[str, Any]:
    yaml = importlib.import_module("yaml")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"--config {path}: there is no such file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: is not YAML ({' '.join(str(error).split())[:200]})") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: holds no names with values: see {_example()}")
    return copy.deepcopy(values)


def _example() -> str:
    return in_checkout("deploy/python/config_nlp.yml")


def _only_op(values: dict[str, Any], path: Path) -> tuple[str, dict[str, Any]]:
    ops = values.get("op")
    if not isinstance(ops, dict) or len(ops) != 1 or not isinstance(next(iter(ops.values())), dict):
        raise CheckpointError(f"{path}: op must hold one name, that of the ranker, with its values under it")
    name, op = ops.popitem()
    ops[str(name)] = op  # YAML reads 1 as a number
    return str(name), op


def _check(values: dict[str, Any], path: Path, name: str, kind: Any, default: Any) -> None:
    """Raise `CheckpointError` unless `values[name]` is a `kind` in its range. Set a missing value to `default`.

    path: the file, for messages
    """
    value = values.get(name)
    if value is None:
        if default is not None:
            values[name] = default
        return
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise CheckpointError(f"{path}: {name} is {quoted(value)}, which it cannot be: see {_example()}")
    if name in _PORTS and not 1024 <= value <= 65535:
        raise CheckpointError(f"{path}: {name} is {value}: give a port from 1024 to 65535")
    if name in ("worker_num", "concurrency", "batch_size", "thread_num") and value < 1:
        raise CheckpointError(f"{path}: {name} is {value}: give 1 or more")


def _model_folder(path: Path, local: dict[str, Any], folder: Optional[Path]) -> Path:
    """Return the model's folder: `folder`, or if that is None, the folder that the configuration file `path` names.

    local: the file's `local_service_conf`; its path is relative to the file's folder, or to the current folder if the
        model exists only there
    """
    if folder is not None:
        return folder.resolve()
    named = local.get("model_config")
    if not isinstance(named, str):
        raise CheckpointError(f"{path}: local_service_conf has no model_config, the folder of the model")
    beside = (path.resolve().parent / named).resolve()
    here = Path(named).resolve()
    return here if not beside.exists() and here.exists() else beside


def _device(local: dict[str, Any], finds_gpu: Callable[[], bool]) -> tuple[str, tuple[str, ...]]:
    kind, configured = local["device_type"], local.get("devices")
    devices = "" if configured is None else str(configured).replace(" ", "")
    if kind == -1:
        kind = GPU if devices else CPU
    if kind not in (CPU, GPU, TENSORRT, XPU):
        raise CheckpointError(f"device_type {kind}: choose 0 (CPU), 1 (GPU), 2 (TensorRT) or 4 (XPU)")
    if kind in (GPU, TENSORRT) and not finds_gpu():
        local["device_type"], local["devices"] = CPU, ""
        return "cpu", (f"device_type {kind} is asked for, and Paddle finds no GPU here: using the CPU",)
    local["device_type"], local["devices"] = kind, "" if kind == CPU else devices or "0"
    if kind == CPU:
        return "cpu", ()
    return f"{'xpu' if kind == XPU else 'gpu'}:{local['devices'].partition(',')[0]}", ()


def _paths(values: Mapping[str, Any], before: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _paths(value, f"{before}{name}.")
        else:
            yield f"{before}{name}"


def _at(values: Any, path: str, service: str) -> Any:
    for name in path.replace("*", service).split("."):
        values = values.get(name) if isinstance(values, dict) else None
    return values
