"""A ladder of trainings for a compute budget: which sizes read how many tokens, and what that costs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paddle_ranker.errors import DataError, UsageError

FEWEST_STEPS = 20  # of the shortest run; below that a run is all warm-up
HELD_OUT_TOKENS = 2  # times the largest count of the ladder
_BERT_WIDTH, _BERT_DEVIATION = 768, 0.02
_HEAD_WIDTH = 32
_SIZE = re.compile(r"([1-9]\d{0,2})x([1-9]\d{0,4})")


@dataclass(frozen=True)
class Size:
    """Layers and width of an encoder; its feed-forward part is four times as wide."""

    layers: int
    width: int

    @classmethod
    def parse(cls, text: str) -> Size:
        """Read `4x128`: 4 layers, 128 wide; raises `UsageError` for anything else."""
        found = _SIZE.fullmatch(text)
        if not found:
            raise UsageError(f"size {text}: give LAYERSxWIDTH, as in 4x128")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.layers}x{self.width}"

    @property
    def parameters(self) -> int:
        """N: the parameters of its layers. Embeddings and the head are not counted (Kaplan et al. 2020)."""
        width = self.width
        attention, feed_forward, norms = 4 * (width * width + width), 8 * width * width + 5 * width, 4 * width
        return self.layers * (attention + feed_forward + norms)

    def flops_per_token(self, length: int, vocab_size: int, masked_share: float) -> float:
        """Return the floating-point operations that training takes for each token read.

        Three times the forward pass: 2 for each parameter of the layers, 4 `length` `width` a layer for attention, and
        for the share of tokens that are masked the head's 2 (`width`^2 + `vocab_size` `width`).
        """
        attention = 4 * self.layers * length * self.width
        head = 2 * masked_share * (self.width**2 + vocab_size * self.width)
        return 3 * (2 * self.parameters + attention + head)

    def shape(self, positions: int) -> dict[str, Any]:
        """Return the fields of `config.json` that say this size.

        First weights have BERT's deviation, 0.02 at 768 wide, times sqrt(768 / width): a product's result then has the
        same deviation at every width.
        """
        heads = max(count for count in range(1, max(1, self.width // _HEAD_WIDTH) + 1) if self.width % count == 0)
        return {
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": heads,
            "intermediate_size": 4 * self.width,
            "max_position_embeddings": positions,
            "initializer_range": round(_BERT_DEVIATION * (_BERT_WIDTH / self.width) ** 0.5, 6),
        }


@dataclass(frozen=True)
class Rung:
    """One training: a size, the steps that it goes, its seed."""

    size: Size
    steps: int
    seed: int

    @property
    def name(self) -> str:
        """Its folder's name."""
        return f"{self.size}_{self.steps}_steps_seed_{self.seed}"


@dataclass(frozen=True)
class Cost:
    """What a training costs, in seconds or floating-point operations: a step, and what it takes beside its steps."""

    step: float
    fixed: float = 0.0


@dataclass(frozen=True)
class Budget:
    """What all trainings may cost together; too small a one is reported in `unit`, of which a number is `scale`.

    `spent` is gone already.
    """

    amount: float
    unit: str
    scale: float = 1.0
    spent: float = 0.0


@dataclass(frozen=True)
class Ladder:
    """The trainings that a law is fitted to, and the larger one that checks it."""

    rungs: tuple[Rung, ...]
    held_out: Rung


def plan_ladder(
    sizes: Sequence[Size],
    held_out: Size,
    costs: Mapping[Size, Cost],
    budget: Budget,
    *,
    token_counts: int,
    seeds: Sequence[int],
) -> Ladder:
    """Return the longest ladder within a budget; all sizes go the same steps, each count twice the one before.

    The held-out size goes twice the most steps of the others, with the first seed.

    Args:
        costs: of each size, the held-out one's too, as the budget counts.

    Raises `UsageError` where the budget is too small for runs of 20 steps; it says how much is enough.
    """
    shares = [2**place for place in range(token_counts)]
    fixed = budget.spent + sum(costs[size].fixed for size in sizes) * token_counts * len(seeds) + costs[held_out].fixed
    per_step = sum(costs[size].step for size in sizes) * sum(shares) * len(seeds)
    per_step += costs[held_out].step * HELD_OUT_TOKENS * shares[-1]
    fewest = int(max(0.0, budget.amount - fixed) / per_step)
    if fewest < FEWEST_STEPS:
        needed = fixed + FEWEST_STEPS * per_step
        raise UsageError(
            f"a budget of {budget.amount * budget.scale:.3g} {budget.unit} is too small: runs of {FEWEST_STEPS} to "
            f"{HELD_OUT_TOKENS * shares[-1] * FEWEST_STEPS} steps take {1.02 * needed * budget.scale:.3g}; give more, "
            "or fewer or smaller --sizes"
        )
    rungs = tuple(Rung(size, fewest * share, seed) for size in sizes for share in shares for seed in seeds)
    return Ladder(rungs, Rung(held_out, HELD_OUT_TOKENS * shares[-1] * fewest, seeds[0]))


def refuse_repeats(ladder: Ladder, sequences: int, batch_size: int, tokens: int) -> None:
    """Raise `DataError` where a run of a ladder would read sequences of a corpus a second time.

    Args:
        sequences, tokens: of the corpus.
    """
    needed = max(rung.steps for rung in (*ladder.rungs, ladder.held_out)) * batch_size
    if needed > sequences:
        raise DataError(
            f"the files have {tokens:,} tokens to train on, and the longest run would read {needed / sequences:.1f} "
            "times as many: tokens would repeat, and the law is of new ones; give more text, a smaller budget or "
            "larger --sizes, or --allow_repeats true"
        )
