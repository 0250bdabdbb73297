"""Options of the tokenizer and of long texts; read before NumPy is imported."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Optional

from paddle_ranker.encoding import POOLINGS, TOKENIZER_NAMES, TOP_K
from paddle_ranker.options import Options, option


@dataclass(frozen=True)
class TokenizerOptions(Options):
    """Options of every command that turns texts into ids."""

    tokenizer: str = option(
        "auto",
        help="accepted as before: each name stands for the built-in tokenizer, which gives the ids of all of them",
        choices=TOKENIZER_NAMES,
        shared=True,
    )


@dataclass(frozen=True)
class WindowOptions(Options):
    """Options of every command that scores pairs which may be too long."""

    windows: str = option(
        "none",
        help="a pair that is too long: none, it is cut; max or mean_top_k, overlapping windows over its title are "
        "scored, and their best logit, or the mean of the best ones, is taken",
        choices=("none", *POOLINGS),
    )
    window_overlap: Optional[int] = option(
        None, help="tokens that neighbouring windows share (default: a quarter of max_seq_length)", minimum=0
    )
    window_top_k: Optional[int] = option(
        None, help=f"windows whose mean --windows mean_top_k takes (default: {TOP_K})", minimum=1
    )


WINDOWS = tuple(field.name for field in dataclasses.fields(WindowOptions) if field.name.startswith("window"))
