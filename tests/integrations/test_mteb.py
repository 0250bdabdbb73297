"""mteb's own evaluation with these, on its tasks for tests."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("mteb", reason="needs mteb: docs/setup.md#frameworks")

import mteb
from mteb.mocks.mock_tasks.reranking import MockRerankingTask
from mteb.mocks.mock_tasks.retrieval import MockRetrievalTask
from mteb.models.models_protocols import CrossEncoderProtocol, EncoderProtocol
from mteb.types import PromptType

from paddle_ranker import Ranker
from paddle_ranker.errors import UsageError
from paddle_ranker.integrations.mteb import PaddleRankerCrossEncoder, PaddleRankerEncoder
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from tests.integrations.conftest import KEY

pytestmark = pytest.mark.server
OF_TASK: dict[str, Any] = {"task_metadata": MockRetrievalTask.metadata, "hf_split": "test", "hf_subset": "default"}
BATCHES = [{"text": ["quiet mouse", "keys"]}, {"text": ["a mouse"]}]
TEXTS = ["quiet mouse", "keys", "a mouse"]


def test_a_tower_is_an_encoder(made: SimpleNamespace, url: str, tmp_path: Path) -> None:
    tower, scores = Tower.open(made.tower), []
    for encoder in (PaddleRankerEncoder(made.tower), PaddleRankerEncoder(url=url, key=KEY, name="own/tower")):
        assert isinstance(encoder, EncoderProtocol)
        for kind, expected in (
            (PromptType.query, tower.query_vectors(TEXTS)),
            (PromptType.document, tower.vectors(TEXTS)),
            (None, tower.vectors(TEXTS)),
        ):
            np.testing.assert_allclose(encoder.encode(BATCHES, prompt_type=kind, **OF_TASK), expected, atol=1e-5)
        result = mteb.evaluate(encoder, [MockRetrievalTask()], cache=None)
        scores.append((result.model_name, round(result.task_results[0].get_score(), 6)))
    assert scores[0] == ("paddle-ranker/tower", scores[1][1]) and scores[1][0] == "own/tower"
    with pytest.raises(UsageError, match="choose from cosine, dot"):
        PaddleRankerEncoder(made.tower, similarity="euclidean")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="have image, and no text"):
        encoder.encode([{"image": [None]}], **OF_TASK)


def test_a_ranker_is_a_cross_encoder(made: SimpleNamespace, url: str) -> None:
    expected, scores = Ranker.load(made.ranker).score(["mouse"] * 3, TEXTS), []
    for encoder in (PaddleRankerCrossEncoder(made.ranker), PaddleRankerCrossEncoder(url=url, key=KEY)):
        assert isinstance(encoder, CrossEncoderProtocol) and not isinstance(encoder, EncoderProtocol)
        found = encoder.predict([{"text": ["mouse"] * 3}], BATCHES, **OF_TASK)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        result = mteb.evaluate(encoder, [MockRerankingTask()], cache=None)
        scores.append(round(result.task_results[0].get_score(), 6))
    assert scores[0] == scores[1]
