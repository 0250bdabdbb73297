"""Turn a server's log of searches into training data, and into judgements to measure on.

paddle-ranker judgments --log log --index index --output judgments
paddle-ranker judgments --log log --index index --output judgments --debias ipw --without_clicks keep
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Optional

from tqdm import tqdm

from paddle_ranker.errors import DataError, UsageError
from paddle_ranker.options import Options, main_of, note, option
from paddle_ranker.training.clicks import (
    DEBIAS,
    Session,
    click_rates,
    count_clicks,
    estimate_exponent,
)

if TYPE_CHECKING:
    from paddle_ranker.serving.core.search_log import FeedbackLine

TRAIN, DEV, JUDGED = "train.jsonl", "dev.jsonl", "dev"
_DRAWN = 2.0**64
Pair = tuple[str, str]  # a query and a document's id


@dataclass(frozen=True)
class JudgmentsOptions(Options):
    log: str = option(help="folder of the log: that of search-serve --search_log")
    index: str = option(help="index folder with the documents' texts: that of search-serve --index")
    output_dir: str = option(
        help=f"folder to make: {TRAIN} and {DEV} (query, title, label, position), and {JUDGED}, a BEIR folder with the "
        "qrels of the held-out queries",
        name="output",
    )
    labels: str = option(
        "rate",
        help="labels of what nobody judged: rate, in which share of the searches that showed it it was clicked (train "
        "with --fractional_labels true --loss click_softmax); or clicked, 1 if it was clicked at least once, else 0",
        choices=("rate", "clicked"),
    )
    debias: str = option(
        "none",
        help="what this share is: " + "; ".join(f"{name}, {what}" for name, what in DEBIAS.items()),
        choices=DEBIAS,
    )
    position_exponent: Optional[float] = option(
        None,
        help="e, where people look at position k in k^-e of all searches (default: estimated from documents that the "
        "log has at several positions)",
        minimum=0,
    )
    without_clicks: str = option(
        "drop", help="searches of which nothing was clicked: drop them, or keep them", choices=("drop", "keep")
    )
    dev_share: float = option(
        0.1, help="share of the queries to hold out; a query stays where it is when the log grows", minimum=0, below=1
    )
    seed: int = option(1000, help="draws the queries that are held out", minimum=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.debias != "none" and self.labels != "rate":
            raise UsageError(f"--debias {self.debias} corrects shares: leave out --labels {self.labels}")
        if self.position_exponent is not None and self.debias == "none":
            raise UsageError("--position_exponent is about --debias: add it, or leave it out")


class _Search(NamedTuple):
    """What is kept of a search: its query, the shown ids in order, and the position of the first."""

    query: str
    ids: tuple[str, ...]
    first: int


class JoinedLog:
    """The searches of a log, each with what was said of its results.

    Attributes: `searches`, by id; `clicked`, ids of documents by that of the search; `clicks`, their number; `judged`,
    the last label of each pair, None where it was taken back, and `judged_positions`; `counts` of what was left out.
    """

    def __init__(self, folder: Path):
        from paddle_ranker.serving.core.search_log import LogReader, SearchLine

        self.searches: dict[str, _Search] = {}
        self.clicked: dict[str, set[str]] = {}
        self.judged: dict[Pair, Optional[int]] = {}
        self.judged_positions: dict[Pair, int] = {}
        self.clicks = 0
        self.counts: Counter[str] = Counter()
        said: list[FeedbackLine] = []
        reader = LogReader(folder)
        for line in tqdm(reader, desc="read", unit="line", disable=None):
            if isinstance(line, SearchLine):
                ids = tuple(sys.intern(shown.id) for shown in line.shown)  # each is shown many times
                self.searches[line.search_id] = _Search(sys.intern(line.query), ids, line.first_position)
            else:
                said.append(line)
        self.counts["damaged lines"] = reader.damaged
        said.sort(key=lambda line: line.time)
        for line in said:
            self._join(line)

    def _join(self, line: FeedbackLine) -> None:
        search = self.searches.get(line.search_id)
        if search is None:
            self.counts["feedback on searches that are not in the log"] += 1
        elif line.id not in search.ids:
            self.counts["feedback on documents that the search did not show"] += 1
        elif line.event == "click":
            self.clicks += 1
            self.clicked.setdefault(line.search_id, set()).add(line.id)
        else:
            self.judged[search.query, line.id] = line.judgment
            self.judged_positions[search.query, line.id] = search.first + search.ids.index(line.id)

    def sessions(self, without_clicks: str) -> Iterator[Session]:
        """Yield the searches that showed something; those without a click only if `without_clicks` is "keep"."""
        for id, search in self.searches.items():
            clicked = frozenset(self.clicked.get(id, ()))
            if not search.ids:
                self.counts["searches that found nothing"] += 1
            elif clicked or without_clicks == "keep":
                yield Session(search.query, search.ids, clicked, search.first)
            else:
                self.counts["searches without a click"] += 1


@dataclass(frozen=True)
class Judgment:
    """A pair's label, whether by clicks or by somebody's word, and the position where it was mostly shown."""

    query: str
    id: str
    label: float
    is_often_clicked: bool
    is_judged: bool
    position: int

    @property
    def whole_label(self) -> int:
        """The label of qrels: what was judged, else 1 for a pair that is clicked half as often as its query's best."""
        return int(self.label) if self.is_judged else int(self.is_often_clicked)


def judgments_of(log: JoinedLog, options: JudgmentsOptions) -> list[Judgment]:
    """Return a judgment of each pair; what was judged beats clicks. Prints how positions were corrected for."""
    counts = count_clicks(log.sessions(options.without_clicks))
    exponent = options.position_exponent
    if options.debias != "none" and exponent is None:
        estimate = estimate_exponent(counts)
        exponent = estimate.value
        print(f"people look at position k in k^-e of all searches, e = {estimate}")
    labels = click_rates(counts, options.debias, exponent or 0.0)
    if options.labels == "clicked":
        labels = (labels > 0) * 1.0
    best: dict[str, float] = {}
    for (query, _), label in zip(counts.pairs, labels.tolist()):
        best[query] = max(label, best.get(query, 0.0))
    judged = {pair: label for pair, label in log.judged.items() if label is not None}
    found = []
    for (query, id), label, position in zip(counts.pairs, labels.tolist(), counts.usual_positions().tolist()):
        said = judged.pop((query, id), None)
        often = label > 0 and label >= best[query] / 2
        found.append(Judgment(query, id, label if said is None else float(said), often, said is not None, position))
    # Judged, and shown in searches without a click alone.
    for (query, id), label in judged.items():
        found.append(Judgment(query, id, float(label), False, True, log.judged_positions[query, id]))
    return found


def judgments(options: JudgmentsOptions) -> None:
    """Read the log, write the folder, and print what was used and what was left out."""
    from paddle_ranker.data.trec import can_hold
    from paddle_ranker.retrieval.collection import Collection
    from paddle_ranker.storage.atomic import make_folder, new_folder

    output = Path(options.output_dir)
    if output.exists():
        raise DataError(f"{output}: is there already; name another folder")
    make_folder(output.parent)
    log = JoinedLog(Path(options.log))
    with Collection.open(options.index) as collection:
        found = judgments_of(log, options)
        texts = {id: doc.text for id, doc in collection.documents_of(sorted({one.id for one in found})).items()}
    usable = [one for one in found if _is_text(texts.get(one.id, "")) and _is_text(one.query)]
    log.counts["pairs whose document is not in the index, or which are no text"] = len(found) - len(usable)
    held_out = {query for query in {one.query for one in usable} if _draw(query, options.seed) < options.dev_share}
    unheld = sum(one.query in held_out and not can_hold(one.id) for one in usable)
    log.counts["held-out pairs whose id has a space, in the qrels"] = unheld
    judged = sum(label is not None for label in log.judged.values())
    print(f"{options.log}: {len(log.searches):,} searches, {log.clicks:,} clicks, {judged:,} judged pairs")
    left_out = [f"{name}: {count:,}" for name, count in log.counts.items() if count]
    print(f"left out: {'; '.join(left_out) or 'nothing'}")
    if not usable:
        raise DataError(f"{options.log}: no search with a click or a judgment, so there is nothing to learn from")
    with new_folder(output) as folder:
        parts = {
            TRAIN: [one for one in usable if one.query not in held_out],
            DEV: [one for one in usable if one.query in held_out],
        }
        for name, part in parts.items():
            _write_pairs(folder / name, part, texts, whole=name == DEV)
        _write_qrels(folder / JUDGED, [one for one in parts[DEV] if can_hold(one.id)], texts)
    for name, part in parts.items():
        _report(output / name, part)
    if options.dev_share and not parts[DEV]:
        note(f"{output}: no query was held out: a longer log, or another --dev_share, gives some")


def _write_pairs(path: Path, part: Sequence[Judgment], texts: Mapping[str, str], *, whole: bool) -> None:
    with path.open("w", encoding="utf-8") as stream:
        for one in sorted(part, key=lambda one: (one.query, one.position)):
            label = one.whole_label if whole else round(one.label, 6)
            row = {"query": one.query, "title": texts[one.id], "label": label, "position": one.position}
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def _write_qrels(folder: Path, part: Sequence[Judgment], texts: Mapping[str, str]) -> None:
    from paddle_ranker.data.beir import write_beir

    names = {query: _name(query) for query in dict.fromkeys(one.query for one in part)}
    qrels: dict[str, dict[str, int]] = {}
    for one in part:
        qrels.setdefault(names[one.query], {})[one.id] = one.whole_label
    documents = ((id, texts[id], dict[str, object]()) for id in dict.fromkeys(one.id for one in part))
    write_beir(folder, documents, {name: query for query, name in names.items()}, {"test": qrels})


def _report(path: Path, part: Sequence[Judgment]) -> None:
    queries, judged = len({one.query for one in part}), sum(one.is_judged for one in part)
    above = sum(one.label > 0 for one in part)
    print(f"{path}: {queries:,} queries, {len(part):,} pairs, {above:,} with a label above 0, {judged:,} judged")


def _name(query: str) -> str:
    return "q" + blake2b(query.encode("utf-8"), digest_size=8).hexdigest()


def _draw(query: str, seed: int) -> float:
    """Return a number from 0 to 1 that depends on the query and the seed alone."""
    digest = blake2b(query.encode("utf-8"), digest_size=8, key=str(seed).encode()).digest()
    return int.from_bytes(digest, "little") / _DRAWN


def _is_text(text: str) -> bool:
    """Return whether files of training data can hold a text: one without a NUL, and not of spaces alone."""
    return bool(text.strip()) and "\0" not in text


main = main_of(judgments, JudgmentsOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
