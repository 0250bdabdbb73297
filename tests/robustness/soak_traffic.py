"""The soak's traffic: questions in every dialect whose answers are known, and what came of asking them."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.serving_client import DIALECTS, HTTP, OK, Answer, Case, Connection, Dialect, connect, http
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import RANKER
from paddle_ranker.scoring.loading import open_model

WRONG = "wrong scores"
TOLERANCE = 1e-5
_LETTERS = "深度学习神经网络语言文化差异研究农业水稻病害诊断老年人护理经济增长教育法律 abcdefgh,.?"
_EACH = 40  # questions a dialect
_PATIENCE = 60.0


def _ask_vectors(asked: Case) -> bytes:
    return http("/v1/embeddings", json.dumps({"input": asked.titles}, ensure_ascii=False).encode())


def _read_vectors(body: bytes, count: int) -> tuple[str, np.ndarray]:
    return OK, np.array([one["embedding"] for one in json.loads(body)["data"]])


VECTORS = Dialect("embeddings", HTTP, _ask_vectors, _read_vectors, DIALECTS["rerank"].busy)  # asks the tower
SOAKED = {**DIALECTS, VECTORS.name: VECTORS}


@dataclass(frozen=True)
class Question:
    """A request, and what answers it: probabilities, or vectors."""

    dialect: Dialect
    data: bytes
    expected: np.ndarray

    def judge(self, answer: Answer) -> str:
        """Return `OK`, `WRONG`, or the code of what came instead of scores."""
        if answer.code != OK:
            return answer.code
        try:
            code, found = self.dialect.read(answer.body, len(self.expected))
        except (ValueError, KeyError, IndexError, TypeError):
            return "an answer that cannot be read"
        if code != OK:
            return code
        same = found.shape == self.expected.shape and np.abs(found - self.expected).max() <= TOLERANCE
        return OK if same else WRONG


@dataclass
class Tally:
    """What came of the questions: codes by dialect, and the seconds of those that were answered with scores."""

    codes: dict[str, Counter[str]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)

    def add(self, question: Question, code: str, seconds: float) -> None:
        """Note one."""
        self.codes.setdefault(question.dialect.name, Counter())[code] += 1
        if code == OK:
            self.seconds.append(seconds)

    @property
    def asked(self) -> int:
        return sum(sum(codes.values()) for codes in self.codes.values())

    @property
    def answered(self) -> int:
        return sum(codes[OK] for codes in self.codes.values())

    @property
    def refused(self) -> int:
        """How many were told to come again."""
        return sum(codes[code] for name, codes in self.codes.items() for code in SOAKED[name].busy)

    def failures(self, *, busy: bool = False) -> list[str]:
        """Return what should not have come, as text; with `busy` it may be said that there is too much to do."""
        return [
            f"{name}: {code} ({count} times)"
            for name, codes in self.codes.items()
            for code, count in codes.items()
            if code != OK and not (busy and code in SOAKED[name].busy)
        ]

    def latency(self) -> str:
        """Return the median and the 99th percentile."""
        if not self.seconds:
            return "no answers"
        p50, p99 = (1000 * float(np.percentile(self.seconds, percent)) for percent in (50, 99))
        return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms"


def make_questions(model: Path, tower: Path, seed: int, titles: tuple[int, int]) -> list[Question]:
    """Return questions of every dialect about an exported ranker, and a tower, of from so many to so many titles."""
    from paddle_ranker.retrieval.vectors.text_vectors import Tower
    from paddle_ranker.scoring.scorer import Scorer

    vectors_of = Tower.open(tower, LoadOptions(threads=1)).vectors
    loaded = open_model(model, RANKER, LoadOptions(threads=1))
    scorer = Scorer(loaded.engine, loaded.row_encoder, calibration=loaded.info.calibration)
    (encoder,) = scorer.row_encoder.members
    dice = random.Random(seed)

    def text(most: int) -> str:
        return dice.choice(_LETTERS[:40]) + "".join(dice.choices(_LETTERS, k=dice.randint(1, most)))

    questions = []
    for dialect in SOAKED.values():
        for _ in range(_EACH):
            query = text(12)
            listed = [text(60) for _ in range(dice.randint(*titles))]
            queries = [query] * len(listed)
            pairs = scorer.encode(queries, listed)
            asked = Case(query, listed, pairs, encoder.pad_id)
            expected = vectors_of(listed) if dialect is VECTORS else scorer.score(queries, listed)
            questions.append(Question(dialect, dialect.write(asked), expected))
    dice.shuffle(questions)
    return questions


class Client:
    """Ask a server on connections that are kept and shared."""

    def __init__(self, port: int, tally: Tally):
        self._port, self.tally = port, tally
        self._idle: dict[str, deque[Connection]] = {}
        self._all: list[Connection] = []

    async def ask(self, question: Question) -> str:
        """Ask, note and return what came."""
        idle = self._idle.setdefault(question.dialect.name, deque())
        if not idle:
            idle.append(connect(question.dialect.transport, self._port, _PATIENCE))
            self._all.append(idle[-1])
        connection = idle.pop()
        begin = time.perf_counter()
        try:
            code = question.judge(await connection.ask(question.data))
        finally:
            idle.append(connection)
        self.tally.add(question, code, time.perf_counter() - begin)
        return code

    async def close(self) -> None:
        """End all connections."""
        for connection in self._all:
            await connection.close()


async def good_round(port: int, questions: Sequence[Question]) -> list[str]:
    """Ask one question of each dialect; return what went wrong."""
    client = Client(port, Tally())
    try:
        await asyncio.gather(*(client.ask(question) for question in one_of_each(questions)))
    finally:
        await client.close()
    return client.tally.failures()


def one_of_each(questions: Sequence[Question]) -> list[Question]:
    """Return the first question of each dialect."""
    return list({question.dialect.name: question for question in reversed(questions)}.values())


async def steady(client: Client, questions: Sequence[Question], rate: float, seconds: float, seed: int) -> None:
    """Ask `rate` questions a second at random times, for so long, and wait for the last answer."""
    random_gaps = np.random.default_rng(seed)
    tasks: set[asyncio.Task[str]] = set()
    begin = moment = time.perf_counter()
    number = 0
    while True:
        moment += float(random_gaps.exponential(1 / rate))
        if moment - begin > seconds:
            break
        wait = moment - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        task = asyncio.ensure_future(client.ask(questions[number % len(questions)]))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        number += 1
    if tasks:
        await asyncio.wait(tasks)


async def flood(client: Client, questions: Sequence[Question], clients: int, seconds: float) -> None:
    """Let so many ask at once, each again as soon as it is answered, for so long."""
    end = time.perf_counter() + seconds

    async def one(number: int) -> None:
        while time.perf_counter() < end:
            await client.ask(questions[number % len(questions)])
            number += clients

    await asyncio.gather(*(one(number) for number in range(clients)))
