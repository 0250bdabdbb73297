"""A reranker behind a URL as a teacher: the logits of pairs, from answers of whoever speaks a rerank protocol.

with HttpTeacher(TeacherOptions(teacher_url="http://127.0.0.1:8600/rerank"), print) as teacher:
    logits = teacher.logits(queries, titles)
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Iterator, Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional
from urllib.parse import urlsplit

import numpy as np
from pydantic import TypeAdapter
from tqdm import tqdm

from paddle_ranker.errors import DataError, UsageError, brief, listed
from paddle_ranker.metrics.calibration import sigmoid
from paddle_ranker.metrics.ranking import Floats
from paddle_ranker.serving.clients.asking import Answer, Caller, Patience, StoppedError, shown
from paddle_ranker.serving.clients.errors import RefusedError, ServerError
from paddle_ranker.serving.clients.kept_answers import KeptAnswers, Pair, digest_of
from paddle_ranker.serving.clients.teacher_options import AUTO, TeacherOptions
from paddle_ranker.serving.core.faults import Fault
from paddle_ranker.serving.core.json_text import json_bounds
from paddle_ranker.serving.core.validation import validated
from paddle_ranker.serving.http.rerank_formats import COSTS, RERANK_PROTOCOLS, protocol_of
from paddle_ranker.storage.atomic import cache_folder

_LEAST = 2.0**-24  # nearest to 0 and 1 that a probability is taken for: a logit of 16.6
_MOST_COST = 10**12  # that an answer may say it cost
_SAID_BYTES = 200  # of an answer that is none, in the error
_ANSWER_BYTES, _ANSWER_RATIO = 1 << 20, 8  # most of an answer: so many, and so many for each byte of the request


class Question(NamedTuple):
    """What one request asks for: the scores of some titles of a query."""

    query: str
    titles: list[str]


class HttpTeacher:
    """Score pairs with the reranker at a URL; use it in a `with` statement, or close it.

    Args:
        options: where and how to ask; `teacher_url` is given.
        report: takes lines that say what is asked and what it cost.
        clock, sleep: see `Caller`.

    Attributes: `costs`, counted by name: requests, retries, pairs, and what the answers say, tokens or search units.

    Raises `UsageError` if the URL does not show a protocol and none is named, `RankerError` if no answers can be kept.
    """

    def __init__(
        self,
        options: TeacherOptions,
        report: Callable[[str], None] = print,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._options, self._report = options, report
        self._url = options.teacher_url or ""
        self._where = self._url.partition("?")[0]
        self._name = _protocol_name(options)
        self._protocol = RERANK_PROTOCOLS[self._name]
        if options.teacher_model is not None and not self._protocol.has_model:
            raise UsageError(f"--teacher_model: requests of {self._protocol.what} name no model")
        self._key = options.teacher_key()
        if self._key and self._url.startswith("http:") and not _is_here(self._url):
            print(f"warning: the key goes to {self._where} unencrypted: https:// encrypts it", file=sys.stderr)
        self._adapter: TypeAdapter[Any] = TypeAdapter(self._protocol.answer)
        self._are_logits = {"logits": True, "probabilities": False}.get(options.teacher_scores)
        if self._are_logits is None and self._protocol.has_logits:
            self._are_logits = True
        self._clipped = 0
        self.costs: Counter[str] = Counter()
        patience = Patience(options.teacher_timeout, options.teacher_retries, options.teacher_deadline)
        self._caller = Caller(self._url, patience, self._key, clock=clock, sleep=sleep)
        asked = json.dumps(self._protocol.says, sort_keys=True)
        teacher = (self._url, self._name, options.teacher_model or "", asked)
        self._kept = KeptAnswers(_kept_path(options, teacher), teacher)
        self._bar = tqdm(desc="ask", unit="pair", disable=None)
        by = "by the URL; --teacher_protocol names another" if options.teacher_protocol == AUTO else "as told"
        report(f"asking {self._where} as clients of {self._protocol.what} do ({self._name}, {by})")

    def __len__(self) -> int:
        return 1

    def __enter__(self) -> HttpTeacher:
        return self

    def __exit__(self, kind: Optional[type[BaseException]], *raised: object) -> None:
        self.close()
        if kind is not None and self.costs["requests"]:
            print(self.cost(), file=sys.stderr)  # it was paid for

    def close(self) -> None:
        """Close the file of answers."""
        self._bar.close()
        self._kept.close()

    def logits(self, queries: Sequence[str], titles: Sequence[str]) -> Floats:
        """Return the logit of every (queries[i], titles[i]), `[n] float64`; only what is not kept is asked for.

        Raises `ServerError` if the server does not answer with scores, `DataError` if scores that were taken for
        probabilities turn out to be none. What was answered is kept.
        """
        pairs = list(zip(queries, titles))
        different = list(dict.fromkeys(pairs))
        known = self._kept.find(different)
        missing = [pair for pair in different if pair not in known]
        self.costs["kept"] += len(known)
        if missing:
            try:
                asyncio.run(self._ask_all(missing, known))
            except ServerError as error:
                kept = "; run again to go on from what was answered" if self.costs["pairs"] else ""
                raise ServerError(f"{error}{kept}") from error
            finally:
                self.costs["requests"], self.costs["retries"] = self._caller.requests, self._caller.retries
        return self._as_logits(np.array([known[pair] for pair in pairs], np.float64))

    def score(self, queries: Sequence[str], titles: Sequence[str]) -> Floats:
        """Return the sigmoid of every logit, `[n] float64`."""
        return np.asarray(sigmoid(self.logits(queries, titles)), np.float64)

    def report(self) -> None:
        """Report what the scores were taken for, and what they cost."""
        if self._clipped:
            self._report(f"{self._clipped:,} probabilities next to 0 or 1 became logits of -16.6 or 16.6")
        self._report(self.cost())

    def cost(self) -> str:
        """Return what was asked and what it cost, in a line."""
        known = ("requests", "retries", "pairs", "kept")
        requests, retries, pairs, kept = (self.costs[name] for name in known)
        again = f", {retries:,} of them again" if retries else ""
        said = "".join(f", {count:,} {name}" for name, count in self.costs.items() if name not in known)
        before = f" and had {kept:,} (if another model answers there now, delete it)" if kept else ""
        return f"{requests:,} requests{again}, {pairs:,} pairs answered{said}; {self._kept.path} keeps answers{before}"

    async def _ask_all(self, missing: Sequence[Pair], known: dict[Pair, float]) -> None:
        """Ask for the scores of pairs, some requests at a time, keep them and add them to `known`."""
        options = self._options
        questions = _questions(missing, options.teacher_batch or self._protocol.batch)
        async with self._caller as caller:
            # The first error ends them all, after the answers that are under way: these may have cost something.
            askers = (self._ask_some(caller, questions, known) for _ in range(options.teacher_concurrency))
            ends = await asyncio.gather(*askers, return_exceptions=True)
        for error in ends:
            if error is not None and not isinstance(error, StoppedError):
                raise error

    async def _ask_some(self, caller: Caller, questions: Iterator[Question], known: dict[Pair, float]) -> None:
        try:
            for query, titles in questions:  # which all share
                if caller.stopping:
                    return
                asked = self._protocol.body(query, titles, self._options.teacher_model)
                body = json.dumps(asked, ensure_ascii=False).encode("utf-8", "surrogatepass")
                answer = await caller.post(body, _ANSWER_BYTES + _ANSWER_RATIO * len(body))
                scores = self._scores(answer, titles)
                found = {(query, title): score for title, score in zip(titles, scores)}
                self._kept.add(found)
                known.update(found)
                self.costs["pairs"] += len(found)
                self._bar.update(len(found))
        except BaseException:
            caller.stop()
            raise

    def _scores(self, answer: Answer, titles: Sequence[str]) -> list[float]:
        """Return the score of each title; raises `RefusedError` if the answer does not have one score for each."""
        protocol = self._protocol
        try:
            found = validated(self._adapter, answer.content, json_bounds(len(titles)))
        except Fault as fault:
            said = shown(answer.content[:_SAID_BYTES].decode("utf-8", "replace"), self._key) or "nothing"
            problem = f"{self._where}: the answer is none of {protocol.what}'s ({fault}): {said}"
            raise RefusedError(f"{problem}; --teacher_protocol names another") from fault
        results = found if protocol.results is None else found[protocol.results]
        if len(results) != len(titles):
            raise RefusedError(f"{self._where}: {len(results):,} results came for {len(titles):,} titles")
        scores = {result["index"]: float(result[protocol.score]) for result in results}
        if scores.keys() != set(range(len(titles))):
            wrong = [result["index"] for result in results if not 0 <= result["index"] < len(titles)]
            problem = f"index {listed(wrong[:1])} came" if wrong else "an index came twice"
            raise RefusedError(f"{self._where}: {problem} for {len(titles):,} titles")
        self._count_costs(answer, found)
        return [scores[index] for index in range(len(titles))]

    def _count_costs(self, answer: Answer, found: Any) -> None:
        said: dict[str, int] = {}
        for path, unit in COSTS:
            value = found
            for name in path:
                value = value.get(name) if isinstance(value, dict) else None
            if isinstance(value, (int, float)) and 0 < value < _MOST_COST:
                said.setdefault(unit, round(value))
        header = answer.headers.get(self._protocol.tokens_header or "", "")
        if header.isdecimal() and len(header) < len(str(_MOST_COST)):
            said.setdefault("tokens", int(header))
        self.costs.update(said)

    def _as_logits(self, scores: Floats) -> Floats:
        is_probability = (scores >= 0) & (scores <= 1)
        if self._are_logits is None and len(scores):
            self._are_logits = not is_probability.all()
            what = "are not all within 0 to 1: logits" if self._are_logits else "are within 0 to 1: probabilities"
            self._report(f"the scores {what} (--teacher_scores says otherwise)")
        if self._are_logits:
            return scores
        if not is_probability.all():
            raise DataError(
                f"{self._where}: the score {scores[~is_probability][0]:g} is no probability, as those before it seemed "
                "to be: run again with --teacher_scores logits, which asks for nothing again"
            )
        clipped = np.clip(scores, _LEAST, 1 - _LEAST)
        self._clipped += int(np.count_nonzero(clipped != scores))
        return np.asarray(np.log(clipped) - np.log1p(-clipped), np.float64)


def _questions(pairs: Sequence[Pair], most: int) -> Iterator[Question]:
    """Yield questions of up to `most` pairs: those of a query together, in the order in which queries come first."""
    titles: dict[str, list[str]] = {}
    for query, title in pairs:
        titles.setdefault(query, []).append(title)
    for query, of_query in titles.items():
        for start in range(0, len(of_query), most):
            yield Question(query, of_query[start : start + most])


def _protocol_name(options: TeacherOptions) -> str:
    if options.teacher_protocol != AUTO:
        return options.teacher_protocol
    parts = urlsplit(options.teacher_url or "")
    name = protocol_of(parts.hostname or "", parts.path)
    if name is None:
        known = "; ".join(f"{name}: {protocol.what}" for name, protocol in RERANK_PROTOCOLS.items())
        raise UsageError(
            f"--teacher_url: the path {brief(parts.path or '/')} shows no protocol: add one (/rerank, /v1/rerank, "
            f"/v2/rerank), or name one by --teacher_protocol ({known})"
        )
    return name


def _kept_path(options: TeacherOptions, teacher: Sequence[str]) -> Path:
    if options.teacher_answers is not None:
        return Path(options.teacher_answers)
    host = urlsplit(options.teacher_url or "").netloc.replace(":", "-").replace("[", "").replace("]", "")
    return cache_folder("teachers", f"{host[:80]}-{digest_of(teacher).hex()[:12]}.sqlite")


def _is_here(url: str) -> bool:
    return (urlsplit(url).hostname or "") in ("localhost", "127.0.0.1", "::1")
