"""One system of the inference benchmark: `python -m benchmarks.peers.inference_worker SYSTEM FOLDER`.

With `export` as SYSTEM it writes the ONNX files that a user of transformers would write. Frameworks are imported by
their systems alone, so that a process has no more in memory than its users' processes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.answers import answer_commands, take_stdout
from benchmarks.peers.graphs import export_graphs, inputs_of, open_graph
from benchmarks.peers.inference_work import (
    BatchedSystem,
    Forward,
    InferenceWork,
    Pairs,
    System,
    answer_as,
    load_inference_work,
)
from paddle_ranker.model.exported import open_exported
from paddle_ranker.model.model_folder import RANKER


def main() -> int:
    """Load SYSTEM with the model of FOLDER, and answer the commands on standard input."""
    system, folder = sys.argv[1], Path(sys.argv[2])
    if system == "export":
        export_graphs(folder, "AutoModelForSequenceClassification", "logits", {})
        return 0
    answers = take_stdout()
    work, pairs = load_inference_work(folder)
    answer_commands(answers, answer_as(_open(system, folder, work, pairs)), sys.stdin)
    return 0


def _open(system: str, folder: Path, work: InferenceWork, pairs: Pairs) -> System:
    if system.startswith("ours"):
        return _ours(system, folder, work, pairs)
    if system.startswith("published"):
        from benchmarks.peers.published import open_system

        return open_system(folder, work, pairs)
    if system.startswith(("torch", "sentence_transformers")):
        return _torch(system, folder, work, pairs)
    return BatchedSystem(open_graph(system, folder, work.threads, work.device), pairs, work)


def _ours(system: str, folder: Path, work: InferenceWork, pairs: Pairs) -> System:
    """Return `ours_ENGINE` or `ours_ENGINE_PRECISION`."""
    from paddle_ranker import runtime

    runtime.prepare_command(work.threads)
    from paddle_ranker.model.load_options import LoadOptions
    from paddle_ranker.scoring.engines.opening import open_engine
    from paddle_ranker.scoring.scorer import Scorer

    _, engine, *precision = system.split("_")
    exported = open_exported(folder / "exported", RANKER)
    how = LoadOptions(engine=engine, device=work.device, precision=(precision or ["fp32"])[0], threads=work.threads)
    scorer = Scorer(open_engine(exported, how), exported.row_encoder(LoadOptions(max_seq_length=work.max_seq_length)))
    return _OwnScorer(scorer, pairs)


class _OwnScorer:
    def __init__(self, scorer: Any, pairs: Pairs):
        self._scorer, self._pairs = scorer, pairs

    def score(self, rows: np.ndarray) -> np.ndarray:
        return self._scorer.logits(self._pairs.encoded.take(rows))


def _torch(system: str, folder: Path, work: InferenceWork, pairs: Pairs) -> System:
    """Return a system `torch...` or `sentence_transformers...`, compiled or in half precision if its name says so."""
    import torch

    torch.set_num_threads(work.threads)
    types = {"bf16": torch.bfloat16, "fp16": torch.float16}
    precision = types.get(system.rpartition("_")[2], torch.float32)
    if system.startswith("sentence_transformers"):
        return _CrossEncoder(folder / "hf", pairs, work, precision)
    return BatchedSystem(_transformers(folder, precision, system, _cuda(work)), pairs, work)


def _cuda(work: InferenceWork) -> str:
    return "cuda" if work.device == "gpu" else work.device


def _transformers(folder: Path, precision: Any, system: str, device: str) -> Forward:
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder / "hf", dtype=precision)
    model = model.eval().to(device)
    inputs = inputs_of(folder)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    run, without_gradients = model, torch.inference_mode
    if "compiled" in system:
        from torch._inductor import config as inductor

        inductor.freezing = True  # weights become constants, packed for the processor
        run, without_gradients = torch.compile(model, dynamic=True), torch.no_grad  # freezing refuses inference_mode

    def forward(input_ids: np.ndarray, token_type_ids: np.ndarray) -> np.ndarray:
        found = inputs(input_ids, token_type_ids)
        tensors = {name: torch.from_numpy(array).to(device) for name, array in found.items()}
        with without_gradients():
            output = run(**tensors)
        logits: np.ndarray = output.logits.float().cpu().numpy()
        return logits

    return forward


class _CrossEncoder:
    """sentence-transformers' `CrossEncoder.predict`, which tokenizes texts and sorts them by length itself."""

    def __init__(self, folder: Path, pairs: Pairs, work: InferenceWork, precision: Any):
        from sentence_transformers import CrossEncoder

        self._model = CrossEncoder(
            str(folder), max_length=work.max_seq_length, device=_cuda(work), model_kwargs={"dtype": precision}
        )
        self._pairs, self._batch_size = pairs, work.batch_size

    def score(self, rows: np.ndarray) -> np.ndarray:
        import torch

        logits = self._model.predict(
            [(self._pairs.queries[row], self._pairs.titles[row]) for row in rows],
            batch_size=self._batch_size,
            activation_fn=torch.nn.Identity(),
            show_progress_bar=False,
        )
        return np.asarray(logits, dtype=np.float64).reshape(-1)


if __name__ == "__main__":
    sys.exit(main())
