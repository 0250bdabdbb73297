"""Engine openvino: the exported graph in OpenVINO, without Paddle."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from paddle_ranker.array_types import Arrays
from paddle_ranker.errors import CheckpointError, package_for
from paddle_ranker.model.exported import ExportedFolder
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.runtime import thread_count
from paddle_ranker.scoring.engines.engine import Pool, fastest_tokens
from paddle_ranker.scoring.engines.inputs import InputLimits, check_names
from paddle_ranker.scoring.engines.precisions import onnx_file

if TYPE_CHECKING:
    from openvino import Core, InferRequest


class OpenVinoEngine:
    """Engine that runs a model's ONNX file in OpenVINO.

    folder: the folder of the file; `export --onnx` writes the fp32 file, `quantize` the int8 file
    options: device and precision are among those that `ENGINES` lists for this engine. fp32 is true fp32 (OpenVINO
        itself would use bf16 where it can). All inferences together use `threads` threads

    Raises `DependencyError` without OpenVINO, `CheckpointError` if the file is missing or damaged.
    """

    name = "openvino"

    def __init__(self, folder: ExportedFolder, options: LoadOptions):
        precision, threads = options.precision, options.threads
        path = onnx_file(folder, precision)
        with package_for("the engine openvino", "openvino"):
            import openvino
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "PERFORMANCE_HINT": "LATENCY",  # all threads compute one batch
            "INFERENCE_NUM_THREADS": thread_count(threads),
            # Otherwise every process binds its threads to the first cores, and two workers share a core.
            "ENABLE_CPU_PINNING": False,
        }
        try:
            self._model = _core().compile_model(str(path), "CPU", settings)
        except RuntimeError as error:
            raise CheckpointError(
                f"{path}: OpenVINO {openvino.__version__} cannot load it ({' '.join(str(error).split())[:200]}); type "
                "--engine onnx, or export the ranker again with --onnx on the modern stack"
            ) from error
        # An input also has the names of its casts and of operations that OpenVINO optimized away.
        inputs = [_name(port.names, folder.signature.input_names) for port in self._model.inputs]
        check_names(path, inputs, len(self._model.outputs), folder.signature, len(folder.outputs))
        self._read = folder.read
        self.precision = precision
        self.batch_tokens = fastest_tokens("cpu", threads)
        self.limits = InputLimits(folder.signature, folder.configs)
        self._requests: Pool[InferRequest] = Pool(self._model.create_infer_request)

    def run(self, arrays: Arrays) -> Arrays:
        checked = self.limits.check(arrays)
        if not self.limits.rows(checked):
            return self.limits.empty()
        with self._requests.lend() as request:
            request.infer(checked, share_inputs=True)
            # Copies, since the next batch overwrites the request's memory.
            return self.limits.typed(
                {name: np.array(request.get_output_tensor(place).data) for name, place in self._read.items()}
            )


@cache
def _core() -> Core:
    """Return the process's only OpenVINO core.

    A core of OpenVINO 2026 allocates a stack for signal handlers, and unmaps the stack when the core is freed. If two
    cores are freed in the order in which they were created, the thread keeps an unmapped stack, and the next signal to
    the thread ends the process.
    """
    import openvino

    return openvino.Core()


def _name(names: set[str], inputs: Sequence[str]) -> str:
    return next((name for name in inputs if name in names), " or ".join(sorted(names)))
