"""Made-up pairs: as long as a model takes them, and no larger than an export can compute."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from paddle_ranker.encoding.batching import most_tokens
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.encoding.samples import PAIRS, sample_batches
from tests.tokenizer_cases import SPECIAL


@pytest.mark.unit
@pytest.mark.parametrize(("takes", "longest"), [(64, 64), (512, 512), (8192, 2048)])
def test_samples_are_of_all_lengths_and_take_a_bounded_memory(tmp_path: Path, takes: int, longest: int) -> None:
    """Batches of a model of 8,192 tokens took 16 GB in four layers 32 wide: attention's memory is in their squares."""
    (tmp_path / "vocab.txt").write_text("".join(f"{token}\n" for token in [*SPECIAL, *"abcdefgh"]))
    batches = list(sample_batches(PairEncoder.from_folder(tmp_path, takes)))
    shapes = [batch["input_ids"].shape for batch in batches]
    assert sum(rows for rows, _ in shapes) == PAIRS
    assert max(rows * length for rows, length in shapes) <= 4096
    lengths = np.concatenate([(batch["input_ids"] != 0).sum(axis=1) for batch in batches])
    assert min(takes, 1024) <= lengths.max() <= longest and lengths.min() < 8


@pytest.mark.unit
def test_a_batch_counts_long_rows_as_fewer() -> None:
    assert [most_tokens(32, length) for length in (64, 512, 8192)] == [32 * 64, 32 * 512, 32 * 512]
