"""The upper layers of a split ranker in 8-bit integers; importing this module registers what quantizes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Optional

from paddle_ranker.array_types import Arrays
from paddle_ranker.export.gates import Gate, Quality, QuantizeOptions
from paddle_ranker.export.quantization import (
    QUANTIZED_PARTS,
    QuantizedPart,
    in_int8,
    open_on_cpu,
    quantize_graph,
)
from paddle_ranker.export.quantizer import NothingToQuantizeError, Quantizer
from paddle_ranker.model.exported import ExportedFolder
from paddle_ranker.options import note
from paddle_ranker.scoring.engines.engine import Engine
from paddle_ranker.stored_titles.stored_ranker import UPPER_PRODUCTS, parts_of


class _JoinedHalves:
    """Engine that runs the lower layers of a split ranker, then the upper ones, as a search with stored states does."""

    def __init__(self, lower: Engine, upper: Engine, whole: Engine):
        self._lower, self._upper = lower, upper
        self.name, self.precision, self.limits = f"{upper.name}, stored titles", upper.precision, whole.limits

    def run(self, arrays: Arrays) -> Arrays:
        """Return the outputs of the upper layers: the logits."""
        return self._upper.run({**arrays, **self._lower.run(arrays)})


def quantize_upper(
    folder: ExportedFolder,
    trial: ExportedFolder,
    fp32: Engine,
    batches: Sequence[Arrays],
    gate: Gate,
    full_range: bool,
    options: QuantizeOptions,
) -> Optional[QuantizedPart]:
    """Quantize the upper layers of a split ranker into the trial's folder; `gate` tests the result.

    Returns None if the model is no split ranker, or its parts have no ONNX files.
    """
    if not getattr(folder.info, "stored_titles", 0):
        return None
    lower, upper = parts_of(folder)
    if lower.onnx is None or upper.onnx is None:
        note(
            f"{folder.folder}: stored titles are not ranked in int8: {upper.prefix}.onnx is missing; export with --onnx"
        )
        return None
    below = open_on_cpu(lower, options)
    inputs = [{**batch, **below.run(batch)} for batch in batches]
    inputs = [{name: batch[name] for name in upper.signature.input_names} for batch in inputs]
    path = trial.folder / f"{upper.prefix}.int8.onnx"
    quantizer = Quantizer(upper.onnx, trial.folder)

    def judge() -> list[Quality]:
        written = dataclasses.replace(upper, folder=trial.folder)
        joined = [_JoinedHalves(below, engine, fp32) for engine in in_int8(written, options)]
        return [row for engine in joined for row in gate.judge(fp32, engine)]

    try:
        left_out, quality = quantize_graph(
            quantizer, inputs, path, judge, full_range=full_range, limit=options.max_loss
        )
    except NothingToQuantizeError:
        return QuantizedPart(path, {UPPER_PRODUCTS: 0}, [])
    return QuantizedPart(path, {UPPER_PRODUCTS: len(quantizer.products) - len(left_out)}, quality)


QUANTIZED_PARTS.add("stored titles", quantize_upper)
