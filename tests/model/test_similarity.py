"""The cosines of a pair's two texts as features of the head: against a tower's own, saved, exported, trained."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from cross_encoder.train_ce import TrainCeOptions, train
from paddle_ranker import Ranker
from paddle_ranker.commands.starter import StarterOptions, make_starter
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.errors import CheckpointError, RankerError
from paddle_ranker.export.static_graph import export_model
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import RANKER, load_model
from paddle_ranker.model.parameters import load_arrays
from paddle_ranker.model.ranker_folder import load_single
from paddle_ranker.model.similarity import SimilarityHead, depths_of, feature_names
from paddle_ranker.model.tower_network import load_tower
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from tests.checkout import ONCE
from tests.conftest import commands_here
from tests.tiny import QUERIES, TITLES, draw_words, write_encoder, write_ranker, write_tower

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("same_process")]


def expected(tower: Path, query: str, title: str) -> list[float]:
    """Compute the features of a pair from both texts alone, by NumPy."""
    opened = Tower.open(tower, LoadOptions(threads=1))
    vectors = [opened.query_vectors([query])[0], opened.vectors([title])[0]]
    model, states, own = load_tower(tower, LoadOptions()), [], []
    texts = ((model.texts.encode_queries([query]), query, model.info.query_prompt),
             (model.texts.encode([title]), title, model.info.text_prompt))  # fmt: skip
    for rows, text, prompt in texts:
        ids = paddle.to_tensor(rows[0].astype(np.int64)[None])
        hidden, mask = model.network.encoder._embed(ids, paddle.zeros_like(ids), None)
        found = [hidden]
        for layer in model.network.encoder.encoder.layers:
            found.append(layer(found[-1], mask))
        states.append([one.numpy()[0] for one in found])
        first = 1 + model.texts.tokens.count_tokens(prompt)
        own.append(slice(first, first + model.texts.tokens.count_tokens(text)))

    def cosine(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return np.asarray(one @ other.T / np.linalg.norm(one, axis=-1)[..., None] / np.linalg.norm(other, axis=-1))

    pairs = [vectors, *([of[depth].mean(axis=0) for of in states] for depth in depths_of(2))]
    values = [float(cosine(one[None], other[None])[0, 0]) for one, other in (*pairs, [of[-1][0] for of in states])]
    for depth in (2, 1):
        near = cosine(*(of[depth][place] for of, place in zip(states, own)))
        values += [near.max(axis=1).mean(), near.max(axis=1).min(), near.max(axis=0).mean()] if near.size else [0.0] * 3
    return values


@pytest.mark.parametrize("changes", [{}, {"pooling": "first"}, {"normalize": False, "query_prompt": ""}], ids=str)
def test_the_features_are_the_towers_own_cosines(tmp_path: Path, changes: dict[str, Any]) -> None:
    tower = write_tower(tmp_path / "tower", **changes)
    encoder = PairEncoder.from_folder(tower, 40)
    head = SimilarityHead(load_tower(tower, LoadOptions()), encoder)
    queries, titles = ["深", *QUERIES], ["", *(title[:20] for title in TITLES)]
    found = head.of_pairs(encoder.encode(queries, titles), np.arange(len(queries)))
    wanted = [expected(tower, query, title) for query, title in zip(queries, titles)]
    assert len(wanted[0]) == len(feature_names(2)) == 11
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a split encoder with the starting encoder's cosines and lexical features; return the folder."""
    folder = tmp_path_factory.mktemp("run")
    write_encoder(folder / "encoder")
    _, words = draw_words(24)
    pairs = [f"{word}\t{title}\t{label}\n" for word in words for title, label in ((f"论{word}", 1), ("研究文化", 0))]
    (folder / "pairs.tsv").write_text("".join(pairs), encoding="utf-8")
    with commands_here():
        train(options(folder, "run", stored_titles=1, stored_width=9))
    return folder


def options(folder: Path, name: str, **changes: Any) -> TrainCeOptions:
    pairs = str(folder / "pairs.tsv")
    values: dict[str, Any] = {
        "train_set": pairs, "test_file": pairs, "model_name_or_path": str(folder / "encoder"), "batch_size": 8,
        "save_dir": str(folder / name), "epochs": 1, "device": "cpu", "lexical_features": True, "similarity": "start",
        "max_seq_length": 32, "learning_rate": 1e-3,
    }  # fmt: skip
    return TrainCeOptions(**{**values, **changes})


def test_training_leaves_the_tower_as_it_was(run: Path) -> None:
    ranker = load_single(run / "run" / "last")
    head = ranker.network.similarity_head
    assert (
        ranker.info.similarity
        and (ranker.info.stored_titles, ranker.info.stored_width) == (1, 9)
        and head is not None
        and abs(head.weight.numpy()).max() > 0.01
    )
    start, own = (load_arrays(path / "model_state.pdparams") for path in (run / "encoder", run / "run/last/similarity"))
    for name, array in own.items():
        np.testing.assert_array_equal(array, start[name.replace("encoder.", "", 1)], err_msg=name)
    trained = load_arrays(run / "run" / "last" / "model_state.pdparams")
    assert not any("tower" in name for name in trained)


def test_a_stopped_run_goes_on_as_if_it_had_not_been(run: Path) -> None:
    train(options(run, "stopped", stored_titles=1, stored_width=9, max_minutes=1e-9))
    train(options(run, "stopped", stored_titles=1, stored_width=9, resume=True))
    whole, again = (load_arrays(run / name / "last" / "model_state.pdparams") for name in ("run", "stopped"))
    assert whole.keys() == again.keys()
    for name, array in whole.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)


@ONCE
def test_every_engine_computes_it(run: Path, tmp_path: Path) -> None:
    ranker = load_model(run / "run" / "last", RANKER)
    exported, _ = export_model(ranker, tmp_path / "exported", onnx=not paddle.__version__.startswith("2"))
    expected = Ranker.load(run / "run" / "last").score(QUERIES, TITLES)
    for engine in ["inference"] if exported.onnx is None else ["inference", "onnx"]:
        found = Ranker.load(exported.folder, engine=engine).score(QUERIES, TITLES)
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.thorough
@ONCE
@pytest.mark.parametrize("normalize_before", [True, False])
def test_a_ranker_from_a_starter_encoder_is_exported_alike(run: Path, tmp_path: Path, normalize_before: bool) -> None:
    """A new encoder's first tokens have one cosine, 0.9999, for all pairs: rounding must not become a feature."""
    corpus, folder = str(run / "pairs.tsv"), str(tmp_path / "starter")
    make_starter(StarterOptions(corpus=corpus, output_dir=folder, normalize_before=normalize_before))
    with commands_here():
        train(options(run, tmp_path.name, model_name_or_path=folder))
    ranker = load_model(run / tmp_path.name / "last", RANKER)
    head = load_single(run / tmp_path.name / "last").network.similarity_head
    assert head is not None
    of = dict(zip(feature_names(2), zip(head.deviation.numpy(), head.weight.numpy())))
    assert of["first_token"][0] == 1.0 and abs(of["first_token"][1]) < 0.1 < of["cosine"][1]
    exported, _ = export_model(ranker, tmp_path / "exported", onnx=not paddle.__version__.startswith("2"))
    expected = Ranker.load(run / tmp_path.name / "last").score(QUERIES, TITLES, logits=True)
    for engine in ["inference"] if exported.onnx is None else ["inference", "onnx"]:
        found = Ranker.load(exported.folder, engine=engine).score(QUERIES, TITLES, logits=True)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_added_to_a_trained_ranker_it_changes_no_score_at_first(run: Path, tmp_path: Path) -> None:
    trained = write_ranker(tmp_path / "ranker")
    before = Ranker.load(trained).score(QUERIES, TITLES)
    asked = options(
        run, "more", model_name_or_path=str(trained), similarity=str(run / "encoder"), learning_rate=1e-30, max_steps=1
    )
    train(asked)
    more = load_single(run / "more" / "last")
    assert more.network.similarity_head is not None and more.network.similarity_head.has_learned
    np.testing.assert_allclose(Ranker.load(run / "more" / "last").score(QUERIES, TITLES), before, atol=1e-6)


def test_what_is_refused(run: Path, tmp_path: Path) -> None:
    last = str(run / "run" / "last")
    for changes, said in (
        ({"model_name_or_path": str(write_ranker(tmp_path / "ranker"))}, "is a ranker"),
        ({"model_name_or_path": last}, "has a similarity"),
        ({"similarity": str(tmp_path / "nowhere")}, "nowhere"),
        ({"max_seq_length": 63, "similarity": str(short_encoder(tmp_path))}, "texts of up to"),
    ):
        with pytest.raises(RankerError, match=said):
            train(options(run, "refused", **changes))
    (tmp_path / "copy").mkdir()
    for file in (run / "run" / "last").resolve().glob("*.*"):
        (tmp_path / "copy" / file.name).write_bytes(file.read_bytes())
    with pytest.raises(CheckpointError, match="no folder similarity"):
        load_single(tmp_path / "copy")


def short_encoder(folder: Path) -> Path:
    return write_encoder(folder / "short", max_position_embeddings=16)


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    tower = load_tower(write_tower(tmp_path / "tower"), LoadOptions())
    other = write_encoder(tmp_path / "other")
    lines = (other / "vocab.txt").read_text(encoding="utf-8").splitlines()
    (other / "vocab.txt").write_text("\n".join([*lines[:5], *reversed(lines[5:])]) + "\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match="tokenizer is not the ranker's"):
        SimilarityHead(tower, PairEncoder.from_folder(other, 32))
    assert dataclasses.is_dataclass(tower)
