"""The options of quantizing; read before Paddle is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from paddle_ranker.encoding.options import TokenizerOptions
from paddle_ranker.options import LabelOptions, ThreadOptions, option
from paddle_ranker.scoring.options import BatchOptions


@dataclass(frozen=True)
class QuantizeOptions(BatchOptions, TokenizerOptions, LabelOptions, ThreadOptions):
    """Options of `quantize`."""

    model_dir: str = option(help="folder of an exported ranker; the result is written into it", name="model")
    calibration_file: str = option(
        help="pairs that the ranges are found on, like those to be scored: query, title", files=True
    )
    eval_file: str = option(
        help="labelled pairs that the loss is measured on: query, title, label", name="test", files=True
    )
    max_loss: float = option(
        0.005, help="write nothing where AUC or nDCG@10 falls by more than this", minimum=0.0, maximum=1.0
    )
    calibration_pairs: int = option(512, help="so many pairs of the calibration file are drawn", minimum=1)
    weight_bits: Optional[int] = option(
        None,
        help="8, or 7, which processors without VNNI need (default: what this one takes)",
        choices=(7, 8),
    )
    seconds: float = option(10.0, help="time for measuring the speed, shared among engines and precisions", above=0)
    max_seq_length: Optional[int] = option(
        None, help="longest pair in tokens (default: the exported ranker's own)", minimum=5, aliases=("--max_seq_len",)
    )
    seed: int = option(1000, help="seed of the draws", minimum=0)
