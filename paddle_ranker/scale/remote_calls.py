"""Calls to the shards of an index in other processes or on other machines, and checks of the shards' answers."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import NamedTuple, Optional, Protocol, Union

from paddle_ranker.errors import DataError, RankerError, UsageError, brief
from paddle_ranker.retrieval.snapshots.searchable import ShardError
from paddle_ranker.retrieval.stored.manifest import IndexInfo
from paddle_ranker.retrieval.words.word_search import CollectionStatistics, WordSearcher
from paddle_ranker.retrieval.work.turns import check, idle
from paddle_ranker.scale.shard_service import MAY_REFUSE, READS, WRITES, Facts, Gone, read_answer
from paddle_ranker.storage.untrusted import Unchecked

_LOOK_SECONDS = 0.1  # a call checks in these intervals whether the search's caller has left
_OF_WRITES = 20  # factor of the timeout for calls that write
_MOST_MERGED = 2  # merged facts that are cached


class Call(Protocol):
    """Transport to a shard: calls `ShardService.call` there."""

    def __call__(self, name: str, *args: Unchecked) -> Future[Unchecked]: ...


@dataclass(frozen=True)
class MergedFacts:
    """Facts of all shards together.

    info: contents of the shards' index.json, merged
    fields: names of the documents' fields
    statistics: BM25's statistics of all documents; None if words are not searched
    words: word searcher without documents, which splits and weights queries; None if words are not searched
    types: types of undeclared fields, added when they are first needed
    has_variants: whether words have other spellings, see `WordSearcher.alike`
    """

    info: IndexInfo
    fields: list[str]
    statistics: Optional[CollectionStatistics]
    words: Optional[WordSearcher]
    types: dict[str, str]
    has_variants: bool = False

    @classmethod
    def of(cls, facts: Mapping[int, Facts]) -> MergedFacts:
        """Merge facts by shard; raises `UsageError` for shards that were not built alike."""
        info = IndexInfo.merged({f"shard {number + 1}": shard.info for number, shard in facts.items()})
        fields = sorted({name for shard in facts.values() for name in shard.fields})
        if info.words is None:
            return cls(info, fields, None, None, {})
        statistics = CollectionStatistics.of(
            [shard.statistics for shard in facts.values() if shard.statistics is not None]
        )
        tokenizers = info.schema.tokenizers(info.words.tokenizer)
        words = WordSearcher([], tokenizers, info.words.k1, info.words.b, info.schema.weights, statistics)
        return cls(info, fields, statistics, words, {}, any(shard.has_variants for shard in facts.values()))


class Answers(NamedTuple):
    """Answers of shards to a call, by number of the shard.

    name: name of the call
    results: results of the shards that answered
    seen: for each shard that answered, version and facts of the generation from which it answered
    failed: errors of shards that failed
    refused: errors of shards that refused the arguments
    """

    name: str
    results: dict[int, Unchecked]
    seen: dict[int, tuple[int, Facts]]
    failed: dict[int, BaseException]
    refused: dict[int, RankerError]

    @property
    def is_gone(self) -> bool:
        """Whether a shard no longer has the generation that the call was for."""
        return any(isinstance(error, Gone) for error in self.refused.values())

    def failures(self) -> dict[int, BaseException]:
        """Return the errors of shards that failed or refused, by number of the shard.

        Raises the first refusal instead if the call writes, or if it is in `MAY_REFUSE` and no shard answered.
        """
        name, refused = self.name, self.refused
        if refused and (name in WRITES or name not in READS or (name in MAY_REFUSE and not self.results)):
            raise next(iter(refused.values()))
        return {**self.failed, **refused}


class ShardCalls:
    """Calls to each shard of an index.

    Args:
        calls: a transport to each shard, in the order of their documents.
        partial: if some shards fail, the other shards may answer alone.
        timeout: seconds that a shard has for each call.

    Attributes:
        latest: version and facts of each shard, as of its latest answer.
        answered_at: time of the latest answers.
    """

    def __init__(self, calls: Sequence[Call], partial: bool, timeout: float):
        if not calls:
            raise UsageError("shards: give a call for at least one")
        self._calls, self._partial, self._timeout = list(calls), partial, timeout
        self.latest: dict[int, tuple[int, Facts]] = {}
        self.answered_at = 0.0
        self._merging: dict[object, MergedFacts] = {}
        self._turn = itertools.count()
        self._rest_until: dict[int, float] = {}  # by shard that did not answer

    def __len__(self) -> int:
        return len(self._calls)

    def merged(self, facts: Optional[Mapping[int, tuple[int, Facts]]] = None) -> MergedFacts:
        """Return the merged facts of shards; raises `UsageError` if the shards were not built alike.

        facts: version and facts by shard; None: the latest
        """
        by_shard = dict(sorted((self.latest if facts is None else facts).items()))
        key = tuple((number, version) for number, (version, _) in by_shard.items())
        merged = self._merging.get(key)
        if merged is None:
            merged = self._merging[key] = MergedFacts.of({number: facts for number, (_, facts) in by_shard.items()})
            for old in [*self._merging][:-_MOST_MERGED]:
                self._merging.pop(old, None)
        return merged

    def resting(self) -> set[int]:
        """Return the numbers of shards that are not called for a while, because they did not answer in time.

        The result is empty if the other shards may not answer alone.
        """
        now = time.monotonic()
        resting = {number for number, until in self._rest_until.items() if until > now}
        return resting if self._partial and len(resting) < len(self._calls) else set()

    def require(self, lost: Iterable[int], failed: Mapping[int, BaseException]) -> None:
        """Raise `ShardError` unless the other shards may answer alone.

        lost: numbers of all shards without an answer
        failed: errors of the shards that failed in this call, for the message
        """
        if not self._partial or len({*lost}) == len(self._calls):
            self._refuse(failed)

    def _refuse(self, failed: Mapping[int, BaseException]) -> None:
        (number, error), total = min(failed.items(), key=lambda item: item[0]), len(self._calls)
        message = (_text_of(error).strip().splitlines() or ["no answer in time"])[-1]
        others = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise ShardError(
            f"shard {number + 1} of {total}{others} failed: {brief(type(error).__name__)}: {brief(message)}; see its "
            "log and start it again, or search with partial=True"
        )

    def all(self, name: str, args: Mapping[int, tuple[Unchecked, ...]]) -> dict[int, Unchecked]:
        """Call shards, and return their results; raises `ShardError` unless all answer."""
        answers = self.send(name, args)()
        if failed := answers.failures():
            self._refuse(failed)
        return answers.results

    def any(self, name: str, *args: Unchecked) -> Unchecked:
        """Call one shard, in rotation, and return its result; if the shard fails, call the next one."""
        total = len(self._calls)
        start = next(self._turn) % total
        for number in range(start, start + total):
            try:
                return self.all(name, {number % total: args})[number % total]
            except ShardError:
                if number == start + total - 1:
                    raise
        return None

    def send(
        self,
        name: str,
        args: Mapping[int, tuple[Unchecked, ...]],
        pinned: Optional[Mapping[int, tuple[int, Facts]]] = None,
    ) -> Callable[[], Answers]:
        """Call shards at the same time; return a function that waits for their answers.

        args: arguments by number of the shard
        pinned: version and facts with which each shard must answer; None: the newest version, which updates `latest`
        """
        futures, failed = dict[int, Future[Unchecked]](), dict[int, BaseException]()
        cached = {number: (pinned or self.latest).get(number) for number in args}
        for number, arguments in args.items():
            version = None if (have := cached[number]) is None else have[0]
            try:
                futures[number] = self._calls[number](name, version if pinned else None, version, *arguments)
            except Exception as error:
                failed[number] = error

        def receive() -> Answers:
            results, seen = dict[int, Unchecked](), dict[int, tuple[int, Facts]]()
            refused = dict[int, RankerError]()
            self._wait([*futures.values()], self._timeout * (_OF_WRITES if name in WRITES else 1))
            for number, future in futures.items():
                if not future.done():
                    self._rest_until[number] = time.monotonic() + self._timeout
                    future.cancel()
                    failed[number] = TimeoutError()
                elif future.cancelled():
                    failed[number] = RuntimeError("the call was cancelled")
                elif (error := future.exception()) is not None:
                    failed[number] = error
                else:
                    try:
                        answer = read_answer(future.result(), name, args[number], cached[number], pinned is not None)
                        self._require_alike(answer)
                    except ValueError as problem:
                        failed[number] = DataError(f"its answer to {name} is malformed: {problem}")
                        continue
                    if isinstance(answer, RankerError):
                        refused[number] = answer
                    else:
                        seen[number], results[number] = answer[0], answer[1]
            if pinned is None:
                self.latest.update(seen)
                self.answered_at = time.monotonic()
            return Answers(name, results, seen, failed, refused)

        return receive

    def _require_alike(self, answer: Union[RankerError, tuple[tuple[int, Facts], Unchecked]]) -> None:
        """Raise `ValueError` if an answer comes from a shard that was not built like the other shards."""
        if not isinstance(answer, RankerError):
            (_, facts), _ = answer
            for _, other in [*self.latest.values()][:1]:
                if facts is not other and not facts.info.same_kind(other.info):
                    raise ValueError("its index was built otherwise than the others")

    def _wait(self, futures: Sequence[Future[Unchecked]], seconds: float) -> None:
        """Wait at most `seconds` for calls; raises `Abandoned` if the search's caller has left."""
        left, until = set(futures), time.monotonic() + seconds
        while left and (rest := until - time.monotonic()) > 0:
            check()
            with idle():
                left = wait(left, min(rest, _LOOK_SECONDS)).not_done


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:  # the error's class may come from the shard
        return "an error without a text"
