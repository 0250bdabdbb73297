"""This toolkit's engines, each with the batches that its scorer forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.peers.inference_work import InferenceWork, Pairs, System
from paddle_ranker import runtime
from paddle_ranker.model.exported import ExportedFolder
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.scoring.engines.opening import open_engine
from paddle_ranker.scoring.scorer import Scorer

# System -> engine, precision, the exported folder
ENGINES = {
    "ours_inference": ("inference", "fp32", "exported"),
    "ours_inference_bf16": ("inference", "bf16", "exported"),
    "ours_onnx": ("onnx", "fp32", "exported"),
    "ours_openvino": ("openvino", "fp32", "exported"),
    "ours_openvino_bf16": ("openvino", "bf16", "exported"),
    "ours_onnx_int8": ("onnx", "int8", "exported"),
    "ours_openvino_int8": ("openvino", "int8", "exported"),
    "ours_inference_match": ("inference", "fp32", "exported_match"),
    "ours_openvino_match": ("openvino", "fp32", "exported_match"),
    "ours_inference_texts": ("inference", "fp32", "exported"),
    "ours_openvino_texts": ("openvino", "fp32", "exported"),
}


def open_system(system: str, folder: Path, work: InferenceWork, pairs: Pairs) -> System:
    """Return a system by name: `ours_dygraph`, or one of `ENGINES`; `_texts` encodes too."""
    runtime.prepare_command(work.threads)
    if system == "ours_dygraph":
        from paddle_ranker.model.kinds import load_ranker
        from paddle_ranker.scoring.engines.dygraph import DygraphEngine

        parts = load_ranker(folder / "ranker")
        return _Ours(Scorer(DygraphEngine(parts.network), parts.pair_encoder), pairs, texts=False)
    engine, precision, name = ENGINES[system]
    exported = ExportedFolder.open(folder / name)
    opened = open_engine(exported, LoadOptions(engine=engine, device="cpu", precision=precision, threads=work.threads))
    scorer = Scorer(opened, exported.pair_encoder(LoadOptions(max_seq_length=work.max_seq_length)))
    return _Ours(scorer, pairs, texts=system.endswith("_texts"))


class _Ours:
    def __init__(self, scorer: Scorer, pairs: Pairs, texts: bool):
        self._scorer, self._pairs, self._texts = scorer, pairs, texts

    def score(self, rows: np.ndarray) -> np.ndarray:
        """Return the logits of the pairs at `rows` [n], `[n]`."""
        if not self._texts:
            return self._scorer.logits(self._pairs.encoded.take(rows))
        queries, titles = ([texts[row] for row in rows] for texts in (self._pairs.queries, self._pairs.titles))
        return self._scorer.logits(self._scorer.encode(queries, titles))
