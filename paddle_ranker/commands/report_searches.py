"""Report the queries of a search server's log: the most frequent ones, those without results, those without clicks.

paddle-ranker report-searches log
paddle-ranker report-searches log --since 2026-11-01 --until 2026-11-30 --report searches.html
paddle-ranker report-searches log --top 100 --format json
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from paddle_ranker.errors import DataError, UsageError, brief, quoted
from paddle_ranker.options import Options, json_text, main_of, option
from paddle_ranker.options.declare import FETCHED
from paddle_ranker.progress import Progress

if TYPE_CHECKING:
    from paddle_ranker.serving.core.search_log import SearchLine

# Titles of the report's lists of queries, and the names of the lists.
LISTS = {
    "Most frequent queries": "most_frequent",
    "Queries without results": "queries_without_results",
    "Queries with nothing close": "queries_with_nothing_close",
    "Queries with results, without clicks": "queries_without_clicks",
}
_TYPED, _PAGES, _OTHER_DAYS = "searches while typing", "further pages of searches", "searches of other days"
_DAY = "%Y-%m-%d"


@dataclass(frozen=True)
class ReportSearchesOptions(Options):
    log: Path = option(  # noqa: RUF009
        help="folder of the log, as in search-serve --search_log; files that were moved there count, too",
        positional=True,
        addresses=FETCHED,
    )
    top: int = option(20, help="queries of each list", minimum=1)
    since: Optional[str] = option(None, help="count searches from this day on, as 2026-11-22, in UTC")
    until: Optional[str] = option(None, help="count searches up to this day, inclusive, in UTC")
    format: str = option("text", help="form of what is printed", choices=("text", "json"))
    report: Optional[str] = option(None, help="write a report that opens offline: one .html file")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("since", "until"):
            day = getattr(self, name)
            try:
                is_day = day is None or datetime.datetime.strptime(day, _DAY).strftime(_DAY) == day
            except ValueError:
                is_day = False
            if not is_day:
                raise UsageError(f"--{name} {quoted(day)}: expected a day, such as 2026-11-22")
        if self.since and self.until and self.since > self.until:
            raise UsageError(f"--since {self.since} is after --until {self.until}: swap them")


@dataclass
class SearchCounts:
    """Counts of a group of searches.

    searches: number of searches
    answered: number of searches with results
    clicked: number of searches with a click
    nothing_close: number of searches whose answer said that no document is close
    clicks: number of clicked documents, each once per search
    ranks: sum of the ranks of the clicked documents
    spellings: how often the query was typed in each spelling
    """

    searches: int = 0
    answered: int = 0
    clicked: int = 0
    nothing_close: int = 0
    clicks: int = 0
    ranks: int = 0
    spellings: Counter[str] = field(default_factory=Counter)

    def summary(self) -> dict[str, Any]:
        """Return the counts for JSON; `click_rate` is None without searches, `mean_rank` without clicks."""
        return {
            "searches": self.searches,
            "without_results": self.searches - self.answered,
            "nothing_close": self.nothing_close,
            "click_rate": self.clicked / self.searches if self.searches else None,
            "clicks": self.clicks,
            "mean_rank": self.ranks / self.clicks if self.clicks else None,
        }


class _CountedSearch(NamedTuple):
    """A search of the log.

    counters: the `SearchCounts` in which this search is counted
    first: rank of the first shown document
    ids: ids of the shown documents
    is_page: whether it is a further page of a search
    """

    counters: tuple[SearchCounts, ...]
    first: int
    ids: tuple[str, ...]
    is_page: bool


class CountedLog:
    """Searches of a log, counted by query and by day.

    Queries that differ only in case, width and spaces count as one query. Searches for unfinished words are left out,
    unless a result was clicked. A further page does not count as a search, but its clicks are counted.

    Attributes:
        all: counts of all searches.
        queries: counts by folded query.
        days: counts by day.
        left_out: number of searches, clicks and lines that were left out, by reason.
    """

    def __init__(self, folder: Path, since: Optional[str] = None, until: Optional[str] = None):
        from paddle_ranker.serving.core.search_log import LogReader, SearchLine

        self.all, self.queries, self.days = SearchCounts(), dict[str, SearchCounts](), dict[str, SearchCounts]()
        self.left_out: Counter[str] = Counter()
        self._since, self._until = since or "", until or "9999-12-31"
        searches: dict[str, Optional[_CountedSearch]] = {}  # None: is left out
        typed: dict[str, SearchLine] = {}
        clicks: dict[tuple[str, str], None] = {}
        reader = LogReader(folder)
        for line in Progress(reader, desc="read", unit="line"):
            if isinstance(line, SearchLine):
                if line.search_id not in searches:  # a file may be there twice
                    is_typed = line.parameters.get("prefix") is True
                    searches[line.search_id] = None if is_typed else self._search(line)
                    if is_typed:
                        typed[line.search_id] = line
            elif line.event == "click":
                clicks[line.search_id, line.id] = None
        clicked = set[str]()
        for id in {id for id, _ in clicks} & typed.keys():
            searches[id] = self._search(typed.pop(id))
        self.left_out[_TYPED] = len(typed)
        for id, document in clicks:
            if id not in searches:
                self.left_out["clicks on searches that are not in the log"] += 1
            elif (search := searches[id]) is None:
                self.left_out["clicks on searches that are left out"] += 1
            elif document not in search.ids:
                self.left_out["clicks on documents that the search did not show"] += 1
            else:
                rank = search.first + search.ids.index(document)
                for counted in search.counters:
                    counted.clicks, counted.ranks = counted.clicks + 1, counted.ranks + rank
                    counted.clicked += id not in clicked and not search.is_page
                clicked.add(id)
        self.left_out["damaged lines"] = reader.damaged

    def _search(self, line: SearchLine) -> Optional[_CountedSearch]:
        """Count a search and return it; if the search's day is left out, return None without counting."""
        from paddle_ranker.unicode.characters import fold

        day = line.time[: len("2026-11-22")]
        if not self._since <= day <= self._until:
            self.left_out[_OTHER_DAYS] += 1
            return None
        shown = " ".join(line.query.split())
        of_query = self.queries.setdefault(fold(shown), SearchCounts())
        counters = self.all, of_query, self.days.setdefault(day, SearchCounts())
        is_page = line.first_position > 1
        if is_page:
            self.left_out[_PAGES] += 1
        for counted in counters:
            counted.searches += not is_page
            counted.answered += bool(line.shown) and not is_page
            counted.nothing_close += bool(line.nothing_close) and not is_page
        of_query.spellings[shown] += 1
        return _CountedSearch(counters, line.first_position, tuple(document.id for document in line.shown), is_page)


def report_of(log: CountedLog, top: int) -> dict[str, Any]:
    """Return the report as a dict for JSON: counts of all searches, counts per day, and the query lists of `LISTS`."""
    queries = [query for query in log.queries.values() if query.searches]

    def first(count_of: Callable[[SearchCounts], int]) -> list[dict[str, Any]]:
        kept = sorted(
            (-count_of(query), query.spellings.most_common(1)[0][0], query) for query in queries if count_of(query)
        )
        return [{"query": shown, **query.summary()} for _, shown, query in kept[:top]]

    return {
        "first_day": min(log.days),
        "last_day": max(log.days),
        "queries": len(queries),
        **log.all.summary(),
        "left_out": {name: count for name, count in log.left_out.items() if count},
        "days": [{"day": day, **counts.summary()} for day, counts in sorted(log.days.items())],
        "most_frequent": first(lambda query: query.searches),
        "queries_without_results": first(lambda query: query.searches - query.answered),
        "queries_with_nothing_close": first(lambda query: query.nothing_close),
        "queries_without_clicks": first(lambda query: 0 if query.clicks else query.answered),
    }


def run(options: ReportSearchesOptions) -> None:
    from paddle_ranker.storage.atomic import check_writable

    check_writable(options.report)
    log = CountedLog(options.log, options.since, options.until)
    if not log.all.searches:
        left = "; ".join(f"{name}: {count:,}" for name, count in log.left_out.items() if count)
        raise DataError(f"{options.log}: has no searches to report (left out: {left or 'nothing'})")
    report = report_of(log, options.top)
    if options.format == "json":
        print(json_text(report, indent=2))
    else:
        print("\n".join(_lines(report)))
    if options.report is not None:
        from paddle_ranker.evaluation.report.searches import write_searches

        write_searches(options.report, report, LISTS)


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield the report as lines of text; a query with control characters is quoted."""
    days = f"{report['first_day']} to {report['last_day']}"
    yield f"{days}: {report['searches']:,} searches of {report['queries']:,} queries"
    rank = f", mean rank of {report['clicks']:,} clicks {report['mean_rank']:.1f}" if report["clicks"] else ""
    close = f"{report['nothing_close']:,} ({report['nothing_close'] / report['searches']:.1%})"
    without = f"without results {report['without_results']:,}, nothing close {close}"
    yield f"{without}, click rate {report['click_rate']:.1%}{rank}"
    left_out = [f"{name}: {count:,}" for name, count in report["left_out"].items()]
    yield f"left out: {'; '.join(left_out) or 'nothing'}"
    for title, name in {**LISTS, "Days": "days"}.items():
        yield from ("", title)
        yield "  searches  no results  click rate  mean rank" if report[name] else "  none"
        for row in report[name]:
            rate = "" if row["click_rate"] is None else f"{row['click_rate']:.1%}"
            rank = "" if row["mean_rank"] is None else f"{row['mean_rank']:.1f}"
            shown = row["day"] if name == "days" else row["query"]
            shown = brief(shown) if shown.isprintable() else quoted(shown)
            yield f"  {row['searches']:>8,}  {row['without_results']:>10,}  {rate:>10}  {rank:>9}  {shown}"


main = main_of(run, ReportSearchesOptions, __doc__)
