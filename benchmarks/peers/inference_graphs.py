"""Scoring with the ONNX file that a user of transformers gets: ONNX Runtime and OpenVINO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.inference_work import BatchedSystem, Forward, InferenceWork, Pairs, System

FILE, INT8_FILE = "peer.onnx", "peer.int8.onnx"


def open_system(system: str, folder: Path, work: InferenceWork, pairs: Pairs) -> System:
    """Return `onnxruntime`, `onnxruntime_int8`, `openvino` or `openvino_bf16`."""
    if system.startswith("onnxruntime"):
        forward = _onnx_runtime(folder / (INT8_FILE if system.endswith("int8") else FILE), work.threads)
    else:
        forward = _openvino(folder / FILE, work.threads, "bf16" if system.endswith("bf16") else "f32")
    return BatchedSystem(forward, pairs, work)


def _inputs(input_ids: np.ndarray, token_type_ids: np.ndarray) -> dict[str, Any]:
    mask = (input_ids != 0).astype(np.int64)
    return {"input_ids": input_ids, "token_type_ids": token_type_ids, "attention_mask": mask}


def _onnx_runtime(file: Path, threads: int) -> Forward:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that wait busily would take the processor from the other systems of this benchmark.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def forward(input_ids: np.ndarray, token_type_ids: np.ndarray) -> np.ndarray:
        logits: np.ndarray = session.run(None, _inputs(input_ids, token_type_ids))[0]
        return logits

    return forward


def _openvino(file: Path, threads: int, precision: str) -> Forward:
    import openvino

    compiled = openvino.Core().compile_model(
        str(file),
        "CPU",
        {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": precision,
        },
    )
    request = compiled.create_infer_request()

    def forward(input_ids: np.ndarray, token_type_ids: np.ndarray) -> np.ndarray:
        request.infer(_inputs(input_ids, token_type_ids), share_inputs=True)
        logits: np.ndarray = request.get_output_tensor(0).data.copy()
        return logits

    return forward
