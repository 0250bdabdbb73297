"""Lexical features inside the graph: against plain loops, alone, in a batch, padded and exported; and at a head."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import paddle
import pytest
from paddle.static import InputSpec

from paddle_ranker.encoding.columns import EncodedPairs
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.errors import CheckpointError, DataError
from paddle_ranker.lexical.graph import GRAPH_FEATURES, LONGEST_RUN, lexical_features
from paddle_ranker.lexical.head import LexicalHead, count_titles
from paddle_ranker.model.folder import Fresh, save_ranker, start_ranker
from paddle_ranker.model.hugging_face.write import parameters_to_write
from paddle_ranker.model.info import RankerInfo
from paddle_ranker.model.kinds import load_ranker
from paddle_ranker.model.network import RankerNetwork
from tests.model.test_match import SPECIALS, build
from tests.tiny import CONFIG, PAIRS, write_ranker, write_tokenizer

pytestmark = pytest.mark.unit
K1, B = 1.2, 0.75
IDF = np.where(np.arange(40) < 5, 0.0, np.random.RandomState(3).uniform(0.5, 6.0, 40)).astype(np.float32)
AVERAGE = 6.0
QUERIES, TITLES = [list(column) for column in zip(*PAIRS)]


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
    features: np.ndarray = lexical_features(
        paddle.to_tensor(ids), paddle.to_tensor(types), idf, average, SPECIALS
    ).numpy()
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


ROWS = [
    *draw(200),
    ([10, 11, 12], [20, 10, 11, 12, 11]),
    ([10], [10]),  # one token each
    ([10], [11, 10]),
    ([4], [4]),  # nothing but [UNK]
    ([4, 4], [10, 4]),
    ([10, 11], [12, 13]),  # nothing shared
    ([10, 10, 10], [10, 10]),
    ([10, 4, 11], [10, 4, 11]),  # [UNK] ends a bigram and a run
]


def test_random_pairs_equal_plain_loops() -> None:
    expected = np.array([oracle(*row) for row in ROWS])
    found = compute(ROWS, 48)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    for number, name in enumerate(GRAPH_FEATURES):
        np.testing.assert_allclose(found[:, number], expected[:, number], rtol=2e-5, atol=2e-5, err_msg=name)
    assert (expected.std(axis=0) > 0.05).all()  # no feature is the same in all pairs


def test_by_hand() -> None:
    a, b, c, d = (float(value) for value in IDF[[10, 11, 12, 20]])
    named = dict(zip(GRAPH_FEATURES, compute([([10, 11, 12], [20, 10, 11])], 16)[0].tolist()))
    norm = 1.2 * (0.25 + 0.75 * 3 / 6)
    assert named["bm25_tokens"] == pytest.approx((a + b) * 2.2 / (1 + norm), rel=1e-5)
    assert named["bm25_tokens_normalised"] == pytest.approx((a + b) / (a + b + c), rel=1e-5)  # lengths are equal
    assert named["bm25_bigrams"] == pytest.approx((a + b) * 2.2 / (1 + norm), rel=1e-5)
    assert named["coverage_bigrams"] == pytest.approx((a + b) / (a + b + b + c), rel=1e-5)
    assert named["longest_run"] == pytest.approx(2 / 3, rel=1e-5)
    assert named["whole_query"] == 0.0
    assert named["jaccard_tokens"] == pytest.approx(2 / 4, rel=1e-5)
    assert named["jaccard_bigrams"] == pytest.approx(1 / 3, rel=1e-5)
    assert named["first_match"] == named["last_match"] == pytest.approx(1 / 2, rel=1e-5)
    assert named["match_span"] == pytest.approx(2 / 3, rel=1e-5)
    assert named["rarest_missing_token"] == pytest.approx(c, rel=1e-5)
    assert named["rarest_missing_bigram"] == pytest.approx(b + c, rel=1e-5)
    assert named["title_matched"] == pytest.approx((a + b) / (a + b + d), rel=1e-5)


def test_a_pair_alone_in_a_batch_and_padded_has_the_same_features() -> None:
    together = compute(ROWS[::9], 48)
    padded = compute(ROWS[::9], 90)
    np.testing.assert_allclose(padded, together, rtol=1e-6, atol=1e-6)
    for row, expected in zip(ROWS[::9], together):
        tight = compute([row], len(row[0]) + len(row[1]) + 3)[0]
        np.testing.assert_allclose(tight, expected, rtol=1e-6, atol=1e-6)


def test_runs_are_counted_up_to_a_limit() -> None:
    text = [5 + i % 31 for i in range(70)]  # 31 is odd to every doubling
    place = GRAPH_FEATURES.index("longest_run")
    for length in (1, 2, 31, 33, 63, 64, 70):
        query = text[:length]
        found = compute([(query, [39, *query])], 150)[0]
        assert found[place] == pytest.approx(min(length, LONGEST_RUN) / length)


def learned_head(folder: Path) -> tuple[LexicalHead, PairEncoder, EncodedPairs]:
    write_tokenizer(folder)
    encoder = PairEncoder.from_folder(folder, 32)
    pairs = encoder.encode(QUERIES, TITLES)
    head = LexicalHead(CONFIG.vocab_size, SPECIALS)
    head.learn(pairs)
    return head, encoder, pairs


def test_the_export_gives_the_same_values(tmp_path: Path) -> None:
    head, _encoder, pairs = learned_head(tmp_path)
    head.weight.set_value(np.linspace(-1, 1, len(GRAPH_FEATURES)).astype("float32"))
    network = RankerNetwork(CONFIG, SPECIALS, head)
    network.eval()
    batches = [[paddle.to_tensor(a) for a in pairs.pad(rows).values()] for rows in ([0, 1, 2, 3, 4, 5], [2])]
    expected = [network(*batch).numpy() for batch in batches]
    inputs = [InputSpec([None, None], "int64", name) for name in ("input_ids", "token_type_ids")]
    static = paddle.jit.to_static(network, input_spec=inputs, full_graph=True)
    for batch, logits in zip(batches, expected):
        np.testing.assert_allclose(static(*batch).numpy(), logits, rtol=1e-5, atol=1e-5)
    paddle.jit.save(static, str(tmp_path / "exported"))
    loaded = paddle.jit.load(str(tmp_path / "exported"))
    loaded.eval()
    for batch, logits in zip(batches, expected):
        np.testing.assert_allclose(loaded(*batch).numpy(), logits, rtol=1e-5, atol=1e-5)


def pairs_of(*titles: list[int]) -> EncodedPairs:
    """Encode titles under the query [10]."""
    rows = [[1, 10, 2, *title, 2] for title in titles]
    offsets = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    return EncodedPairs(np.concatenate(rows).astype(np.int32), offsets, np.full(len(rows), 3, np.int32))


def test_titles_count_once_each() -> None:
    idf, length = count_titles(pairs_of([11, 12, 11], [11, 4], [11, 12, 11], [13]), 20, SPECIALS)
    assert length == pytest.approx((3 + 1 + 1) / 3)  # [UNK] has no length
    assert idf.dtype == np.float32
    assert idf[11] == pytest.approx(math.log(1 + (3 - 2 + 0.5) / 2.5))
    assert idf[12] == idf[13] == pytest.approx(math.log(1 + 2.5 / 1.5))
    assert idf[14] == idf[10] == pytest.approx(math.log(1 + 3.5 / 0.5))  # in queries only, or nowhere
    assert not idf[SPECIALS].any()
    with pytest.raises(DataError, match="no titles"):
        count_titles(EncodedPairs.concat([]), 20, SPECIALS)


def test_features_are_standardised_over_the_training_pairs(tmp_path: Path) -> None:
    head, _encoder, pairs = learned_head(tmp_path)
    rows = np.arange(len(pairs))
    values = head.of_pairs(pairs, rows, standardise=True)
    np.testing.assert_allclose(values.mean(axis=0), 0.0, atol=1e-5)
    deviation = values.std(axis=0)
    assert np.allclose(deviation[deviation > 1e-3], 1.0, atol=1e-4)
    raw = head.of_pairs(pairs, rows)
    np.testing.assert_allclose(
        raw[4], head.features(*map(paddle.to_tensor, pairs.pad([4]).values())).numpy()[0], atol=1e-6
    )
    assert head.has_learned
    assert not LexicalHead(CONFIG.vocab_size, SPECIALS).has_learned


def test_a_new_head_adds_nothing_and_a_saved_one_comes_back(tmp_path: Path) -> None:
    plain = write_ranker(tmp_path / "plain")
    expected = load_ranker(plain)
    assert expected.info.lexical_features is False
    assert expected.network.lexical is None
    parts = start_ranker(plain, Fresh("pairwise", lexical_features=True))
    assert parts.new_parts == ["lexical"]
    assert parts.network.lexical is not None
    pairs = parts.pair_encoder.encode(QUERIES, TITLES)
    parts.network.lexical.learn(pairs)
    parts.network.eval()
    expected.network.eval()
    batch = [paddle.to_tensor(a) for a in pairs.pad(range(len(pairs))).values()]
    np.testing.assert_array_equal(parts.network(*batch).numpy(), expected.network(*batch).numpy())

    parts.network.lexical.weight.set_value(np.linspace(-1, 1, len(GRAPH_FEATURES)).astype("float32"))
    moved = parts.network(*batch).numpy()
    assert np.abs(moved - expected.network(*batch).numpy()).max() > 0.1
    (tmp_path / "saved").mkdir()
    save_ranker(tmp_path / "saved", parts.network, parts.pair_encoder, parts.info)
    info = RankerInfo.read(tmp_path / "saved")
    assert info is not None
    assert info.lexical_features is True
    loaded = load_ranker(tmp_path / "saved").network
    loaded.eval()
    np.testing.assert_array_equal(loaded(*batch).numpy(), moved)
    again = start_ranker(tmp_path / "saved", Fresh("cross_encoder"))  # the option's default leaves them there
    assert again.new_parts == []
    assert again.network.lexical is not None
    assert again.network.lexical.has_learned


def test_transformers_has_no_place_for_it(tmp_path: Path) -> None:
    head, _, _ = learned_head(tmp_path)
    network = RankerNetwork(CONFIG, None, head)
    named = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    with pytest.raises(CheckpointError, match="lexical features"):
        parameters_to_write(named, CONFIG, drop_match_embeddings=False)
