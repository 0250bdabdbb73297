"""A comparison as one HTML file that opens offline: no scripts, no fonts or pictures from elsewhere."""

from __future__ import annotations

import base64
import datetime
import html
from collections.abc import Mapping, Sequence

from paddle_ranker import __version__
from paddle_ranker.evaluation.comparison import Comparison, System
from paddle_ranker.evaluation.report.per_query import (
    ListedTitle,
    QueryDifference,
    best_titles,
    query_differences,
    query_text,
)
from paddle_ranker.evaluation.report.plots import BETTER, WORSE, intervals_svg, queries_svg
from paddle_ranker.evaluation.report.text import TIES_IN_WORDS, p_text, verdict
from paddle_ranker.metrics.measures import MEASURES
from paddle_ranker.storage.atomic import new_file

EXAMPLES = 3  # of wins, and of losses, for each system
LISTED = 5  # titles of each list

_STYLE = f"""
:root {{ color-scheme: light; }}
body {{ font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei",
  sans-serif; color: #1f2937; background: #fff; margin: 0 auto; max-width: 1060px; padding: 28px 20px 60px; }}
h1 {{ font-size: 26px; margin: 0 0 4px; }}
h2 {{ font-size: 19px; margin: 38px 0 10px; border-bottom: 1px solid #e5e7eb; padding-bottom: 4px; }}
h3 {{ font-size: 16px; margin: 26px 0 6px; }}
.quiet {{ color: #6b7280; }} .small {{ font-size: 13px; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 6px 12px 6px 0; text-align: left; vertical-align: top; border-bottom: 1px solid #e5e7eb; }}
th {{ font-weight: 600; white-space: nowrap; }}
td .bounds {{ display: block; font-size: 12px; color: #6b7280; white-space: nowrap; }}
td.best {{ font-weight: 700; }} td.best .bounds {{ font-weight: 400; }}
img {{ width: 100%; height: auto; display: block; }}
.verdicts li {{ margin: 2px 0; }}
.better {{ color: {BETTER}; }} .worse {{ color: {WORSE}; }}
details {{ margin: 6px 0; border: 1px solid #e5e7eb; border-radius: 8px; padding: 8px 14px; }}
summary {{ cursor: pointer; }}
.lists {{ display: grid; grid-template-columns: 1fr 1fr; gap: 26px; margin-top: 8px; }}
.lists h4 {{ margin: 0 0 4px; font-size: 13px; color: #6b7280; font-weight: 600; }}
ol {{ margin: 0; padding-left: 22px; }} ol li {{ overflow-wrap: anywhere; }}
.label {{ display: inline-block; min-width: 18px; padding: 0 5px; margin-right: 6px; border-radius: 9px;
  font-size: 12px; text-align: center; background: #e5e7eb; }}
.label.relevant {{ background: {BETTER}; color: #fff; }}
code {{ font-size: 13px; overflow-wrap: anywhere; }}
@media (max-width: 700px) {{ .lists {{ grid-template-columns: 1fr; }} }}
@media print {{ details {{ break-inside: avoid; }} }}
"""


def write_report(path: str, comparison: Comparison, measure: str, data: Mapping[str, str]) -> None:
    """Write the page, atomically.

    Args:
        measure: the one that pictures, wins and losses are about.
        data: what the report says about the data, by name.
    """
    counts = comparison.counts
    by_query = comparison.by_query[comparison.reference]
    listed = measure if measure in by_query else ("ndcg@10" if by_query else None)
    drawn = list(dict.fromkeys([measure, *(name for name in ("auc", "mrr@10") if name in comparison.measures)]))
    parts = [
        f"<h1>{len(comparison.systems)} rankers on {_text(_file_name(comparison.pairs.source))}</h1>",
        f'<p class="quiet">{counts["queries"]:,} queries, {counts["queries_with_positive"]:,} of them with a relevant '
        f"title; {counts['pairs']:,} judged pairs. Compared with {_text(comparison.reference)}.</p>",
        _verdicts(comparison, measure),
        "<h2>Values and differences</h2>",
        _picture(intervals_svg(comparison, drawn), "Each ranker's value and its difference to the reference"),
        '<p class="quiet small">Dots: values on these queries; bars: 95% intervals. Blue and orange differences are '
        "established (interval without zero, corrected p below 0.05), grey ones are not.</p>",
        "<h2>All measures</h2>",
        _values_table(comparison),
        "<h2>Differences</h2>",
        _differences_table(comparison),
    ]
    if listed is not None:
        parts += ["<h2>Query by query</h2>", *(_by_query(comparison, system, listed) for system in comparison.others)]
    parts += ["<h2>What this is made of</h2>", _sources(comparison, data), _method(comparison)]
    title = f"{len(comparison.systems)} rankers on {_file_name(comparison.pairs.source)}"
    with new_file(path) as stream:
        stream.write(
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{_text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
            + "\n".join(parts)
            + "\n</body>\n</html>\n"
        )


def _verdicts(comparison: Comparison, measure: str) -> str:
    lines = []
    for system in comparison.others:
        kind = comparison.measured[system.name][measure].verdict or "quiet"
        lines.append(f'<li class="{kind}">{_text(verdict(comparison, system.name, measure))}</li>')
    return f'<ul class="verdicts">{"".join(lines)}</ul>'


def _values_table(comparison: Comparison) -> str:
    best = {
        name: max(
            (one[name].interval.estimate for one in comparison.measured.values()), key=MEASURES[name].sign.__mul__
        )
        for name in comparison.measures
    }
    rows = []
    for system in comparison.systems:
        cells = []
        for measure in comparison.measures:
            interval = comparison.measured[system.name][measure].interval
            kind = ' class="best"' if interval.estimate == best[measure] else ""
            cells.append(f"<td{kind}>{_with_bounds(f'{interval:.3f}')}</td>")
        rows.append(f"<tr><th>{_text(system.name)}</th>{''.join(cells)}</tr>")
    return _table(["", *(MEASURES[measure].title for measure in comparison.measures)], rows)


def _differences_table(comparison: Comparison) -> str:
    rows = []
    for system in comparison.others:
        for measure in comparison.measures:
            measured = comparison.measured[system.name][measure]
            assert measured.difference is not None
            name = system.name if measure == comparison.measures[0] else ""
            queries = "" if measured.wins is None else f"{measured.wins} / {measured.losses}"
            rows.append(
                f"<tr><th>{_text(name)}</th><td>{MEASURES[measure].title}</td>"
                f'<td class="{measured.verdict}">{measured.difference:+.3f}</td>'
                f"<td>{p_text(measured.p_value)}</td><td>{p_text(measured.corrected)}</td><td>{queries}</td></tr>"
            )
    against = f"difference to {comparison.reference}"
    return _table(["", "measure", against, "p", "p, corrected", "queries won / lost"], rows)


def _by_query(comparison: Comparison, system: System, measure: str) -> str:
    differences = query_differences(comparison, system.name, measure)
    worst = [one for one in differences[:EXAMPLES] if one.outcome == "loss"]
    best = [one for one in differences[::-1][:EXAMPLES] if one.outcome == "win"]
    parts = [
        f"<h3>{_text(system.name)} against {_text(comparison.reference)}</h3>",
        _picture(queries_svg(comparison, differences, measure), f"Differences of {system.name} query by query"),
    ]
    for words, examples in (("Largest wins", best), ("Largest losses", worst)):
        if examples:
            parts.append(f'<p class="small quiet">{words}, {MEASURES[measure].title}</p>')
            parts += [_example(comparison, system, one) for one in examples]
    return "\n".join(parts)


def _example(comparison: Comparison, system: System, one: QueryDifference) -> str:
    reference = next(other for other in comparison.systems if other.name == comparison.reference)
    kind = "better" if one.outcome == "win" else "worse"
    lists = "".join(
        f"<div><h4>{_text(which.name)}: {value:.3f}</h4>"
        f"{_titles(best_titles(comparison, which, one.row, LISTED))}</div>"
        for which, value in ((system, one.value), (reference, one.reference_value))
    )
    return (
        f'<details><summary><span class="{kind}">{one.difference:+.3f}</span> {_text(query_text(comparison, one.row))}'
        f'</summary><div class="lists">{lists}</div></details>'
    )


def _titles(titles: Sequence[ListedTitle]) -> str:
    if not titles:
        return '<p class="quiet">nothing returned</p>'
    lines = []
    for title in titles:
        kind = " relevant" if title.label >= 1 else ""
        label = f"{title.label:g}" if title.judged else "?"
        lines.append(f'<li><span class="label{kind}">{label}</span>{_text(title.text)}</li>')
    return f"<ol>{''.join(lines)}</ol>"


def _sources(comparison: Comparison, data: Mapping[str, str]) -> str:
    rows = [
        f"<tr><th>{_text(name)}</th><td>data</td><td><code>{_text(value)}</code></td></tr>"
        for name, value in data.items()
    ]
    for system in comparison.systems:
        facts = "<br>".join(f"{_text(name)}: <code>{_text(value)}</code>" for name, value in system.facts.items())
        rows.append(f"<tr><th>{_text(system.name)}</th><td>{system.what}</td><td>{facts}</td></tr>")
    notes = "".join(f"<li>{_text(note)}</li>" for note in comparison.pairs.notes)
    return _table(["", "", ""], rows) + (f'<ul class="small">{notes}</ul>' if notes else "")


def _method(comparison: Comparison) -> str:
    others = len(comparison.others)
    return (
        '<p class="small quiet">A title is relevant from label 1 on; a query without a relevant title counts 0. '
        f"Ties: {TIES_IN_WORDS[comparison.ties]}; in AUC and pairs ordered a tie counts a half. Intervals: 95% "
        "percentile bootstrap over queries, differences paired. p: two-sided paired randomisation test over queries; "
        f"corrected: Holm's method over the {others} difference{'s' if others != 1 else ''} in one measure. Digests "
        "are the first 16 digits of SHA-256. "
        f"paddle_ranker {__version__}, {datetime.date.today().isoformat()}.</p>"
    )


def _table(header: Sequence[str], rows: Sequence[str]) -> str:
    head = f"<tr>{''.join(f'<th>{_text(name)}</th>' for name in header)}</tr>" if any(header) else ""
    return f'<div class="scroll"><table>{head}{"".join(rows)}</table></div>'


def _with_bounds(text: str) -> str:
    value, _, bounds = text.partition(" ")
    return f'{value}<span class="bounds">{bounds}</span>'


def _picture(svg: str, words: str) -> str:
    # As an image of its own: two pictures' element names cannot clash.
    data = base64.b64encode(svg.encode("utf-8")).decode("ascii")
    return f'<img alt="{_text(words)}" src="data:image/svg+xml;base64,{data}">'


def _file_name(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]


def _text(text: str) -> str:
    return html.escape(text, quote=True)
