"""One system of the encoding benchmark: `python -m benchmarks.peers.encode_worker SYSTEM FOLDER THREADS BATCH_SIZE`.

It makes vectors of the texts in `texts.json`, tokenization included. With `export` as SYSTEM it writes the ONNX files
that a user of transformers would write. Only the systems of a framework import it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.answers import Stopwatch, answer_commands, take_stdout

ONNX_FILE, ONNX_INT8_FILE = "peer.onnx", "peer.int8.onnx"
Encode = Callable[[Sequence[str]], np.ndarray]
_INPUTS = ("input_ids", "token_type_ids", "attention_mask")


def main() -> int:
    """Load SYSTEM with the model of FOLDER, and answer the commands on standard input."""
    system, folder = sys.argv[1], Path(sys.argv[2])
    if system == "export":
        export(folder)
        return 0
    answers = take_stdout()
    texts = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
    encode = _open(system, folder, int(sys.argv[3]), int(sys.argv[4]))

    def answer(command: dict[str, Any]) -> dict[str, Any]:
        watch = Stopwatch()
        vectors = encode(texts[: command["texts"]])
        took = watch.took()
        if command.get("keep"):
            np.save(folder / f"{system}.npy", vectors)
        return {"texts": len(vectors), **took}

    answer_commands(answers, answer, sys.stdin)
    return 0


def _open(system: str, folder: Path, threads: int, batch_size: int) -> Encode:
    if system.startswith("ours"):
        return _ours(system, folder, threads)
    if system.startswith("sentence_transformers"):
        return _sentence_transformers(system, folder / "hf", threads, batch_size)
    return _graph(system, folder, threads, batch_size)


def _ours(system: str, folder: Path, threads: int) -> Encode:
    from paddle_ranker import runtime

    _, engine, *precision = system.split("_")
    if engine == "inference":
        runtime.prepare_command(threads)
    from paddle_ranker.model.load_options import LoadOptions
    from paddle_ranker.retrieval.vectors import Tower

    options = LoadOptions(engine=engine, device="cpu", precision=(precision or ["fp32"])[0], threads=threads)
    tower = Tower.open(folder / "exported", options)
    return lambda texts: np.concatenate(list(tower.stream(texts)))


def _sentence_transformers(system: str, folder: Path, threads: int, batch_size: int) -> Encode:
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    precision = torch.bfloat16 if system.endswith("_bf16") else torch.float32
    model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": precision})
    if "compiled" in system:
        from torch._inductor import config as inductor

        inductor.freezing = True  # weights become constants, packed for the processor
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        model[0].auto_model = torch.compile(model[0].auto_model, dynamic=True)

    def encode(texts: Sequence[str]) -> np.ndarray:
        with torch.no_grad():
            found = model.encode(texts, batch_size=batch_size, convert_to_tensor=True, show_progress_bar=False)
        vectors: np.ndarray = found.float().numpy()
        return vectors

    return encode


def _graph(system: str, folder: Path, threads: int, batch_size: int) -> Encode:
    """Return a system of transformers' tokenizer and ONNX Runtime or OpenVINO, in batches sorted by length."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "hf")
    if system.startswith("onnxruntime"):
        run = _onnx_runtime(folder / (ONNX_INT8_FILE if system.endswith("int8") else ONNX_FILE), threads)
    else:
        run = _openvino(folder / ONNX_FILE, threads, "bf16" if system.endswith("bf16") else "f32")

    def encode(texts: Sequence[str]) -> np.ndarray:
        ids = tokenizer(list(texts), truncation=True, max_length=512)["input_ids"]
        order = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
        vectors: list[Any] = [None] * len(ids)
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            input_ids = np.zeros((len(rows), len(ids[rows[0]])), np.int64)
            for place, row in enumerate(rows):
                input_ids[place, : len(ids[row])] = ids[row]
            mask = (input_ids != 0).astype(np.int64)
            states = run({"input_ids": input_ids, "token_type_ids": np.zeros_like(input_ids), "attention_mask": mask})
            pooled = (states * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
            for row, vector in zip(rows, pooled.astype(np.float32)):
                vectors[row] = vector
        return np.stack(vectors)

    return encode


def _onnx_runtime(file: Path, threads: int) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Busy-waiting threads would take processor time from the other systems of this benchmark.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda arrays: session.run(None, arrays)[0]


def _openvino(file: Path, threads: int, precision: str) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    import openvino

    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    compiled = openvino.Core().compile_model(str(file), "CPU", {**settings, "INFERENCE_PRECISION_HINT": precision})
    request = compiled.create_infer_request()

    def run(arrays: dict[str, np.ndarray]) -> np.ndarray:
        request.infer(arrays, share_inputs=True)
        states: np.ndarray = request.get_output_tensor(0).data
        return states

    return run


def export(folder: Path) -> None:
    """Export `hf` in `folder` to ONNX with PyTorch, and quantize the result to dynamic int8 with ONNX Runtime."""
    import torch
    from torch import nn
    from transformers import AutoModel

    class States(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModel.from_pretrained(folder / "hf", dtype=torch.float32)

        def forward(self, *tensors: Any) -> Any:
            return self.model(**dict(zip(_INPUTS, tensors))).last_hidden_state

    ids = torch.randint(5, 50, (2, 16))
    with torch.no_grad():
        torch.onnx.export(
            States().eval(),
            (ids, torch.zeros_like(ids), torch.ones_like(ids)),
            str(folder / ONNX_FILE),
            input_names=list(_INPUTS),
            output_names=["states"],
            opset_version=17,
            dynamic_axes={name: {0: "batch", 1: "length"} for name in (*_INPUTS, "states")},
            dynamo=False,  # the older exporter: its graph was the faster one in both engines when this was written
        )
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(folder / ONNX_FILE, folder / ONNX_INT8_FILE, weight_type=QuantType.QInt8)


if __name__ == "__main__":
    sys.exit(main())
