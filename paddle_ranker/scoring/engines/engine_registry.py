"""Engines by name. This module imports no NumPy, and an engine's module only when the engine is opened."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Optional

from paddle_ranker.registry import Registry
from paddle_ranker.runtime import FoundDevice, cuda_devices, find_device

if TYPE_CHECKING:
    from paddle_ranker.model.exported import ExportedFolder
    from paddle_ranker.model.load_options import LoadOptions
    from paddle_ranker.scoring.engines.engine import Engine

Open = Callable[["ExportedFolder", "LoadOptions"], "Engine"]


@dataclass(frozen=True)
class EngineKind:
    """Description of an engine, known before it is opened.

    open: called with an exported model's folder and options whose device and precision are in `precisions`; returns the
        engine; raises `CheckpointError` if the folder lacks the engine's file, `DependencyError` without the package
    runs: the runtime, for help texts
    package: import name of the package that the engine needs, or None
    needs_paddle: whether the engine imports Paddle
    precisions: precisions of matrix products that the engine offers, by kind of device; `open_engine` refuses all other
        precisions. If the dict is empty, as for auto and dygraph, `open_engine` refuses none
    find_device: called without arguments; returns the device for `--device auto`. If it is None, the engine itself
        chooses the device
    """

    open: Open
    runs: str
    package: Optional[str] = None
    needs_paddle: bool = False
    precisions: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"cpu": ("fp32",)})
    find_device: Optional[Callable[[], FoundDevice]] = lambda: FoundDevice("cpu", "the engine runs there")

    def device_for(self, precision: str) -> Optional[FoundDevice]:
        """Return the device for `--device auto`, the CPU if the GPU lacks the precision; None if the engine decides."""
        device = None if self.find_device is None else self.find_device()
        offered = [kind for kind, precisions in self.precisions.items() if precision in precisions]
        if device is None or device.name in offered or "cpu" not in offered:
            return device
        return FoundDevice("cpu", f"the engine does not compute {precision} on {device.name}")


ENGINES: Registry[EngineKind] = Registry("engine", "--engine")
DYGRAPH, AUTO = "dygraph", "auto"  # the engine of trained models; the engine that chooses among the others
DEFAULT, OF_ONNX = "inference", "onnx"  # the engines without an option; the second for ONNX files of other programs


def exported_engines() -> list[str]:
    """Return the names of the engines that run an exported model, the default first."""
    return [name for name in ENGINES if name not in (DYGRAPH, AUTO)]


def engines_with(precision: str) -> list[str]:
    """Return the names of the engines that offer a precision on some device."""
    return [
        name
        for name, kind in ENGINES.items()
        if any(precision in precisions for precisions in kind.precisions.values())
    ]


def is_installed(engine: str) -> bool:
    """Return whether the package that an engine needs is installed, without importing it."""
    package = ENGINES[engine].package
    return package is None or importlib.util.find_spec(package) is not None


def _imported(module: str, name: str) -> Open:
    """Return an `EngineKind.open`, which imports a module when called, and calls its class or function `name`."""

    def opened(folder: ExportedFolder, options: LoadOptions) -> Engine:
        engine: Engine = getattr(importlib.import_module(f"paddle_ranker.scoring.engines.{module}"), name)(
            folder, options
        )
        return engine

    return opened


def _paddle_device() -> FoundDevice:
    try:
        return find_device()
    except ImportError:  # opening the engine will report the missing package
        return FoundDevice("cpu", "there is no Paddle here")


def _onnx_device() -> FoundDevice:
    try:
        import onnxruntime
    except ImportError:  # opening the engine will report this, too
        return FoundDevice("cpu", "there is no ONNX Runtime here")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return FoundDevice("cpu", "this ONNX Runtime is the CPU build")
    if not cuda_devices():
        return FoundDevice("cpu", "no GPU here")
    return FoundDevice("gpu", "the first that there is; --device names another")


ENGINES.add(
    DYGRAPH,
    EngineKind(
        _imported("opening", "refuse_dygraph"),
        "a trained ranker as it is",
        package="paddle",
        needs_paddle=True,
        precisions={},
        find_device=None,
    ),
)
ENGINES.add(
    DEFAULT,
    EngineKind(
        _imported("paddle_inference", "PaddleInferenceEngine"),
        "Paddle Inference",
        package="paddle",
        needs_paddle=True,
        # An XPU computes in fp16 only if the model is converted beforehand, which this engine does not do.
        precisions={"cpu": ("fp32", "bf16"), "gpu": ("fp32", "bf16", "fp16"), "xpu": ("fp32",)},
        find_device=_paddle_device,
    ),
)
ENGINES.add(
    "onnx",
    EngineKind(
        _imported("onnx_runtime", "OnnxRuntimeEngine"),
        "ONNX Runtime",
        package="onnxruntime",
        # CUDA has no kernels for the int8 file: its operations would run on the CPU.
        precisions={"cpu": ("fp32", "int8"), "gpu": ("fp32",)},
        find_device=_onnx_device,
    ),
)
ENGINES.add(
    "openvino",
    EngineKind(
        _imported("openvino", "OpenVinoEngine"),
        "OpenVINO",
        package="openvino",
        precisions={"cpu": ("fp32", "bf16", "int8")},
    ),
)
ENGINES.add(
    AUTO,
    EngineKind(
        _imported("opening", "open_fastest"),
        "the fastest of these here",
        needs_paddle=True,
        precisions={},
        find_device=None,
    ),
)
