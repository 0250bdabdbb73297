"""BERTs with XLM-RoBERTa's tokenizer, such as multilingual-e5-small: padding and token types are the tokenizer's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, processors

from paddle_ranker import Ranker
from paddle_ranker.commands.convert import ConvertOptions, convert
from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.families import read_config
from paddle_ranker.model.hugging_face.weights import read_weights
from paddle_ranker.model.model_folder import load_encoder
from paddle_ranker.paddle_serving.clients.scoring_client import load_pair_encoder
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from tests.model.family_cases import SIZES_FILE, expected, weights
from tests.model.test_families import QUERIES, TITLES, write_said, write_tokenizer
from tests.numpy_bert import NumpyBert, sentence_vectors

pytestmark = pytest.mark.parity
SAID = expected(SIZES_FILE)["bert, small"]
STEPS = "sentence_transformers.models"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A ranker whose configuration states the padding and the token types of BERT's own tokenizer."""
    (tmp_path / "hf").mkdir()
    assert (SAID["config"]["pad_token_id"], SAID["config"]["type_vocab_size"]) == (0, 2)
    (tmp_path / "hf" / "config.json").write_text(json.dumps(SAID["config"]), encoding="utf-8")
    save_file(weights(SAID["shapes"]), tmp_path / "hf" / "model.safetensors", {"format": "pt"})
    write_tokenizer(tmp_path / "hf", is_roberta=True)
    says(tmp_path / "hf", tokenizer_class="XLMRobertaTokenizer")
    return tmp_path / "hf"


def says(folder: Path, single: str = "", pair: str = "", **settings: object) -> None:
    """Write the settings of a tokenizer, and its templates if they are given."""
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 64, **settings}), encoding="utf-8")
    if pair:
        library = Tokenizer.from_file(str(folder / "tokenizer.json"))
        library.post_processor = processors.TemplateProcessing(single, pair, [("<s>", 0), ("</s>", 2)])
        library.save(str(folder / "tokenizer.json"))


def ids_of(folder: Path, *texts: str) -> np.ndarray:
    return np.array([Tokenizer.from_file(str(folder / "tokenizer.json")).encode(*texts).ids])


def logits(folder: Path, with_types: bool = False) -> list[float]:
    """Return each pair's logit by NumPy; with types, the second text's is 1."""
    bert = NumpyBert(load_file(folder / "model.safetensors"), SAID["config"])
    found = []
    for pair in zip(QUERIES, TITLES):
        ids = ids_of(folder, *pair)
        types = np.zeros_like(ids)
        if with_types:
            types[0, -len(pair[1].split()) - 1 :] = 1
        found.append(float(bert.logits(ids, types, np.ones_like(ids))[0, 0]))
    return found


def scored(folder: Path) -> Any:
    probabilities = np.asarray(Ranker.load(folder).score(QUERIES, TITLES), np.float64)
    return np.log(probabilities / (1 - probabilities))


def test_pairs_of_a_tokenizer_that_gives_no_types(folder: Path, tmp_path: Path) -> None:
    wanted = logits(folder)
    np.testing.assert_allclose(scored(folder), wanted, atol=1e-5)
    assert load_pair_encoder(folder).members[0].template.between == (2, 2)
    convert(ConvertOptions(source=str(folder), target=str(tmp_path / "ours")))
    convert(ConvertOptions(source=str(tmp_path / "ours"), target=str(tmp_path / "back"), to="hf"))
    for other in (tmp_path / "ours", tmp_path / "back"):
        np.testing.assert_allclose(scored(other), wanted, atol=1e-5)
        config = read_config(other)
        assert config is not None and (config.pad_token_id, config.type_vocab_size) == (1, 1)
    assert load_encoder(tmp_path / "back").config == load_encoder(folder).config


@pytest.mark.parametrize(
    ("settings", "with_types"),
    [
        ({"tokenizer_class": "RobertaTokenizer", "model_input_names": ["input_ids", "token_type_ids"]}, True),
        ({"tokenizer_class": "RobertaTokenizer"}, False),
        ({"tokenizer_class": "TokenizersBackend"}, False),
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, False),
        ({"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["token_type_ids"]}, True),
        ({}, True),
    ],
)
def test_the_tokenizer_says_whether_pairs_have_types(
    folder: Path, settings: dict[str, Any], with_types: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its class or the settings, and where it returns them, by its template of a pair."""
    assert np.abs(np.subtract(logits(folder, True), logits(folder))).max() > 1e-3
    for pair in ("<s> $A </s> </s> $B:1 </s>:1", "<s> $A </s> </s> $B </s>"):
        says(folder, "<s> $A </s>", pair, **settings)
        np.testing.assert_allclose(scored(folder), logits(folder, with_types and ":1" in pair), atol=1e-5)
    is_older = settings == {"tokenizer_class": "PreTrainedTokenizerFast"}
    assert ("as in transformers 5" in capsys.readouterr().err) == is_older


@pytest.mark.parametrize(
    ("single", "pair", "problem"),
    [
        ("<s> $A </s>", "<s> $A </s>:1 $B:1 </s>:1", r"the types \[0, 0, 1, 1, 1\]"),
        ("<s> $A:1 </s>", "<s> $A </s> $B:1 </s>:1", r"of a text \[0, 1, 0\]"),
        ("<s> $A </s>", "<s> $B:1 </s> $A </s>", r"in the order \[1, 0\]"),
    ],
)
def test_other_types_are_refused(folder: Path, single: str, pair: str, problem: str) -> None:
    names = ["input_ids", "token_type_ids"]
    says(folder, single, pair, tokenizer_class="PreTrainedTokenizerFast", model_input_names=names)
    with pytest.raises(CheckpointError, match=problem):
        scored(folder)


def test_word_pieces_without_types_go_back_without_them(tmp_path: Path) -> None:
    """transformers looks for the second type of a model that has one."""
    folder = write_said(tmp_path / "hf", SAID, is_roberta=False)
    says(folder, tokenizer_class="BertTokenizer", model_input_names=["input_ids", "attention_mask"])
    convert(ConvertOptions(source=str(folder), target=str(tmp_path / "ours")))
    convert(ConvertOptions(source=str(tmp_path / "ours"), target=str(tmp_path / "back"), to="hf"))
    assert len(load_file(tmp_path / "back" / "model.safetensors")["bert.embeddings.token_type_embeddings.weight"]) == 1
    settings = json.loads((tmp_path / "back" / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert settings["model_input_names"] == ["input_ids", "attention_mask"]
    np.testing.assert_array_equal(scored(tmp_path / "back"), scored(folder))


def test_vectors(folder: Path) -> None:
    """Of texts of several lengths, of which the shorter ones are padded."""
    (folder / "modules.json").write_text(
        json.dumps([{"path": "", "type": f"{STEPS}.Transformer"}, {"path": "1_Pooling", "type": f"{STEPS}.Pooling"}])
    )
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    rows = [ids_of(folder, text)[0] for text in TITLES]
    wanted = sentence_vectors(folder, rows, lambda inside: read_weights(inside)[1])
    np.testing.assert_allclose(Tower.open(folder).vectors(TITLES), wanted, atol=1e-5)
