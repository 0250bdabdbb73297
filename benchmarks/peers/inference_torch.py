"""Scoring in PyTorch: transformers' model as it is, compiled, in half precision, and sentence-transformers' ranker."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from benchmarks.peers.inference_work import BatchedSystem, Forward, InferenceWork, Pairs, System


def open_system(system: str, folder: Path, work: InferenceWork, pairs: Pairs) -> System:
    """Return a system by name: `torch` or `sentence_transformers`, and what its name says more."""
    torch.set_num_threads(work.threads)
    precision = torch.bfloat16 if system.endswith("_bf16") else torch.float32
    if system.startswith("sentence_transformers"):
        return _CrossEncoder(folder / "hf", pairs, work, precision)
    return BatchedSystem(_transformers(folder / "hf", precision, "compiled" in system), pairs, work)


def _transformers(folder: Path, precision: torch.dtype, compiled: bool) -> Forward:
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=precision).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    run = model
    if compiled:
        from torch._inductor import config as inductor

        inductor.freezing = True  # weights become constants, packed for the processor
        run = torch.compile(model, dynamic=True)

    def forward(input_ids: np.ndarray, token_type_ids: np.ndarray) -> np.ndarray:
        ids = torch.from_numpy(input_ids)
        with torch.no_grad():
            output = run(
                input_ids=ids, token_type_ids=torch.from_numpy(token_type_ids), attention_mask=(ids != 0).long()
            )
        logits: np.ndarray = output.logits.float().numpy()
        return logits

    return forward


class _CrossEncoder:
    """`CrossEncoder.predict`, which tokenizes and sorts by itself."""

    def __init__(self, folder: Path, pairs: Pairs, work: InferenceWork, precision: torch.dtype):
        from sentence_transformers import CrossEncoder

        self._model = CrossEncoder(
            str(folder), max_length=work.max_seq_length, device="cpu", model_kwargs={"dtype": precision}
        )
        self._pairs, self._batch_size = pairs, work.batch_size

    def score(self, rows: np.ndarray) -> np.ndarray:
        """Return the logits of the pairs at `rows` [n], `[n]`."""
        logits = self._model.predict(
            [(self._pairs.queries[row], self._pairs.titles[row]) for row in rows],
            batch_size=self._batch_size,
            activation_fn=torch.nn.Identity(),
            show_progress_bar=False,
        )
        return np.asarray(logits, dtype=np.float64).reshape(-1)
