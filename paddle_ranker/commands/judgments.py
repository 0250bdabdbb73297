"""Turn a server's log of searches into training data, and into judgments to measure on.

paddle-ranker judgments --log log --index index --output judgments
paddle-ranker judgments --log log --index index --output judgments --debias ipw --without_clicks keep
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Callable, NamedTuple, Optional, Union

from paddle_ranker.errors import DataError, UsageError
from paddle_ranker.options import Options, main_of, note, option
from paddle_ranker.options.declare import FETCHED
from paddle_ranker.progress import Progress
from paddle_ranker.training.clicks import (
    DEBIAS,
    Session,
    click_rates,
    count_clicks,
    estimate_exponent,
)

if TYPE_CHECKING:
    from paddle_ranker.retrieval.index.collection import Collection
    from paddle_ranker.retrieval.snapshots.snapshot import LocalSnapshot
    from paddle_ranker.retrieval.stored.candidate_indexes import Document
    from paddle_ranker.serving.core.search_log import FeedbackLine
    from paddle_ranker.serving.core.search_log import Shown as ShownDocument

TRAIN, DEV, JUDGED = "train.jsonl", "dev.jsonl", "dev"
_DRAWN = 2.0**64
_AT_ONCE = 1000  # documents whose texts are in memory at a time
# A document's id; if its text has changed since it was shown, its id and the digest of the shown text.
Shown = Union[str, tuple[str, str]]
Pair = tuple[str, Shown]  # a query and a document that was shown for it


@dataclass(frozen=True)
class JudgmentsOptions(Options):
    log: str = option(help="folder of the log, as in search-serve --search_log", addresses=FETCHED)
    index: str = option(help="index folder with the documents' texts, as in search-serve --index", addresses=FETCHED)
    output_dir: str = option(
        help=f"folder to make: {TRAIN} and {DEV} (query, title, label, position), and {JUDGED}, a BEIR folder with the "
        "qrels of the held-out queries",
        name="output",
    )
    labels: str = option(
        "rate",
        help="labels of pairs that nobody judged. rate: clicks per search that showed the pair (train with "
        "--fractional_labels true --loss click_softmax); clicked: 1 if it was clicked at least once, else 0",
        choices=("rate", "clicked"),
    )
    debias: str = option(
        "none",
        help="correction of rates for positions: " + "; ".join(f"{name}, {what}" for name, what in DEBIAS.items()),
        choices=DEBIAS,
    )
    position_exponent: Optional[float] = option(
        None,
        help="exponent e: people look at position k in k^-e of all searches (default: estimated from documents that "
        "were shown at several positions)",
        minimum=0,
    )
    without_clicks: str = option("drop", help="searches without any click: drop or keep them", choices=("drop", "keep"))
    dev_share: float = option(
        0.1, help="share of the queries to hold out; a query stays in its part when the log grows", minimum=0, below=1
    )
    seed: int = option(1000, help="random seed of the held-out queries", minimum=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.debias != "none" and self.labels != "rate":
            raise UsageError(f"--debias {self.debias} corrects rates: leave out --labels {self.labels}")
        if self.position_exponent is not None and self.debias == "none":
            raise UsageError("--position_exponent belongs to --debias: add it, or leave out --position_exponent")


class _LoggedSearch(NamedTuple):
    """A search of the log.

    query: the query as the ranker read it
    typed: the query as the user sent it
    shown: the documents that were shown, in order
    first: position of the first of `shown`
    """

    query: str
    typed: str
    shown: tuple[Shown, ...]
    first: int

    def named(self, id: str) -> Optional[Shown]:
        """Return the shown document with this id; None if it was not shown."""
        return next(
            (document for document in self.shown if id == (document if isinstance(document, str) else document[0])),
            None,
        )


class JoinedLog:
    """The searches of a log, each with the clicks and judgments of its results.

    Args:
        digests: called with ids; returns the digests of the documents' current texts, by id.

    Attributes:
        searches: searches by id.
        clicked: clicked documents by id of the search.
        clicks: number of clicks.
        judged: label by pair, from the pair's last judgment; None if the label was withdrawn.
        judged_positions: by pair, the position at which the pair was judged.
        spans: by pair, the part of the document's text that the ranker read; whole texts are left out.
        unread: pairs that no ranker read: a search without a ranker showed the whole document.
        unclicked: number of searches without a click that were left out of the shares of clicks.
        counts: number of skipped lines, searches and pairs, by reason.
    """

    def __init__(self, folder: Path, digests: Callable[[Sequence[str]], Mapping[str, str]]):
        from paddle_ranker.serving.core.search_log import LogReader, SearchLine

        self.searches: dict[str, _LoggedSearch] = {}
        self.clicked: dict[str, set[Shown]] = {}
        self.judged: dict[Pair, Optional[int]] = {}
        self.judged_positions: dict[Pair, int] = {}
        self.spans: dict[tuple[str, str], tuple[int, int]] = {}
        self.unread: set[tuple[str, str]] = set()
        self.clicks = self.unclicked = 0
        self.counts: Counter[str] = Counter()
        feedback: list[FeedbackLine] = []
        seen: dict[tuple[str, str], tuple[str, str]] = {}  # each is shown many times
        reader = LogReader(folder)
        for line in Progress(reader, desc="read", unit="line"):
            if isinstance(line, SearchLine):
                names = [(document.id, document.digest) for document in line.shown]
                shown = tuple(seen.setdefault(name, name) for name in names)
                query = sys.intern(line.model_text or line.query)
                self.searches[line.search_id] = _LoggedSearch(query, line.query, shown, line.first_position)
                self._note_spans(query, line.shown, has_ranker=line.versions.get("ranker") is not None)
            else:
                feedback.append(line)
        self.counts["damaged lines"] = reader.damaged
        now = digests(list({id for id, _ in seen}))
        same: dict[Shown, Shown] = {(id, digest): id for id, digest in seen if now.get(id, digest) == digest}
        for id, search in self.searches.items():
            self.searches[id] = search._replace(shown=tuple(same.get(name, name) for name in search.shown))
        feedback.sort(key=lambda line: line.time)
        for line in feedback:
            self._join(line)

    def _note_spans(self, query: str, shown: Sequence[ShownDocument], *, has_ranker: bool) -> None:
        """Record which parts of the shown documents' texts the ranker read in a search."""
        for document in shown:
            (self.unread.discard if has_ranker or document.read is not None else self.unread.add)((query, document.id))
            if document.read is None:
                self.spans.pop((query, document.id), None)
            else:
                self.spans[query, document.id] = (document.read[0], document.read[1])

    def title_of(self, query: str, document: Document, now: LocalSnapshot) -> str:
        """Return the passage of a document that the ranker read for a query.

        If no ranker read the document, return the passage that a ranker would read.
        """
        schema = now.info.schema
        if (query, document.id) in self.unread:
            from paddle_ranker.retrieval.stages.query import SearchedQuery
            from paddle_ranker.retrieval.stages.ranker_texts import EstimatedTokens, texts_for_ranker

            searched = SearchedQuery(now, query, now.info.searchers, literal=True)
            ((_, text),) = texts_for_ranker(searched, [document], EstimatedTokens(), {})
            return text
        span = self.spans.get((query, document.id), (0, len(document.text)))
        return schema.model_text(document, document.text[slice(*span)])

    def _join(self, line: FeedbackLine) -> None:
        search = self.searches.get(line.search_id)
        if search is None:
            self.counts["feedback on searches that are not in the log"] += 1
        elif line.query != search.typed:
            self.counts["feedback with another query than its search"] += 1
        elif (shown := search.named(line.id)) is None:
            self.counts["feedback on documents that the search did not show"] += 1
        elif line.event == "click":
            self.clicks += 1
            self.clicked.setdefault(line.search_id, set()).add(shown)
        else:
            self.judged[search.query, shown] = line.judgment
            self.judged_positions[search.query, shown] = search.first + search.shown.index(shown)

    def lines(self, name: str) -> list[str]:
        """Return lines on what the log has, what counts of it, and what is left out.

        name: what the lines call the log
        """
        judged = sum(label is not None for label in self.judged.values())
        searches = f"{len(self.searches):,} searches, {self.clicks:,} clicks, {judged:,} judged pairs"
        unclicked = (
            f"{self.unclicked:,} of these searches have no click, and say nothing of what people would click; "
            "what was judged in them counts"
        )
        left_out = [f"{reason}: {count:,}" for reason, count in self.counts.items() if count]
        left = f"left out: {'; '.join(left_out) or 'nothing'}"
        return [f"{name}: {searches}", *([unclicked] if self.unclicked else []), left]

    def sessions(self) -> Iterator[Session[Shown]]:
        """Yield each search that showed results, with its clicks."""
        for id, search in self.searches.items():
            if search.shown:
                yield Session(search.query, search.shown, frozenset(self.clicked.get(id, ())), search.first)
            else:
                self.counts["searches that found nothing"] += 1


@dataclass(frozen=True)
class Judgment:
    """Label of a pair, from clicks or from a person's judgment.

    query: text of the query
    id: id of the document
    label: the label
    is_often_clicked: whether the document was clicked at least half as often as the query's most clicked document
    is_judged: whether a person judged the pair
    position: the position at which the document was shown most often
    """

    query: str
    id: str
    label: float
    is_often_clicked: bool
    is_judged: bool
    position: int

    @property
    def whole_label(self) -> int:
        """The label for qrels: a person's label. If there is none, 1 if `is_often_clicked`, else 0."""
        return int(self.label) if self.is_judged else int(self.is_often_clicked)


def judgments_of(log: JoinedLog, options: JudgmentsOptions) -> list[Judgment]:
    """Return a judgment of each pair; a person's label replaces the label from clicks.

    If an exponent of position bias has to be estimated, print it. Pairs whose document has changed since the search
    are skipped and counted, because their clicks and labels are not about the current text.
    """
    sessions = list(log.sessions())
    used = sessions if options.without_clicks == "keep" else [session for session in sessions if session.clicked]
    log.unclicked = len(sessions) - len(used)
    counts = count_clicks(used)
    exponent = options.position_exponent
    if options.debias != "none" and exponent is None:
        # Searches without a click carry most of the information about positions that nobody looks at.
        estimate = estimate_exponent(count_clicks(sessions))
        exponent = estimate.value
        print(f"people look at position k in k^-e of all searches, e = {estimate}")
    labels = click_rates(counts, options.debias, exponent or 0.0)
    if options.labels == "clicked":
        labels = (labels > 0) * 1.0
    best: dict[str, float] = {}
    for (query, _), label in zip(counts.pairs, labels.tolist()):
        best[query] = max(label, best.get(query, 0.0))
    judged = {pair: label for pair, label in log.judged.items() if label is not None}
    pair_judgments = []
    changed = {pair for pair in (*counts.pairs, *judged) if not isinstance(pair[1], str)}
    log.counts["pairs whose text has changed since it was shown"] = len(changed)
    for (query, id), label, position in zip(counts.pairs, labels.tolist(), counts.usual_positions().tolist()):
        judgment = judged.pop((query, id), None)
        if not isinstance(id, str):
            continue
        often = label > 0 and label >= best[query] / 2
        pair_judgments.append(
            Judgment(query, id, label if judgment is None else float(judgment), often, judgment is not None, position)
        )
    # Pairs that are judged, and were shown only in searches without a click.
    for (query, id), label in judged.items():
        if isinstance(id, str):
            pair_judgments.append(Judgment(query, id, float(label), False, True, log.judged_positions[query, id]))
    return pair_judgments


class ReadLog(NamedTuple):
    """Judgments of a log.

    log: the log
    judgments: the judgments
    documents: the judged documents, by id
    titles: by (query, id), the part of the document that a ranker reads
    """

    log: JoinedLog
    judgments: list[Judgment]
    documents: Mapping[str, Document]
    titles: Mapping[tuple[str, str], str]


def read_log(options: JudgmentsOptions, collection: Collection) -> ReadLog:
    """Read a log's judgments.

    Pairs are left out if the index lacks their document, or if a data file cannot hold their texts.
    """
    log = JoinedLog(Path(options.log), partial(_digests, collection))
    pair_judgments, now = judgments_of(log, options), collection.snapshot()
    documents = now.documents_of(sorted({judgment.id for judgment in pair_judgments}))
    titles = {
        (judgment.query, judgment.id): log.title_of(judgment.query, documents[judgment.id], now)
        for judgment in pair_judgments
        if judgment.id in documents
    }
    usable = [
        judgment
        for judgment in pair_judgments
        if _is_text(titles.get((judgment.query, judgment.id), "")) and _is_text(judgment.query)
    ]
    log.counts["pairs whose document is not in the index, or which are no text"] = len(pair_judgments) - len(usable)
    return ReadLog(log, usable, documents, titles)


def judgments(options: JudgmentsOptions) -> None:
    """Read the log of searches, write the folder of judgments, and print the counts of used and skipped lines."""
    from paddle_ranker.data.rows.trec import can_hold
    from paddle_ranker.retrieval.index.shards import open_index
    from paddle_ranker.storage.atomic import make_folder, new_folder

    output = Path(options.output_dir)
    if output.exists():
        raise DataError(f"{output}: is there already; name another folder")
    make_folder(output.parent)
    with open_index(options.index) as collection:
        log, usable, documents, titles = read_log(options, collection)
        schema = collection.info.schema
    held_out = {
        query for query in {judgment.query for judgment in usable} if draw(query, options.seed) < options.dev_share
    }
    unheld = sum(judgment.query in held_out and not can_hold(judgment.id) for judgment in usable)
    log.counts["held-out pairs whose id has a space, in the qrels"] = unheld
    print("\n".join(log.lines(options.log)))
    if not usable:
        raise DataError(f"{options.log}: no search with a click or a judgment, so there is nothing to learn from")
    with new_folder(output) as folder:
        parts = {
            TRAIN: [judgment for judgment in usable if judgment.query not in held_out],
            DEV: [judgment for judgment in usable if judgment.query in held_out],
        }
        for name, part in parts.items():
            _write_pairs(folder / name, part, titles, whole=name == DEV)
        whole = {id: schema.model_text(document) for id, document in documents.items()}
        _write_qrels(folder / JUDGED, [judgment for judgment in parts[DEV] if can_hold(judgment.id)], whole)
    for name, part in parts.items():
        _report(output / name, part)
    if options.dev_share and not parts[DEV]:
        note(f"{output}: no query was held out: use a longer log or a larger --dev_share")


def _digests(collection: Collection, ids: Sequence[str]) -> dict[str, str]:
    from paddle_ranker.serving.core.search_log import digest_of

    digests: dict[str, str] = {}
    for start in range(0, len(ids), _AT_ONCE):
        documents = collection.snapshot().documents_of(ids[start : start + _AT_ONCE])
        digests.update((id, digest_of(document.text)) for id, document in documents.items())
    return digests


def _write_pairs(path: Path, part: Sequence[Judgment], titles: Mapping[tuple[str, str], str], *, whole: bool) -> None:
    from paddle_ranker.data.rows.formats import write_rows

    rows = (
        (
            judgment.query,
            titles[judgment.query, judgment.id],
            judgment.whole_label if whole else round(judgment.label, 6),
            judgment.position,
        )
        for judgment in sorted(part, key=lambda judgment: (judgment.query, judgment.position))
    )
    write_rows(str(path), ("query", "title", "label", "position"), rows, header=True)


def _write_qrels(folder: Path, part: Sequence[Judgment], texts: Mapping[str, str]) -> None:
    from paddle_ranker.data.rows.beir import write_beir

    names = {query: _name(query) for query in dict.fromkeys(judgment.query for judgment in part)}
    qrels: dict[str, dict[str, int]] = {}
    for judgment in part:
        qrels.setdefault(names[judgment.query], {})[judgment.id] = judgment.whole_label
    documents = ((id, texts[id], dict[str, object]()) for id in dict.fromkeys(judgment.id for judgment in part))
    write_beir(folder, documents, {name: query for query, name in names.items()}, {"test": qrels})


def _report(path: Path, part: Sequence[Judgment]) -> None:
    queries, judged = len({judgment.query for judgment in part}), sum(judgment.is_judged for judgment in part)
    above = sum(judgment.label > 0 for judgment in part)
    print(f"{path}: {queries:,} queries, {len(part):,} pairs, {above:,} with a label above 0, {judged:,} judged")


def _name(query: str) -> str:
    return "q" + blake2b(query.encode("utf-8"), digest_size=8).hexdigest()


def draw(query: str, seed: int) -> float:
    """Return a number from 0 to 1 that depends only on the query and the seed."""
    digest = blake2b(query.encode("utf-8"), digest_size=8, key=str(seed).encode()).digest()
    return int.from_bytes(digest, "little") / _DRAWN


def _is_text(text: str) -> bool:
    """Return whether a training file can hold a text: it has no NUL, and is not only spaces."""
    return bool(text.strip()) and "\0" not in text


main = main_of(judgments, JudgmentsOptions, __doc__)
