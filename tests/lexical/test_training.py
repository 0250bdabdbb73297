"""Training with lexical features in the head: their start, saving, and resuming."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cross_encoder.model import LabeledExamples
from cross_encoder.train_ce import TrainCeOptions
from cross_encoder.train_ce import train as train_ce
from ernie_matching.train_pairwise import TrainPairwiseOptions, train
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.lexical.head import LexicalHead
from paddle_ranker.model.model_folder import RANKER, load_model
from paddle_ranker.model.parameters import load_arrays
from paddle_ranker.training.examples import EncodedExamples
from paddle_ranker.training.ranker_training import start_training
from paddle_ranker.training.training_options import RankerTrainingOptions
from tests.conftest import commands_here
from tests.model.test_match_levels import SPECIALS
from tests.tiny import CONFIG, draw_words, write_encoder, write_ranker, write_tokenizer
from tests.training.test_distributed import SCRIPT, Launched
from tests.training_runs import typed_training

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("same_process")]


LEARNED = ("idf", "mean", "deviation", "average_length")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_encoder(folder / "encoder")
    _, words = draw_words(24)
    triples = [f"{word}\t论{word}\t{other}的研究\n" for word, other in zip(words, words[1:] + words[:1])]
    pairs = [f"{word}\t{title}\t{label}\n" for word in words for title, label in ((f"论{word}", 1), ("研究文化", 0))]
    for name, lines in (("triples", triples), ("pairs", pairs), ("others", triples[:10])):
        (folder / f"{name}.csv").write_text("".join(lines), encoding="utf-8")
    return folder


def pairwise(files: Path, save_dir: Path, **changes: Any) -> dict[str, np.ndarray]:
    """Train for six steps; return the last parameters."""
    values: dict[str, Any] = {
        "train_file": str(files / "triples.csv"),
        "test_file": str(files / "pairs.csv"),
        "model_name_or_path": str(files / "encoder"),
        "save_dir": str(save_dir),
        "batch_size": 8,
        "epochs": 2,
        "learning_rate": 1e-3,
        "device": "cpu",
        "lexical_features": True,
    }
    train(TrainPairwiseOptions(**{**values, **changes}))
    return load_arrays(save_dir / "last" / "model_state.pdparams")


@pytest.fixture(scope="module")
def run(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run a training without interruption; return its folder."""
    folder = tmp_path_factory.mktemp("plain")
    with commands_here():
        pairwise(files, folder)
    return folder


@pytest.fixture(scope="module")
def plain(run: Path) -> dict[str, np.ndarray]:
    return load_arrays(run / "last" / "model_state.pdparams")


def test_a_killed_run_goes_on_as_if_it_had_not_been(
    files: Path, tmp_path: Path, run: Path, plain: dict[str, np.ndarray]
) -> None:
    assert plain["lexical.idf"].max() > 1 and not plain["lexical.idf"][SPECIALS].any() and plain["lexical.weight"].any()
    ranker = load_model(run / "last", RANKER)
    assert ranker.info.lexical_features is True and ranker.network.lexical is not None
    np.testing.assert_array_equal(ranker.network.lexical.idf.numpy(), plain["lexical.idf"])
    pairwise(files, tmp_path, max_minutes=1e-9)  # one step
    assert (tmp_path / "last").resolve().name == "model_1"
    resumed = pairwise(files, tmp_path, resume=True)
    assert (tmp_path / "last").resolve().name == "model_6"
    assert resumed.keys() == plain.keys()
    for name, array in plain.items():
        np.testing.assert_array_equal(resumed[name], array, err_msg=name)


@pytest.mark.parametrize(
    "changes", [{"gradient_checkpointing": True, "match_embeddings": False}, {"use_amp": True}], ids=str
)
def test_with_other_options(files: Path, tmp_path: Path, plain: dict[str, np.ndarray], changes: dict[str, Any]) -> None:
    arrays = pairwise(files, tmp_path, **changes)
    for name in LEARNED:
        np.testing.assert_array_equal(arrays[f"lexical.{name}"], plain[f"lexical.{name}"])
    np.testing.assert_allclose(arrays["lexical.weight"], plain["lexical.weight"], atol=0.02)


def test_a_checkpoints_own_table_stays(files: Path, tmp_path: Path, run: Path, plain: dict[str, np.ndarray]) -> None:
    others = str(files / "others.csv")
    more = pairwise(files, tmp_path, init_from_ckpt=str(run / "last"), train_file=others, lexical_features=False)
    for name in LEARNED:
        np.testing.assert_array_equal(more[f"lexical.{name}"], plain[f"lexical.{name}"])


def test_the_cross_encoder_has_it_too(files: Path, tmp_path: Path) -> None:
    pairs = str(files / "pairs.csv")
    train_ce(
        TrainCeOptions(
            train_set=pairs, test_file=pairs, model_name_or_path=str(files / "encoder"), save_dir=str(tmp_path),
            batch_size=8, epochs=1, device="cpu", lexical_features=True,
        )
    )  # fmt: skip
    ranker = load_model(tmp_path / "best", RANKER)
    assert ranker.info.kind == "cross_encoder"
    assert ranker.network.lexical is not None
    best = json.loads((tmp_path / "best" / "ranker.json").read_text(encoding="utf-8"))["results"]
    assert best["auc"] == 1.0  # titles hold the query or nothing of it, so features alone suffice


def test_under_a_new_head_the_weights_start_from_a_logistic_regression(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    encoder = PairEncoder.from_folder(tmp_path, 32)
    _, words = draw_words(40)
    queries = [word for word in words for _ in range(2)]
    titles = [title for word, other in zip(words, words[1:] + words[:1]) for title in (f"论{word}", other)]
    pairs = encoder.encode(queries, titles)
    labels = np.tile(np.array([1, 0], np.float32), len(words))
    examples = LabeledExamples(EncodedExamples(pairs, labels, None))
    head = LexicalHead(CONFIG.vocab_size, SPECIALS)
    head.learn(pairs)
    assert not head.weight.numpy().any()
    head.learn(pairs, lambda rows: np.zeros(len(rows)))  # a teacher's data may have no labels
    assert not head.weight.numpy().any()
    head.learn(pairs, examples.pair_labels)
    features = head.of_pairs(pairs, np.arange(len(pairs)), standardise=True)
    logits = features @ head.weight.numpy()
    assert logits[labels == 1].min() > logits[labels == 0].max()


def test_where_its_learning_rate_comes_from(files: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"save_dir": str(tmp_path / "run"), "device": "cpu", "lexical_features": True}
    under_new = RankerTrainingOptions(model_name_or_path=str(files / "encoder"), **settings)
    assert start_training(under_new, "pairwise").part_factors == {"head": 10.0, "match_embeddings": 10.0}
    under_old = RankerTrainingOptions(init_from_ckpt=str(write_ranker(tmp_path / "ranker")), **settings)
    assert start_training(under_old, "pairwise").part_factors == {"lexical": 10.0}


@pytest.mark.thorough
@pytest.mark.server
def test_two_processes_learn_what_one_learns(files: Path, tmp_path: Path) -> None:
    write_encoder(tmp_path / "still", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    paths = {"train_file": files / "triples.csv", "test_file": files / "pairs.csv"}
    options = {**paths, "model_name_or_path": tmp_path / "still", "lexical_features": "true", "epochs": 2}
    launched = Launched(tmp_path, tmp_path / "log", SCRIPT, *typed_training(tmp_path / "two", batch_size=4, **options))
    pairwise(
        files, tmp_path / "one", batch_size=4, gradient_accumulation_steps=2, model_name_or_path=str(tmp_path / "still")
    )
    assert launched.wait() == 0, launched.output
    one, two = (load_arrays(tmp_path / name / "last" / "model_state.pdparams") for name in ("one", "two"))
    for name in LEARNED:
        np.testing.assert_array_equal(two[f"lexical.{name}"], one[f"lexical.{name}"])
    np.testing.assert_allclose(two["lexical.weight"], one["lexical.weight"], atol=1e-4)
