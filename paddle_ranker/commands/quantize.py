"""Compute an exported ranker's matrix products in 8-bit integers, where that costs little.

paddle-ranker quantize --model output --calibration_file pairs.tsv --test dev.tsv --max_loss 0.005
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from paddle_ranker import runtime
from paddle_ranker.export.gates import QuantizeOptions
from paddle_ranker.metrics.measures import MEASURES
from paddle_ranker.options import main_of

if TYPE_CHECKING:
    from paddle_ranker.export.quantization import Gate, Quality, Speed


def quantize(options: QuantizeOptions) -> None:
    """Quantize and measure a model; write `<prefix>.int8.onnx` beside its other files if the loss is small enough.

    Raises `RankerError` if AUC or nDCG@10 falls by more than `max_loss`, even if some matrix products stay in fp32.
    """
    runtime.prepare_command(options.cpu_threads)
    from paddle_ranker.export.quantization import quantize_folder

    made = quantize_folder(options)
    print_quality(made.quality, made.gate)
    print_speed(made.speed)
    print(f"quantized: {made.path} ({made.path.stat().st_size / 1e6:.1f} MB, {made.share})")


def print_quality(quality: Sequence[Quality], gate: Gate) -> None:
    """Print each engine's measures before and after quantization; `gate` describes how they were measured."""
    for row in quality:
        name = MEASURES[row.measure].title if row.measure in MEASURES else row.measure
        print(f"{name:8} {row.before:.4f} in fp32, {row.after:.4f} in int8 ({row.engine}): {row.difference:+.4f}")
    moved = ", ".join(f"{name} {share:.1%}" for name, share in {row.engine: row.moved for row in quality}.items())
    print(f"{gate.outputs} move by, in parts of their standard deviation: {moved}")
    print(f"[ ]: 95% bootstrap intervals of the paired differences, over {gate.draws}")


def print_speed(speed: Sequence[Speed]) -> None:
    """Print the pairs that each engine scores per second in each precision, the fastest first."""
    print(f"{'engine':10} precision  pairs/s  times fp32 of the same engine")
    base = {row.engine: row.pairs_per_second for row in speed if row.precision == "fp32"}
    for row in sorted(speed, key=lambda row: -row.pairs_per_second):
        ratio = f"{row.pairs_per_second / base[row.engine]:.2f}" if row.engine in base else "-"
        print(f"{row.engine:10} {row.precision:9} {row.pairs_per_second:8,.0f}  {ratio}")
    best = {
        is_int8: max((row.pairs_per_second for row in speed if (row.precision == "int8") == is_int8), default=0.0)
        for is_int8 in (True, False)
    }
    if best[True] <= best[False]:
        print("note: on this processor int8 is not faster than the best of the others; there is no reason to use it")


main = main_of(quantize, QuantizeOptions, __doc__)
