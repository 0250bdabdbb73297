"""Mined negatives: each guard by hand, never a known answer, the same every time, and through the door."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paddle_ranker.commands.mine import MineOptions, main
from paddle_ranker.data.rows.records import (
    LabeledPair,
    Pair,
    Record,
    Triple,
    open_as_one_of,
    read_records,
    write_records,
)
from paddle_ranker.errors import DataError
from paddle_ranker.model.encoder_loading import read_checkpoint
from paddle_ranker.model.tower import TowerInfo
from paddle_ranker.model.tower_network import save_tower, start_tower
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.stored.candidate_indexes import INDEXES, Document, IndexOptions
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from paddle_ranker.scoring.scorer import BatchRunner
from paddle_ranker.storage.atomic import make_folder
from paddle_ranker.training.mining import (
    ITSELF,
    KNOWN,
    NEAR,
    Candidate,
    Choice,
    Miner,
    group_judgments,
    judged_pairs,
    text_key,
)
from tests.conftest import Call
from tests.tiny import HAN, write_encoder, write_index, write_tower

unit = pytest.mark.unit
# By bigrams, 水稻病害 finds those with the most of 水稻, 稻病, 病害 first.
CORPUS = ["水稻病害诊断", "水稻病虫", "病害统计", "水稻种植", "老年人护理"]
RANKED = ["水稻病害诊断", "水稻病虫", "病害统计", "水稻种植"]


def options(**changes: Any) -> MineOptions:
    values = {"queries": "in", "output_file": "out", "words": "bigram", "sample": "top", "negatives": 9, **changes}
    return MineOptions(**values)


class FakeRanker:
    """Gives each title the probability it is told to."""

    def __init__(self, **probabilities: float) -> None:
        self.probabilities = probabilities

    def score(self, queries: Sequence[str], titles: Sequence[str]) -> np.ndarray:
        assert len(queries) == len(titles)
        return np.array([self.probabilities[title] for title in titles])


def mine(pairs: list[LabeledPair], corpus: list[str], scorer: Any = None, **changes: Any) -> tuple[list[Any], Counter]:
    chosen = options(**changes)
    documents = (Document(f"d{number}", title) for number, title in enumerate(corpus))
    index = INDEXES["bm25"].build(documents, IndexOptions("bigram"))
    miner = Miner(index, chosen.choice, scorer)
    return list(miner.mine(group_judgments(pairs))), miner.counts


def negatives(pairs: list[LabeledPair], corpus: list[str], scorer: Any = None, **changes: Any) -> list[str]:
    return [triple.neg_title for triple in mine(pairs, corpus, scorer, **changes)[0]]


POSITIVE = LabeledPair("水稻病害", "稻田的病", 1)


@unit
def test_the_nearest_titles_in_the_order_of_bm25() -> None:
    triples, counts = mine([POSITIVE], CORPUS)
    assert triples == [Triple("水稻病害", "稻田的病", title) for title in RANKED]  # 老年人护理 shares nothing
    assert counts["negatives"] == 4 and counts["positives with fewer negatives than asked for"] == 1
    assert negatives([POSITIVE], CORPUS, negatives=2) == RANKED[:2]


@unit
def test_only_ranks_of_the_window_are_taken() -> None:
    assert negatives([POSITIVE], CORPUS, rank_from=2, rank_to=3) == RANKED[1:3]
    # Ranks are those of titles that nobody has called an answer: leaving the first out moves the others up.
    answers = [POSITIVE, LabeledPair("水稻病害", RANKED[0], 1)]
    assert negatives(answers, CORPUS, rank_from=2, rank_to=3) == RANKED[2:4] * 2
    ranker = FakeRanker(**dict(zip(RANKED, [0.1, 0.2, 0.3, 0.4])), 稻田的病=0.9)  # sees the first two alone
    assert negatives([POSITIVE], CORPUS, ranker, ranker="f", rerank=2, rank_to=2) == RANKED[1::-1]


@unit
@pytest.mark.parametrize("spelling", ["水稻病害诊断", " 水稻病害诊断。", "《水稻》病害·诊断", "水 稻 病害诊断"])
def test_a_known_answer_is_never_a_negative_however_it_is_spelled(spelling: str) -> None:
    triples, counts = mine([LabeledPair("水稻病害", spelling, 1)], CORPUS)
    assert [triple.neg_title for triple in triples] == RANKED[1:]
    assert {triple.title for triple in triples} == {spelling} and counts[KNOWN] == 1
    pairs = [LabeledPair("水稻病害", "病害统计", 1), LabeledPair("水稻病害？", "水稻种植", 1)]  # of a query's spellings
    assert negatives(pairs, CORPUS) == RANKED[:2] * 2


@unit
def test_letter_case_and_width_make_no_difference() -> None:
    assert text_key("ＡＢＣ－12 x") == text_key("abc12X") == "abc12x"
    assert text_key(" ？！") == text_key("?!") != text_key("!")  # nothing but signs: they are what is compared


@unit
def test_a_title_graded_below_the_positives_is_no_negative_either() -> None:
    pairs = [LabeledPair("水稻病害", "稻田的病", 2), LabeledPair("水稻病害", "水稻病虫", 1)]
    triples, counts = mine(pairs, CORPUS, min_label=2)
    assert [(t.title, t.neg_title) for t in triples] == [("稻田的病", t) for t in RANKED if t != "水稻病虫"]
    assert counts[KNOWN] == 1
    judged_zero = [POSITIVE, LabeledPair("水稻病害", "水稻病虫", 0)]
    assert "水稻病虫" in negatives(judged_zero, CORPUS)


@unit
def test_the_query_itself_is_no_negative_and_a_repeated_text_is_one() -> None:
    triples, counts = mine([POSITIVE], ["水稻病虫", *CORPUS, "水稻病害!", "水稻病虫。"])
    assert sorted(triple.neg_title for triple in triples) == sorted(RANKED) and counts[ITSELF] == 1


@unit
def test_a_ranker_orders_anew_and_bars_what_it_scores_like_the_positive() -> None:
    ranker = FakeRanker(**dict(zip(RANKED, [0.10, 0.78, 0.60, 0.77])), 稻田的病=0.8)
    # 0.95 x 0.8 = 0.76: 0.78 and 0.77 are too near.
    triples, counts = mine([POSITIVE], CORPUS, ranker, ranker="folder")
    assert [triple.neg_title for triple in triples] == ["病害统计", "水稻病害诊断"] and counts[NEAR] == 2
    assert negatives([POSITIVE], CORPUS, ranker, ranker="f", margin=0.025) == ["水稻种植", "病害统计", "水稻病害诊断"]
    assert negatives([POSITIVE], CORPUS, ranker, ranker="f", max_score_ratio=0.5) == ["水稻病害诊断"]
    assert negatives([POSITIVE], CORPUS, ranker, ranker="f", margin=0.3, max_score_ratio=1) == ["水稻病害诊断"]
    # The window is one of the ranker's ranks.
    assert negatives([POSITIVE], CORPUS, ranker, ranker="f", margin=0, rank_from=2, rank_to=3) == RANKED[3:1:-1]


@unit
def test_each_positive_has_its_own_limit() -> None:
    ranker = FakeRanker(**dict(zip(RANKED, [0.3, 0.5, 0.1, 0.7])), 稻田的病=0.8, 病=0.4)
    triples, _ = mine([POSITIVE, LabeledPair("水稻病害", "病", 1)], CORPUS, ranker, ranker="f", max_score_ratio=1)
    assert [t.neg_title for t in triples if t.title == "病"] == ["水稻病害诊断", "病害统计"]
    assert len([t for t in triples if t.title == "稻田的病"]) == 4


@unit
def test_a_nan_probability_is_never_a_negative() -> None:
    choice = Choice(4, 1, 9, "top", 1, 0.95, None)
    window = [Candidate("a", float("nan")), Candidate("b", 0.1)]
    assert choice.choose("q", Candidate("p", 0.9), window, Counter()) == [Candidate("b", 0.1)]


@unit
def test_pairs_hold_what_was_judged_and_each_negative_once() -> None:
    judged = [POSITIVE, LabeledPair("水稻病害", "病害统计", 0), LabeledPair("水稻病害", "病", 2)]
    rows, counts = mine(judged, CORPUS, format="pairs")
    mined = [LabeledPair("水稻病害", title, 0) for title in RANKED if title != "病害统计"]
    assert rows == judged + mined and counts["negatives"] == 3


@unit
def test_what_is_not_found_is_counted() -> None:
    pairs = [POSITIVE, LabeledPair("玉米", "玉米地", 1), LabeledPair("护理", "x", 0)]
    triples, counts = mine(pairs, CORPUS)
    assert {triple.query for triple in triples} == {"水稻病害"}
    assert (counts["queries"], counts["queries without a candidate"], counts["queries without a positive"]) == (2, 1, 1)
    with pytest.raises(DataError, match=r"not one negative was found \(queries without a candidate: 1"):
        mine([LabeledPair("玉米", "玉米地", 1)], CORPUS)


def drawn_data(seed: int) -> tuple[list[LabeledPair], list[str]]:
    dice = random.Random(seed)
    titles = ["".join(dice.choices("水稻病害诊断研究", k=dice.randint(3, 6))) for _ in range(120)]
    pairs = [
        LabeledPair("".join(dice.choices("水稻病害诊断研究", k=3)), dice.choice(titles), dice.choice([0, 1, 2]))
        for _ in range(90)
    ]
    return pairs, list(dict.fromkeys(titles))


@unit
@pytest.mark.parametrize("sample", ["top", "random"])
def test_never_a_known_answer_never_twice_and_the_same_in_any_order(sample: str) -> None:
    for seed in range(4):
        pairs, corpus = drawn_data(seed)
        triples, _ = mine(pairs, corpus, sample=sample, negatives=3, rank_to=8)
        answers = {(pair.query, pair.title) for pair in pairs if pair.label > 0}
        assert {(triple.query, triple.title) for triple in triples} <= answers
        assert not {(triple.query, triple.neg_title) for triple in triples} & answers
        assert len(set(triples)) == len(triples) > 90
        assert triples == mine(pairs, corpus, sample=sample, negatives=3, rank_to=8)[0]
        random.Random(seed).shuffle(pairs)
        assert set(triples) == set(mine(pairs, corpus, sample=sample, negatives=3, rank_to=8)[0])


@unit
def test_draws_follow_the_seed_and_stay_in_the_window() -> None:
    pairs, corpus = drawn_data(1)
    first, second = (mine(pairs, corpus, sample="random", negatives=2, rank_to=6, seed=seed)[0] for seed in (1, 2))
    assert first != second
    widest = mine(pairs, corpus, negatives=6, rank_to=6)[0]
    assert set(first) | set(second) <= set(widest)


@unit
def test_random_titles_are_different_ones_and_follow_seed_and_query() -> None:
    def draw(queries: list[str], size: int = 50, seed: int = 1) -> list[list[str]]:
        documents = [Document(str(number), f"title {number}") for number in range(size)]
        index = INDEXES["random"].build(documents, IndexOptions(seed=seed))
        return [found.ids for found in index.search(queries, 20)]

    first, again, other = draw(["q", "q", "r"])
    assert first == again != other and len(set(first)) == 20
    assert draw(["q"], seed=2) != [first]
    assert sorted(draw(["q"], size=3)[0]) == ["0", "1", "2"]


@unit
@pytest.mark.parametrize(
    "records, role, judged",
    [
        ([LabeledPair("q", "a", 2)], LabeledPair, [("a", 2)]),
        ([Triple("q", "a", "b")], Triple, [("a", 1), ("b", 0)]),
        ([Pair("q", "a")], Pair, [("a", 1)]),
        ([LabeledPair("q", "a", 1, 0.5)], LabeledPair, [("a", 1)]),
    ],
)
@pytest.mark.parametrize("header", [True, False])
def test_the_role_of_a_file_is_told_by_its_rows(
    tmp_path: Path, records: list[Record], role: type[Record], judged: list[tuple[str, float]], header: bool
) -> None:
    write_records(tmp_path / "in.tsv", records)
    if not header:
        write(tmp_path / "in.tsv", (tmp_path / "in.tsv").read_text(encoding="utf-8").partition("\n")[2])
    source = open_as_one_of(str(tmp_path / "in.tsv"), (LabeledPair, Triple, Pair))
    assert source.kind is role
    assert list(judged_pairs(source)) == [LabeledPair("q", title, label) for title, label in judged]


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


@unit
def test_the_command_counts_what_it_did(tmp_path: Path, call: Call) -> None:
    queries = write(tmp_path / "in.tsv", "水稻病害\t水稻病害诊断\n玉米\t玉米地\n")
    corpus = write(tmp_path / "corpus.txt", "text\n" + "\n".join([*CORPUS, "水稻病虫。"]) + "\n")
    out = str(tmp_path / "out.tsv")
    arguments = ["--queries", queries, "--corpus", corpus, "--output_file", out, "--words", "bigram"]
    status, printed, _ = call(main, *arguments, "--negatives", 3)
    assert status == 0 and set(read_records(out, Triple)) == {
        Triple("水稻病害", "水稻病害诊断", title) for title in RANKED[1:]
    }
    for counted in (
        "2 queries, 2 positives", "5 different titles, 1 repeat one of them (line 7)", "3 negatives of 2 queries",
        "known answers: 1; queries without a candidate: 1",
    ):  # fmt: skip
        assert counted in printed
    assert call(main, *arguments, "--format", "pairs")[0] == 0
    assert [pair.label for pair in read_records(out, LabeledPair)] == [1, 0, 0, 0, 1]
    assert call(main, "--queries", queries, "--output_file", out, "--method", "random")[0] == 0
    assert read_records(out, Triple) == [
        Triple("水稻病害", "水稻病害诊断", "玉米地"),
        Triple("玉米", "玉米地", "水稻病害诊断"),
    ]


@pytest.mark.parity
def test_with_a_trained_ranker_through_the_door(tmp_path: Path) -> None:
    from paddle_ranker.scoring.ranker import Ranker
    from tests.tiny import write_ranker

    folder = write_ranker(tmp_path / "ranker")
    queries = write(tmp_path / "in.tsv", "水稻病害\t稻田的病\n")
    corpus, out = write(tmp_path / "corpus.txt", "\n".join(CORPUS) + "\n"), str(tmp_path / "out.tsv")
    arguments = ["--queries", queries, "--corpus", corpus, "--output_file", out, "--words", "bigram", "--sample", "top"]
    ranked = [*arguments, "--ranker", str(folder), "--device", "cpu"]
    ranker = Ranker.load(folder)
    positive = ranker.score(["水稻病害"], ["稻田的病"])[0]
    scores = dict(zip(RANKED, ranker.score(["水稻病害"] * 4, RANKED)))
    below = [title for title in sorted(RANKED, key=lambda title: -scores[title]) if scores[title] <= positive]
    assert below, "the tiny ranker scores all above the positive: choose another seed"
    assert main([*ranked, "--margin", "0"]) == 0
    assert [triple.neg_title for triple in read_records(out, Triple)] == below
    limit = 0.999 * scores[below[0]] / positive
    assert main([*ranked, "--max_score_ratio", str(limit)]) == 0
    assert [triple.neg_title for triple in read_records(out, Triple)] == below[1:]


@unit
def test_a_tower_finds_what_its_vectors_are_near_to_and_no_title_as_near_as_the_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, _ = start_tower(read_checkpoint(write_encoder(tmp_path / "encoder")), TowerInfo(16, 16, pooling="mean"))
    make_folder(tmp_path / "tower")
    save_tower(tmp_path / "tower", model, model.info)
    (tmp_path / "queries.tsv").write_text("水稻病害\t水稻研究\n老年人\t老年人护理\n", encoding="utf-8")
    (tmp_path / "corpus.tsv").write_text("\n".join([*CORPUS, *HAN]) + "\n", encoding="utf-8")
    files = ["--queries", tmp_path / "queries.tsv", "--corpus", tmp_path / "corpus.tsv"]
    more = ["--output", tmp_path / "out.tsv", "--negatives", 3, "--sample", "top", "--device", "cpu"]
    assert main([*map(str, [*files, "--tower", tmp_path / "tower", "--max_score_ratio", 0.99, *more])]) == 0
    found: dict[str, list[str]] = {}
    for row in read_records(tmp_path / "out.tsv", Triple):
        found.setdefault(row.query, []).append(row.neg_title)

    texts = [*CORPUS, *dict.fromkeys(HAN)]
    tower = Tower.open(tmp_path / "tower")
    for query, title in (("水稻病害", "水稻研究"), ("老年人", "老年人护理")):
        cosines = tower.vectors(texts) @ tower.query_vectors([query])[0]
        own = float(tower.vectors([title])[0] @ tower.query_vectors([query])[0])
        ranked = [texts[place] for place in np.argsort(-cosines, kind="stable") if texts[place] != title][:50]
        assert found.get(query, []) == [text for text in ranked if cosines[texts.index(text)] <= 0.99 * own][:3]
    assert "scores too near the positive's: " in capsys.readouterr().out

    with Collection.create(tmp_path / "index", IndexInfo(WordsInfo("bigram"), None)) as collection:
        collection.writer.add(Document(str(number), text) for number, text in enumerate(CORPUS))
    assert main([*map(str, [*files[:2], "--index", tmp_path / "index", *more])]) == 0
    assert {row.neg_title for row in read_records(tmp_path / "out.tsv", Triple)} == set(RANKED[:3])


@unit
@pytest.mark.parametrize("form", ["triples", "pairs"])
def test_columns_that_mined_negatives_cannot_have_are_named(tmp_path: Path, call: Call, form: str) -> None:
    rows = "query\ttitle\tlabel\tteacher_score\tposition\n水稻病害\t稻田的病\t1\t0.5\t2\n"
    queries, corpus = write(tmp_path / "in.tsv", rows), write(tmp_path / "corpus.txt", "\n".join(CORPUS) + "\n")
    files = ["--queries", queries, "--corpus", corpus, "--output", tmp_path / "out.tsv"]
    status, _, errors = call(main, *files, "--format", form, "--words", "bigram")
    assert status == 0 and "teacher_score, position" in errors


@unit
def test_batch_size_is_the_towers_whether_it_is_named_or_of_an_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tower = write_tower(tmp_path / "tower")
    folder = write_index(tmp_path / "index", tower, [Document(str(place), text) for place, text in enumerate(CORPUS)])
    queries = write(tmp_path / "queries.tsv", "水稻病害\t稻田的病\n")
    corpus, taken = write(tmp_path / "corpus.txt", "\n".join(CORPUS) + "\n"), list[int]()

    class Noted(BatchRunner):
        def __init__(self, engine: Any, max_seq_length: int, batch_size: int = 32):
            taken.append(batch_size)
            super().__init__(engine, max_seq_length, batch_size)

    monkeypatch.setattr("paddle_ranker.retrieval.vectors.text_vectors.BatchRunner", Noted)
    more = ["--output", str(tmp_path / "out.tsv"), "--device", "cpu", "--batch_size", "7"]
    for given in (["--corpus", corpus, "--tower", str(tower), "--margin", "0"], ["--index", str(folder)]):
        assert main(["--queries", queries, *given, *more]) == 0
    assert taken == [7, 7]
