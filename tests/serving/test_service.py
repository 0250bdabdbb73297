"""The server's service over a real ranker: what it refuses, and that the rest has the ranker's scores."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest

from paddle_ranker.array_types import Arrays
from paddle_ranker.encoding.tokenizers.builtin import Tokenizer
from paddle_ranker.errors import CheckpointError
from paddle_ranker.scoring.ranker import Ranker
from paddle_ranker.serving.core.faults import INVALID, OVERLOADED, TIMED_OUT, TOO_LARGE, UNAVAILABLE, Fault, FaultKind
from paddle_ranker.serving.core.limits import Limits
from paddle_ranker.serving.core.metrics import Metrics
from paddle_ranker.serving.core.server_config import ServeConfig
from paddle_ranker.serving.slots.ranker_slot import RankerSlot, check
from paddle_ranker.serving.slots.services import CountedRequest
from tests.engine_calls import logits_of
from tests.export_cases import Exports, write_case, write_two_members
from tests.serving_cases import SECONDS
from tests.started import until
from tests.tiny import PAIRS, VOCABULARY

pytestmark = pytest.mark.parity
QUERIES, TITLES = [query for query, _ in PAIRS], [title for _, title in PAIRS]
LIMITS = Limits(pairs=8, characters=60, queue_pairs=16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_case(tmp_path_factory.mktemp("served") / "ranker")


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[RankerSlot]:
    made = RankerSlot(ServeConfig(model=folder, **vars(LIMITS)))
    model = made.load()
    made.switch(model)
    yield made
    assert model.batcher.close(SECONDS)


@pytest.fixture
def go(service: RankerSlot, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """The engine computes nothing before this is set."""
    scorer, event = service.ready().scorer, threading.Event()
    honest = scorer.compute

    def held(*given: Any) -> Arrays:
        assert event.wait(SECONDS)
        return honest(*given)

    monkeypatch.setattr(scorer, "compute", held)
    return event


def fault_of(asking: Any) -> Fault:
    with pytest.raises(Fault) as raised:
        asyncio.run(asking)
    return raised.value


def arrays(ids: Any, types: Any = None) -> tuple[np.ndarray, np.ndarray]:
    given = np.array(ids, np.int64)
    return given, np.zeros_like(given) if types is None else np.array(types, np.int64)


@pytest.mark.parametrize(
    ("truncates", "text", "found"),
    [(True, "x" * 70, "x" * 60), (True, "x", "x"), (False, "x" * 60, "x" * 60), (False, "x" * 61, TOO_LARGE)],
)
def test_a_single_text_is_cut_only_if_the_server_truncates(truncates: bool, text: str, found: object) -> None:
    limits = Limits(characters=60, auto_truncate=truncates)
    try:
        assert limits.scored_text(text, "query") == found
    except Fault as fault:
        assert fault.kind is found


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(None, "ok"), (Fault(OVERLOADED, "full"), "overloaded"), (asyncio.CancelledError(), "cancelled")],
)
def test_a_counted_request_has_its_outcome(error: Optional[BaseException], outcome: str) -> None:
    metrics = Metrics()
    with suppress(Fault, asyncio.CancelledError), CountedRequest(protocol="x", metrics=metrics):
        if error is not None:
            raise error
    assert f'ranker_requests_total{{outcome="{outcome}",protocol="x"}} 1.0' in metrics.render()[0].decode()


def test_scores_are_those_of_the_ranker(service: RankerSlot, folder: Path) -> None:
    ranker = Ranker.load(folder)
    scores = asyncio.run(service.score_pairs(QUERIES, TITLES))
    wanted = ranker.score(QUERIES, TITLES)
    np.testing.assert_allclose(scores.probabilities, wanted, atol=1e-6)
    np.testing.assert_allclose(1 / (1 + np.exp(-scores.logits)), wanted, atol=1e-6)
    ids, types = ranker.row_encoder.encode(QUERIES, TITLES).pad(range(len(QUERIES))).values()
    np.testing.assert_allclose(asyncio.run(service.score_tokens(ids, types)).probabilities, wanted, atol=1e-6)
    assert service.info.kind == "pairwise"
    assert service.name == "ranker"


def test_token_types_that_are_no_pair_have_the_scores_of_the_network(service: RankerSlot, folder: Path) -> None:
    ids, types = arrays([[1, 7, 8, 9, 2, 10]], [[1, 0, 1, 0, 0, 1]])
    logit = logits_of(Ranker.load(folder).scorer.engine, ids, types)
    np.testing.assert_allclose(asyncio.run(service.score_tokens(ids, types)).logits, logit, atol=1e-5)


@pytest.mark.parametrize(
    ("queries", "titles", "kind", "field"),
    [
        ([], [], INVALID, "title"),
        (["a"], ["b", "c"], INVALID, None),
        (["a"] * 9, ["b"] * 9, TOO_LARGE, "title"),
        (["a", "a"], ["b", "b" * 61], TOO_LARGE, "title[1]"),
        (["a" * 61, "a"], ["b", "b"], TOO_LARGE, "query[0]"),
        (["a"], [7], INVALID, "title[0]"),
        ([None], ["b"], INVALID, "query[0]"),
    ],
)
def test_pairs_are_refused(
    service: RankerSlot, queries: list[Any], titles: list[Any], kind: FaultKind, field: str
) -> None:
    fault = fault_of(service.score_pairs(queries, titles))
    assert (fault.kind, fault.field) == (kind, field)


@pytest.mark.parametrize(
    ("ids", "types", "words"),
    [
        ([[1, len(VOCABULARY), 2]], None, f"0 to {len(VOCABULARY) - 1}"),
        ([[1, -1, 2]], None, r"input_ids\[0, 1\] is -1"),
        ([[1, 5, 2]], [[0, 2, 1]], "token_type_ids"),
        ([[1, 5, 2]], [[0, -1, 1]], "token_type_ids"),
        ([[1, 5, 2]], [[0, 1]], "alike"),
        ([[0, 0, 0]], None, "padding"),
        ([[1, 5, 2], [0, 0, 0]], None, r"input_ids\[1\]"),
        ([[5] * 65], None, "64 positions"),
        (np.zeros((1, 0)), None, "both must be"),
        (np.zeros((0, 4)), None, "is empty"),
        ([[[1, 5, 2]]], None, "rows, tokens"),
        ([[5, 5]] * 9, None, "at most 8"),
    ],
)
def test_token_arrays_are_refused(service: RankerSlot, ids: Any, types: Any, words: str) -> None:
    fault = fault_of(service.score_tokens(*arrays(ids, types)))
    assert re.search(words, str(fault)) and fault.kind is (TOO_LARGE if len(ids) == 9 else INVALID)
    fault = fault_of(service.score_tokens(np.array([[1.5, 2]]), np.array([[0, 0]])))
    assert (fault.kind, fault.field) == (INVALID, "input_ids")


def test_a_deadline_that_has_passed_is_said(service: RankerSlot) -> None:
    assert fault_of(service.score_pairs(["a"], ["b"], deadline=time.monotonic() - 1)).kind is TIMED_OUT


def test_a_deadline_that_passes_while_the_engine_computes_is_said_then(
    service: RankerSlot, go: threading.Event
) -> None:
    fault = fault_of(service.score_pairs(["a"], ["b"], deadline=time.monotonic() + 0.05))
    go.set()
    assert fault.kind is TIMED_OUT
    until(lambda: not service.ready().batcher._computing)  # for the tests that come after


def test_a_caller_that_is_cancelled_takes_its_pairs_off_the_queue(service: RankerSlot, go: threading.Event) -> None:
    batcher = service.ready().batcher

    async def queue_is(pairs: int, computing: int) -> None:
        while (batcher.queued_rows, batcher._computing) != (pairs, computing):
            await asyncio.sleep(0.001)

    async def ask() -> None:
        first = asyncio.ensure_future(service.score_pairs(["a"], ["b"]))
        await queue_is(0, computing=1)
        second = asyncio.ensure_future(service.score_pairs(["a"] * 3, ["b"] * 3))
        await queue_is(3, computing=1)
        second.cancel()
        await asyncio.wait({second})
        await queue_is(0, computing=1)
        go.set()
        assert len((await first).logits) == 1

    asyncio.run(asyncio.wait_for(ask(), SECONDS))


def test_without_a_model_callers_are_told_to_come_again() -> None:
    empty = RankerSlot(ServeConfig(model=Path("ranker")))
    fault = fault_of(empty.score_pairs(["a"], ["b"]))
    assert fault.kind is UNAVAILABLE
    assert fault.retry_after is not None


def test_lengths_are_those_before_cutting_and_nothing_is_tokenized_for_them_alone(
    service: RankerSlot, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenized, seen = [], []
    real = Tokenizer.encode

    def encode(self: Tokenizer, texts: Sequence[str], most: int) -> Any:
        tokenized.append(list(texts))
        return real(self, texts, most)

    monkeypatch.setattr(Tokenizer, "encode", encode)

    def refuse(first: int, lengths: Any, most: int) -> None:
        seen.append((first, lengths.tolist(), most))
        if lengths.max() > most:
            raise Fault(INVALID, "is long")

    titles = ["习", "深度学习" * 10]
    assert fault_of(service.score_pairs(["学"] * 2, titles, check_lengths=refuse)).kind is INVALID
    asyncio.run(service.score_pairs(["学"], titles[:1], check_lengths=refuse))
    assert seen == [(0, [5, 44], 32), (0, [5], 32)]
    assert tokenized == [["学", *titles], ["学", "习"]]


def test_a_blend_takes_the_arrays_that_its_graph_takes(tmp_path: Path) -> None:
    folder = write_two_members(tmp_path / "blend")
    ranker = Ranker.load(folder)
    service = RankerSlot(ServeConfig(model=folder, **vars(LIMITS)))
    model = service.load()
    service.switch(model)
    try:
        wanted = ranker.score(QUERIES, TITLES)
        np.testing.assert_allclose(asyncio.run(service.score_pairs(QUERIES, TITLES)).probabilities, wanted, atol=1e-6)
        ids, types = ranker.row_encoder.encode(QUERIES, TITLES).pad(range(len(QUERIES))).values()
        np.testing.assert_allclose(asyncio.run(service.score_tokens(ids, types)).probabilities, wanted, atol=1e-6)
        for wrong in (types[:, ::-1], types % 2, np.where(np.arange(len(types))[:, None] == 1, types[:, ::-1], types)):
            fault = fault_of(service.score_tokens(ids, wrong))
            assert (fault.kind, fault.field) == (INVALID, "token_type_ids")
    finally:
        assert model.batcher.close(SECONDS)


def test_a_ranker_whose_scores_are_not_those_of_its_export_is_not_served(tmp_path: Path, exports: Exports) -> None:
    folder = exports.copy("calibrated", tmp_path / "exported")
    model = RankerSlot(ServeConfig(model=folder)).load()
    assert model.batcher.close(SECONDS)
    info = json.loads((folder / "ranker.json").read_text(encoding="utf-8"))
    info["export"]["checks"][0]["probability"] += 1e-4
    for logit, is_served in ((1e-5, False), (2e-4, True)):  # the rounding that the export recorded
        info["export"]["parity"]["paddle_inference"]["logit"] = logit
        (folder / "ranker.json").write_text(json.dumps(info), encoding="utf-8")
        with contextlib.nullcontext() if is_served else pytest.raises(CheckpointError, match="noted at its export"):
            assert RankerSlot(ServeConfig(model=folder)).load().batcher.close(SECONDS)


@pytest.mark.parametrize(("spoil", "words"), [("nan", "not numbers"), ("neighbours", "alone and in a batch")])
def test_a_ranker_with_scores_that_cannot_be_believed_is_not_served(
    service: RankerSlot, monkeypatch: pytest.MonkeyPatch, spoil: str, words: str
) -> None:
    assert service.model is not None
    scorer = service.model.scorer
    honest = scorer.compute

    def spoilt(*given: Any) -> Arrays:
        logits = honest(*given)["logit"]
        return {"logit": logits * np.nan if spoil == "nan" else logits - logits.mean()}

    monkeypatch.setattr(scorer, "compute", spoilt)
    with pytest.raises(CheckpointError, match=words):
        check(scorer, service.model.model, service.model.folder)
