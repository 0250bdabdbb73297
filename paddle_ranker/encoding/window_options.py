"""Options for scoring long texts, importable without NumPy."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Optional

from paddle_ranker.options import Options, option

POOLINGS = ("max", "mean_top_k")  # ways to pool the logits of windows over a long title
TOP_K = 2  # default number of windows for mean_top_k


@dataclass(frozen=True)
class WindowOptions(Options):
    """Options of commands that score long pairs."""

    windows: str = option(
        "none",
        help="scoring of long pairs: none truncates them; max and mean_top_k score overlapping windows over the title, "
        "and take the best logit or the mean of the best logits",
        choices=("none", *POOLINGS),
    )
    window_overlap: Optional[int] = option(
        None, help="tokens shared by neighbouring windows (default: a quarter of max_seq_length)", minimum=0
    )
    window_top_k: Optional[int] = option(
        None, help=f"number of windows averaged by --windows mean_top_k (default: {TOP_K})", minimum=1
    )


WINDOWS = tuple(field.name for field in dataclasses.fields(WindowOptions) if field.name.startswith("window"))
