"""Find the ranges of the activations in an ONNX file's matrix products, and write the products in 8-bit integers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paddle_ranker.array_types import Arrays
from paddle_ranker.errors import CheckpointError, DependencyError
from paddle_ranker.scoring.engines.inputs import InputLimits

if TYPE_CHECKING:
    import onnx

_LEVELS = 255  # the highest value of uint8
_FULL, _REDUCED = 127, 64  # largest absolute weight in 8 and in 7 bits
_SAMPLE = 2048  # rows of an activation on which a product's error is estimated


class NothingToQuantizeError(CheckpointError):
    """All products of a graph are computed for a single token of each pair, and so stay in fp32."""


@dataclass(frozen=True)
class Product:
    """Product of activations and a weight matrix in a graph.

    node: name of its node
    activation, weight: names of its operands
    shape: the weight's shape, [in, out]
    """

    node: str
    activation: str
    weight: str
    shape: tuple[int, int]


@dataclass(frozen=True)
class Calibrated:
    """Result of calibration; each dict is keyed by the activation's name.

    lowest, highest: the least and greatest value, with 0 always inside
    samples: some rows, `[rows, width] float32`, to estimate errors on
    """

    lowest: dict[str, float]
    highest: dict[str, float]
    samples: dict[str, np.ndarray]


def require_packages() -> None:
    """Raise `DependencyError` if a package that quantizing needs is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        line = f"python -m pip install {error.name}"
        raise DependencyError(f"quantizing needs the package {error.name}; install it with: {line}") from error


class Quantizer:
    """Quantizer of one ONNX file.

    Args:
        source: the file that `export --onnx` wrote.
        work: folder for a temporary file.

    Attributes:
        products: the products to quantize. `calibrate` removes those that are computed for only one token of each pair
            (as the last layer's are): they cost next to nothing, and nothing averages out their errors.

    Raises `CheckpointError` if the file has no product to quantize.
    """

    def __init__(self, source: Path, work: Path):
        import onnx
        import onnxruntime

        self.source = source
        folded = work / "folded.onnx"
        # With constants as initializers and transposed weights as plain weights, all products have one form below.
        options = _session_options()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(folded)
        onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
        self.model: onnx.ModelProto = onnx.load(str(folded), load_external_data=False)
        # Parameters of a large model that were not folded are still in the source's file.
        onnx.external_data_helper.load_external_data_for_model(self.model, str(source.parent))
        folded.unlink()
        self._weights = {tensor.name: tensor for tensor in self.model.graph.initializer}
        self.products = [
            Product(node.name, node.input[0], node.input[1], tuple(self._weights[node.input[1]].dims))
            for node in self.model.graph.node
            if node.op_type == "MatMul" and self._is_matrix(node.input[1]) and node.input[0] not in self._weights
        ]
        if not self.products:
            raise CheckpointError(
                f"{source}: has no product of a weight matrix to quantize, as a network of convolutions has none; use "
                "it in fp32"
            )

    def _is_matrix(self, name: str) -> bool:
        shape = self._weights[name].dims if name in self._weights else ()
        return len(shape) == 2 and min(shape) > 1

    def calibrate(self, batches: Iterable[Arrays]) -> Calibrated:
        """Run the graph on calibration rows; return the ranges and samples of the activations that products multiply.

        Raises `NothingToQuantizeError` if every product is computed for only one token of each pair.
        """
        import onnx
        import onnxruntime

        names = list(dict.fromkeys(product.activation for product in self.products))
        watched = onnx.ModelProto()
        watched.CopyFrom(self.model)
        del watched.graph.output[:]
        watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        session = onnxruntime.InferenceSession(
            watched.SerializeToString(), _session_options(), providers=["CPUExecutionProvider"]
        )
        calibrated = Calibrated(dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0), {})
        random = np.random.default_rng(0)
        of_one_token: set[str] = set()
        for batch in batches:
            for name, values in zip(names, session.run(names, batch)):
                rows = values.reshape(-1, values.shape[-1])
                if len(rows) == InputLimits.rows(batch):
                    of_one_token.add(name)
                calibrated.lowest[name] = min(calibrated.lowest[name], float(rows.min()))
                calibrated.highest[name] = max(calibrated.highest[name], float(rows.max()))
                kept = calibrated.samples.get(name, rows[:0])
                drawn = rows[random.permutation(len(rows))[: max(0, _SAMPLE - len(kept))]]
                calibrated.samples[name] = np.concatenate([kept, drawn])
        self.products = [product for product in self.products if product.activation not in of_one_token]
        if not self.products:
            raise NothingToQuantizeError(
                f"{self.source}: all its products of weights are of one token a pair, as with a single layer: integers "
                "would gain nothing; score with --precision bf16"
            )
        return calibrated

    def by_error(self, calibrated: Calibrated, full_range: bool) -> list[Product]:
        """Return the products by decreasing error.

        An error is the mean squared error of a product's result, divided by the mean square of the exact result.
        """
        errors = {}
        for product in self.products:
            name, weight = product.activation, self._array(product.weight)
            rows = calibrated.samples[name]
            scale, zero = activation_scale(calibrated.lowest[name], calibrated.highest[name])
            quantized = (np.clip(np.rint(rows / scale) + zero, 0, _LEVELS) - zero) * scale
            integers, scales = quantize_weight(weight, full_range)
            exact = rows @ weight
            error = quantized.astype(np.float32) @ (integers * scales).astype(np.float32) - exact
            errors[product.node] = float(np.square(error).mean() / max(np.square(exact).mean(), 1e-12))
        return sorted(self.products, key=lambda product: -errors[product.node])

    def quantize(self, calibrated: Calibrated, *, left_out: Sequence[Product] = (), full_range: bool = True) -> Any:
        """Return the ONNX model with all products but `left_out` in integers.

        full_range: whether weights have 8 bits; else they have 7
        """
        import onnx
        from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType
        from onnxruntime.quantization.calibrate import TensorsData

        chosen = [product.node for product in self.products if product not in left_out]
        model = onnx.shape_inference.infer_shapes(self.model)  # a copy
        if chosen:
            ranges = {
                name: (np.float32(calibrated.lowest[name]), np.float32(calibrated.highest[name]))
                for name in calibrated.lowest
            }
            quantizer = QDQQuantizer(
                model,
                per_channel=True,
                reduce_range=not full_range,
                weight_qType=QuantType.QInt8,
                activation_qType=QuantType.QUInt8,
                tensors_range=TensorsData(CalibrationMethod.MinMax, ranges),
                nodes_to_quantize=chosen,
                nodes_to_exclude=[],
                op_types_to_quantize=["MatMul"],
                # The outputs of products stay in fp32, and so do products of two activations.
                extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul"], "MatMulConstBOnly": True},
            )
            quantizer.quantize_model()
            quantizer.model.topological_sort()
            model = quantizer.model.model
        onnx.checker.check_model(model)
        return model

    def _array(self, name: str) -> np.ndarray:
        from onnx import numpy_helper

        return np.asarray(numpy_helper.to_array(self._weights[name]), np.float32)


def activation_scale(lowest: float, highest: float) -> tuple[np.floating, np.integer]:
    """Return the scale and the zero point that map the values from `lowest` to `highest` to uint8.

    The range is extended to include 0.
    """
    lowest, highest = min(lowest, 0.0), max(highest, 0.0)
    scale = np.float32((highest - lowest) / _LEVELS or 1.0)
    return scale, np.uint8(np.clip(np.rint(-lowest / scale), 0, _LEVELS))


def quantize_weight(weight: np.ndarray, full_range: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Quantize a weight `[in, out]` symmetrically; return int8 `[in, out]` and each column's float32 scale, `[out]`."""
    most = _FULL if full_range else _REDUCED
    largest = np.abs(weight).max(axis=0)
    scales = np.where(largest > 0, largest / most, 1.0).astype(np.float32)
    return np.clip(np.rint(weight / scales), -most, most).astype(np.int8), scales


def _session_options() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    return options
