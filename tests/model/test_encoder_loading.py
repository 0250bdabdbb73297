"""`load_encoder`: one way to start, from whatever folder holds an encoder, with the very parameters that are there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paddle_ranker.commands.convert import ConvertOptions, convert
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.errors import CheckpointError
from paddle_ranker.export.static_graph import export_model
from paddle_ranker.model.checkpoint_names import name_parameters
from paddle_ranker.model.model_folder import RANKER, load_encoder, load_model
from paddle_ranker.model.parameters import PARAMETERS_FILE, load_arrays, save_arrays
from tests.entailment_cases import write_model
from tests.export_cases import write_two_members
from tests.tiny import write_encoder, write_ranker, write_tokenizer

TEXTS = (["深度学习", "a b c"], ["深度学习在水稻病害诊断中的研究", ""])


def hugging_face(folder: Path) -> Path:
    convert(ConvertOptions(source=str(write_encoder(folder / "ours")), target=str(folder / "theirs"), to="hf"))
    return folder / "theirs"


def sentence_transformers(folder: Path) -> Path:
    hugging_face(folder).rename(folder / "0_Transformer")
    (folder / "modules.json").write_text('[{"idx": 0, "path": "0_Transformer"}]', encoding="utf-8")
    return folder


def pretrained(folder: Path) -> Path:
    from pretraining.model import MaskedLanguageModel
    from tests.tiny import CONFIG

    write_encoder(folder)
    save_arrays(MaskedLanguageModel(CONFIG).state_dict(), folder / PARAMETERS_FILE)
    return folder


SOURCES = {
    "an encoder of PaddleNLP's": lambda folder: write_encoder(folder / "encoder"),
    "its parameter file": lambda folder: write_encoder(folder / "encoder") / PARAMETERS_FILE,
    "Hugging Face's": hugging_face,
    "sentence-transformers'": sentence_transformers,
    "a ranker": lambda folder: write_ranker(folder / "ranker"),
    "a model of pairs of posts": lambda folder: write_model(folder / "posts", images=False),
    "a pretrained one": lambda folder: pretrained(folder / "pretrained"),
}


@pytest.mark.parity
@pytest.mark.parametrize("source", SOURCES)
def test_network_tokenizer_and_configuration_are_those_of_the_folder(tmp_path: Path, source: str) -> None:
    made = SOURCES[source](tmp_path)
    loaded = load_encoder(made)
    folder = made.parent if made.is_file() else tmp_path / "ours" if (tmp_path / "ours").exists() else made
    there = {
        name[len("encoder.") :]: array
        for name, array in name_parameters(load_arrays(folder / PARAMETERS_FILE)).items()
        if name.startswith("encoder.")
    }
    state = {name: tensor.numpy() for name, tensor in loaded.network.state_dict().items()}
    assert loaded.new_parts == (["encoder.pooler.dense"] if source == "a pretrained one" else [])
    assert state.keys() - there.keys() == ({"pooler.dense.weight", "pooler.dense.bias"} if loaded.new_parts else set())
    for name, array in there.items():
        np.testing.assert_array_equal(state[name], array, err_msg=name)
    assert loaded.config == loaded.network.config and loaded.config.hidden_size == 16
    write_tokenizer(tmp_path / "tokenizer")
    found, wanted = loaded.pair_encoder(24), PairEncoder.from_folder(tmp_path / "tokenizer", 24)
    np.testing.assert_array_equal(found.encode(*TEXTS).ids, wanted.encode(*TEXTS).ids)
    with pytest.raises(CheckpointError, match="max_seq_length 500 is above the 64 positions"):
        loaded.pair_encoder(500)


def exported(folder: Path) -> Path:
    export_model(load_model(write_ranker(folder / "ranker"), RANKER), folder / "output")
    return folder / "output"


def blend(folder: Path) -> Path:
    write_two_members(folder / "blend")
    return folder / "blend"


def of_another_architecture(folder: Path) -> Path:
    theirs = hugging_face(folder)
    config = theirs / "config.json"
    config.write_text(config.read_text("utf-8").replace('"ernie"', '"t5"'), encoding="utf-8")
    return theirs


@pytest.mark.unit
@pytest.mark.parametrize(
    ("source", "words"),
    [
        (exported, "is an exported ranker, not a ranker or an encoder to train"),
        (blend, "is a blend of rankers, not a ranker or an encoder to train"),
        (of_another_architecture, "model_type is 't5'; bert, ernie, roberta, .* can be converted"),
        (lambda folder: folder / "nothing", "there is no such model folder"),
    ],
)
def test_what_has_no_encoder_is_named(tmp_path: Path, source: Any, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        load_encoder(source(tmp_path))
