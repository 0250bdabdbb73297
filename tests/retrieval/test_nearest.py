"""Exact search: what a full stable sort finds, whatever the blocks, the ties, the types, the order, and NaN."""

from __future__ import annotations

import numpy as np
import pytest

from paddle_ranker.array_types import Array
from paddle_ranker.retrieval.vectors.exact_search import StoredVectors, nearest

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True, params=[0, 1 << 20], ids=["block by block", "all at once"])
def few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paddle_ranker.retrieval.vectors.exact_search._FEW", request.param)


def sorted_whole(vectors: Array, queries: Array, k: int) -> tuple[Array, Array]:
    products = queries @ vectors.T
    order = np.argsort(-products, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(products, order, 1)


@pytest.mark.parametrize("cells", [1, 60, 1 << 20])
@pytest.mark.parametrize("k", [1, 7, 100])
@pytest.mark.parametrize("order", ["random", "ascending", "equal"])
def test_the_nearest_are_those_of_a_full_sort(monkeypatch: pytest.MonkeyPatch, cells: int, k: int, order: str) -> None:
    monkeypatch.setattr("paddle_ranker.retrieval.vectors.exact_search._CELLS", cells)
    monkeypatch.setattr("paddle_ranker.retrieval.vectors.exact_search._QUERIES", 4)
    random = np.random.RandomState(0)
    vectors = random.randint(-2, 3, (157, 4)).astype(np.float32)  # whole numbers: many products are equal, and exact
    if order != "random":
        vectors[:] = np.arange(157)[:, None] if order == "ascending" else 1
    queries = random.randint(-2, 3, (6, 4)).astype(np.float32)
    numbers, products = nearest(vectors, queries, k)
    wanted, scores = sorted_whole(vectors, queries, k)
    np.testing.assert_array_equal(numbers, wanted)
    np.testing.assert_array_equal(products, scores)
    mask = random.rand(157) < 0.4
    numbers, products = nearest(vectors, queries, k, mask)
    wanted, scores = sorted_whole(vectors[mask], queries, k)
    np.testing.assert_array_equal(numbers, np.flatnonzero(mask)[wanted])
    np.testing.assert_array_equal(products, scores)


@pytest.mark.parametrize("size", [3, 37, 256, 312])
def test_the_product_of_a_vector_depends_on_nothing_beside_it(size: int) -> None:
    random = np.random.default_rng(2)
    vectors = random.normal(size=(61, size)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[[5, 17, 40, 58, 59, 60]] = vectors[0]  # copies of a text
    queries = random.normal(size=(9, size)).astype(np.float32)
    queries[3] = vectors[0]
    numbers, products = nearest(vectors, queries, 61)
    by_number = np.take_along_axis(products, np.argsort(numbers, axis=1), 1)
    assert numbers[3, :7].tolist() == [0, 5, 17, 40, 58, 59, 60] and len(set(products[3, :7])) == 1
    for count in (1, 2, 7, 60):
        for first in range(0, 61 - count + 1, 9):
            alone, found = nearest(vectors[first : first + count], queries[3:4], count)
            np.testing.assert_array_equal(found[0], by_number[3, first + alone[0]])
    np.testing.assert_array_equal(nearest(vectors, queries, 5)[0], numbers[:, :5])


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_vectors_of_fewer_bits_are_searched_as_what_they_stand_for(monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    monkeypatch.setattr("paddle_ranker.retrieval.vectors.exact_search._CELLS", 300)
    random = np.random.default_rng(1)
    stored = StoredVectors.of(random.normal(size=(90, 8)).astype(np.float32), dtype)
    queries = random.normal(size=(5, 8)).astype(np.float32)
    whole = stored.values.astype(np.float32) * (1 if stored.scales is None else stored.scales[:, None])
    numbers, products = nearest(stored, queries, 9)
    wanted, scores = sorted_whole(whole, queries, 9)
    np.testing.assert_array_equal(numbers, wanted)
    np.testing.assert_allclose(products, scores, atol=1e-5)


def test_what_is_no_number_is_found_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paddle_ranker.retrieval.vectors.exact_search._CELLS", 20)
    vectors = np.arange(60, dtype=np.float32)[:, None]
    vectors[[3, 41]] = np.nan
    numbers, products = nearest(vectors, np.array([[1.0], [np.nan], [-1.0]], np.float32), 3)
    assert numbers[0].tolist() == [59, 58, 57] and numbers[2].tolist() == [0, 1, 2]
    assert numbers.shape == products.shape == (3, 3)
    assert nearest(vectors[:0], vectors[:2], 5)[0].shape == (2, 0)
    assert nearest(vectors, vectors[:0], 5)[0].shape == (0, 5)
