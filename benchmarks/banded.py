"""Time a local layer's attention in a band against the formula over all pairs of tokens with a mask, in turns.

python -m benchmarks.banded [--lengths 256,320,512,1024,2048,4096] [--window 64] [--blocks 32,64,128]

A process computes both ways on a single CPU thread, with 12 heads of 64, without gradients. The ratios are geometric
means over rounds, with 95% t intervals.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from benchmarks.harness.report import Goal, format_table, ratio
from benchmarks.inputs import parse_numbers
from paddle_ranker import runtime
from paddle_ranker.options import Options, main_of, option

GOALS = {2048: 5.0, 4096: 12.0}  # times as fast, by length, with ModernBERT's window
_GOALS_WINDOW = 64
_HEADS, _WIDTH = 12, 768
_TOLERANCE = 1e-5


@dataclass(frozen=True)
class BandedOptions(Options):
    lengths: str = option("256,320,512,1024,2048,4096", help="lengths in tokens, comma-separated")
    window: int = option(_GOALS_WINDOW, help="tokens to either side that a token attends to", minimum=0)
    blocks: str = option("32,64,128", help="sizes of blocks to compare, comma-separated; 64 is in use")
    rounds: int = option(5, help="rounds", minimum=2)


def run(options: BandedOptions) -> None:
    """Print a row for each length and size of a block, the memory of the weights, and the goals."""
    runtime.prepare_command(1)
    import paddle

    from paddle_ranker.model.networks.attention import attend
    from paddle_ranker.model.networks.banded import BLOCK, attend_banded, mask_of_far
    from paddle_ranker.model.networks.dropout import Dropout, Masks

    dropout, draw, blocks = Dropout(0.0, Masks()), np.random.default_rng(1), parse_numbers(options.blocks, "blocks")
    rows, goals = [], []
    for length in parse_numbers(options.lengths, "lengths"):
        q, k, v = (paddle.to_tensor(draw.standard_normal([1, length, _WIDTH], np.float32)) for _ in range(3))
        mask = paddle.zeros([1, 1, 1, length])
        far = mask + mask_of_far(mask, options.window, 0)
        ways: dict[int, Callable[[], paddle.Tensor]] = {0: partial(attend, q, k, v, far, _HEADS, dropout)}
        for block in blocks:
            ways[block] = partial(attend_banded, q, k, v, mask, _HEADS, dropout, options.window, block=block)
        with paddle.no_grad():
            found = {block: way().numpy() for block, way in ways.items()}
            speeds: dict[int, list[float]] = {block: [] for block in ways}
            for _ in range(options.rounds):
                for block, way in ways.items():
                    began = time.perf_counter()
                    way().numpy()
                    speeds[block].append(1 / (time.perf_counter() - began))
        for block in blocks:
            np.testing.assert_allclose(found[block], found[0], atol=_TOLERANCE)
            times = ratio(speeds[block], speeds[0])
            keys = (1 + 2 * -(-options.window // block)) * block
            megabytes = [f"{_HEADS * length * count * 4 / 2**20:.0f}" for count in (length, keys)]
            taken = [f"{1000 / statistics.median(speeds[way]):.1f}" for way in (0, block)]
            rows.append([str(length), str(block), *taken, f"{times:.2f}", *megabytes])
            if (options.window, block) == (_GOALS_WINDOW, BLOCK) and length in GOALS:
                goals.append(Goal(f"{length:,} tokens: times as fast", times.estimate, GOALS[length]))
    print(f"window of {options.window} tokens to either side, {_HEADS} heads, one thread; weights in MiB")
    print(format_table(["tokens", "block", "all ms", "band ms", "times as fast", "all MiB", "band MiB"], rows))
    print(*goals, sep="\n")


main = main_of(run, BandedOptions, (__doc__ or "").split("\n")[0], prog="benchmarks.banded")


if __name__ == "__main__":
    raise SystemExit(main())
