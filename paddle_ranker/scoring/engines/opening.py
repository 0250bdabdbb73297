"""Open an engine for an exported model: by name, or the fastest on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Optional

import numpy as np

from paddle_ranker.array_types import Array, Arrays
from paddle_ranker.errors import CheckpointError, RankerError, UsageError
from paddle_ranker.libraries import AUTO_DEVICE, switch_off_telemetry
from paddle_ranker.metrics.calibration import Calibration
from paddle_ranker.model.exported import ExportedFolder
from paddle_ranker.model.foreign.foreign_files import ONNX
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.notes import note
from paddle_ranker.runtime import own_gpu
from paddle_ranker.scoring.engines.engine import Engine
from paddle_ranker.scoring.engines.engine_registry import (
    AUTO,
    DEFAULT,
    ENGINES,
    OF_ONNX,
    exported_engines,
    is_installed,
)
from paddle_ranker.scoring.engines.precisions import require_offered

_SECONDS = 1.0  # seconds of timing, shared among the engines
_SHAPES = ((32, 24), (32, 40), (4, 64))  # (pairs, approximate tokens per pair), as of web queries and titles


def open_engine(folder: ExportedFolder, options: LoadOptions) -> Engine:
    """Open the engine that the options name, or the default, for a static model.

    Raises `UsageError` for a device or precision that the engine does not offer, and the errors of `EngineKind.open`.
    """
    switch_off_telemetry()
    name = options.engine or (OF_ONNX if folder.program.suffix == ONNX else DEFAULT)
    if options.tensorrt and name != "inference":
        raise UsageError(f"--tensorrt belongs to --engine inference, not {name}")
    device = ENGINES[name].device_for(options.precision) if options.device == AUTO_DEVICE else None
    if device is not None:
        device.report()
        options = replace(options, device=device.name)
    options = replace(options, device=own_gpu(options.device))
    require_offered(name, options.device, options.precision)
    engine = ENGINES[name].open(folder, options)
    # The graph in a folder for Paddle Serving returns the probability only.
    is_there = set(folder.signature.read) <= set(folder.outputs) or name == AUTO
    return engine if is_there else LogitOfProbability(engine, folder.info.calibration)


def refuse_dygraph(folder: ExportedFolder, options: LoadOptions) -> Engine:
    """Raise `CheckpointError`: dygraph, the engine of trained models, does not run exported models."""
    raise CheckpointError(
        f"{folder.folder}: holds an exported ranker, which the engine dygraph does not run: choose from "
        f"{', '.join(exported_engines())}, auto, or give the folder that it was exported from"
    )


def open_fastest(folder: ExportedFolder, options: LoadOptions) -> Engine:
    """Open the fastest installed engine that offers the precision and has its file in the folder.

    The engines are timed for about a second; a note on standard error says which one was chosen.
    """
    opened: list[Engine] = []
    reasons: list[str] = []
    for name in exported_engines():
        if not is_installed(name):
            reasons.append(f"{name}: not installed")
            continue
        try:
            opened.append(open_engine(folder, replace(options, engine=name)))
        except RankerError as error:
            reasons.append(f"{name}: {error}")
    if not opened:
        raise CheckpointError(f"{folder.folder}: no engine runs it ({'; '.join(reasons)})")
    if len(opened) == 1:
        _report(folder.folder, f"{opened[0].name}, the only one here", reasons)
        return opened[0]
    seconds = time_engines(opened, list(folder.kind.timing_inputs(folder.row_encoder(), folder.info, _SHAPES)))
    best = min(range(len(opened)), key=lambda number: seconds[number])
    ratios = ", ".join(
        f"{engine.name} {seconds[number] / seconds[best]:.2f}"
        for number, engine in sorted(enumerate(opened), key=lambda pair: seconds[pair[0]])
    )
    _report(folder.folder, f"{opened[best].name} (time taken, the fastest being 1: {ratios})", reasons)
    return opened[best]


def _report(folder: Path, chosen: str, reasons: list[str]) -> None:
    left_out = f"; left out: {'; '.join(reasons)}" if reasons else ""
    note(f"engine for {folder}: {chosen}{left_out}")


def time_engines(
    engines: list[Engine],
    batches: Sequence[Arrays],
    seconds: float = _SECONDS,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Return each engine's best time for computing all batches, in seconds.

    Rounds over all engines are repeated until `seconds` have passed.
    """
    for engine in engines:  # In the first run memory is allocated, and kernels are chosen.
        for batch in batches:
            engine.run(batch)
    best = [float("inf")] * len(engines)
    started = clock()
    while True:
        for number, engine in enumerate(engines):
            began = clock()
            for batch in batches:
                engine.run(batch)
            best[number] = min(best[number], clock() - began)
        if clock() - started >= seconds:
            return best


# The smallest normal float32 above 0, about 1e-38, and the largest float32 below 1.
_LEAST, _MOST = float(np.finfo(np.float32).tiny), 1.0 - 2.0**-24


class LogitOfProbability:
    """Engine for a graph that returns only probabilities, from which the engine computes the uncalibrated logits."""

    def __init__(self, engine: Engine, calibration: Optional[Calibration]):
        self._engine, self._calibration = engine, calibration
        self.name, self.precision, self.limits = engine.name, engine.precision, engine.limits
        if hasattr(engine, "batch_tokens"):
            self.batch_tokens = engine.batch_tokens

    def run(self, arrays: Arrays) -> Arrays:
        outputs = self._engine.run(arrays)
        return {**outputs, "logit": logit_of(outputs["predict"], self._calibration)}


def logit_of(probability: Array, calibration: Optional[Calibration]) -> Array:
    """Return the ranker's uncalibrated logit, float32, for a calibrated probability.

    A probability that float32 rounds to 0 or 1 is first clipped to the nearest normal float32 between them.
    """
    clipped = np.clip(probability.astype(np.float64), _LEAST, _MOST)
    logit = np.log(clipped) - np.log1p(-clipped)
    return np.asarray(logit if calibration is None else calibration.undo(logit), np.float32)
