"""Loading: published checkpoints, folded heads, missing and misfitting parameters."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.builtin_kinds import KINDS
from paddle_ranker.model.config import require_tokenizer_fits
from paddle_ranker.model.families import write_config
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import RANKER, TrainedRanker, identify, load_model
from paddle_ranker.model.networks.bert import Encoder
from paddle_ranker.model.parameters import load_arrays, save_arrays
from paddle_ranker.model.ranker_folder import Fresh, start_ranker
from paddle_ranker.scoring.engines.dygraph import DygraphEngine
from paddle_ranker.scoring.scorer import Scorer
from tests.tiny import (
    CONFIG,
    QUERIES,
    TITLES,
    VOCABULARY,
    change_json,
    make_network,
    write_encoder,
    write_ranker,
    write_tokenizer,
)

pytestmark = pytest.mark.unit


def probabilities(parts: TrainedRanker) -> np.ndarray:
    return Scorer(DygraphEngine(parts.network), parts.row_encoder).score(QUERIES, TITLES)


def published(folder: Path, prefix: str, head: str, classes: int) -> Path:
    """Write a checkpoint as the published scripts do: parameters and vocabulary, no configuration."""
    write_tokenizer(folder)
    encoder, linear = Encoder(CONFIG), paddle.nn.Linear(CONFIG.hidden_size, classes)
    state = {f"{prefix}.{name}": value.numpy() for name, value in encoder.state_dict().items()}
    state.update({f"{head}.{name}": value.numpy() for name, value in linear.state_dict().items()})
    save_arrays(state, folder / "model_state.pdparams")
    return folder


def test_a_saved_ranker_scores_the_same_when_loaded(tmp_path: Path) -> None:
    parts = load_model(write_ranker(tmp_path / "ranker"), RANKER)
    reference = make_network()
    encoded = parts.row_encoder.encode(QUERIES, TITLES)
    ids, types = (paddle.to_tensor(x) for x in encoded.pad(range(len(QUERIES))).values())
    expected = 1 / (1 + np.exp(-reference(ids, types).numpy()))
    np.testing.assert_allclose(probabilities(parts), expected, atol=1e-6)
    assert np.ptp(expected) > 0.1  # the scores differ, so agreement says something
    assert parts.info.max_seq_length == parts.row_encoder.max_seq_length == 32


def test_an_encoder_alone_trains_but_does_not_score(tmp_path: Path) -> None:
    folder, short = write_encoder(tmp_path / "encoder"), LoadOptions(max_seq_length=32)
    refusal = r"is an encoder without a ranking head .*paddle-ranker train-pairwise or train-ce --model "
    with pytest.raises(CheckpointError, match=refusal):
        load_model(folder, RANKER)
    assert start_ranker(folder, Fresh("pairwise"), short).new_parts == ["head", "match_embeddings"]
    assert start_ranker(folder, Fresh("pairwise", match_embeddings=False), short).new_parts == ["head"]


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("encoder.encoder.layers.1.linear1.weight", None, r"missing: encoder\.encoder\.layers\.1\.linear1"),
        ("encoder.encoder.layers.2.norm1.bias", np.zeros(16), r"not in this arch.*2\.norm1"),
        ("head.bias", np.zeros(3, "float32"), "shape"),
        ("encoder.pooler.dense.weight", np.zeros((8, 16), "float32"), r"is \[8, 16\], the configuration says"),
        ("encoder.embeddings.word_embeddings.weight", None, "holds no encoder"),
    ],
)
def test_parameters_that_do_not_fit_are_named(tmp_path: Path, name: str, array: Any, message: str) -> None:
    folder = write_ranker(tmp_path / "ranker")
    arrays = {**load_arrays(folder / "model_state.pdparams"), name: array}
    save_arrays({key: value for key, value in arrays.items() if value is not None}, folder / "model_state.pdparams")
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(folder, RANKER)
    assert str(folder) in str(caught.value)


def test_a_training_may_start_from_a_ranker_of_another_kind(tmp_path: Path) -> None:
    folder = write_ranker(tmp_path / "ranker")
    assert identify(folder).kind is KINDS["pairwise"]
    assert start_ranker(folder, Fresh("cross_encoder")).info.kind == "cross_encoder"


@pytest.mark.parametrize(
    ("prefix", "head", "classes", "kind"),
    [("ptm", "similarity", 1, "pairwise"), ("ernie", "classifier", 2, "cross_encoder")],
)
def test_a_published_checkpoint_needs_its_models_name_and_is_of_the_kind_of_its_head(
    tmp_path: Path, prefix: str, head: str, classes: int, kind: str
) -> None:
    # That it scores as it did where it was made is for tests/scoring/test_published.py.
    folder = published(tmp_path / "published", prefix, head, classes)
    with pytest.raises(CheckpointError, match="--model_name_or_path"):
        load_model(folder, RANKER)
    (tmp_path / "named").mkdir()
    write_config(tmp_path / "named", CONFIG)  # a folder in the place of a model's name
    named = LoadOptions(model_name=str(tmp_path / "named"))
    info = load_model(folder, RANKER, named).info
    assert (info.kind, info.max_seq_length) == (kind, 64)  # as many as there are positions: their 128 would not fit


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("ranker.json", {"format_version": None}, r"ranker\.json: damaged"),
        ("ranker.json", {"max_seq_length": "64"}, r"ranker\.json: damaged"),
        ("ranker.json", {"training": None}, r"ranker\.json: damaged"),
        ("ranker.json", {"format_version": 99}, "reads version 1: update the toolkit"),
        ("ranker.json", {"format_version": 0}, "reads version 1: make the folder anew"),
        ("config.json", "{", r"config\.json"),
        ("config.json", "[]", r"config\.json"),
        ("config.json", "{}", r"config\.json"),
        ("vocab.txt", "\n".join([*VOCABULARY, "one", "more"]), "another model's"),
        ("vocab.txt", "\n".join(VOCABULARY[:-1]), r"has 96 tokens, tokenizer_config\.json says 97: it was cut short"),
    ],
)
def test_a_damaged_folder_is_named(tmp_path: Path, name: str, content: Any, message: str) -> None:
    folder = write_ranker(tmp_path / "ranker")
    if isinstance(content, dict):
        change_json(folder / name, **content)
    else:
        (folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match=message):
        load_model(folder, RANKER)


def test_configurations_of_paddlenlp_2_are_read(tmp_path: Path) -> None:
    folder = write_ranker(tmp_path / "ranker")
    inner = {**json.loads((folder / "config.json").read_text()), "init_class": "ErnieModel"}
    (folder / "config.json").unlink()
    legacy = {"init_args": [inner], "init_class": "ErnieForSequenceClassification"}  # of PaddleNLP 2
    (folder / "model_config.json").write_text(json.dumps(legacy))
    assert load_model(folder, RANKER).network.config == CONFIG


def test_options_that_cannot_be_and_a_folder_above(tmp_path: Path) -> None:
    folder = write_ranker(tmp_path / "ranker")
    with pytest.raises(CheckpointError, match="64 positions"):
        load_model(folder, RANKER, LoadOptions(max_seq_length=65))
    with pytest.raises(CheckpointError, match="match_embeddings"):  # trained ones cannot be left out
        start_ranker(folder, Fresh("pairwise", match_embeddings=False))
    with pytest.raises(CheckpointError, match=r"did you mean .*ranker"):
        load_model(tmp_path, RANKER)


def test_a_vocabulary_that_is_much_shorter_than_the_embeddings_is_refused(tmp_path: Path) -> None:
    # Published models have a few embeddings more than tokens.
    for size, least in ((18_000, 17_873), (40_000, 39_873), (8_000, 7_920), (97, 90)):
        config = dataclasses.replace(CONFIG, vocab_size=size)
        require_tokenizer_fits(least, 0, config)
        with pytest.raises(CheckpointError, match=f"has {least - 1:,} tokens, but the model has {size:,} word embedd"):
            require_tokenizer_fits(least - 1, 0, config)
    folder = write_encoder(tmp_path / "encoder")  # a folder of PaddleNLP's says nothing of its vocabulary
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY[:-8]) + "\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"vocab\.txt was cut short, or is another model's"):
        start_ranker(folder, Fresh("pairwise"), LoadOptions(max_seq_length=32))


@pytest.mark.parametrize(
    ("tokens", "rows", "fits"), [(97, 128, True), (97, 104, True), (97, 105, False), (60, 128, False)]
)
def test_embeddings_that_are_rounded_up_fit(tokens: int, rows: int, fits: bool) -> None:
    config = dataclasses.replace(CONFIG, vocab_size=rows)
    if fits:
        require_tokenizer_fits(tokens, config.pad_token_id, config)
        return
    with pytest.raises(CheckpointError, match="cut short"):
        require_tokenizer_fits(tokens, config.pad_token_id, config)
