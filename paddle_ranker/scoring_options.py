"""The options of commands that score with a trained ranker; read before Paddle is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from paddle_ranker.options import Options, option
from paddle_ranker.tokenizers.backends import BACKENDS


@dataclass(frozen=True)
class ScoringOptions(Options):
    """What evaluation and prediction accept."""

    model_name_or_path: Optional[str] = option(
        None, help="the model whose configuration a bare parameter file takes; a folder's own configuration wins"
    )
    batch_size: int = option(32, help="pairs of full length that are scored at once", minimum=1)
    max_seq_length: Optional[int] = option(
        None,
        help="longest pair in tokens (default: what the ranker was trained with)",
        minimum=5,
        aliases=("--max_seq_len",),
    )
    device: str = option("gpu", help="cpu, gpu, xpu or npu")
    cpu_threads: int = option(0, help="threads of a matrix product on a CPU; 0: one a core", minimum=0)
    tokenizer: str = option(
        "auto", help="what turns text into ids; all give the same, auto is the fastest", choices=BACKENDS
    )

    skip_bad_rows: bool = option(False, help="leave out malformed rows and count them, instead of stopping")


@dataclass(frozen=True)
class EvaluateOptions(ScoringOptions):
    """What evaluation accepts."""

    init_from_ckpt: str = option(help="the ranker: a model folder, or its model_state.pdparams")
    test_file: str = option(help="labelled pairs: query, title, label")


@dataclass(frozen=True)
class PredictOptions(ScoringOptions):
    """What prediction accepts."""

    params_path: str = option(help="the ranker: a model folder, or its model_state.pdparams")
    input_file: str = option(help="pairs to score: query, title")
