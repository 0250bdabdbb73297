"""One system of the encoding benchmark: `python -m benchmarks.peers.encode_worker SYSTEM FOLDER THREADS BATCH_SIZE`.

It encodes the texts of `texts.json` as vectors, including tokenization. With `export` as SYSTEM it writes the ONNX
files that a user of transformers would write. Only the systems of a framework import it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.answers import Stopwatch, answer_commands, take_stdout
from benchmarks.peers.graphs import export_graphs, open_graph

Encode = Callable[[Sequence[str]], np.ndarray]


def main() -> int:
    """Load SYSTEM with the model of FOLDER, and answer the commands on standard input."""
    system, folder = sys.argv[1], Path(sys.argv[2])
    if system == "export":
        export_graphs(folder, "AutoModel", "last_hidden_state", {0: "batch", 1: "length"})
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
    """Return a system of transformers' tokenizer with ONNX Runtime or OpenVINO, in batches sorted by length."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "hf")
    run = open_graph(system, folder, threads)

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
            states = run(input_ids, np.zeros_like(input_ids))
            pooled = (states * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
            for row, vector in zip(rows, pooled.astype(np.float32)):
                vectors[row] = vector
        return np.stack(vectors)

    return encode


if __name__ == "__main__":
    sys.exit(main())
