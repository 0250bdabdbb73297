"""Open one of the engines that run an exported ranker, by name, or the fastest here."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from paddle_ranker.errors import CheckpointError, RankerError, UsageError, did_you_mean
from paddle_ranker.model.exported import ExportedFolder
from paddle_ranker.scoring.engines.base import Engine

EXPORTED = ("inference", "onnx", "openvino")  # what runs an exported ranker; the first where nothing is said
ENGINES = ("dygraph", *EXPORTED, "auto")
_PACKAGES = {"inference": "paddle", "onnx": "onnxruntime", "openvino": "openvino"}
_SECONDS = 1.0  # of timing, shared among the engines
_SHAPES = ((32, 24), (32, 40), (4, 64))  # pairs, and about how many tokens each


def open_engine(
    folder: ExportedFolder,
    *,
    engine: str = EXPORTED[0],
    device: str = "cpu",
    precision: str = "fp32",
    threads: int = 0,
    tensorrt: bool = False,
) -> Engine:
    """Open an engine over a static model.

    Args:
        engine: inference, onnx or openvino; auto: the fastest of those that are installed, that the folder has a file
            for, and that compute in the precision, timed for a second and named on standard error.
        device: cpu, gpu, xpu, with or without a number.
        precision: fp32, bf16, fp16 or int8; not every engine computes in each.
        threads: of a matrix product on a CPU; 0: one a core.
        tensorrt: let the engine inference compile the graph with TensorRT, on a GPU.

    Raises `UsageError` for an engine, device or precision that is not one, or is not that engine's, `CheckpointError`
    where the folder lacks its file, `DependencyError` where its package is missing.
    """
    if tensorrt and engine != "inference":
        raise UsageError(f"--tensorrt belongs to --engine inference, not {engine}")
    if engine == "auto":
        return _fastest(folder, device, precision, threads)
    if engine == "inference":
        from paddle_ranker.scoring.engines.paddle_inference import PaddleInferenceEngine

        return PaddleInferenceEngine(folder, device=device, precision=precision, threads=threads, tensorrt=tensorrt)
    if engine == "onnx":
        from paddle_ranker.scoring.engines.onnx_runtime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(folder, device=device, precision=precision, threads=threads)
    if engine == "openvino":
        from paddle_ranker.scoring.engines.openvino import OpenVinoEngine

        return OpenVinoEngine(folder, device=device, precision=precision, threads=threads)
    if engine == "dygraph":
        raise CheckpointError(
            f"{folder.folder}: holds an exported ranker, which the engine dygraph does not run: choose from "
            f"{', '.join(EXPORTED)}, auto, or give the folder that it was exported from"
        )
    raise UsageError(f"--engine {engine}: choose from {', '.join(ENGINES)}{did_you_mean(engine, ENGINES)}")


def is_installed(engine: str) -> bool:
    """Return whether the package that an engine needs is installed; it is not imported."""
    return importlib.util.find_spec(_PACKAGES[engine]) is not None


def _fastest(folder: ExportedFolder, device: str, precision: str, threads: int) -> Engine:
    opened: list[Engine] = []
    reasons: list[str] = []
    for name in EXPORTED:
        if not is_installed(name):
            reasons.append(f"{name}: not installed")
            continue
        try:
            opened.append(open_engine(folder, engine=name, device=device, precision=precision, threads=threads))
        except RankerError as error:
            reasons.append(f"{name}: {error}")
    if not opened:
        raise CheckpointError(f"{folder.folder}: no engine runs it ({'; '.join(reasons)})")
    if len(opened) == 1:
        _say(folder.folder, f"{opened[0].name}, the only one here", reasons)
        return opened[0]
    seconds = time_engines(opened, _batches(folder))
    best = min(range(len(opened)), key=lambda number: seconds[number])
    ratios = ", ".join(
        f"{engine.name} {seconds[number] / seconds[best]:.2f}"
        for number, engine in sorted(enumerate(opened), key=lambda pair: seconds[pair[0]])
    )
    _say(folder.folder, f"{opened[best].name} (time taken, the fastest being 1: {ratios})", reasons)
    return opened[best]


def _say(folder: Path, chosen: str, reasons: list[str]) -> None:
    left_out = f"; left out: {'; '.join(reasons)}" if reasons else ""
    print(f"engine for {folder}: {chosen}{left_out}", file=sys.stderr)


def time_engines(
    engines: list[Engine],
    batches: list[tuple[np.ndarray, np.ndarray]],
    seconds: float = _SECONDS,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Return each engine's seconds for all batches: the best of interleaved rounds, as many as fit into `seconds`."""
    for engine in engines:  # the first time, memory is found and kernels are chosen
        for batch in batches:
            engine.logits(*batch)
    best = [float("inf")] * len(engines)
    started = clock()
    while True:
        for number, engine in enumerate(engines):
            began = clock()
            for batch in batches:
                engine.logits(*batch)
            best[number] = min(best[number], clock() - began)
        if clock() - started >= seconds:
            return best


def _batches(folder: ExportedFolder) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return batches of made-up texts, in the shapes that web queries and titles have."""
    encoder = folder.pair_encoder()
    random = np.random.default_rng(0)
    batches = []
    for rows, length in _SHAPES:
        words = random.integers(0, 20_000, (rows, min(length, encoder.max_seq_length) - 3)) + 0x4E00  # Han characters
        texts = ["".join(map(chr, row)) for row in words.tolist()]
        pairs = encoder.encode([text[:5] for text in texts], [text[5:] for text in texts])
        batches.append(pairs.pad(np.arange(rows), encoder.pad_id))
    return batches
