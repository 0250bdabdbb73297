"""transformers' models as ONNX files, and ONNX Runtime and OpenVINO to run them, as their users would."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.inference_work import Forward

ONNX_FILE, ONNX_INT8_FILE = "peer.onnx", "peer.int8.onnx"
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def inputs_of(folder: Path) -> Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]:
    """Return a function that makes a transformers model's inputs from ids and token types, which some models lack."""
    config = json.loads((folder / "hf" / "config.json").read_text(encoding="utf-8"))
    names = _INPUTS if config.get("type_vocab_size", 0) > 1 else _INPUTS[:2]

    def inputs(input_ids: np.ndarray, token_type_ids: np.ndarray) -> dict[str, np.ndarray]:
        mask = (input_ids != config["pad_token_id"]).astype(np.int64)
        return dict(zip(names, (input_ids, mask, token_type_ids)))

    return inputs


def open_graph(system: str, folder: Path, threads: int, device: str = "cpu") -> Forward:
    """Return a function from `[batch, length]` int64 ids and token types to the output; the next call may overwrite it.

    Args:
        system: `onnxruntime`, `onnxruntime_int8`, `openvino` or `openvino_bf16`.
        folder: the folder that `export_graphs` wrote.
        device: cpu, or gpu for ONNX Runtime.
    """
    if system.startswith("onnxruntime"):
        return _onnx_runtime(folder / (ONNX_INT8_FILE if system.endswith("int8") else ONNX_FILE), threads, device)
    return _openvino(folder / ONNX_FILE, threads, "bf16" if system.endswith("bf16") else "f32")


def _onnx_runtime(file: Path, threads: int, device: str) -> Forward:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Busy-waiting threads would take processor time from the other systems of this benchmark.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers: list[Any] = ["CPUExecutionProvider"]
    if device == "gpu":
        providers = [("CUDAExecutionProvider", {"use_tf32": 0})]
    session = onnxruntime.InferenceSession(str(file), options, providers=providers)
    if device == "gpu" and "CUDAExecutionProvider" not in session.get_providers():
        raise RuntimeError("ONNX Runtime has no GPU here: install onnxruntime-gpu in place of onnxruntime")
    inputs = inputs_of(file.parent)
    return lambda input_ids, token_type_ids: session.run(None, inputs(input_ids, token_type_ids))[0]


def _openvino(file: Path, threads: int, precision: str) -> Forward:
    import openvino

    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    compiled = openvino.Core().compile_model(str(file), "CPU", {**settings, "INFERENCE_PRECISION_HINT": precision})
    request, inputs = compiled.create_infer_request(), inputs_of(file.parent)

    def run(input_ids: np.ndarray, token_type_ids: np.ndarray) -> np.ndarray:
        request.infer(inputs(input_ids, token_type_ids), share_inputs=True)
        output: np.ndarray = request.get_output_tensor(0).data
        return output

    return run


def export_graphs(folder: Path, auto_class: str, output: str, axes: dict[int, str]) -> None:
    """Export `hf` in `folder` to ONNX with PyTorch, and quantize the result to dynamic int8 with ONNX Runtime.

    Args:
        auto_class: the class of transformers that loads the model.
        output: the model's output that the graph returns.
        axes: names of the output's axes whose length may differ.
    """
    import torch
    import transformers
    from torch import nn

    class OneOutput(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = getattr(transformers, auto_class).from_pretrained(folder / "hf", dtype=torch.float32)

        def forward(self, *tensors: Any) -> Any:
            return getattr(self.model(**dict(zip(names, tensors))), output)

    ids = torch.randint(5, 50, (2, 16))
    example = inputs_of(folder)(ids.numpy(), np.zeros((2, 16), np.int64))
    names = list(example)
    with torch.no_grad():
        torch.onnx.export(
            OneOutput().eval(),
            tuple(map(torch.from_numpy, example.values())),
            str(folder / ONNX_FILE),
            input_names=names,
            output_names=[output],
            opset_version=17,
            dynamic_axes={**{name: {0: "batch", 1: "length"} for name in names}, **({output: axes} if axes else {})},
            dynamo=False,  # the older exporter; its graph was faster in both engines when this was written
        )
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(folder / ONNX_FILE, folder / ONNX_INT8_FILE, weight_type=QuantType.QInt8)
