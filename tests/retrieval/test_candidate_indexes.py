"""The registry of indexes: documents by id, and the scores of BM25 worked out apart from the index."""

from __future__ import annotations

import numpy as np
import pytest

from paddle_ranker.errors import DataError, UsageError
from paddle_ranker.lexical.bm25 import BM25
from paddle_ranker.model.encoder_loading import read_checkpoint
from paddle_ranker.model.tower import TowerInfo
from paddle_ranker.model.tower_network import start_tower
from paddle_ranker.retrieval.index.vector_indexes import INDEXES
from paddle_ranker.retrieval.stored.candidate_indexes import Document, IndexOptions
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from paddle_ranker.scoring.engines.dygraph import DygraphEngine
from tests.tiny import write_encoder

pytestmark = pytest.mark.unit
TEXTS = ["水稻病害诊断", "水稻病虫", "病害统计", "水稻种植", "老年人护理"]
DOCUMENTS = [Document(f"d-{number}", text, {"year": 2000 + number}) for number, text in enumerate(TEXTS)]


@pytest.mark.parametrize("words", ["jieba", "bigram"])
def test_words_find_documents_by_id_with_the_scores_of_bm25(words: str) -> None:
    index = INDEXES["bm25"].build(DOCUMENTS, IndexOptions(words))
    query = "水稻病害"
    formula = BM25("jieba" if words == "jieba" else "bigram", normalised=False)
    formula.fit([], TEXTS)
    scores = formula.score([query] * len(TEXTS), TEXTS)
    wanted = [number for number in np.argsort(-scores, kind="stable").tolist() if scores[number] > 0][:3]
    (found,) = index.search([query], 3)
    assert found.ids == [f"d-{number}" for number in wanted] and wanted
    np.testing.assert_allclose(found.scores, scores[wanted])
    assert [index.document(id).fields["year"] for id in found.ids] == [2000 + number for number in wanted]
    assert len(index) == len(TEXTS)
    assert index.search(["xyz"], 3)[0].ids == []


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Tower:
    encoder = write_encoder(tmp_path_factory.mktemp("encoder"))
    model, _ = start_tower(read_checkpoint(encoder), TowerInfo(16, 16, pooling="mean"))
    return Tower(DygraphEngine(model.network, model.signature), model.row_encoder)


@pytest.mark.parametrize("name", ["bm25", "random", "tower", "exact", "faiss"])
def test_every_index_answers_with_ids_and_refuses_two_of_one(
    name: str, tower: Tower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paddle_ranker.retrieval.vectors.faiss_index.LEAST", 2)  # else a few are searched exactly
    index = INDEXES[name].build(iter(DOCUMENTS), IndexOptions(tower=tower))
    for hits in index.search(["水稻", "护理"], 2):
        assert len(hits.ids) == len(set(hits.ids)) == len(hits.scores) <= 2
        assert all(index.document(id).id == id for id in hits.ids)
    if INDEXES[name].compares_vectors:
        queries = ["水稻", "护理"]
        products = tower.query_vectors(queries) @ tower.vectors(TEXTS).T
        for hits, row in zip(index.search(queries, 3), products):
            assert hits.ids == [f"d-{number}" for number in np.argsort(-row, kind="stable")[:3]]
            np.testing.assert_allclose(hits.scores, np.sort(row)[:-4:-1], rtol=1e-5)
    with pytest.raises(KeyError):
        index.document("none")
    with pytest.raises(DataError, match="document d-1: there are two of this id"):
        INDEXES[name].build([*DOCUMENTS, DOCUMENTS[1]], IndexOptions(tower=tower))


def test_an_unknown_index_is_answered_with_those_there_are() -> None:
    choices = "bm25, random, tower, exact, faiss"
    with pytest.raises(UsageError, match=rf"--method bm26: choose from {choices}.*did you mean bm25"):
        INDEXES["bm26"]
