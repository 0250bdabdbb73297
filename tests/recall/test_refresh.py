"""Negatives that a tower mines for itself: the same as by hand in NumPy, and those of an interrupted training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paddle_ranker.data.rows.records import Triple, read_records
from paddle_ranker.errors import DataError, UsageError
from paddle_ranker.model.parameters import PARAMETERS_FILE, load_arrays
from paddle_ranker.training.mining import text_key
from recall.data import encode_pairs, open_rows
from recall.model import InBatchExamples, LossSettings
from recall.refresh import RefreshedNegatives
from recall.train_batch_neg import TrainBatchNegOptions, train
from recall.training import start_tower_training
from tests.conftest import commands_here
from tests.tiny import HAN, write_encoder

pytestmark = pytest.mark.unit


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    """Write an encoder, triples and a corpus; return the options of a training."""
    write_encoder(tmp_path / "encoder")
    random = np.random.RandomState(0)
    words = ["".join(random.choice(HAN, random.randint(2, 6))) for _ in range(14)]
    rows = [f"{word}\t{word}的研究\t{other}" for word, other in zip(words, words[1:])]
    rows.append(f"{words[0]}\t{words[0]}论\t{words[5]}")  # a second answer of the first query
    texts = [
        *(f"{word}文化" for word in words),
        words[3],
        f"{words[0]}，论",
    ]  # a query, and an answer written otherwise
    (tmp_path / "triples.csv").write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    (tmp_path / "texts.csv").write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return {
        "train_set_file": str(tmp_path / "triples.csv"), "corpus_file": str(tmp_path / "texts.csv"), "device": "cpu",
        "model_name_or_path": str(tmp_path / "encoder"), "pooling": "mean", "refresh_negatives": 1, "epochs": 3,
        "negatives": 99, "batch_size": 4, "save_dir": str(tmp_path / "tower"), "learning_rate": 1e-3, "seed": 7,
    }  # fmt: skip


@pytest.mark.parametrize("towers", [1, 2])
def test_mined_negatives_are_those_of_a_computation_by_hand(given: dict[str, Any], towers: int) -> None:
    options = TrainBatchNegOptions(**given, towers=towers)
    start = start_tower_training(options)
    (Path(options.save_dir)).mkdir(exist_ok=True)
    corpus = Path(given["corpus_file"]).read_text(encoding="utf-8").split()
    encoder = start.model.row_encoder
    queries_encoder = start.queries.row_encoder if start.queries else encoder
    pairs = encode_pairs(open_rows(options.train_set_file, options), encoder, "rows", queries_encoder, corpus)
    examples = InBatchExamples(pairs, LossSettings(20.0, 0.0, negatives=99))
    RefreshedNegatives(start, examples, options).begin_epoch(2)

    (queries, titles), network = pairs.texts, start.model.network
    network.eval()
    (start.queries.network if start.queries else network).eval()
    found = examples.pairs.negatives
    assert found is not None and len(titles) > 30
    from paddle_ranker.retrieval.vectors.text_vectors import (
        Tower,  # the network's vectors, by another way than the mining's
    )
    from paddle_ranker.scoring.engines.dygraph import DygraphEngine

    vectors = Tower(DygraphEngine(network, start.model.signature), encoder).compute(pairs.titles)
    of_queries = start.queries or start.model
    asked = Tower(DygraphEngine(of_queries.network, of_queries.signature), queries_encoder).compute(pairs.queries)
    cosines = asked @ vectors.T
    answers: dict[str, set[str]] = {}
    for query, title in zip(pairs.query_of, pairs.title_of):
        answers.setdefault(queries[query], set()).add(text_key(titles[title]))
    mined = 0
    for number, (query, title) in enumerate(zip(pairs.query_of.tolist(), pairs.title_of.tolist())):
        limit = min(1.0, 0.95) * cosines[query, title]
        wanted, seen = set(), set[str]()
        for other in np.argsort(-cosines[query], kind="stable").tolist():
            key = text_key(titles[other])
            if key in answers[queries[query]] | seen | {text_key(queries[query])}:
                continue
            seen.add(key)
            if cosines[query, other] <= limit:
                wanted.add(other)
        own = pairs.negatives.titles[pairs.negatives.offsets[number] : pairs.negatives.offsets[number + 1]]  # type: ignore[union-attr]
        mined += len(wanted)
        assert {*found.titles[found.offsets[number] : found.offsets[number + 1]].tolist()} == wanted | {*own.tolist()}
    assert mined >= 10
    assert len(read_records(Path(options.save_dir) / "negatives_2.jsonl", Triple)) == mined


class Killed(Exception):
    """Stands for a kill: the process stops at any point."""


def test_an_interrupted_training_goes_on_with_its_negatives(given: dict[str, Any], tmp_path: Path) -> None:
    rows = [row.split("\t") for row in Path(given["train_set_file"]).read_text(encoding="utf-8").splitlines()]
    (tmp_path / "dev.csv").write_text("".join(f"{row[0]}\t{row[1]}\n" for row in rows[:5]), encoding="utf-8")
    given = {**given, "negatives": 3, "similar_text_pair": str(tmp_path / "dev.csv"), "eval_step": 9, "save_step": 6}

    def kill(step: int, measures: dict[str, float]) -> None:
        raise Killed  # in the third epoch, after its mining; the checkpoint is within the second

    with commands_here(tmp_path):
        whole = train(TrainBatchNegOptions(**given))
        cut = {**given, "save_dir": str(tmp_path / "cut")}
        with pytest.raises(Killed):
            train(TrainBatchNegOptions(**cut), kill)
        (tmp_path / "cut" / "negatives_2.jsonl").rename(tmp_path / "kept")
        with pytest.raises(DataError, match=r"negatives_2\.jsonl: is not there"):
            train(TrainBatchNegOptions(**cut, resume=True))
        (tmp_path / "kept").rename(tmp_path / "cut" / "negatives_2.jsonl")
        train(TrainBatchNegOptions(**cut, resume=True))
    assert whole.steps == 12
    arrays = [load_arrays(tmp_path / run / "last" / PARAMETERS_FILE) for run in ("tower", "cut")]
    assert not [name for name, array in arrays[0].items() if array.tobytes() != arrays[1][name].tobytes()]
    files = [
        [(tmp_path / run / f"negatives_{epoch}.jsonl").read_bytes() for epoch in (2, 3)] for run in ("tower", "cut")
    ]
    assert files[0] == files[1] and files[0][0] != files[0][1]


def test_a_trained_tower_mines_before_the_first_epoch(given: dict[str, Any], tmp_path: Path) -> None:
    given = {**given, "epochs": 1, "max_steps": 1}
    with pytest.raises(UsageError, match="no epoch of --epochs 1 would be left"):
        TrainBatchNegOptions(**given)
    with commands_here(tmp_path):
        train(TrainBatchNegOptions(**given, init_from_ckpt=given["model_name_or_path"]))
    assert (tmp_path / "tower" / "negatives_1.jsonl").is_file()
