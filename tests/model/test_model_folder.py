"""Loading: published checkpoints, folded heads, missing and misfitting parameters."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Callable

import numpy as np
import paddle
import pytest
from scipy.special import softmax

from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.config import write_config
from paddle_ranker.model.encoder import Encoder
from paddle_ranker.model.folder import Fresh, RankerParts, start_ranker
from paddle_ranker.model.kinds import load_ranker
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.parameters import load_arrays, save_arrays
from paddle_ranker.scoring.engines.dygraph import DygraphEngine
from paddle_ranker.scoring.scorer import Scorer
from tests.tiny import CONFIG, PAIRS, make_network, write_encoder, write_ranker, write_tokenizer

pytestmark = pytest.mark.unit
Change = Callable[[dict[str, Any]], Any]
QUERIES, TITLES = [list(column) for column in zip(*PAIRS)]


def probabilities(parts: RankerParts) -> np.ndarray:
    return Scorer(DygraphEngine(parts.network), parts.pair_encoder).score(QUERIES, TITLES)


def published(folder: Path, prefix: str, head: str, classes: int, seed: int = 3) -> dict[str, np.ndarray]:
    """Write a checkpoint as the published scripts do: parameters and vocabulary, no configuration."""
    write_tokenizer(folder)
    paddle.seed(seed)
    encoder, linear = Encoder(CONFIG), paddle.nn.Linear(CONFIG.hidden_size, classes)
    state = {f"{prefix}.{name}": value.numpy() for name, value in encoder.state_dict().items()}
    state.update({f"{head}.{name}": value.numpy() for name, value in linear.state_dict().items()})
    save_arrays(state, folder / "model_state.pdparams")
    return state


def scores_by_hand(state: dict[str, np.ndarray], prefix: str, head: str, pairs: RankerParts) -> np.ndarray:
    """Return the head's outputs, `[n, classes]`, from the encoder loaded on its own."""
    encoder = Encoder(CONFIG)
    encoder.set_state_dict({name[len(prefix) + 1 :]: v for name, v in state.items() if name.startswith(prefix + ".")})
    encoder.eval()
    encoded = pairs.pair_encoder.encode(QUERIES, TITLES)
    rows = []
    for i in range(len(QUERIES)):
        ids, types = (paddle.to_tensor(x) for x in encoded.pad([i]).values())
        rows.append(
            encoder.pooler(encoder(ids, types)[:, 0]).numpy()[0] @ state[f"{head}.weight"] + state[f"{head}.bias"]
        )
    return np.array(rows)


@pytest.fixture
def config_folder(tmp_path: Path) -> str:
    """A folder that holds a configuration, in the place of a model name."""
    folder = tmp_path / "named"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG.to_dict()))
    return str(folder)


def test_a_saved_ranker_scores_the_same_when_loaded(tmp_path: Path) -> None:
    parts = load_ranker(write_ranker(tmp_path / "ranker"))
    reference = make_network()
    encoded = parts.pair_encoder.encode(QUERIES, TITLES)
    ids, types = (paddle.to_tensor(x) for x in encoded.pad(range(len(QUERIES))).values())
    expected = 1 / (1 + np.exp(-reference(ids, types).numpy()))
    np.testing.assert_allclose(probabilities(parts), expected, atol=1e-6)
    assert np.ptp(expected) > 0.1  # the scores differ, so agreement says something
    assert parts.info.max_seq_length == parts.pair_encoder.max_seq_length == 32


def test_the_published_pairwise_checkpoint(tmp_path: Path, config_folder: str) -> None:
    state = published(tmp_path / "c", "ptm", "similarity", 1)
    parts = load_ranker(tmp_path / "c" / "model_state.pdparams", LoadOptions(model_name=config_folder))
    expected = 1 / (1 + np.exp(-scores_by_hand(state, "ptm", "similarity", parts)[:, 0]))
    np.testing.assert_allclose(probabilities(parts), expected, atol=1e-6)
    assert parts.info.kind == "pairwise"
    assert parts.info.max_seq_length == CONFIG.max_position_embeddings == 64  # the published 128 would not fit


def test_the_published_two_class_head_is_folded_exactly(tmp_path: Path, config_folder: str) -> None:
    state = published(tmp_path / "c", "ernie", "classifier", 2)
    parts = load_ranker(tmp_path / "c", LoadOptions(model_name=config_folder))
    expected = softmax(scores_by_hand(state, "ernie", "classifier", parts), axis=1)[:, 1]
    np.testing.assert_allclose(probabilities(parts), expected, atol=1e-6)
    assert parts.info.kind == "cross_encoder"


def test_training_goes_on_from_a_published_checkpoint(tmp_path: Path, config_folder: str) -> None:
    published(tmp_path / "c", "ptm", "similarity", 1)
    scored = probabilities(load_ranker(tmp_path / "c", LoadOptions(model_name=config_folder)))
    parts = start_ranker(tmp_path / "c", Fresh("pairwise"), LoadOptions(model_name=config_folder, max_seq_length=64))
    assert parts.new_parts == ["match_embeddings"]
    np.testing.assert_allclose(probabilities(parts), scored, atol=1e-6)  # the new embeddings are zero


def test_a_bare_parameter_file_needs_to_know_its_model(tmp_path: Path) -> None:
    published(tmp_path / "c", "ptm", "similarity", 1)
    with pytest.raises(CheckpointError, match="--model_name_or_path"):
        load_ranker(tmp_path / "c")


def test_the_folders_own_configuration_wins(tmp_path: Path) -> None:
    folder = write_ranker(tmp_path / "ranker")
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps(dataclasses.replace(CONFIG, hidden_size=32).to_dict()))
    np.testing.assert_array_equal(
        probabilities(load_ranker(folder, LoadOptions(model_name=str(other)))), probabilities(load_ranker(folder))
    )


def test_an_encoder_alone_trains_but_does_not_score(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "encoder")
    with pytest.raises(
        CheckpointError, match=r"is an encoder without a ranking head .*train_pairwise\.py .*--model_name_or_path"
    ):
        load_ranker(folder)
    parts = start_ranker(folder, Fresh("pairwise"), LoadOptions(max_seq_length=32))
    assert parts.new_parts == ["head", "match_embeddings"]
    assert start_ranker(
        folder, Fresh("pairwise", match_embeddings=False), LoadOptions(max_seq_length=32)
    ).new_parts == ["head"]


def test_trained_match_embeddings_cannot_be_left_out(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="match_embeddings"):
        start_ranker(write_ranker(tmp_path / "ranker"), Fresh("pairwise", match_embeddings=False))


def spoil(folder: Path, change: Change) -> Path:
    arrays = load_arrays(folder / "model_state.pdparams")
    change(arrays)
    save_arrays({name: paddle.to_tensor(a) for name, a in arrays.items()}, folder / "model_state.pdparams")
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("encoder.encoder.layers.1.linear1.weight"), r"missing: encoder\.encoder\.layers\.1\.linear1"),
        (
            lambda a: a.update({"encoder.encoder.layers.2.norm1.bias": np.zeros(16, "float32")}),
            r"not in this arch.*2\.norm1",
        ),
        (lambda a: a.update({"head.bias": np.zeros(3, "float32")}), "shape"),
        (
            lambda a: a.update({"encoder.pooler.dense.weight": np.zeros((8, 16), "float32")}),
            r"pooler\.dense\.weight is \[8, 16\], the configuration says \[16, 16\]",
        ),
        (lambda a: a.pop("encoder.embeddings.word_embeddings.weight"), "holds no encoder"),
    ],
)
def test_parameters_that_do_not_fit_are_named(tmp_path: Path, change: Change, message: str) -> None:
    folder = spoil(write_ranker(tmp_path / "ranker"), change)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_ranker(folder)
    assert str(folder) in str(caught.value)


def rewrite(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_ranker_of_another_kind_is_named(tmp_path: Path) -> None:
    folder = write_ranker(tmp_path / "ranker")
    load_ranker(folder, LoadOptions(expected_kind="pairwise"))
    with pytest.raises(CheckpointError, match="is a pairwise ranker, not a cross_encoder one: ernie_matching/"):
        load_ranker(folder, LoadOptions(expected_kind="cross_encoder"))
    with pytest.raises(CheckpointError, match="is a pairwise ranker"):
        start_ranker(folder, Fresh("cross_encoder"), LoadOptions(expected_kind="cross_encoder"))
    assert start_ranker(folder, Fresh("cross_encoder")).info.kind == "cross_encoder"


def test_a_published_checkpoint_of_another_kind_is_named_by_its_head(tmp_path: Path) -> None:
    published(tmp_path / "p", "ptm", "similarity", 1)
    published(tmp_path / "c", "ernie", "classifier", 2)
    write_config(tmp_path / "p", CONFIG)
    write_config(tmp_path / "c", CONFIG)
    assert load_ranker(tmp_path / "p", LoadOptions(expected_kind="pairwise")).info.kind == "pairwise"
    assert load_ranker(tmp_path / "c", LoadOptions(expected_kind="cross_encoder")).info.kind == "cross_encoder"
    with pytest.raises(CheckpointError, match="is a pairwise ranker, not a cross_encoder one"):
        load_ranker(tmp_path / "p", LoadOptions(expected_kind="cross_encoder"))
    with pytest.raises(CheckpointError, match="is a cross_encoder ranker, not a pairwise one"):
        load_ranker(tmp_path / "c", LoadOptions(expected_kind="pairwise"))


@pytest.mark.parametrize("changes", [{"format_version": None}, {"max_seq_length": "64"}, {"training": None}])
def test_a_damaged_description_is_named(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = write_ranker(tmp_path / "ranker")
    rewrite(folder / "ranker.json", **changes)
    with pytest.raises(CheckpointError, match=r"ranker\.json: damaged"):
        load_ranker(folder)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    folder = write_ranker(tmp_path / "ranker")
    rewrite(folder / "ranker.json", format_version=99)
    with pytest.raises(CheckpointError, match="newer"):
        load_ranker(folder)


def test_another_models_vocabulary_is_refused(tmp_path: Path) -> None:
    folder = write_ranker(tmp_path / "ranker")
    with (folder / "vocab.txt").open("a") as vocabulary:
        vocabulary.write("one\nmore\n")
    with pytest.raises(CheckpointError, match="another model's"):
        load_ranker(folder)


def test_a_length_beyond_the_positions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="64 positions"):
        load_ranker(write_ranker(tmp_path / "ranker"), LoadOptions(max_seq_length=65))


@pytest.mark.parametrize("damage", ["{", "[]", "{}"])
def test_a_damaged_configuration_is_named(tmp_path: Path, damage: str) -> None:
    folder = write_ranker(tmp_path / "ranker")
    (folder / "config.json").write_text(damage)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_ranker(folder)


def test_the_folder_above_is_answered_with_a_hint(tmp_path: Path) -> None:
    write_ranker(tmp_path / "model_10")
    with pytest.raises(CheckpointError, match=r"did you mean .*model_10"):
        load_ranker(tmp_path)


def test_paddlenlp_2_configuration_files_are_read(tmp_path: Path) -> None:
    folder = write_ranker(tmp_path / "ranker")
    inner = {**json.loads((folder / "config.json").read_text()), "init_class": "ErnieModel"}
    (folder / "config.json").unlink()
    legacy = {"init_args": [inner], "init_class": "ErnieForSequenceClassification"}
    (folder / "model_config.json").write_text(json.dumps(legacy))
    assert load_ranker(folder).network.config == CONFIG
