"""scripts/pretrain.sh without arguments, in a copy of the checkout: from raw text to filled masks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.checkout import ONCE
from tests.scripts.test_scripts import checkout as checkout
from tests.scripts.test_scripts import script
from tests.tiny import write_encoder

pytestmark = [pytest.mark.server, pytest.mark.slow, ONCE]  # trains for half a minute or so


def test_from_nothing_to_filled_masks(checkout: Path) -> None:
    done = script(checkout, "pretrain.sh", "--max_steps", "400")
    assert done.returncode == 0, done.stderr
    assert re.search(r"tokenizer/vocab\.txt: \d+ word pieces", done.stdout)
    losses = [float(loss) for loss in re.findall(r"^eval_dev loss:(\S+)$", done.stdout, re.M)]
    assert losses and losses[-1] < 6.4  # below ln(883) = 6.78 at the start
    best = checkout / "checkpoint" / "pretraining" / "mlm" / "best"
    assert (best / "model_state.pdparams").is_file()
    filled = done.stdout.split("What this model puts for the masks:\n")[1]
    assert "[MASK]" not in filled.splitlines()[0] and filled.count("mask ") == 2
    assert "bash scripts/train_pairwise.sh" in filled and str(best) in filled


def test_an_encoder_to_go_on_from_keeps_its_tokenizer_and_shape(checkout: Path, tmp_path: Path) -> None:
    encoder = write_encoder(tmp_path / "encoder")
    done = script(checkout, "pretrain.sh", "--init_from", str(encoder), "--max_steps", "2", "--max_seq_length", "32",
                  "--save_dir", str(tmp_path / "on"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"start from {encoder}; new: cls" in done.stdout
    assert (tmp_path / "on/best/vocab.txt").read_bytes() == (encoder / "vocab.txt").read_bytes()
