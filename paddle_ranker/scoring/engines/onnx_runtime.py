"""Engine onnx: the exported graph in ONNX Runtime, without Paddle; it starts fastest of all engines."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import Union

from paddle_ranker.array_types import Arrays
from paddle_ranker.errors import CheckpointError, RankerError, package_for
from paddle_ranker.model.exported import ExportedFolder
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.runtime import thread_count, uses_tf32
from paddle_ranker.scoring.engines.engine import fastest_tokens
from paddle_ranker.scoring.engines.inputs import InputLimits, check_names
from paddle_ranker.scoring.engines.precisions import onnx_file

_ERRORS_ONLY = 3


class OnnxRuntimeEngine:
    """Engine that runs a model's ONNX file in ONNX Runtime.

    folder: the folder of the file; `export --onnx` writes the fp32 file, `quantize` the int8 file
    options: device and precision are among those that `ENGINES` lists for this engine; gpu needs the package
        onnxruntime-gpu

    Raises `DependencyError` without ONNX Runtime, `CheckpointError` if the file is missing or damaged, `RankerError`
    for a gpu that this ONNX Runtime does not support or cannot use here.
    """

    name = "onnx"

    def __init__(self, folder: ExportedFolder, options: LoadOptions):
        device, precision, threads = options.device, options.precision, options.threads
        kind, _, number = device.partition(":")
        path = onnx_file(folder, precision)
        with package_for("the engine onnx", "onnxruntime"):
            import onnxruntime
        providers: list[Union[str, tuple[str, dict[str, int]]]] = ["CPUExecutionProvider"]
        if kind == "gpu":
            if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
                raise RankerError(
                    f"--device {device}: this ONNX Runtime has no support for it: pip uninstall onnxruntime, then pip "
                    "install onnxruntime-gpu, or type --device cpu"
                )
            cuda = {"device_id": int(number or 0), "use_tf32": int(uses_tf32())}
            providers.insert(0, ("CUDAExecutionProvider", cuda))
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = thread_count(threads)
        settings.inter_op_num_threads = 1
        settings.log_severity_level = _ERRORS_ONLY
        settings.enable_mem_pattern = False  # it would plan memory for each new shape and keep the plan
        # Waiting threads would otherwise spin on the core that tokenizes the next batch's texts.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            # Its fallback, which older versions do not leave out, prints, and goes on without the GPU.
            with redirect_stdout(sys.stderr):
                if kind == "gpu":  # the CUDA of NVIDIA's packages, which Paddle for GPUs installs, too
                    getattr(onnxruntime, "preload_dlls", lambda: None)()
                session = onnxruntime.InferenceSession(str(path), settings, providers=providers, enable_fallback=0)
            session.disable_fallback()
        except Exception as error:  # its exceptions have no common base class
            reason = " ".join(str(error).split())[:200]
            if kind == "gpu":
                raise _cannot_use(device, onnxruntime.__version__, f" ({reason})") from error
            raise CheckpointError(f"{path}: ONNX Runtime cannot load it ({reason}); export the ranker again") from error
        if kind == "gpu" and "CUDAExecutionProvider" not in session.get_providers():
            raise _cannot_use(device, onnxruntime.__version__)
        self._session = session
        outputs = [output.name for output in self._session.get_outputs()]
        inputs = [node.name for node in self._session.get_inputs()]
        check_names(path, inputs, len(outputs), folder.signature, len(folder.outputs))
        self._outputs = {name: outputs[place] for name, place in folder.read.items()}
        self.precision = precision
        self.batch_tokens = fastest_tokens(kind, threads)
        self.limits = InputLimits(folder.signature, folder.configs)

    def run(self, arrays: Arrays) -> Arrays:
        checked = self.limits.check(arrays)
        if not self.limits.rows(checked):
            return self.limits.empty()
        outputs = self._session.run(list(self._outputs.values()), checked)
        return self.limits.typed(dict(zip(self._outputs, outputs)))


def _cannot_use(device: str, version: str, reason: str = "") -> RankerError:
    return RankerError(
        f"--device {device}: ONNX Runtime {version} cannot use the GPU{reason}; it needs the versions of CUDA and "
        "cuDNN that it was built for; or type --device cpu"
    )
