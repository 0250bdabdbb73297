"""The cascade of two rankers: its order, its probabilities, and both through the commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cross_encoder import predict as predict_ce
from paddle_ranker import Ranker
from paddle_ranker.__main__ import main
from paddle_ranker.errors import UsageError
from paddle_ranker.evaluation.cascade_cost import cascade_scores, time_ways
from paddle_ranker.metrics.measures import evaluate_ranking
from paddle_ranker.model.model_folder import RANKER, load_model
from paddle_ranker.scoring.cascade import Cascade, chosen, parse_cascade, rerank, rerank_probabilities
from tests.conftest import Call
from tests.tiny import HAN, draw_words, write_ranker

CPU = ["--device", "cpu"]
TITLES = 9


@pytest.mark.unit
@pytest.mark.parametrize(
    ("text", "expected"), [("small:5", ("small", 5)), ("a/b", ("a/b", 20)), ("c:d:7", ("c:d", 7)), ("x:y", ("x:y", 20))]
)
def test_what_a_cascade_is_called(text: str, expected: tuple[str, int]) -> None:
    assert parse_cascade(text) == expected


@pytest.mark.unit
@pytest.mark.parametrize("text", ["small:0", "small:-3", ":20", ""])
def test_what_is_no_cascade(text: str) -> None:
    with pytest.raises(UsageError, match="no cascade: give SMALL_RANKER:TITLES"):
        parse_cascade(text)


@pytest.mark.unit
def test_the_best_are_reranked_and_the_others_stay_below() -> None:
    small = np.array([0.1, 0.9, 0.5, 0.7, 0.5])
    best = chosen(small, 2)
    assert best.tolist() == [1, 3]
    order, scores = rerank(small, best, np.array([0.3, 0.6]))
    assert order.tolist() == [3, 1, 2, 4, 0]  # 2 and 4 tie
    assert scores[:2].tolist() == [0.6, 0.3]
    assert scores[2] == np.nextafter(0.3, 0) and scores[3] == np.nextafter(scores[2], 0)
    assert scores[4] == 0.1  # low enough as it is


@pytest.mark.unit
def test_probabilities_fall_as_they_are_printed() -> None:
    random = np.random.default_rng(0)
    for count in (1, 2, 30):
        small, large = random.random(count), random.random(count)
        best = chosen(small, 7)
        order, probabilities = rerank_probabilities(small, best, large[best])
        assert sorted(order.tolist()) == list(range(count))
        assert probabilities.dtype == np.float32 and (np.diff(probabilities[len(best) - 1 :]) < 0).all()
        assert (np.diff(probabilities) <= 0).all() and probabilities.min() >= 0
    order, probabilities = rerank_probabilities(np.array([0.9, 0.8, 0.7]), np.array([0]), np.array([0.0]))
    assert (order.tolist(), probabilities.tolist()) == ([0, 1, 2], [0, 0, 0])
    empty = rerank(np.zeros(0), chosen(np.zeros(0), 3), np.zeros(0))
    assert [len(part) for part in empty] == [0, 0]
    # deep enough it is the large ranker
    small, large = np.random.default_rng(1).random((2, 12))
    order, scores = rerank(small, chosen(small, 12), large)
    assert order.tolist() == np.argsort(-large).tolist() and scores.tolist() == sorted(large, reverse=True)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("cascade")
    return write_ranker(folder / "large", kind="cross_encoder"), write_ranker(folder / "small", seed=2, match=False)


@pytest.fixture(scope="module")
def rows(folders: tuple[Path, Path]) -> list[tuple[str, str, int]]:
    """Queries with titles in turns, so that no query's rows stand together."""
    random, words = draw_words(12)
    queries = [f"{word}{number}" for number, word in enumerate(words)]
    return [(query, "".join(random.choice(HAN, 6)), int(random.randint(3))) for _ in range(TITLES) for query in queries]


@pytest.fixture(scope="module")
def pairs_file(folders: tuple[Path, Path], rows: list[tuple[str, str, int]]) -> Path:
    path = folders[0].parent / "pairs.tsv"
    path.write_text("".join(f"{query}\t{title}\n" for query, title, _ in rows), encoding="utf-8")
    return path


@pytest.mark.parity
def test_the_order_is_that_of_its_two_stages(folders: tuple[Path, Path], rows: list[tuple[str, str, int]]) -> None:
    large, small = map(Ranker.load, folders)
    titles = [title for _, title, _ in rows[:20]]
    found = Cascade(large, small, depth=6).rank("水稻病害", titles)
    by_small = [one.index for one in small.rank("水稻病害", titles)]
    expected = large.rank("水稻病害", [titles[place] for place in sorted(by_small[:6])])
    assert [one.title for one in found[:6]] == [one.title for one in expected]
    assert [one.index for one in found[6:]] == by_small[6:]
    assert [one.probability for one in found[:6]] == pytest.approx([one.probability for one in expected], abs=1e-6)
    assert [one.probability for one in found] == sorted((one.probability for one in found), reverse=True)
    assert Cascade(large, small, depth=6).rank("水稻病害", titles, 8) == found[:8]
    cut = found[9].probability
    kept = Cascade.load(*folders, depth=6).rank("水稻病害", titles, min_probability=cut)
    assert len(kept) == 10
    with pytest.raises(UsageError, match="from 0 to 1"):
        Cascade(large, small).rank("水稻病害", titles, min_probability=2)
    with pytest.raises(UsageError, match="at least 1"):
        Cascade(large, small, 0)


@pytest.mark.parity
@pytest.mark.parametrize(("depth", "top_k"), [(3, 5), (4, 2)])
def test_the_commands_rank_as_the_cascade_does(
    folders: tuple[Path, Path], rows: list[tuple[str, str, int]], pairs_file: Path, call: Call, depth: int, top_k: int
) -> None:
    cascade = Cascade.load(*folders, depth=depth)
    expected, everything = {}, []
    for query in dict.fromkeys(query for query, _, _ in rows):
        ranked = cascade.rank(query, [title for other, title, _ in rows if other == query])
        expected[query] = [(one.title, one.probability) for one in ranked[:top_k]]
        everything += [one.probability for one in ranked]
    common = ["--params_path", folders[0], "--cascade", f"{folders[1]}:{depth}", *CPU]
    rank = ["rank", *common, "--input_file", pairs_file, "--top_k", top_k, "--format", "jsonl"]
    found = [json.loads(line) for line in call(main, *rank)[1].splitlines()]
    assert [one["query"] for one in found] == list(expected)
    for one in found:
        titles, probabilities = zip(*expected[one["query"]])
        assert [title["title"] for title in one["titles"]] == [*titles]
        assert [title["probability"] for title in one["titles"]] == pytest.approx(probabilities, abs=1e-6)
    common += ["--test_set", pairs_file]
    _, printed, _ = call(predict_ce.main, *common, "--topk", top_k)
    assert len(printed.splitlines()) == sum(map(len, expected.values()))
    falling = np.array(sorted(everything, reverse=True))
    kept = 20 + int(np.argmin(np.diff(falling[19:80])))  # cut where probabilities are farthest apart
    cut = ["--topk", 99, "--min_probability", falling[kept - 1 : kept + 1].mean()]
    _, printed, errors = call(predict_ce.main, *common, *cut)
    assert len(printed.splitlines()) == kept and f"{108 - kept} of 108 pairs are below" in errors


@pytest.mark.unit
def test_scores_of_a_file_order_each_query_as_the_cascade_does() -> None:
    small = np.array([0.3, 0.9, -0.5, 0.7, 0.1, 0.2])
    large = np.array([-2.0, -1.0, 9.0, -0.5, 5.0, 6.0])
    groups = [np.array([0, 2, 4]), np.array([1, 3, 5])]
    scores = cascade_scores(groups, large, small, 2)
    assert scores[[0, 4]].tolist() == [-2.0, 5.0] and scores[[1, 3]].tolist() == [-1.0, -0.5]
    assert scores[2] == np.nextafter(-2.0, -np.inf)  # 9 by the large one, which does not see it
    assert scores[5] == np.nextafter(-1.0, -np.inf)
    assert cascade_scores(groups, large, small, 3).tolist() == large.tolist()


@pytest.mark.unit
def test_ways_are_timed_in_turns_and_the_best_round_counts() -> None:
    now, calls = [0.0], []

    def way(name: str, seconds: list[float]) -> Callable[[np.ndarray], None]:
        def run(rows: np.ndarray) -> None:
            calls.append((name, len(rows)))
            now[0] += seconds.pop(0)

        return run

    groups = [np.arange(2), np.arange(4)]
    ways = {"a": way("a", [9.0, 1.0, 3.0, 2.0, 2.0]), "b": way("b", [9.0, 0.5, 0.5, 0.25, 1.0])}
    timings = time_ways(ways, groups, 2, lambda: now[0])
    assert [(one.name, one.mean, one.median, one.titles_per_second) for one in timings] == [
        ("a", 1500.0, 1500.0, 2.0),  # 1 s and 2 s
        ("b", 375.0, 375.0, 8.0),  # 0.25 s and 0.5 s
    ]
    assert calls[2:6] == [("a", 2), ("b", 2), ("a", 4), ("b", 4)]


@pytest.mark.parity
def test_the_command_measures_the_cascade(
    folders: tuple[Path, Path], rows: list[tuple[str, str, int]], call: Call
) -> None:
    path = folders[0].parent / "dev.tsv"
    lines = [f"{query}\t{title}\t{label}\n" for query, title, label in rows]
    path.write_text("query\ttitle\tlabel\n" + "".join(lines), encoding="utf-8")
    arguments = ["--test_file", path, "--rounds", 1, "--timed_queries", 2, *CPU]
    found = json.loads(call(main, "cascade", folders[0], f"{folders[1]}:3", *arguments, "--format", "json")[1])
    assert found["titles_seen_by_large"] == 12 * 3 and set(found["milliseconds"]) == {"large", "small", "cascade:3"}
    cascade = Cascade.load(*folders, depth=3)
    queries, titles, labels = [list(column) for column in zip(*rows)]
    places = np.empty(len(rows))
    for query in dict.fromkeys(queries):
        own = [row for row, other in enumerate(queries) if other == query]
        for place, one in enumerate(cascade.rank(query, [titles[row] for row in own])):
            places[own[one.index]] = -place
    figures = found["systems"]["cascade:3"]["measures"]
    expected = evaluate_ranking(queries, labels, places)
    for measure in ("ndcg@10", "mrr@10"):
        assert figures[measure]["value"] == pytest.approx(expected[measure], abs=1e-9)
    status, printed, _ = call(main, "cascade", folders[0], f"{folders[1]}:{TITLES}", *arguments)
    assert status == 0 and f"the large ranker scores {len(rows)} of the {len(rows)} titles (100%)" in printed
    assert "+0.000 [+0.000, +0.000]" in printed and "times as fast as the large one" in printed


@pytest.mark.parity
def test_a_run_of_an_exported_ranker_is_in_the_cascade_s_order(
    folders: tuple[Path, Path], rows: list[tuple[str, str, int]], pairs_file: Path, call: Call
) -> None:
    from deploy.python import predict as deploy_predict
    from paddle_ranker.export.static_graph import export_model

    exported = folders[0].parent / "exported"
    export_model(load_model(folders[0], RANKER), exported)
    arguments = ["--model_dir", exported, "--input_file", pairs_file, "--cascade", f"{folders[1]}:4", *CPU]
    lines = [line.split() for line in call(deploy_predict.main, *arguments, "--format", "run")[1].splitlines()]
    cascade = Cascade.load(*folders, depth=4)
    expected = []
    for number, query in enumerate(dict.fromkeys(query for query, _, _ in rows), start=1):
        own = [row for row, (other, _, _) in enumerate(rows, start=1) if other == query]
        ranked = cascade.rank(query, [rows[row - 1][1] for row in own])
        expected += [(f"q{number}", f"d{own[one.index]}", str(place)) for place, one in enumerate(ranked, start=1)]
    assert [(query, document, place) for query, _, document, place, _, _ in lines] == expected
    status, _, errors = call(deploy_predict.main, *arguments, "--format", "jsonl")
    assert status == 2 and "add --format run" in errors
