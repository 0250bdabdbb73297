"""A masked language model taken to transformers' names and back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import erf

from paddle_ranker.commands import convert
from paddle_ranker.model.hugging_face.weights import read_weights
from paddle_ranker.model.parameters import PARAMETERS_FILE, load_arrays
from pretraining.model import load_masked_lm
from tests.numpy_bert import NumpyBert
from tests.pretraining.test_mlm_model import IDS, PLACES, make, write

pytestmark = pytest.mark.parity


def logits_in_numpy(folder: Path) -> np.ndarray:
    """Return the logits at PLACES, `[m, vocab]`, by BERT's formulas, of a folder in transformers' names."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    _, weights = read_weights(folder)
    hidden = NumpyBert(weights, config).hidden(IDS, np.zeros_like(IDS), IDS != 0)
    x = hidden.reshape(-1, config["hidden_size"])[PLACES]
    head = {name[len("cls.predictions.") :]: array for name, array in weights.items() if name.startswith("cls.")}
    x = x @ head["transform.dense.weight"].T + head["transform.dense.bias"]
    x = x * 0.5 * (1 + erf(x / np.sqrt(2)))
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + config["layer_norm_eps"])
    x = x * head["transform.LayerNorm.weight"] + head["transform.LayerNorm.bias"]
    words = weights[f"{config['model_type']}.embeddings.word_embeddings.weight"]
    return np.asarray(x @ words.T + head["bias"])


@pytest.mark.parametrize("model_type", ["ernie", "bert"])
def test_there_and_back(model_type: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = make(model_type=model_type)
    ours = write(tmp_path / "ours", network)
    assert convert.main([str(ours), str(tmp_path / "hf"), "--to", "hf"]) == 0
    name = {"ernie": "ErnieForMaskedLM", "bert": "BertForMaskedLM"}[model_type]
    assert f"for transformers' {name}, " in capsys.readouterr().out
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["architectures"] == [name]
    expected = network(IDS, PLACES).numpy()
    np.testing.assert_allclose(logits_in_numpy(tmp_path / "hf"), expected, atol=2e-4)
    assert np.ptp(expected) > 1

    assert convert.main([str(tmp_path / "hf"), str(tmp_path / "back")]) == 0
    assert "with the head of a masked language model" in capsys.readouterr().out
    again = load_masked_lm(tmp_path / "back", need_head=True).network
    again.eval()
    np.testing.assert_array_equal(again(IDS, PLACES).numpy(), expected)


def test_a_head_that_is_not_whole_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert.main([str(write(tmp_path / "ours", make())), str(tmp_path / "hf"), "--to", "hf"])
    from paddle_ranker.model.hugging_face.weights import write_weights

    _, weights = read_weights(tmp_path / "hf")
    write_weights(tmp_path / "hf", {n: a for n, a in weights.items() if "transform.dense" not in n})
    capsys.readouterr()
    assert convert.main([str(tmp_path / "hf"), str(tmp_path / "back")]) == 0
    printed = capsys.readouterr().out
    assert "left out" in printed and "cls.predictions." in printed and "masked language model" not in printed
    assert not [name for name in load_arrays(tmp_path / "back" / PARAMETERS_FILE) if name.startswith("cls.")]
