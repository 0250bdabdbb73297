"""A ranker from Python: any iterable of texts, in any batch; logits; and errors that name wrong texts."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import paddle_ranker
from multimodal_entailment.entailment_scorer import Entailment
from paddle_ranker import Ranker
from paddle_ranker.errors import UsageError
from paddle_ranker.libraries import AUTO_DEVICE
from paddle_ranker.metrics.calibration import sigmoid
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_kind import RANKER_SIGNATURE
from paddle_ranker.options import DeviceOptions
from paddle_ranker.scoring.cascade import Cascade
from paddle_ranker.scoring.engines.dygraph import DygraphEngine
from paddle_ranker.scoring.loading import ScoringModel
from paddle_ranker.scoring.scorer import Scorer
from paddle_ranker.storage.prefetch import chunks
from tests.engine_calls import logits_of
from tests.tiny import PAIRS, QUERIES, TITLES, make_network, write_ranker

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def ranker(tmp_path_factory: pytest.TempPathFactory) -> Ranker:
    return Ranker.load(write_ranker(tmp_path_factory.mktemp("ranker") / "ranker"), device="cpu")


@pytest.mark.parametrize(
    "of",
    [
        list,
        tuple,
        iter,
        np.array,
        lambda titles: dict.fromkeys(titles).keys(),
        lambda titles: (title for title in titles),
    ],
)
def test_any_iterable_of_texts(ranker: Ranker, of: Any) -> None:
    wanted = ranker.rank("深度学习", TITLES)
    assert ranker.rank("深度学习", of(TITLES)) == wanted and len(wanted) == len(TITLES)
    cascade = Cascade(ranker, ranker, depth=2)
    assert cascade.rank("深度学习", of(TITLES)) == cascade.rank("深度学习", TITLES)
    assert np.array_equal(ranker.score(of(TITLES), of(TITLES)), ranker.score(TITLES, TITLES))


@pytest.mark.parametrize(
    ("query", "titles", "message"),
    [
        ("q", "title", r"titles is the text 'title': expected several, as in \['title'\]"),
        ("q", {"a": "title"}, r"titles is \{'a': 'title'\} \(dict\): expected several"),
        ("q", None, "titles is None: expected an iterable of texts"),
        ("q", 5, r"titles is 5 \(int\): expected an iterable of texts"),
        ("q", b"title", r"titles is b'title' \(bytes\): expected several"),
        ("q", ["a", None], r"titles\[1\] is None: expected text"),
        ("q", ["a", "b", 3.5], r"titles\[2\] is 3.5 \(float\): expected text"),
        (None, ["a"], "query is None: expected text"),
        (["q"], ["a"], r"query is \['q'\] \(list\): expected text"),
    ],
)
def test_what_is_no_text_is_named(ranker: Ranker, query: Any, titles: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ranker.rank(query, titles)
    with pytest.raises(UsageError, match=message):
        Cascade(ranker, ranker).rank(query, titles)
    with pytest.raises(UsageError, match=r"searches\[0\]"):
        ranker.rank_many([(query, titles)])


def test_queries_and_titles_go_in_pairs(ranker: Ranker) -> None:
    with pytest.raises(UsageError, match="queries is the text 'ab'"):
        ranker.score("ab", ["c", "d"])
    with pytest.raises(UsageError, match="1 queries and 2 titles: give one title for each query"):
        ranker.score(["a"], ["b", "c"])


@pytest.mark.parametrize("wrong", [0, -1, 2.5, "3", True, [3]])
def test_a_count_is_a_whole_number(ranker: Ranker, wrong: Any) -> None:
    expected = ", must be at least" if wrong in (0, -1) else ", expected a whole number"
    refused = rf"is {re.escape(repr(wrong))}{expected}"
    with pytest.raises(UsageError, match=f"top_k: {refused}"):
        ranker.rank("q", ["t"], top_k=wrong)
    with pytest.raises(UsageError, match=f"top_k: {refused}"):
        Cascade(ranker, ranker).rank("q", ["t"], top_k=wrong)
    with pytest.raises(UsageError, match=f"depth: {refused}"):
        Cascade(ranker, ranker, depth=wrong)
    loaded = ScoringModel(ranker.info, ranker.row_encoder, RANKER_SIGNATURE, ranker.scorer.engine)
    with pytest.raises(UsageError, match=f"batch_size: {refused}"):
        Ranker(loaded, wrong)
    if wrong != 0:
        with pytest.raises(UsageError, match=f"window_overlap: {refused}"):
            Ranker(loaded, windows="max", window_overlap=wrong)


@pytest.mark.parametrize("wrong", [-0.5, 2, "0.5", float("nan")])
def test_a_minimum_is_a_probability(ranker: Ranker, wrong: Any) -> None:
    with pytest.raises(UsageError, match=rf"min_probability {wrong!r}: must be from 0 to 1"):
        ranker.rank("q", ["t"], min_probability=wrong)


@pytest.mark.parametrize(
    ("source", "how", "message"),
    [
        (None, {}, "the model is None: expected the path of its folder"),
        (5, {}, "the model is 5: expected the path of its folder"),
        ("x", {"max_seq_length": "64"}, "max_seq_length '64': expected a whole number"),
        ("x", {"threads": None}, "threads None: expected a whole number"),
        ("x", {"threads": True}, "threads True: expected a whole number"),
        ("x", {"engine": 3}, "engine 3: expected text"),
        ("x", {"tensorrt": 1}, "tensorrt 1: expected true or false"),
    ],
)
def test_loading_names_what_is_of_another_type(source: Any, how: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Ranker.load(source, **how)
    with pytest.raises(UsageError, match=message):
        Cascade.load(source, "x", **how)
    if not how:
        with pytest.raises(UsageError, match=message):
            Entailment.load(source)


def test_many_queries_are_one_call_of_the_scorer(ranker: Ranker, monkeypatch: pytest.MonkeyPatch) -> None:
    searches = [("深度学习", TITLES), ("a b c", TITLES[:2]), ("nothing", []), ("深度学习", TITLES[::-1])]
    wanted = [ranker.rank(query, titles, top_k=3) for query, titles in searches]
    calls, run = [], ranker.scorer.run

    def counted(pairs: Any) -> Any:
        calls.append(len(pairs))
        return run(pairs)

    monkeypatch.setattr(ranker.scorer, "run", counted)
    found = ranker.rank_many(iter(searches), top_k=3)
    assert calls == [14] and [len(titles) for titles in found] == [3, 2, 0, 3]
    for ours, theirs in zip(found, wanted):
        assert [hit.index for hit in ours] == [hit.index for hit in theirs]
        assert [hit.probability for hit in ours] == pytest.approx([hit.probability for hit in theirs], abs=1e-6)
    assert ranker.rank_many({"深度学习": TITLES}, top_k=3)[0] == ranker.rank("深度学习", TITLES, top_k=3)
    assert ranker.rank_many([]) == []
    for searches_of_none in ("q", None, 5):
        with pytest.raises(UsageError, match=r"searches is .*: expected pairs of a query and its titles"):
            ranker.rank_many(searches_of_none)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"searches\[0\] is the text 'q': expected a query and its titles"):
        ranker.rank_many(["q"])  # type: ignore[list-item]


def test_logits_where_they_are_asked_for(ranker: Ranker) -> None:
    queries = ["深度学习"] * len(TITLES)
    logits = ranker.score(queries, TITLES, logits=True)
    assert np.array_equal(sigmoid(logits), ranker.score(queries, TITLES)) and logits.min() < 0
    hits = ranker.rank("深度学习", TITLES, logits=True, top_k=4)
    assert [hit.logit for hit in hits] == [logits[hit.index] for hit in hits]
    assert [hit.logit for hit in ranker.rank("深度学习", TITLES)] == [None] * len(TITLES)
    cut = ranker.rank("深度学习", TITLES, logits=True, min_probability=hits[1].probability)
    assert [(hit.index, hit.logit) for hit in cut] == [(hit.index, hit.logit) for hit in hits[:2]]


def test_the_device_is_the_commands(ranker: Ranker, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert LoadOptions().device == DeviceOptions().device == AUTO_DEVICE
    paddle_ranker.Ranker.load(write_ranker(tmp_path / "ranker"))  # works without a GPU as well
    with pytest.raises(UsageError, match=r"Ranker.load has no devise \(did you mean device\?\)"):
        Ranker.load(tmp_path / "ranker", devise="cpu")


@pytest.mark.parity
@settings(max_examples=25, deadline=None)
@given(rows=st.lists(st.integers(0, len(PAIRS) - 1), min_size=1, max_size=80), batch_size=st.integers(1, 9))
def test_alone_in_any_batch_and_in_any_order(ranker: Ranker, rows: list[int], batch_size: int) -> None:
    reference = np.array([ranker.score([query], [title])[0] for query, title in PAIRS])
    assert np.ptp(reference) > 0.1
    scorer = Scorer(ranker.scorer.engine, ranker.row_encoder, batch_size)
    scores = scorer.score([QUERIES[i] for i in rows], [TITLES[i] for i in rows])
    np.testing.assert_allclose(scores, reference[rows], atol=1e-5)


def test_ranking_is_best_first_and_keeps_the_given_order_of_ties(ranker: Ranker) -> None:
    titles = [*TITLES, TITLES[0]]  # a repeated title makes a tie
    ranked = ranker.rank("深度学习", titles)
    scores = ranker.score(["深度学习"] * len(titles), titles)
    assert [r.probability for r in ranked] == sorted(scores.tolist(), reverse=True)
    assert all(titles[r.index] == r.title for r in ranked)
    places = [r.index for r in ranked]
    assert places.index(0) + 1 == places.index(len(TITLES))
    assert ranker.rank("深度学习", titles, top_k=2) == ranked[:2]
    assert ranker.rank("深度学习", []) == []


def test_scoring_leaves_training_mode_as_it_was_and_knows_no_dropout() -> None:
    network = make_network()
    ids, types = np.array([[1, 5, 2, 6, 2]]), np.array([[0, 0, 0, 1, 1]])
    first = logits_of(DygraphEngine(network), ids, types)
    for training in (True, False) * 3:
        network.train() if training else network.eval()
        assert logits_of(DygraphEngine(network), ids, types) == first
        assert network.training is training


def test_chunks() -> None:
    assert list(chunks(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(chunks([], 2)) == []


def test_a_ranker_is_pickled_as_its_folder_and_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_ranker(tmp_path / "ranker")
    monkeypatch.chdir(tmp_path)
    ranker = Ranker.load("ranker", batch_size=3, windows="max", max_seq_length=20, device="cpu")
    pickled = pickle.dumps(ranker)
    monkeypatch.chdir("/")
    again = pickle.loads(pickled)  # noqa: S301
    np.testing.assert_array_equal(again.score(QUERIES, TITLES), ranker.score(QUERIES, TITLES))
    assert (again.batch_size, again.row_encoder.max_seq_length) == (3, 20) and again.windows is not None
    assert len(pickled) < 1000
    with pytest.raises(TypeError, match=r"was not opened by Ranker\.load"):
        pickle.dumps(Ranker(ranker.loaded))
