"""A teacher behind a URL: logits of pairs from any service that speaks a rerank format.

with HttpTeacher(TeacherOptions(teacher_url="http://127.0.0.1:8600/rerank"), print) as teacher:
    logits = teacher.logits(queries, titles)
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from email.utils import mktime_tz, parsedate_tz
from pathlib import Path
from typing import Any, Callable, Optional
from urllib.parse import urlsplit

import httpx
import numpy as np
from pydantic import TypeAdapter
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, stop_before_delay

from paddle_ranker.array_types import Floats
from paddle_ranker.errors import DataError, RankerError, UsageError, brief, listed, refuse_text
from paddle_ranker.metrics.calibration import LEAST_PROBABILITY, are_probabilities, logits_of, sigmoid
from paddle_ranker.progress import Progress
from paddle_ranker.serving.clients.client_errors import OverloadedError, RefusedError, ServerError, retry_wait
from paddle_ranker.serving.clients.teacher_options import AUTO, TeacherOptions
from paddle_ranker.serving.core.faults import Fault
from paddle_ranker.serving.core.json_text import json_bounds
from paddle_ranker.serving.core.validation import validated
from paddle_ranker.serving.http.rerank_formats import COSTS, RERANK_FORMATS, format_of
from paddle_ranker.storage.atomic import cache_folder, make_folder
from paddle_ranker.version import __version__

Pair = tuple[str, str]
_MOST_COST = 10**12  # the highest cost that an answer may state
_SHOWN_CHARACTERS = 300  # characters of a server's message that an error shows
_ANSWER_BYTES, _ANSWER_RATIO = 1 << 20, 8  # most bytes of an answer, plus this many for each byte of the request
_RETRIED_STATUSES = {408, 425, 429, *range(500, 600)} - {501, 505}  # statuses after which another attempt may succeed
_VERSION = 1  # format of the file of answers


class HttpTeacher:
    """A teacher that asks the reranker at a URL. Use it in a `with` statement, or close it.

    Args:
        options: options of the teacher, with a `teacher_url`.
        report: called with lines about the requests and their costs.

    Attributes:
        costs: counts by name: requests, retries, pairs answered, pairs kept from earlier runs, and the tokens or search
            units that answers state.

    Proxies and certificates are those of the environment (`HTTPS_PROXY`, `NO_PROXY`, `SSL_CERT_FILE`). Redirects are
    not followed, since the API key is for this host alone.

    Raises `UsageError` if the options name no format and the URL does not show one, `RankerError` if the file of
    answers cannot be written to.
    """

    def __init__(self, options: TeacherOptions, report: Callable[[str], None] = print) -> None:
        self._options, self._report = options, report
        self._url = options.teacher_url or ""
        self._where = self._url.partition("?")[0]
        self._name = _format_name(options)
        self._format = RERANK_FORMATS[self._name]
        if options.teacher_model is not None and not self._format.has_model:
            raise UsageError(f"--teacher_model: requests of {self._format.what} name no model")
        self._key = options.teacher_key()
        if self._key and self._url.startswith("http:") and not _is_loopback(self._url):
            print(f"warning: the key goes to {self._where} unencrypted: https:// encrypts it", file=sys.stderr)
        self._adapter: TypeAdapter[Any] = TypeAdapter(self._format.answer)
        # Whether scores are logits; None: the first scores decide.
        by_format = True if self._format.has_logits else None
        self._are_logits = {"logits": True, "probabilities": False}.get(options.teacher_scores, by_format)
        self._clipped = 0
        self._answered = False  # whether anything has answered at the URL
        self.costs: Counter[str] = Counter()
        fields = json.dumps(self._format.says, sort_keys=True)
        teacher = (self._url, self._name, options.teacher_model or "", fields)
        self._cache = AnswerCache(_cache_path(options, teacher), teacher)
        self._bar: Progress[None] = Progress(desc="ask", unit="pair")
        by = "by the URL; --teacher_format names another" if options.teacher_format == AUTO else "as told"
        report(f"asking {self._where} as clients of {self._format.what} do ({self._name}, {by})")

    def __len__(self) -> int:
        return 1

    def __enter__(self) -> HttpTeacher:
        return self

    def __exit__(self, kind: Optional[type[BaseException]], *raised: object) -> None:
        self.close()
        if kind is not None and self.costs["requests"]:
            print(self.cost(), file=sys.stderr)  # an error does not undo the costs

    def close(self) -> None:
        """Close the progress bar and the file of answers."""
        self._bar.close()
        self._cache.close()

    def logits(self, queries: Sequence[str], titles: Sequence[str]) -> Floats:
        """Return the logit of every (queries[i], titles[i]), `[n] float64`. Pairs with stored scores are not requested.

        Raises `ServerError` if the server does not answer with scores, `DataError` if earlier scores were taken for
        probabilities and a later one is not within 0 to 1. Answers that came before the error are kept.
        """
        refuse_text(queries, "queries")
        refuse_text(titles, "titles")
        pairs = list(zip(queries, titles))
        different = list(dict.fromkeys(pairs))
        scores = self._cache.find(different)
        missing = [pair for pair in different if pair not in scores]
        self.costs["kept"] += len(scores)
        if missing:
            try:
                asyncio.run(self._request_all(missing, scores))
            except ServerError as error:
                kept = "; run again to go on from what was answered" if self.costs["pairs"] else ""
                raise ServerError(f"{error}{kept}") from error
        return self._as_logits(np.array([scores[pair] for pair in pairs], np.float64))

    def score(self, queries: Sequence[str], titles: Sequence[str]) -> Floats:
        """Return the sigmoid of every logit, `[n] float64`."""
        return np.asarray(sigmoid(self.logits(queries, titles)), np.float64)

    def report(self) -> None:
        """Pass two lines to the callback `report`: how many probabilities were clipped, and the costs."""
        if self._clipped:
            self._report(f"{self._clipped:,} probabilities next to 0 or 1 became logits of -16.6 or 16.6")
        self._report(self.cost())

    def cost(self) -> str:
        """Return a line with the counts of requests and pairs, and of the tokens or search units that they cost."""
        shown = ("requests", "retries", "pairs", "kept")
        requests, retries, pairs, kept = (self.costs[name] for name in shown)
        again = f", {retries:,} of them again" if retries else ""
        others = "".join(f", {count:,} {name}" for name, count in self.costs.items() if name not in shown)
        before = f" and had {kept:,} (if another model answers there now, delete it)" if kept else ""
        return (
            f"{requests:,} requests{again}, {pairs:,} pairs answered{others}; {self._cache.path} keeps answers{before}"
        )

    async def _request_all(self, missing: Sequence[Pair], scores_of: dict[Pair, float]) -> None:
        """Request the scores of `missing` pairs, several requests at a time. Store the scores, also in `scores_of`."""
        options = self._options
        requests = _requests_of(missing, options.teacher_batch or self._format.batch)
        failed, errors = asyncio.Event(), []  # type: asyncio.Event, list[Exception]

        async def send_requests() -> None:
            again = AsyncRetrying(
                stop=stop_after_attempt(options.teacher_retries + 1) | stop_before_delay(options.teacher_deadline),
                wait=retry_wait(0.5, 30.0),
                retry=retry_if_exception_type(OverloadedError),
                before_sleep=lambda _: self.costs.update(retries=1),
                sleep=lambda seconds: sleep_until_failure(failed, seconds),
                reraise=True,
            )
            try:
                for query, titles in requests:  # all tasks share them
                    if failed.is_set():
                        return
                    fields = self._format.body(query, titles, options.teacher_model)
                    body = json.dumps(fields, ensure_ascii=False).encode("utf-8", "surrogatepass")
                    answer: tuple[bytes, httpx.Headers] = await again(self._post, client, body)
                    scores = self._scores(*answer, titles)
                    new_scores = {(query, title): score for title, score in zip(titles, scores)}
                    self._cache.add(new_scores)
                    scores_of.update(new_scores)
                    self.costs["pairs"] += len(new_scores)
                    self._bar.update(len(new_scores))
            except Exception as error:
                attempts = again.statistics.get("attempt_number", 1)
                is_late = isinstance(error, ServerError) and attempts > 1
                errors.append(ServerError(f"{error} (attempt {attempts})") if is_late else error)
                failed.set()

        async with self._client() as client:
            # The first error ends all tasks after their current answers, which may have cost something.
            await asyncio.gather(*(send_requests() for _ in range(options.teacher_concurrency)), return_exceptions=True)
        if errors:
            raise errors[0]

    def _client(self) -> httpx.AsyncClient:
        logging.getLogger("httpx").setLevel(logging.WARNING)  # httpx logs every request at the level INFO
        headers = {"Content-Type": "application/json", "User-Agent": f"paddle-ranker/{__version__}"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        unlimited = httpx.Limits(max_connections=None, max_keepalive_connections=None)  # see teacher_concurrency
        try:
            return httpx.AsyncClient(headers=headers, timeout=None, limits=unlimited)  # `_post` has a timeout
        except (ImportError, ValueError, OSError) as error:
            problem = f"the environment's proxy or certificates cannot be used ({brief(str(error))})"
            raise UsageError(f"{problem}: correct HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, SSL_CERT_FILE") from error

    async def _post(self, client: httpx.AsyncClient, body: bytes) -> tuple[bytes, httpx.Headers]:
        """Send a request. Return the body and the headers of the answer.

        Raises `OverloadedError` if another attempt may help, else another `ServerError`.
        """
        self.costs["requests"] += 1
        timeout = self._options.teacher_timeout
        try:
            answered, content = await asyncio.wait_for(self._exchange(client, body), timeout)
        except asyncio.TimeoutError as error:
            raise OverloadedError(f"{self._where}: no whole answer within {timeout:g} seconds") from error
        except httpx.TransportError as error:
            reason = self._shown(str(error) or type(error).__name__)
            if isinstance(error, httpx.ConnectError) and not self._answered:
                problem = f"{self._where}: nothing answers there ({reason}): start the server, or correct the URL"
                raise ServerError(problem) from error
            raise OverloadedError(f"{self._where}: the connection broke ({reason})") from error
        except (httpx.RequestError, httpx.InvalidURL) as error:
            raise RefusedError(f"{self._where}: no answer can be read ({self._shown(str(error))})") from error
        if answered.status_code == 200:
            return content, answered.headers
        raise self._error(answered, content.decode("utf-8", "replace"))

    async def _exchange(self, client: httpx.AsyncClient, body: bytes) -> tuple[httpx.Response, bytes]:
        most = _ANSWER_BYTES + _ANSWER_RATIO * len(body)
        content = bytearray()
        async with client.stream("POST", self._url, content=body) as answered:
            self._answered = True
            async for part in answered.aiter_bytes():
                content += part
                if len(content) > most:
                    raise RefusedError(
                        f"{self._where}: answers more than {most:,} bytes, which no scores of these titles need"
                    )
        return answered, bytes(content)

    def _error(self, answered: httpx.Response, text: str) -> ServerError:
        status = answered.status_code
        message = f"{self._where}: status {status}: {self._shown(text) or 'nothing was said'}"
        if status in _RETRIED_STATUSES:
            after = _retry_after(answered.headers.get("retry-after", ""))
            wait = "" if after is None else f" (to be asked again after {after:g} seconds)"
            return OverloadedError(message + wait, status, after)
        if 300 <= status < 400:
            to = self._shown(answered.headers.get("location", "")) or "another address"
            return RefusedError(f"{self._where}: status {status}, it moved to {to}: give that", status)
        smaller = "; a smaller --teacher_batch sends less" if status == 413 else ""
        return RefusedError(f"{message}{smaller}", status)

    def _shown(self, text: str) -> str:
        """Prepare a server's message for an error: one line, without control characters and without the API key."""
        text = " ".join(text.split())
        if self._key is not None:
            text = text.replace(self._key, "[key]")
        return brief("".join(sign if sign.isprintable() else "?" for sign in text), _SHOWN_CHARACTERS)

    def _scores(self, content: bytes, headers: httpx.Headers, titles: Sequence[str]) -> list[float]:
        """Read the score of each title in an answer. Raises `RefusedError` unless each title has exactly one score."""
        spoken = self._format
        try:
            parsed = validated(self._adapter, content, json_bounds(len(titles)))
        except Fault as fault:
            shown = self._shown(content[:_SHOWN_CHARACTERS].decode("utf-8", "replace")) or "nothing"
            problem = f"{self._where}: the answer is none of {spoken.what}'s ({fault}): {shown}"
            raise RefusedError(f"{problem}; --teacher_format names another") from fault
        results = parsed if spoken.results is None else parsed[spoken.results]
        if len(results) != len(titles):
            raise RefusedError(f"{self._where}: {len(results):,} results came for {len(titles):,} titles")
        scores = {result["index"]: float(result[spoken.score]) for result in results}
        if scores.keys() != set(range(len(titles))):
            wrong = [result["index"] for result in results if not 0 <= result["index"] < len(titles)]
            problem = f"index {listed(wrong[:1])} came" if wrong else "an index came twice"
            raise RefusedError(f"{self._where}: {problem} for {len(titles):,} titles")
        self._count_costs(headers, parsed)
        return [scores[index] for index in range(len(titles))]

    def _count_costs(self, headers: httpx.Headers, parsed: Any) -> None:
        costs: dict[str, int] = {}
        for path, unit in COSTS:
            value = parsed
            for name in path:
                value = value.get(name) if isinstance(value, dict) else None
            if isinstance(value, (int, float)) and 0 < value < _MOST_COST:
                costs.setdefault(unit, round(value))
        header = headers.get(self._format.tokens_header or "", "")
        if header.isdecimal() and len(header) < len(str(_MOST_COST)):
            costs.setdefault("tokens", int(header))
        self.costs.update(costs)

    def _as_logits(self, scores: Floats) -> Floats:
        is_probability = (scores >= 0) & (scores <= 1)
        if self._are_logits is None and len(scores):
            self._are_logits = not are_probabilities(scores)
            what = "are not all within 0 to 1: logits" if self._are_logits else "are within 0 to 1: probabilities"
            self._report(f"the scores {what} (--teacher_scores says otherwise)")
        if self._are_logits:
            return scores
        if not is_probability.all():
            raise DataError(
                f"{self._where}: the score {scores[~is_probability][0]:g} is no probability, as those before it seemed "
                "to be: run again with --teacher_scores logits, which asks for nothing again"
            )
        self._clipped += int(((scores < LEAST_PROBABILITY) | (scores > 1 - LEAST_PROBABILITY)).sum())
        return logits_of(scores)


class AnswerCache:
    """SQLite file with the scores that a teacher has given. Several processes may share it.

    When `add` returns, the operating system has the scores: a killed process loses none, a power failure at most the
    latest. Scores are added, never changed. The file holds digests of the texts in place of the texts.

    Args:
        path: the file; it and its folder are created if missing.
        teacher: identity of the teacher: URL, format, model.

    Raises `RankerError` if the file cannot be written to, `DataError` if it is another kind of file.
    """

    def __init__(self, path: Path, teacher: Sequence[str]):
        self.path = path
        self._teacher = digest_of_texts(teacher).hex()
        make_folder(path.parent)
        with self._named():
            self._file = sqlite3.connect(path, timeout=60.0)  # seconds to wait while another process writes
            version = self._file.execute("PRAGMA user_version").fetchone()[0]
            tables = self._file.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if version != _VERSION and (version or tables):
                raise DataError(f"{path}: holds no answers that this version can read; name another --teacher_answers")
            self._file.execute("PRAGMA journal_mode=WAL")
            self._file.execute("PRAGMA synchronous=NORMAL")
            self._file.execute(
                "CREATE TABLE IF NOT EXISTS answers (pair BLOB PRIMARY KEY, score REAL NOT NULL) WITHOUT ROWID"
            )
            self._file.execute(f"PRAGMA user_version={_VERSION}")

    def find(self, pairs: Iterable[Pair]) -> dict[Pair, float]:
        """Return the stored scores of `pairs`, by pair. Pairs without a stored score are left out."""
        with self._named():
            answers = ((pair, self._file.execute("SELECT score FROM answers WHERE pair = ?", (self._key(pair),)))
                     for pair in pairs)  # fmt: skip
            return {pair: float(row[0]) for pair, rows in answers for row in rows}

    def add(self, scores: dict[Pair, float]) -> None:
        """Store `scores`, by pair, in one transaction: all or none of them."""
        with self._named(), self._file:
            rows = ((self._key(pair), score) for pair, score in scores.items())
            self._file.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?)", rows)

    def close(self) -> None:
        """Close the file, after merging its write-ahead log into it."""
        self._file.close()

    def _key(self, pair: Pair) -> bytes:
        return digest_of_texts([self._teacher, *pair])

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Convert SQLite's errors in the block to errors that name the file."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            problem = f"{self.path}: the answers cannot be kept there ({error}); name another file: --teacher_answers"
            raise RankerError(problem) from error


def digest_of_texts(parts: Sequence[str]) -> bytes:
    """Return a digest of a sequence of texts, 16 bytes."""
    made = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        made.update(len(data).to_bytes(8, "big") + data)
    return made.digest()[:16]


async def sleep_until_failure(failed: asyncio.Event, seconds: float) -> None:
    """Wait for `seconds`. Raise `CancelledError` as soon as `failed` is set, even by another task."""
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(failed.wait(), seconds)
        raise asyncio.CancelledError


def _retry_after(value: str) -> Optional[float]:
    """Return the seconds that a header `Retry-After` states as a number or a date, or None for other values."""
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value.strip()):
        return float(value)
    with suppress(ValueError, OverflowError, TypeError):
        return max(0.0, mktime_tz(parsedate_tz(value)) - time.time())  # type: ignore[arg-type]
    return None


def _requests_of(pairs: Sequence[Pair], most: int) -> Iterator[tuple[str, list[str]]]:
    """Group pairs by query: yield (query, at most `most` titles), in the order of each query's first pair."""
    titles: dict[str, list[str]] = {}
    for query, title in pairs:
        titles.setdefault(query, []).append(title)
    for query, of_query in titles.items():
        for start in range(0, len(of_query), most):
            yield query, of_query[start : start + most]


def _format_name(options: TeacherOptions) -> str:
    if options.teacher_format != AUTO:
        return options.teacher_format
    parts = urlsplit(options.teacher_url or "")
    name = format_of(parts.hostname or "", parts.path)
    if name is None:
        choices = "; ".join(f"{name}: {spoken.what}" for name, spoken in RERANK_FORMATS.items())
        raise UsageError(
            f"--teacher_url: the path {brief(parts.path or '/')} shows no format: add one (/rerank, /v1/rerank, "
            f"/v2/rerank), or name one by --teacher_format ({choices})"
        )
    return name


def _cache_path(options: TeacherOptions, teacher: Sequence[str]) -> Path:
    if options.teacher_answers is not None:
        return Path(options.teacher_answers)
    host = urlsplit(options.teacher_url or "").netloc.replace(":", "-").replace("[", "").replace("]", "")
    return cache_folder("teachers", f"{host[:80]}-{digest_of_texts(teacher).hex()[:12]}.sqlite")


def _is_loopback(url: str) -> bool:
    return (urlsplit(url).hostname or "") in ("localhost", "127.0.0.1", "::1")
