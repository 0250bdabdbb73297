"""Checkpoints made by PaddleNLP as in the published scripts score and train the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from cross_encoder.model import LabeledExamples
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import RANKER, load_model
from paddle_ranker.model.ranker_folder import Fresh, start_ranker
from paddle_ranker.scoring.engines.dygraph import DygraphEngine
from paddle_ranker.scoring.scorer import Scorer
from paddle_ranker.training.examples import EncodedExamples
from tests.tiny import PAIRS, QUERIES, TITLES, write_tokenizer

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


def published_folder(folder: Path, model: Any) -> tuple[Any, list[list[paddle.Tensor]]]:
    """Save a model as the published scripts do; return the tokenizer, and PAIRS as inputs."""
    from paddlenlp.transformers import ErnieTokenizer

    write_tokenizer(folder / "source", 40_000)
    tokenizer = ErnieTokenizer(str(folder / "source" / "vocab.txt"))
    model.eval()
    paddle.save(model.state_dict(), str(folder / "model_state.pdparams"))
    tokenizer.save_pretrained(str(folder))
    encoded = [tokenizer(text=query, text_pair=title, max_length=128) for query, title in PAIRS]
    inputs = [[paddle.to_tensor([pair[name]]) for name in ("input_ids", "token_type_ids")] for pair in encoded]
    return tokenizer, inputs


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """Return the checkpoint's folder, and the published script's probabilities of PAIRS, pair by pair."""
    from paddlenlp.transformers import ErnieConfig, ErnieModel
    from paddlenlp.transformers.ernie.configuration import ERNIE_PRETRAINED_INIT_CONFIGURATION

    folder = tmp_path_factory.mktemp("model_10000")
    paddle.seed(0)
    model = PublishedPairwise(ErnieModel(ErnieConfig(**ERNIE_PRETRAINED_INIT_CONFIGURATION[NAME])))
    model.similarity.weight.set_value(0.1 * paddle.randn([312, 1]))  # large enough to show a difference
    _, inputs = published_folder(folder, model)
    return folder, np.array([float(model.predict(*pair)) for pair in inputs])


def scores(parts: Any) -> np.ndarray:
    return Scorer(DygraphEngine(parts.network), parts.row_encoder).score(QUERIES, TITLES)


def test_it_scores_the_same_and_training_starts_from_there(published: tuple[Path, np.ndarray]) -> None:
    folder, expected = published
    parts = load_model(folder / "model_state.pdparams", RANKER, LoadOptions(model_name=NAME))
    np.testing.assert_allclose(scores(parts), expected, atol=1e-5)
    assert np.ptp(expected) > 1e-3  # a hundred times the tolerance
    assert parts.info.max_seq_length == 128
    parts = start_ranker(folder, Fresh("pairwise"), LoadOptions(model_name=NAME))
    assert parts.new_parts == ["match_embeddings"]
    np.testing.assert_allclose(scores(parts), expected, atol=1e-5)


CROSS_ENCODER = "rocketqa-nano-cross-encoder"
LABELS = np.array([1.0, 0.0, 1.0, 0.0, 0.0, 1.0], dtype=np.float32)  # the labels of PAIRS


@dataclass(frozen=True)
class TwoClasses:
    """A published cross-encoder, its folder, and its probabilities of PAIRS, each computed alone."""

    folder: Path
    model: Any
    inputs: list[list[paddle.Tensor]]
    probabilities: np.ndarray


@pytest.fixture(scope="module")
def two_classes(tmp_path_factory: pytest.TempPathFactory) -> TwoClasses:
    from paddlenlp.transformers import ErnieConfig, ErnieForSequenceClassification
    from paddlenlp.transformers.ernie.configuration import ERNIE_PRETRAINED_INIT_CONFIGURATION

    folder = tmp_path_factory.mktemp("rocketqa")
    paddle.seed(0)
    values = {**ERNIE_PRETRAINED_INIT_CONFIGURATION[CROSS_ENCODER], "num_labels": 2}
    model = ErnieForSequenceClassification(ErnieConfig(**values))
    model.classifier.weight.set_value(0.1 * paddle.randn([312, 2]))  # large enough to show a difference
    model.classifier.bias.set_value(paddle.to_tensor([0.4, -0.3]))
    tokenizer, inputs = published_folder(folder, model)
    model.save_pretrained(str(folder / "paddlenlp"))
    tokenizer.save_pretrained(str(folder / "paddlenlp"))
    rows = [float(paddle.nn.functional.softmax(model(*pair))[0, 1]) for pair in inputs]
    return TwoClasses(folder, model, inputs, np.array(rows))


@pytest.mark.parametrize("source", ["model_state.pdparams", "paddlenlp"])
def test_two_classes_fold_into_one_logit_by_name_and_by_folder(two_classes: TwoClasses, source: str) -> None:
    name = CROSS_ENCODER if source.endswith(".pdparams") else None
    parts = load_model(two_classes.folder / source, RANKER, LoadOptions(model_name=name))
    np.testing.assert_allclose(scores(parts), two_classes.probabilities, atol=1e-5)
    assert np.ptp(two_classes.probabilities) > 1e-3  # a hundred times the tolerance
    assert parts.info.kind == "cross_encoder" and parts.network.head.weight.shape == [312, 1]


def test_the_folded_head_trains_the_encoder_as_two_classes_do(two_classes: TwoClasses) -> None:
    parts = start_ranker(two_classes.folder, Fresh("cross_encoder"), LoadOptions(model_name=CROSS_ENCODER))
    assert parts.new_parts == ["match_embeddings"]
    parts.network.eval()  # disables dropout
    pairs = EncodedExamples(parts.row_encoder.encode(QUERIES, TITLES), LABELS, None)
    loss, figures = LabeledExamples(pairs).loss(parts.network, np.arange(len(PAIRS)))
    loss.backward()

    model = two_classes.model
    logits = paddle.concat([model(*pair) for pair in two_classes.inputs])
    expected = paddle.nn.functional.cross_entropy(logits, paddle.to_tensor(LABELS.astype("int64")))
    expected.backward()
    assert float(loss) == pytest.approx(float(expected), abs=1e-5)
    assert float(figures["accuracy"]) == pytest.approx((logits.numpy().argmax(1) == LABELS).mean())

    theirs = dict(model.named_parameters())
    ours = {name: p for name, p in parts.network.named_parameters() if name.startswith("encoder.")}
    assert len(ours) == len([name for name in theirs if name.startswith("ernie.")]) > 60
    largest = 0.0
    last_keys = f"encoder.encoder.layers.{parts.network.config.num_hidden_layers - 1}.self_attn.k_proj.bias"
    for name, parameter in ours.items():
        gradient = theirs[name.replace("encoder.", "ernie.", 1)].grad.numpy()
        # Without training, the last layer skips the keys' bias: it moves no attention weight, so its gradient is zero.
        own = np.zeros_like(gradient) if name == last_keys else parameter.grad.numpy()
        np.testing.assert_allclose(own, gradient, atol=1e-5, err_msg=name)
        largest = max(largest, float(np.abs(gradient).max()))
    assert largest > 1e-2
    # Each of the two rows gets the folded head's gradient, with opposite signs.
    head, both = parts.network.head.weight.grad.numpy(), model.classifier.weight.grad.numpy()
    np.testing.assert_allclose(head, both[:, 1:], atol=1e-5)
    np.testing.assert_allclose(head, -both[:, :1], atol=1e-5)
