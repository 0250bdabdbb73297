"""A prompt leaves room for the text, where a model is made and where it is opened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from paddle_ranker import Ranker
from paddle_ranker.__main__ import main
from paddle_ranker.errors import CheckpointError
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from tests.tiny import HAN, change_json, write_encoder, write_ranker, write_tower

pytestmark = pytest.mark.unit
LONG = "".join(HAN)  # more tokens than the 32 that these models read


@pytest.mark.parametrize("name", ["query_prompt", "text_prompt"])
@pytest.mark.parametrize(("tokens", "fits"), [(40, False), (30, False), (28, False), (27, True)])
def test_a_tower_opens_with_a_prompt_that_leaves_an_eighth(tmp_path: Path, name: str, tokens: int, fits: bool) -> None:
    folder = write_tower(tmp_path / "tower")
    change_json(folder / "tower.json", **{name: (LONG + LONG)[:tokens]})
    if not fits:
        with pytest.raises(CheckpointError, match=rf"{name} .* has {tokens} tokens, and 30 are read with it"):
            Tower.open(folder)
        return
    vectors = Tower.open(folder).query_vectors(["文化", "水稻"])
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-4


def test_a_ranker_opens_with_a_prompt_that_leaves_room_beside_a_long_title(tmp_path: Path) -> None:
    folder = write_ranker(tmp_path / "ranker")
    change_json(folder / "ranker.json", query_prompt=LONG[:13])
    assert Ranker.load(folder).score(["文化", "水稻"], [LONG, LONG]).shape == (2,)
    change_json(folder / "ranker.json", query_prompt=LONG[:14])
    with pytest.raises(CheckpointError, match=r"ranker.*: query_prompt .* has 14 tokens, and 14 are read with it"):
        Ranker.load(folder)


def test_a_training_refuses_such_a_prompt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_encoder(tmp_path / "encoder")
    (tmp_path / "pairs.tsv").write_text("文化\t语言文化\n水稻\t水稻病害\n", encoding="utf-8")
    line = ["--train", tmp_path / "pairs.tsv", "--model", tmp_path / "encoder", "--output", tmp_path / "out",
            "--query_prompt", LONG, "--max_seq_length", 32, "--max_steps", 1, "--device", "cpu"]  # fmt: skip
    assert main(["train-batch-neg", *map(str, line)]) == 1
    assert "query_prompt" in capsys.readouterr().err and not (tmp_path / "out" / "best").exists()
