"""A masked language model converted to transformers' names and back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from paddle_ranker.commands import convert
from paddle_ranker.model.hugging_face.weights import read_weights, write_weights
from paddle_ranker.model.parameters import PARAMETERS_FILE, load_arrays
from pretraining.filler import MaskFiller
from pretraining.model import load_masked_lm
from tests.numpy_bert import NumpyBert
from tests.pretraining.test_mlm_model import IDS, PLACES, make, write

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("model_type", ["ernie", "bert"])
def test_there_and_back(model_type: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = make(model_type=model_type)
    ours = write(tmp_path / "ours", network)
    assert convert.main([str(ours), str(tmp_path / "hf"), "--to", "hf"]) == 0
    name = {"ernie": "ErnieForMaskedLM", "bert": "BertForMaskedLM"}[model_type]
    assert f"for transformers' {name}, " in capsys.readouterr().out
    config = json.loads((tmp_path / "hf" / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == [name]
    settings = json.loads((tmp_path / "hf" / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert "split_special_tokens" not in settings and settings["mask_token"] == "[MASK]"
    theirs = Tokenizer.from_file(str(tmp_path / "hf" / "tokenizer.json"))
    assert theirs.token_to_id("[MASK]") in theirs.encode("a [MASK] b").ids
    expected = network(IDS, PLACES).numpy()
    in_numpy = NumpyBert(read_weights(tmp_path / "hf")[1], config)
    np.testing.assert_allclose(in_numpy.masked_logits(IDS, PLACES), expected, atol=2e-4)
    assert np.ptp(expected) > 1

    assert convert.main([str(tmp_path / "hf"), str(tmp_path / "back")]) == 0
    assert "with the head of a masked language model" in capsys.readouterr().out
    again = load_masked_lm(tmp_path / "back", need_head=True).network
    again.eval()
    np.testing.assert_array_equal(again(IDS, PLACES).numpy(), expected)


def test_a_head_that_is_not_whole_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert.main([str(write(tmp_path / "ours", make())), str(tmp_path / "hf"), "--to", "hf"])
    _, weights = read_weights(tmp_path / "hf")
    write_weights(tmp_path / "hf", {n: a for n, a in weights.items() if "transform.dense" not in n})
    capsys.readouterr()
    assert convert.main([str(tmp_path / "hf"), str(tmp_path / "back")]) == 0
    printed = capsys.readouterr().out
    assert "left out" in printed and "cls.predictions." in printed and "masked language model" not in printed
    assert not [name for name in load_arrays(tmp_path / "back" / PARAMETERS_FILE) if name.startswith("cls.")]


@pytest.mark.parametrize("model_type", ["ernie", "bert"])
def test_transformers_fills_masks_as_we_do(model_type: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="needs transformers: requirements/peers.in")
    pytest.importorskip("torch", reason="needs torch: requirements/peers.in")
    ours = write(tmp_path / "ours", make(model_type=model_type))
    assert convert.main([str(ours), str(tmp_path / "hf"), "--to", "hf"]) == 0
    found = transformers.pipeline("fill-mask", model=str(tmp_path / "hf"))("a [MASK] b", top_k=5)
    (expected,) = MaskFiller(ours).fill(["a [MASK] b"], 5)[0].masks
    np.testing.assert_allclose([one["score"] for one in found], [one.probability for one in expected], atol=1e-4)
