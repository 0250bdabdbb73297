"""Engine inference: the exported graph in Paddle Inference: oneDNN on a CPU, cuDNN or TensorRT on a GPU."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Optional

import numpy as np

from paddle_ranker.array_types import Arrays
from paddle_ranker.errors import PADDLE_IS_MISSING, CheckpointError, DependencyError, UsageError
from paddle_ranker.model.exported import ExportedFolder, require_readable
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.runtime import select_device, thread_count
from paddle_ranker.scoring.engines.engine import Pool, fastest_tokens
from paddle_ranker.scoring.engines.inputs import InputLimits, check_names

if TYPE_CHECKING:
    from paddle.inference import Config, Predictor

TENSORRT_ROWS = 256  # maximum rows that TensorRT compiles a graph for
_GPU_MEMORY_MB = 256  # the process's initial share; it grows as needed
# Operations that Paddle 2.6 can compute in bfloat16. By default it takes every operation that it offers; a graph that
# compares ids would then need kernels that do not exist.
_BF16_OPERATIONS = frozenset(
    {"fc", "matmul_v2", "fused_matmul", "gelu", "softmax", "elementwise_add", "layer_norm", "reshape2", "transpose2"}
)


class PaddleInferenceEngine:
    """Engine that runs a static model in Paddle Inference.

    folder: the static model's folder
    options: device and precision are among those that `ENGINES` lists for this engine; TensorRT needs a GPU

    Raises `DependencyError` without Paddle, `CheckpointError` for a graph that this Paddle cannot load, `UsageError`
    for TensorRT without a GPU or with a graph of Paddle 3, `RankerError` for a device that this machine lacks.
    """

    name = "inference"

    def __init__(self, folder: ExportedFolder, options: LoadOptions):
        device, precision, tensorrt = options.device, options.precision, options.tensorrt
        kind = device.partition(":")[0]
        if tensorrt and kind != "gpu":
            raise UsageError(f"--tensorrt needs --device gpu, not {device}")
        if tensorrt and folder.program.suffix == ".json":
            raise UsageError(
                f"--tensorrt: Paddle Inference compiles graphs of Paddle 2 (.pdmodel), and {folder.program} is of "
                "Paddle 3: leave it out, or export with the complete stack (bash scripts/setup.sh complete)"
            )
        self._paddle = _import_paddle(folder)
        select_device(device)
        self._inference = importlib.import_module("paddle.inference")
        self.precision = precision
        self.limits = InputLimits(folder.signature, folder.configs)
        self._read = folder.read
        self._folder = folder
        self._device, self._threads, self._tensorrt = device, thread_count(options.threads), tensorrt
        self.batch_tokens = fastest_tokens(kind, options.threads)
        predictor = self._load()
        self._predictors: Pool[Predictor]
        if folder.program.suffix == ".json":
            # Paddle 3's clones copy all parameters: this predictor computes, and another one is loaded only if needed.
            self._predictors = Pool(self._load, predictor)
        else:
            # Clones share the parameters. The original computes nothing: while it computes, it cannot be cloned.
            self._predictors = Pool(predictor.clone)

    def run(self, arrays: Arrays) -> Arrays:
        checked = self.limits.check(arrays)
        rows = self.limits.rows(checked)
        if not rows:
            return self.limits.empty()
        with self._predictors.lend() as predictor:
            outputs = [_run(predictor, part, self._read) for part in self._parts(checked, rows)]
        if len(outputs) == 1:  # nothing to copy
            return self.limits.typed(outputs[0])
        return self.limits.typed({name: np.concatenate([part[name] for part in outputs]) for name in outputs[0]})

    def _parts(self, arrays: Arrays, rows: int) -> list[Arrays]:
        """Split a batch into parts of at most `TENSORRT_ROWS` rows; without TensorRT, return the batch as one part."""
        step = TENSORRT_ROWS if self._tensorrt else rows
        return [{name: array[at : at + step] for name, array in arrays.items()} for at in range(0, rows, step)]

    def _load(self) -> Predictor:
        """Return a predictor that has computed a test batch."""
        folder = self._folder
        # Either set of operations in bfloat16 works on one version of Paddle and breaks on the other.
        attempts: list[Optional[frozenset[str]]] = [None]
        if self.precision == "bf16" and folder.program.suffix == ".pdmodel":
            attempts = [_BF16_OPERATIONS, frozenset({"fc", "matmul_v2", "fused_matmul"})]
        for number, operations in enumerate(attempts, 1):
            try:
                predictor = self._inference.create_predictor(self._config(operations))
                outputs = len(predictor.get_output_names())
                names = predictor.get_input_names()
                check_names(folder.program, names, outputs, folder.signature, len(folder.outputs))
                tried = _run(predictor, self.limits.smallest(), self._read)
            except (RuntimeError, ValueError, TypeError, OSError, NotImplementedError) as error:
                if number == len(attempts):
                    raise CheckpointError(
                        f"{folder.program}: Paddle {self._paddle.__version__} cannot run it in {self.precision} "
                        f"({_first_line(error)}); copy the folder again, or export it again with this Paddle"
                    ) from error
                continue
            if all(np.isfinite(array).all() for array in tried.values()) or number == len(attempts):
                return predictor
        raise AssertionError("the last attempt returns or raises")

    def _config(self, bf16_operations: Optional[frozenset[str]]) -> Config:
        folder = self._folder
        config = self._inference.Config(str(folder.program), str(folder.parameters))
        config.disable_glog_info()
        kind, _, number = self._device.partition(":")
        if kind == "gpu":
            types = self._inference.PrecisionType
            precision = {"fp32": types.Float32, "bf16": types.Bfloat16, "fp16": types.Half}[self.precision]
            config.enable_use_gpu(_GPU_MEMORY_MB, int(number or 0), precision)
            if self._tensorrt:
                config.enable_tensorrt_engine(1 << 30, TENSORRT_ROWS, 3, precision, False, False)
                config.set_trt_dynamic_shape_info(*tensorrt_shapes(folder))
        elif kind == "xpu":
            config.enable_xpu()
            config.set_xpu_device_id(int(number or 0))
        else:
            config.disable_gpu()
            config.set_cpu_math_library_num_threads(self._threads)
            config.enable_mkldnn()
            if self.precision == "bf16":
                config.enable_mkldnn_bfloat16()
                if bf16_operations:
                    config.set_bfloat16_op(set(bf16_operations))
        if folder.program.suffix == ".json":
            config.enable_new_ir(True)
            config.enable_new_executor(True)  # without it, memory optimization finds no predictor
        config.enable_memory_optim()
        return config


def tensorrt_shapes(folder: ExportedFolder) -> list[dict[str, list[int]]]:
    """Return the smallest, largest and usual shape of each input, by name, for which TensorRT compiles a graph."""
    longest = folder.config.longest_pair if folder.configs else 1
    return [
        {
            spec.name: [rows, *(length if size is None else size for size in spec.shape[1:])]
            for spec in folder.signature.inputs
        }
        for rows, length in ((1, 5), (TENSORRT_ROWS, longest), (32, min(64, longest)))
    ]


def _run(predictor: Predictor, arrays: Arrays, read: Mapping[str, int]) -> Arrays:
    """Return the outputs of a batch by name: for each name in `read`, the output at its index."""
    for name, values in arrays.items():
        handle = predictor.get_input_handle(name)
        handle.reshape(values.shape)
        handle.copy_from_cpu(values)
    predictor.run()
    names = predictor.get_output_names()
    return {name: predictor.get_output_handle(names[place]).copy_to_cpu() for name, place in read.items()}


def _import_paddle(folder: ExportedFolder) -> ModuleType:
    try:
        paddle: ModuleType = importlib.import_module("paddle")
    except ImportError as error:
        raise DependencyError(f"the engine inference {PADDLE_IS_MISSING}") from error
    require_readable(folder.program, paddle.__version__)
    return paddle


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if "Error:" in line or "NotFound" in line] or [str(error)]
    return " ".join(lines[-1].split())[:200]
