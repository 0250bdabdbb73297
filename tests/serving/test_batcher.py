"""The queue before the engine: requests share batches, and none of them notices the others."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from paddle_ranker.array_types import Arrays
from paddle_ranker.encoding.columns import Columns, EncodedTexts, GivenArrays
from paddle_ranker.errors import DataError
from paddle_ranker.scoring.scorer import Scorer
from paddle_ranker.serving.core.batcher import Batcher
from paddle_ranker.serving.core.faults import INTERNAL, OVERLOADED, TIMED_OUT, UNAVAILABLE, Fault
from paddle_ranker.serving.core.jobs import Job, no_texts
from tests.serving_cases import SECONDS, TOKENIZER, GatedEngine, Submitted, expected, write_letters
from tests.started import until

pytestmark = pytest.mark.unit


class Queue:
    """A batcher over a gated engine, closed with the test."""

    def __init__(self, folder: Path):
        self.engine = GatedEngine()
        self.encoder = write_letters(folder)
        self.opened: list[Batcher] = []

    def open(self, batch_size: int = 4, **options: Any) -> Batcher:
        self.scorer = Scorer(self.engine, self.encoder, batch_size)
        # Looked up at each call: tests replace it.
        encode = lambda *texts: self.scorer.encode(*texts)  # noqa: E731
        self.opened.append(Batcher(self.scorer, encode, **options))
        return self.opened[-1]

    def hold(self, batcher: Batcher) -> Submitted:
        """Let the engine begin with a job that keeps it busy until `engine.gate` is opened."""
        self.engine.gate.clear()
        busy = Submitted(batcher, ["z"], ["z"])
        until(lambda: len(self.engine.batches) == 1)
        return busy

    def release(self, batcher: Batcher) -> None:
        """Let the engine go on when all rows that wait are encoded, so that it finds them together."""
        until(lambda: batcher._encoded_rows == batcher.queued_rows)
        self.engine.gate.set()

    def close(self) -> None:
        self.engine.gate.set()
        for batcher in self.opened:
            assert batcher.close(SECONDS)


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    made = Queue(tmp_path)
    yield made
    made.close()


def test_jobs_that_wait_together_are_computed_together(queue: Queue) -> None:
    batcher = queue.open()
    busy = queue.hold(batcher)
    jobs = [Submitted(batcher, ["a"], [title]) for title in ("b", "c", "d", "e", "f")]
    queue.release(batcher)
    assert [job.result() for job in jobs] == [expected(queue.scorer, ["a"], [t]) for t in ("b", "c", "d", "e", "f")]
    busy.result()
    assert [len(batch) for batch in queue.engine.batches] == [1, 5]


def test_jobs_share_batches_with_those_of_their_kind(queue: Queue) -> None:
    batcher, finished = queue.open(), list[Job]()
    busy = queue.hold(batcher)
    arrays = queue.scorer.encode(["a"], ["b"]).pad([0])
    for number in range(6):
        columns = queue.scorer.encode(["a"], ["b"]) if number % 2 else GivenArrays(arrays)
        batcher.submit(Job(1, finished.extend, columns=columns))
    queue.release(batcher)
    busy.result()
    until(lambda: len(finished) == 6)
    assert sorted(len(batch) for batch in queue.engine.batches) == [1, 1, 1, 1, 3]
    assert len({job.outputs["logit"].item() for job in finished}) == 1


def test_a_large_job_is_split_into_batches_of_similar_length_and_put_together_in_its_order(queue: Queue) -> None:
    batcher = queue.open(batch_size=2)  # 64 tokens, 8 rows
    titles = ["a b c d e f g h i j"[: 2 * (i % 9) + 1] for i in range(100)]
    job = Submitted(batcher, ["q"] * 100, titles)
    assert job.result() == expected(queue.scorer, ["q"] * 100, titles)
    assert sum(len(batch) for batch in queue.engine.batches) == 100
    assert max(len(batch) for batch in queue.engine.batches) <= 8
    assert max(batch.size for batch in queue.engine.batches) <= 64
    padded = sum(batch.size for batch in queue.engine.batches)
    lengths = queue.encoder.encode(["q"] * 100, titles).lengths
    in_order = sum(8 * int(lengths[first : first + 8].max()) for first in range(0, 100, 8))
    assert padded - lengths.sum() < (in_order - lengths.sum()) / 2


def test_a_batch_has_the_pairs_of_few_queries_where_the_engine_shares_them(queue: Queue) -> None:
    batcher = queue.open(batch_size=2)
    batcher.runner.by_query = True  # type: ignore[attr-defined]
    queries, titles = ["q", "r"] * 50, ["a b c d e f g h i j"[: 2 * (i % 9) + 1] for i in range(100)]
    assert Submitted(batcher, queries, titles).result() == expected(queue.scorer, queries, titles)
    assert sum(len(batch) for batch in queue.engine.batches) == 100
    assert sum(len({*batch[:, 1].tolist()}) for batch in queue.engine.batches) < 1.5 * len(queue.engine.batches)


def test_jobs_are_answered_in_the_order_they_came(queue: Queue) -> None:
    batcher = queue.open(batch_size=1)  # 4 rows a batch, 16 a round
    busy = queue.hold(batcher)
    Submitted.order.clear()
    jobs = [Submitted(batcher, ["a"] * 16, ["b"] * 16) for _ in range(5)]
    queue.engine.gate.set()
    for job in [busy, *jobs]:
        job.result()
    assert Submitted.order == [busy.job, *(job.job for job in jobs)]


def test_a_dropped_job_costs_nothing_and_leaves_the_queue_at_once(queue: Queue) -> None:
    batcher = queue.open()
    busy = queue.hold(batcher)
    dropped = Submitted(batcher, ["x"] * 3, ["x"] * 3)
    kept = Submitted(batcher, ["a"], ["b"])
    assert batcher.queued_rows == 4
    batcher.drop(dropped.job)
    assert batcher.queued_rows == 1
    queue.engine.gate.set()
    busy.result()
    assert kept.result() == expected(queue.scorer, ["a"], ["b"])
    x = TOKENIZER.index("x")
    assert not any((batch == x).any() for batch in queue.engine.batches)
    assert not dropped.finished.is_set()
    assert batcher.queued_rows == 0


def test_a_job_whose_batches_are_begun_can_be_dropped_too(queue: Queue) -> None:
    batcher = queue.open(batch_size=1)
    queue.engine.gate.clear()
    dropped = Submitted(batcher, ["x"] * 40, ["x"] * 40)
    until(lambda: len(queue.engine.batches) == 1)
    batcher.drop(dropped.job)
    queue.engine.gate.set()
    after = Submitted(batcher, ["a"], ["b"])
    after.result()
    assert [len(batch) for batch in queue.engine.batches] == [4, 1]
    assert batcher.queued_rows == 0


def test_a_job_whose_deadline_passes_in_the_queue_is_not_computed(queue: Queue) -> None:
    batcher = queue.open()
    busy = queue.hold(batcher)
    deadline = time.monotonic() + 0.05
    late = Submitted(batcher, ["x"], ["x"], deadline=deadline)
    until(lambda: time.monotonic() > deadline)
    queue.engine.gate.set()
    busy.result()
    with pytest.raises(Fault) as raised:
        late.result()
    assert raised.value.kind is TIMED_OUT
    assert len(queue.engine.batches) == 1
    assert batcher.queued_rows == 0


def test_a_full_queue_refuses_and_says_when_to_come_again(queue: Queue) -> None:
    batcher = queue.open(queue_rows=10)
    busy = queue.hold(batcher)
    waiting = Submitted(batcher, ["a"] * 8, ["b"] * 8)
    with pytest.raises(Fault, match="8 pairs wait") as raised:
        Submitted(batcher, ["a"] * 3, ["b"] * 3)
    assert raised.value.kind is OVERLOADED
    assert raised.value.retry_after == 1.0  # nothing was measured yet
    fits = Submitted(batcher, ["a"] * 2, ["b"] * 2)
    queue.engine.gate.set()
    for job in (busy, waiting, fits):
        job.result()
    batcher.rows_per_second = 2.0
    queue.engine.gate.clear()
    busy = Submitted(batcher, ["a"], ["b"])
    until(lambda: batcher.queued_rows == 0)
    Submitted(batcher, ["a"] * 9, ["b"] * 9)
    with pytest.raises(Fault) as raised:
        Submitted(batcher, ["a"] * 2, ["b"] * 2)
    assert raised.value.retry_after == pytest.approx(9 / 2.0)


def test_a_pair_that_breaks_the_engine_fails_its_own_request_alone(queue: Queue) -> None:
    batcher = queue.open()
    busy = queue.hold(batcher)
    x = TOKENIZER.index("x")

    def refuse_x(ids: np.ndarray) -> None:
        if (ids == x).any():
            raise DataError("x")

    queue.engine.before = refuse_x
    good = [Submitted(batcher, ["a"], ["b"]), Submitted(batcher, ["a", "c"], ["c", "d"])]
    bad = Submitted(batcher, ["a", "x", "b"], ["b", "b", "b"])
    queue.release(batcher)
    busy.result()
    assert [job.result() for job in good] == [
        expected(queue.scorer, ["a"], ["b"]),
        expected(queue.scorer, ["a", "c"], ["c", "d"]),
    ]
    with pytest.raises(Fault) as raised:
        bad.result()
    assert raised.value.kind is INTERNAL
    assert "DataError" in str(raised.value)
    assert len(queue.engine.batches[1]) == 6  # all were in one batch
    assert Submitted(batcher, ["a"], ["b"]).result() == expected(queue.scorer, ["a"], ["b"])
    assert batcher.queued_rows == 0


def test_an_engine_that_fails_fails_its_batch_and_is_logged_whole_once(
    queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    batcher = queue.open()
    busy = queue.hold(batcher)

    def run_out(ids: np.ndarray) -> None:
        if len(queue.engine.batches) == 2:
            raise RuntimeError("no memory is left")

    queue.engine.before = run_out
    jobs = [Submitted(batcher, ["a"], ["b"]), Submitted(batcher, ["a", "c"], ["c", "d"])]
    queue.release(batcher)
    busy.result()
    for job in jobs:
        with pytest.raises(Fault, match=r"the engine failed \(RuntimeError\)"):
            job.result()
    assert len(queue.engine.batches) == 2  # no row was tried alone
    (record,) = caplog.records
    assert record.name == "paddle_ranker.serving" and record.exc_info is not None
    assert str(record.exc_info[1]) == "no memory is left"
    assert Submitted(batcher, ["a"], ["b"]).result() == expected(queue.scorer, ["a"], ["b"])


def test_an_observer_that_fails_costs_no_answer(queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def batch(self, rows: int, tokens: int, padded_tokens: int, seconds: float) -> None:
            raise ZeroDivisionError("of the observer")

    batcher = queue.open(observer=Broken())
    assert Submitted(batcher, ["a"], ["b"]).result() == expected(queue.scorer, ["a"], ["b"])
    assert "of the observer" in caplog.text


class VectorRunner:
    """Vectors of 256 whose first number is the text's first id, and a number beside them."""

    max_tokens, max_rows = 1 << 20, 1 << 14

    def compute(self, columns: Columns, rows: np.ndarray) -> Arrays:
        firsts = columns.pad(rows)["input_ids"][:, 0]
        vectors = np.zeros((len(rows), 256), np.float32)
        vectors[:, 0] = firsts
        return {"vector": vectors, "number": firsts.astype(np.int32)}


def test_many_vectors_come_as_arrays_by_name_and_cost_no_object_each() -> None:
    count = 200_000
    texts = EncodedTexts(np.arange(2 * count, dtype=np.int32), np.arange(0, 2 * count + 1, 2))
    batcher, finished = Batcher(VectorRunner(), no_texts, queue_rows=count), threading.Event()
    before = len(gc.get_objects())
    job = Job(count, lambda _: finished.set(), columns=texts)
    try:
        batcher.submit(job)
        assert finished.wait(SECONDS)
    finally:
        assert batcher.close(SECONDS)
    assert job.outputs["vector"].shape == (count, 256) and job.outputs["number"].dtype == np.int32
    np.testing.assert_array_equal(job.outputs["vector"][:, 0], 2 * np.arange(count))
    np.testing.assert_array_equal(job.outputs["number"], 2 * np.arange(count))
    assert len(gc.get_objects()) - before < 10_000
    blocks = sys.getallocatedblocks()
    del job
    assert blocks - sys.getallocatedblocks() < 10_000


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_no_number_is_an_error_of_its_request(queue: Queue, number: float) -> None:
    batcher = queue.open()
    busy = queue.hold(batcher)
    honest, x = queue.engine.logits, TOKENIZER.index("x")

    def logits(input_ids: np.ndarray, token_type_ids: np.ndarray) -> np.ndarray:
        return np.where((input_ids == x).any(axis=1), np.float32(number), honest(input_ids, token_type_ids))

    queue.engine.logits = logits  # type: ignore[method-assign]
    good, bad = Submitted(batcher, ["a"], ["b"]), Submitted(batcher, ["a", "x"], ["b", "b"])
    queue.engine.gate.set()
    busy.result()
    assert good.result() == expected(queue.scorer, ["a"], ["b"])
    with pytest.raises(Fault, match="not a number"):
        bad.result()


def test_texts_that_cannot_be_encoded_fail_alone(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    batcher = queue.open()
    busy = queue.hold(batcher)
    honest = queue.scorer.encode

    def encode(queries: list[str], titles: list[str]) -> object:
        if "x" in titles:
            raise ValueError("x")
        return honest(queries, titles)

    monkeypatch.setattr(queue.scorer, "encode", encode)
    good, bad = Submitted(batcher, ["a"], ["b"]), Submitted(batcher, ["a"], ["x"])
    queue.engine.gate.set()
    busy.result()
    assert good.result() == expected(Scorer(queue.engine, queue.encoder), ["a"], ["b"])
    with pytest.raises(Fault, match="could not be encoded"):
        bad.result()


class Encodings:
    """What the queue encodes. Attributes: `texts`, those of each call; `during`, called with the number of each."""

    def __init__(self, queue: Queue, monkeypatch: pytest.MonkeyPatch):
        self.texts: list[list[str]] = []
        self.during: Callable[[int], object] = lambda number: None
        real = queue.scorer.encode

        def encode(queries: Sequence[str], titles: Sequence[str]) -> Columns:
            self.texts.append([*dict.fromkeys([*queries, *titles])])
            self.during(len(self.texts))
            return real(queries, titles)

        monkeypatch.setattr(queue.scorer, "encode", encode)

    @property
    def characters(self) -> list[int]:
        """Characters that were tokenized in each call."""
        return [sum(map(len, texts)) for texts in self.texts]


@pytest.mark.parametrize("query", ["q", "q" * 2000])
def test_long_texts_are_encoded_in_parts_and_scored_as_at_once(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    monkeypatch.setattr("paddle_ranker.serving.core.batcher._SPAN_CHARACTERS", 1000)
    opened = queue.open()
    queries, titles = [query] * 60, [f"{'abcdefghij'[row % 10]} " * (row * 7 % 90) for row in range(60)]
    wanted = expected(queue.scorer, queries, titles)
    seen = Encodings(queue, monkeypatch)
    busy = queue.hold(opened)
    submitted = threading.Event()
    seen.during = lambda number: submitted.wait(SECONDS)
    Submitted.order.clear()
    before, job = Submitted(opened, ["a"], ["b"]), Submitted(opened, queries, titles)
    after = Submitted(opened, ["c"], ["d"])
    submitted.set()
    queue.engine.gate.set()
    assert job.result() == wanted and job.job.tokens == int(queue.encoder.encode(queries, titles).lengths.sum())
    for small in (busy, before, after):
        assert len(small.result()) == 1
    assert Submitted.order[-1] is job.job  # a small job does not wait for all parts of a large one
    own = [characters for texts, characters in zip(seen.texts, seen.characters) if query in texts]
    first = len(query) + max(map(len, titles))  # of a part, whatever it has
    assert len(own) > 1 and max(own) <= first + max(1000, first)
    assert sum(own) <= 2 * (len(query) + sum(map(len, set(titles))))  # the query, which all parts need, included


@pytest.mark.parametrize("how", ["leaves", "is too late"])
def test_encoding_ends_with_the_caller_and_at_the_deadline(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr("paddle_ranker.serving.core.batcher._SPAN_CHARACTERS", 1000)
    opened, clock = queue.open(), [time.monotonic() + 1]
    faked = SimpleNamespace(monotonic=lambda: clock[0], perf_counter=time.perf_counter)
    monkeypatch.setattr("paddle_ranker.serving.core.batcher.time", faked)
    seen = Encodings(queue, monkeypatch)
    job: list[Submitted] = []
    submitted = threading.Event()

    def during(number: int) -> None:
        assert submitted.wait(SECONDS)
        if number == 2:
            clock[0] += 10.0
            if how == "leaves":
                opened.drop(job[0].job)

    seen.during = during
    titles = ["ab " * 300 + letter for letter in "abcdefghijklmnopqrstuvwxyz"]
    job.append(Submitted(opened, ["q"] * 26, titles, deadline=clock[0] + 5 if how == "is too late" else None))
    submitted.set()
    if how == "is too late":
        with pytest.raises(Fault) as raised:
            job[0].result()
        assert raised.value.kind is TIMED_OUT
    until(lambda: opened.queued_rows == 0)
    assert len(Submitted(opened, ["a"], ["b"]).result()) == 1
    assert len(seen.texts) == 3 and seen.texts[2] == ["a", "b"]  # two parts of the first job, and the second job
    assert opened.queued_rows == 0


def test_with_a_wait_an_idle_engine_lets_jobs_gather_until_a_batch_is_full(queue: Queue) -> None:
    batcher = queue.open(batch_size=1, max_wait_us=1_000_000 * SECONDS)  # 4 rows fill a batch
    jobs = [Submitted(batcher, ["a"], ["b"]) for _ in range(4)]
    for job in jobs:
        job.result()
    assert [len(batch) for batch in queue.engine.batches] == [4]


def test_after_the_wait_a_job_goes_alone(queue: Queue) -> None:
    batcher = queue.open(max_wait_us=20_000)
    began = time.monotonic()
    Submitted(batcher, ["a"], ["b"]).result()
    assert time.monotonic() - began >= 0.02


def test_streams_compute_at_once(queue: Queue) -> None:
    lock, both = threading.Lock(), threading.Event()
    computing = 0

    def meet(ids: np.ndarray) -> None:
        nonlocal computing
        with lock:
            computing += 1
            if computing == 2:
                both.set()
        met = both.wait(SECONDS)  # a single stream would wait for ever
        with lock:
            computing -= 1
        assert met

    queue.engine.before = meet
    batcher = queue.open(streams=2)
    Submitted(batcher, ["a"] * 40, ["b"] * 40).result()


def test_closing_finishes_what_was_accepted_and_refuses_the_rest(queue: Queue) -> None:
    batcher = queue.open()
    busy = queue.hold(batcher)
    waiting = Submitted(batcher, ["a"], ["b"])
    assert not batcher.close(0.01)
    with pytest.raises(Fault) as raised:
        Submitted(batcher, ["a"], ["b"])
    assert raised.value.kind is UNAVAILABLE
    queue.engine.gate.set()
    assert batcher.close(SECONDS)
    assert busy.result()
    assert waiting.result() == expected(queue.scorer, ["a"], ["b"])


def test_many_threads_get_their_own_scores(queue: Queue) -> None:
    batcher = queue.open(streams=2)
    random = np.random.default_rng(0)
    letters = list("abcdefghijklmnopqrstuvw")
    requests = [
        [" ".join(random.choice(letters, random.integers(1, 12))) for _ in range(random.integers(1, 30))]
        for _ in range(60)
    ]
    results: dict[int, list[float]] = {}

    def ask(first: int) -> None:
        for number in range(first, len(requests), 6):
            titles = requests[number]
            results[number] = Submitted(batcher, ["a b"] * len(titles), titles).result()

    threads = [threading.Thread(target=ask, args=(first,)) for first in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    wanted = {number: expected(queue.scorer, ["a b"] * len(t), t) for number, t in enumerate(requests)}
    assert results == wanted
    assert batcher.queued_rows == 0


def test_closing_ends_all_threads_though_jobs_wait_and_the_engine_is_idle(queue: Queue) -> None:
    for _ in range(100):  # which of the threads wakes first is the system's choice
        batcher = queue.open(max_wait_us=2_000_000 * SECONDS)
        waiting = Submitted(batcher, ["a"], ["b"])
        assert batcher.close(SECONDS)
        assert len(waiting.result()) == 1


def test_a_small_job_waits_for_a_batch_or_two_of_a_large_one_and_does_not_stop_it(queue: Queue) -> None:
    batcher = queue.open(batch_size=2)  # 8 rows
    busy = queue.hold(batcher)
    large = Submitted(batcher, ["a"] * 400, ["b"] * 400)
    until(lambda: batcher._encoded_rows >= 64)
    small = [Submitted(batcher, ["y"], ["y"]) for _ in range(30)]
    until(lambda: any(piece.job.size == 1 for piece in batcher._pieces.copy()))  # the batcher changes it meanwhile
    queue.engine.gate.set()
    for job in (busy, *small, large):
        job.result()
    b, y = TOKENIZER.index("b"), TOKENIZER.index("y")
    begun = [(bool((batch == b).any()), bool((batch == y).any())) for batch in queue.engine.batches[1:10]]
    assert any(is_small for _, is_small in begun[:2]) and begun.count((False, True)) <= 6, begun
    assert any(is_large for is_large, _ in begun[:5]), begun
