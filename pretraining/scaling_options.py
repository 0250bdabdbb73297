"""The options of `scaling_law.py`; read before Paddle is imported, so that a typing error shows at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from paddle_ranker.errors import UsageError
from paddle_ranker.options import DeviceOptions, option
from pretraining.corpus import DOCUMENTS, DOCUMENTS_HELP
from pretraining.ladder import Size
from pretraining.power_law import FEWEST_LEVELS


@dataclass(frozen=True)
class ScalingLawOptions(DeviceOptions):
    train_files: tuple[str, ...] = option(help=f"files to train on: {DOCUMENTS_HELP}", name="train", files=True)
    eval_files: tuple[str, ...] = option(
        (), help="files to measure the loss on (default: documents held out, --eval_share)", name="test", files=True
    )
    eval_share: float = option(
        0.05, help="share of the documents held out where there are no --eval_files", above=0, maximum=0.5
    )
    tokenizer: Optional[str] = option(None, help="folder of a tokenizer (default: one is made, --vocab_size)")
    vocab_size: int = option(8000, help="word pieces of a tokenizer that is made here", minimum=10)
    output_dir: str = option("./checkpoint/scaling_law", help="where runs, results and the picture go", name="output")
    budget_minutes: Optional[float] = option(
        None, help="what all runs may take on this machine, the held-out one included", above=0
    )
    budget_flops: Optional[float] = option(None, help="the same in floating-point operations", above=0)
    sizes: tuple[str, ...] = option(
        ("2x64", "2x96", "2x128", "4x128"), help="encoders of the ladder, LAYERSxWIDTH", several=True
    )
    held_out_size: str = option("4x192", help="the larger encoder whose loss is predicted, then measured")
    token_counts: int = option(
        3, help="token counts of each size, each twice the one before", minimum=FEWEST_LEVELS, maximum=12
    )
    seeds: int = option(1, help="runs of each size and token count, each with another seed", minimum=1)
    seed: int = option(1000, help="the first seed, of initial parameters, order and masks", minimum=0)
    allow_repeats: bool = option(False, help="read the files more than once where the budget asks for more tokens")
    max_seq_length: int = option(64, help="tokens of a sequence", minimum=8, maximum=512)
    mlm_probability: float = option(0.2, help="share of the tokens that are masked", above=0, below=1)
    batch_size: int = option(8, help="sequences of a step", minimum=1)
    learning_rate: float = option(
        1e-3, help="maximum learning rate of all sizes; it falls to 0 within each run", above=0
    )
    warmup_proportion: float = option(0.06, help="share of a run's steps over which it rises", minimum=0, below=1)
    documents: str = option(
        "lines",
        help="a document of a .txt file: lines (each), blank_lines (parted by them), titles (WikiText's ' = Title = ')",
        choices=DOCUMENTS,
    )
    skip_bad_rows: bool = option(False, help="leave out what is not UTF-8 and count it, instead of stopping")
    resamples: int = option(200, help="draws of runs behind an interval", minimum=20)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.budget_minutes is None) == (self.budget_flops is None):
            raise UsageError("give --budget_minutes or --budget_flops, one of the two: what all runs may cost together")
        sizes = [Size.parse(text) for text in self.sizes]
        if len({size.parameters for size in sizes}) < max(FEWEST_LEVELS, len(sizes)):
            raise UsageError(
                f"--sizes {' '.join(self.sizes)}: too few to fit a law to; give at least {FEWEST_LEVELS}, all different"
            )
        largest = max(sizes, key=lambda size: size.parameters)
        if Size.parse(self.held_out_size).parameters <= largest.parameters:
            raise UsageError(f"--held_out_size {self.held_out_size}: must be larger than {largest} of --sizes")


# What a ladder that is gone on with may be called with otherwise: it changes none of its losses.
MAY_CHANGE = frozenset({"debug", "output_dir", "train_files", "eval_files", "tokenizer", "resamples", "device",
                        "cpu_threads"})  # fmt: skip
