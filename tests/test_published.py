"""A checkpoint made as the published pairwise script makes it, by PaddleNLP itself, scores the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from paddle_ranker.model_folder import load_ranker, start_ranker
from paddle_ranker.scorer import DygraphEngine, Scorer
from tests.tiny import PAIRS, write_tokenizer

pytestmark = pytest.mark.parity

NAME = "ernie-3.0-nano-zh"  # its configuration is built into PaddleNLP: no network


class PublishedPairwise(paddle.nn.Layer):
    """The parameters and the prediction of the published pairwise ranker."""

    def __init__(self, ptm: Any):
        super().__init__()
        self.ptm = ptm
        self.similarity = paddle.nn.Linear(ptm.config.hidden_size, 1)

    def predict(self, input_ids: paddle.Tensor, token_type_ids: paddle.Tensor) -> paddle.Tensor:
        _, cls_embedding = self.ptm(input_ids, token_type_ids)
        return paddle.nn.functional.sigmoid(self.similarity(cls_embedding))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """The checkpoint's folder, and the probabilities of PAIRS as the published script computes them, pair by pair."""
    from paddlenlp.transformers import ErnieConfig, ErnieModel, ErnieTokenizer
    from paddlenlp.transformers.ernie.configuration import ERNIE_PRETRAINED_INIT_CONFIGURATION

    folder = tmp_path_factory.mktemp("model_10000")
    write_tokenizer(folder / "source")
    tokenizer = ErnieTokenizer(str(folder / "source" / "vocab.txt"))
    paddle.seed(0)
    model = PublishedPairwise(ErnieModel(ErnieConfig(**ERNIE_PRETRAINED_INIT_CONFIGURATION[NAME])))
    model.similarity.weight.set_value(0.1 * paddle.randn([312, 1]))  # far enough apart to see a difference
    model.eval()
    paddle.save(model.state_dict(), str(folder / "model_state.pdparams"))
    tokenizer.save_pretrained(str(folder))
    rows = []
    for query, title in PAIRS:
        encoded = tokenizer(text=query, text_pair=title, max_length=128)
        inputs = [paddle.to_tensor([encoded[name]]) for name in ("input_ids", "token_type_ids")]
        rows.append(float(model.predict(*inputs)))
    return folder, np.array(rows)


def scores(parts: Any) -> np.ndarray:
    queries, titles = [list(column) for column in zip(*PAIRS)]
    return Scorer(DygraphEngine(parts.network), parts.pair_encoder).score(queries, titles)


def test_it_scores_the_same_by_name_and_parameter_file(published: tuple[Path, np.ndarray]) -> None:
    folder, expected = published
    parts = load_ranker(folder / "model_state.pdparams", model_name=NAME)
    np.testing.assert_allclose(scores(parts), expected, atol=1e-5)
    assert np.ptp(expected) > 1e-3  # a hundred times the tolerance
    assert parts.info.max_seq_length == 128


def test_training_starts_from_the_same_scores(published: tuple[Path, np.ndarray]) -> None:
    folder, expected = published
    parts = start_ranker(folder, "pairwise", model_name=NAME)
    assert parts.new_parts == ["match_embeddings"]
    np.testing.assert_allclose(scores(parts), expected, atol=1e-5)
