"""Lexical features inside the graph: against plain loops, alone, in a batch, padded and exported; and in a head."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import paddle
import pytest

from paddle_ranker.encoding.columns import EncodedPairs
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.errors import CheckpointError, DataError
from paddle_ranker.lexical.graph import GRAPH_FEATURES, LONGEST_RUN, lexical_features
from paddle_ranker.lexical.head import LexicalHead, title_statistics
from paddle_ranker.lexical.token_comparison import Compared
from paddle_ranker.model.hugging_face.folder import parameters_to_write
from paddle_ranker.model.model_folder import RANKER, load_model
from paddle_ranker.model.network import RankerNetwork
from paddle_ranker.model.ranker_folder import Fresh, save_ranker, start_ranker
from tests.model.test_match_levels import SPECIALS, build
from tests.tiny import CONFIG, QUERIES, TITLES, write_ranker, write_tokenizer

pytestmark = pytest.mark.unit
K1, B = 1.2, 0.75
IDF = np.where(np.arange(40) < 5, 0.0, np.random.RandomState(3).uniform(0.5, 6.0, 40)).astype(np.float32)
AVERAGE = 6.0


def oracle(query: list[int], title: list[int]) -> list[float]:
    """Compute the features of two texts with sets and loops."""
    grams: dict[str, tuple[list[tuple[int, ...]], list[tuple[int, ...]]]] = {}
    for name, n in (("token", 1), ("bigram", 2)):
        both = []
        for text in (query, title):
            windows = [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]
            both.append([window for window in windows if not set(window) & set(SPECIALS)])
        grams[name] = (both[0], both[1])
    query_length, title_length = len(grams["token"][0]), len(grams["token"][1])

    def rarity(gram: tuple[int, ...]) -> float:
        return sum(float(IDF[token]) for token in gram)

    def bm25(of: list[tuple[int, ...]], within: list[tuple[int, ...]], length: int) -> float:
        norm = K1 * (1 - B + B * length / AVERAGE)
        return sum(rarity(g) * within.count(g) * (K1 + 1) / (within.count(g) + norm) for g in of)

    def share(of: list[tuple[int, ...]], held: list[tuple[int, ...]]) -> float:
        total = sum(map(rarity, set(of)))
        return sum(map(rarity, set(of) & set(held))) / total if total else 0.0

    def about(name: str) -> dict[str, float]:
        of, held = grams[name]
        score, best = bm25(of, held, title_length), bm25(of, of, query_length)
        either = set(of) | set(held)
        return {
            f"bm25_{name}s": score,
            f"bm25_{name}s_normalised": score / best if best else 0.0,
            f"coverage_{name}s": share(of, held),
            f"jaccard_{name}s": len(set(of) & set(held)) / len(either) if either else 0.0,
            f"rarest_missing_{name}": max((rarity(g) for g in of if g not in held), default=0.0),
        }

    values = {**about("token"), **about("bigram")}
    if query_length == 1:
        values.update({name.replace("token", "bigram"): value for name, value in about("token").items()})
    run = 0
    for i in range(len(query)):
        for j in range(len(title)):
            n = 0
            while (
                i + n < len(query)
                and j + n < len(title)
                and query[i + n] == title[j + n]
                and query[i + n] not in SPECIALS
            ):
                n += 1
            run = max(run, min(n, LONGEST_RUN))
    shared = set(grams["bigram"][0])
    matches = [place for place, gram in enumerate(grams["bigram"][1]) if gram in shared]
    places = max(len(grams["bigram"][1]), 1)
    first, last = (matches[0], matches[-1]) if matches else (places, places)
    length = max(query_length, 1)
    values.update(
        longest_run=run / length,
        whole_query=float(run == query_length > 0),
        query_length=math.log1p(query_length),
        title_length=math.log1p(title_length),
        first_match=first / places,
        last_match=last / places,
        match_span=min((last - first + 2) / length, 5.0) if matches else 0.0,
        title_matched=share(grams["token"][1], grams["token"][0]),
    )
    return [values[name] for name in GRAPH_FEATURES]


def compute(rows: list[tuple[list[int], list[int]]], length: int) -> np.ndarray:
    ids, types = (np.array(column) for column in zip(*(build(query, title, length) for query, title in rows)))
    idf, average = paddle.to_tensor(IDF), paddle.to_tensor([AVERAGE])
    pair = Compared(paddle.to_tensor(ids), paddle.to_tensor(types))
    features: np.ndarray = lexical_features(pair, idf, average, SPECIALS).numpy()
    return features


def draw(count: int, longest: int = 12) -> list[tuple[list[int], list[int]]]:
    random = np.random.RandomState(0)
    rows = []
    for _ in range(count):
        query, title = (random.randint(4, 14, random.randint(1, longest)).tolist() for _ in range(2))  # 4 is [UNK]
        if random.rand() < 0.5:  # part of the query, or all of it, somewhere in the title
            place, start = random.randint(0, len(title) + 1), random.randint(0, len(query))
            title[place:place] = query[start:] if random.rand() < 0.5 else query
        rows.append((query, title))
    return rows


LONG = [5 + i % 31 for i in range(70)]  # 31 is odd to every doubling
ROWS = [
    *draw(200),
    *((LONG[:length], [39, *LONG[:length]]) for length in (31, 33, 63, 64, 70)),  # runs up to and beyond the limit
    ([10, 11, 12], [20, 10, 11, 12, 11]),
    ([10], [10]),  # one token each
    ([10], [11, 10]),
    ([4], [4]),  # only [UNK]
    ([4, 4], [10, 4]),
    ([10, 11], [12, 13]),  # nothing shared
    ([10, 10, 10], [10, 10]),
    ([10, 4, 11], [10, 4, 11]),  # [UNK] ends a bigram and a run
]


def test_random_pairs_equal_plain_loops() -> None:
    expected = np.array([oracle(*row) for row in ROWS])
    found = compute(ROWS, 150)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    for number, name in enumerate(GRAPH_FEATURES):
        np.testing.assert_allclose(found[:, number], expected[:, number], rtol=2e-5, atol=2e-5, err_msg=name)
    assert (expected.std(axis=0) > 0.05).all()  # no feature is the same in all pairs


def test_by_hand() -> None:
    a, b, c, d = (float(value) for value in IDF[[10, 11, 12, 20]])
    named = dict(zip(GRAPH_FEATURES, compute([([10, 11, 12], [20, 10, 11])], 16)[0].tolist()))
    bm25 = (a + b) * 2.2 / (1 + 1.2 * (0.25 + 0.75 * 3 / 6))
    expected = {
        "bm25_tokens": bm25,
        "bm25_tokens_normalised": (a + b) / (a + b + c),  # lengths are equal
        "bm25_bigrams": bm25,
        "coverage_bigrams": (a + b) / (a + b + b + c),
        "longest_run": 2 / 3,
        "whole_query": 0.0,
        "jaccard_tokens": 2 / 4,
        "jaccard_bigrams": 1 / 3,
        "first_match": 1 / 2,
        "last_match": 1 / 2,
        "match_span": 2 / 3,
        "rarest_missing_token": c,
        "rarest_missing_bigram": b + c,
        "title_matched": (a + b) / (a + b + d),
    }
    assert {name: named[name] for name in expected} == pytest.approx(expected, rel=1e-5)


def test_a_pair_alone_in_a_batch_and_padded_has_the_same_features() -> None:
    together = compute(ROWS[::9], 48)
    padded = compute(ROWS[::9], 90)
    np.testing.assert_allclose(padded, together, rtol=1e-6, atol=1e-6)
    for row, expected in zip(ROWS[::9], together):
        tight = compute([row], len(row[0]) + len(row[1]) + 3)[0]
        np.testing.assert_allclose(tight, expected, rtol=1e-6, atol=1e-6)


@pytest.fixture
def learned(tmp_path: Path) -> tuple[LexicalHead, EncodedPairs]:
    write_tokenizer(tmp_path / "tokenizer")
    pairs = PairEncoder.from_folder(tmp_path / "tokenizer", 32).encode(QUERIES, TITLES)
    head = LexicalHead(CONFIG.vocab_size, SPECIALS)
    head.learn(pairs)
    return head, pairs


def pairs_of(*titles: list[int]) -> EncodedPairs:
    """Encode titles under the query [10]."""
    rows = [[1, 10, 2, *title, 2] for title in titles]
    offsets = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    return EncodedPairs(np.concatenate(rows).astype(np.int32), offsets, np.full(len(rows), 3, np.int32))


def test_titles_count_once_each() -> None:
    idf, length = title_statistics(pairs_of([11, 12, 11], [11, 4], [11, 12, 11], [13]), 20, SPECIALS)
    assert length == pytest.approx((3 + 1 + 1) / 3)  # [UNK] has no length
    assert idf.dtype == np.float32
    assert idf[11] == pytest.approx(math.log(1 + (3 - 2 + 0.5) / 2.5))
    assert idf[12] == idf[13] == pytest.approx(math.log(1 + 2.5 / 1.5))
    assert idf[14] == idf[10] == pytest.approx(math.log(1 + 3.5 / 0.5))  # in queries only, or nowhere
    assert not idf[SPECIALS].any()
    with pytest.raises(DataError, match="no titles"):
        title_statistics(EncodedPairs.concat([]), 20, SPECIALS)


def test_features_are_standardised_over_the_training_pairs(learned: tuple[LexicalHead, EncodedPairs]) -> None:
    head, pairs = learned
    rows = np.arange(len(pairs))
    values = head.of_pairs(pairs, rows, standardise=True)
    np.testing.assert_allclose(values.mean(axis=0), 0.0, atol=1e-5)
    deviation = values.std(axis=0)
    assert np.allclose(deviation[deviation > 1e-3], 1.0, atol=1e-4)
    alone = head.features(*map(paddle.to_tensor, pairs.pad([4]).values())).numpy()
    np.testing.assert_allclose(head.of_pairs(pairs, rows)[4], alone[0], atol=1e-6)
    assert head.has_learned and not LexicalHead(CONFIG.vocab_size, SPECIALS).has_learned


def test_a_new_head_adds_nothing_and_a_saved_one_comes_back(tmp_path: Path) -> None:
    plain = write_ranker(tmp_path / "plain")
    expected = load_model(plain, RANKER)
    assert expected.info.lexical_features is False and expected.network.lexical is None
    parts = start_ranker(plain, Fresh("pairwise", lexical_features=True))
    assert parts.new_parts == ["lexical"] and parts.network.lexical is not None
    pairs = parts.row_encoder.encode(QUERIES, TITLES)
    parts.network.lexical.learn(pairs)
    batch = [paddle.to_tensor(a) for a in pairs.pad(range(len(pairs))).values()]

    def logits(network: RankerNetwork) -> np.ndarray:
        network.eval()
        return np.asarray(network(*batch).numpy())

    np.testing.assert_array_equal(logits(parts.network), logits(expected.network))
    parts.network.lexical.weight.set_value(np.linspace(-1, 1, len(GRAPH_FEATURES)).astype("float32"))
    moved = logits(parts.network)
    assert np.abs(moved - logits(expected.network)).max() > 0.1
    (tmp_path / "saved").mkdir()
    save_ranker(tmp_path / "saved", parts.network, parts.row_encoder, parts.info)
    loaded = load_model(tmp_path / "saved", RANKER)
    assert loaded.info.lexical_features is True
    np.testing.assert_array_equal(logits(loaded.network), moved)
    again = start_ranker(tmp_path / "saved", Fresh("cross_encoder"))  # the option's default keeps them
    assert again.new_parts == [] and again.network.lexical is not None and again.network.lexical.has_learned


def test_transformers_has_no_place_for_it(learned: tuple[LexicalHead, EncodedPairs]) -> None:
    network = RankerNetwork(CONFIG, None, learned[0])
    named = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    with pytest.raises(CheckpointError, match="lexical features"):
        parameters_to_write(named, CONFIG, drop_match_embeddings=False)
