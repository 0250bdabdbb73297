"""Measure the results of `recall.py`: the published lines `recall@1=...`, then all measures with intervals.

To measure an index, with baselines:

paddle-ranker evaluate-recall --index index --test dev.csv
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from paddle_ranker.errors import DataError
from paddle_ranker.options import RowOptions, json_text, main_of, note, option

PUBLISHED = (1, 5, 10, 20, 50)


@dataclass(frozen=True)
class EvaluateTowerOptions(RowOptions):
    similar_text_pair: str = option(
        help="pairs of a query and a text that answers it, or labelled pairs", name="test", files=True,
    )  # fmt: skip
    recall_result_file: str = option(
        help="results: query, text, cosine, best first, as recall.py writes them", name="input", files=True
    )
    recall_num: int = option(50, help="number of results per query that count", minimum=1)
    corpus_file: Optional[str] = option(
        None, help="texts that were searched, to measure BM25 on words and on bigrams as baselines", name="corpus",
        files=True,
    )  # fmt: skip
    resamples: int = option(2000, help="number of draws of queries for the intervals", minimum=100)
    seed: int = option(1000, help="seed of the draws", minimum=0)
    format: str = option("text", help="format of the output", choices=("text", "json"))


def run(options: EvaluateTowerOptions) -> None:
    """Print recall as the published script does, in percent, then the measures with 95% intervals over queries.

    For a query with several answers, the share of found answers counts; the published script counts only the last
    answer.
    """
    from paddle_ranker.data.rows.trec import in_order
    from paddle_ranker.evaluation.recall import label_of, notes_on, open_pairs
    from paddle_ranker.evaluation.report.text import comparison_json
    from paddle_ranker.evaluation.retrieval import JudgedQueries, compare_runs, comparison_lines, lexical_runs
    from paddle_ranker.metrics.ranking import RELEVANT
    from recall.results import corpus_texts, one_line, read_results

    pairs = open_pairs(options.similar_text_pair, options)
    answers: dict[str, dict[str, int]] = {}
    all_queries = set()
    for pair in pairs:
        all_queries.add(one_line(pair.query))
        if label_of(pair) >= RELEVANT:
            answers.setdefault(one_line(pair.query), {})[one_line(pair.title)] = 1
    notes = notes_on(pairs, all_queries, answers)
    results = read_results(options.recall_result_file, answers)
    best = {query: results.get(query, [])[: options.recall_num] for query in answers}
    if options.format == "text":
        for cut in PUBLISHED:
            shares = [len(titles.keys() & best[query][:cut]) / len(titles) for query, titles in answers.items()]
            print(f"recall@{cut}={round(100 * sum(shares) / len(shares), 3)}")

    if not any(best.values()):
        raise DataError(
            f"{options.recall_result_file} and {options.similar_text_pair} share no query: do they belong together?"
        )
    runs = {"found": {query: in_order(texts) for query, texts in best.items() if texts}}
    queries = {query: query for query in answers}
    if options.corpus_file is not None:
        texts = map(one_line, corpus_texts(options.corpus_file, options))
        runs.update(lexical_runs({text: text for text in texts}, queries, options.recall_num))
    judged = JudgedQueries(options.similar_text_pair, queries, answers, notes)
    comparison = compare_runs(judged, runs, options.recall_num, resamples=options.resamples, seed=options.seed)
    for line in comparison.pairs.notes:
        note(line)
    if options.format == "json":
        print(json_text(comparison_json(comparison), indent=2))
    else:
        print("\n".join(comparison_lines(comparison)))


main = main_of(run, EvaluateTowerOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
