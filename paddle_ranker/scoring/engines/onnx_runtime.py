"""The exported graph in ONNX Runtime, without Paddle: the fastest start."""

from __future__ import annotations

from typing import Any

import numpy as np

from paddle_ranker.errors import CheckpointError, DependencyError, RankerError, UsageError
from paddle_ranker.model.exported import INPUTS, ExportedFolder
from paddle_ranker.runtime import thread_count
from paddle_ranker.scoring.engines.base import CPU_BATCH_TOKENS
from paddle_ranker.scoring.engines.inputs import InputLimits, check_names
from paddle_ranker.scoring.engines.onnx_files import onnx_file
from paddle_ranker.scoring.engines.precisions import require_precision

_ERRORS_ONLY = 3


class OnnxRuntimeEngine:
    """Run a ranker's ONNX file.

    Args:
        folder: where it lies; `export --onnx` writes it, `quantize` the one in int8.
        device: cpu, or gpu with ONNX Runtime's own package for it.
        precision: fp32 or int8.
        threads: of a matrix product on a CPU; 0: as `runtime.thread_count` has it.

    Raises `DependencyError` without ONNX Runtime, `CheckpointError` where the folder has no such file or it is damaged,
    `UsageError` for another precision or device.
    """

    name = "onnx"

    def __init__(self, folder: ExportedFolder, *, device: str = "cpu", precision: str = "fp32", threads: int = 0):
        kind, _, number = device.partition(":")
        if kind not in ("cpu", "gpu"):
            raise UsageError(f"--device {device}: the engine onnx runs on cpu and gpu; type --device cpu")
        require_precision(self.name, precision, ("fp32", "int8"), device=kind)
        path = onnx_file(folder, precision)
        try:
            import onnxruntime
        except ImportError as error:
            raise DependencyError(f"the engine onnx needs ONNX Runtime ({error}): pip install onnxruntime") from error
        providers: list[Any] = ["CPUExecutionProvider"]
        if kind == "gpu":
            if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
                raise RankerError(
                    f"--device {device}: this ONNX Runtime has no support for it: pip install onnxruntime-gpu, or "
                    "type --device cpu"
                )
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": int(number or 0)}))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = thread_count(threads)
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        options.enable_mem_pattern = False  # it plans memory for each shape that it has seen, and keeps the plan
        # Threads that wait would else spin, on the core that the next batch's texts are tokenized on.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # its exceptions have no common base class
            raise CheckpointError(
                f"{path}: ONNX Runtime cannot load it ({' '.join(str(error).split())[:200]}); export the ranker again"
            ) from error
        outputs = [output.name for output in self._session.get_outputs()]
        check_names(path, [given.name for given in self._session.get_inputs()], len(outputs))
        self._output = outputs[1:2]
        self.precision = precision
        if kind == "cpu":
            self.batch_tokens = CPU_BATCH_TOKENS * thread_count(threads)
        self._limits = InputLimits.of(folder)

    def logits(self, input_ids: np.ndarray, token_type_ids: np.ndarray) -> np.ndarray:
        """Return float32 `[batch]` logits of int64 `[batch, length]` ids and token types.

        Raises `DataError` for ids outside the vocabulary, and pairs longer than the ranker's positions.
        """
        ids, types = self._limits.check(input_ids, token_type_ids)
        if not len(ids):
            return np.zeros(0, np.float32)
        (logits,) = self._session.run(self._output, dict(zip(INPUTS, (ids, types))))
        return np.asarray(logits, np.float32).reshape(-1)
