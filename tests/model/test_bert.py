"""The encoder against PaddleNLP's own models with the same parameters."""

from __future__ import annotations

import dataclasses

import numpy as np
import paddle
import pytest

from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.networks.bert import Encoder
from paddle_ranker.model.paddlenlp_names import published_model
from tests.tiny import CONFIG, make_network

pytestmark = pytest.mark.parity


def batch(vocab_size: int, rows: int = 4, length: int = 20) -> tuple[paddle.Tensor, paddle.Tensor]:
    ids = np.random.RandomState(0).randint(5, vocab_size, (rows, length))
    ids[:, 0] = 1
    ids[0, 11:] = 0  # one padded row
    types = np.tile((np.arange(length) > 8).astype("int64"), (rows, 1))
    return paddle.to_tensor(ids), paddle.to_tensor(types)


def reference(kind: str, config: EncoderConfig) -> paddle.nn.Layer:
    from paddlenlp import transformers

    values = {**dataclasses.asdict(config), "embedding_size": config.hidden_size}
    model = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**values))
    model.eval()
    return model


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("Ernie", {"model_type": "ernie", "use_task_id": True, "type_vocab_size": 4, "task_type_vocab_size": 16}),
        ("Ernie", {"model_type": "ernie", "hidden_act": "relu"}),
        ("ErnieGram", {"model_type": "ernie_gram", "layer_norm_eps": 1e-5}),
        ("Bert", {"model_type": "bert"}),
    ],
)
def test_equals_paddlenlp(kind: str, changes: dict) -> None:
    config = dataclasses.replace(CONFIG, initializer_range=0.02, **changes)
    theirs = reference(kind, config)
    ours = Encoder(config)
    missing, left_over = ours.set_state_dict(theirs.state_dict())
    assert not missing and not left_over
    ours.eval()
    ids, types = batch(config.vocab_size)
    hidden, pooled = theirs(ids, types)[:2]
    tokens = (ids != 0).numpy()
    np.testing.assert_allclose(ours(ids, types).numpy()[tokens], hidden.numpy()[tokens], atol=1e-5)
    np.testing.assert_allclose(ours.pooled(ids, types).numpy(), pooled.numpy(), atol=1e-5)


@pytest.mark.parametrize("normalize_before", [False, True])
def test_the_short_cut_of_the_last_layer_is_exact(normalize_before: bool) -> None:
    encoder = make_network(normalize_before=normalize_before).encoder
    ids, types = batch(CONFIG.vocab_size)
    whole = encoder.pooler(encoder(ids, types)[:, 0])
    np.testing.assert_allclose(encoder.pooled(ids, types).numpy(), whole.numpy(), atol=1e-5)


def test_the_short_cut_has_the_same_gradients() -> None:
    encoder = make_network().encoder
    ids, types = batch(CONFIG.vocab_size)
    gradients = []
    for pooled in (encoder.pooler(encoder(ids, types)[:, 0]), encoder.pooled(ids, types)):
        (pooled**2).sum().backward()
        gradients.append({name: p.grad.numpy().copy() for name, p in encoder.named_parameters() if p.grad is not None})
        encoder.clear_gradients()
    for name, gradient in gradients[0].items():
        np.testing.assert_allclose(gradients[1][name], gradient, atol=1e-4, err_msg=name)


def test_padding_changes_nothing() -> None:
    network = make_network()
    ids, types = batch(CONFIG.vocab_size)
    ids[0, 11:] = 7
    alone = network(ids, types)
    padded = network(
        paddle.concat([ids, paddle.zeros([4, 30], dtype="int64")], axis=1),
        paddle.concat([types, paddle.zeros([4, 30], dtype="int64")], axis=1),
    )
    np.testing.assert_allclose(padded.numpy(), alone.numpy(), atol=1e-5)


def test_zero_match_embeddings_leave_the_scores_unchanged() -> None:
    plain, matched = make_network(match=False), make_network(match=True)
    matched.set_state_dict({**matched.state_dict(), **plain.state_dict()})
    ids, types = batch(CONFIG.vocab_size)
    assert not np.allclose(matched(ids, types).numpy(), plain(ids, types).numpy())  # random ones do change them
    matched.match_embeddings.weight.set_value(paddle.zeros_like(matched.match_embeddings.weight))
    np.testing.assert_array_equal(matched(ids, types).numpy(), plain(ids, types).numpy())


@pytest.mark.parametrize(
    ("name", "layers", "width"),
    [("ernie-3.0-nano-zh", 4, 312), ("rocketqa-base-cross-encoder", 12, 768), ("uer/chinese-roberta-tiny", 2, 128)],
)
def test_known_names_have_their_shape_without_a_network(name: str, layers: int, width: int) -> None:
    config = published_model(name).config
    assert (config.num_hidden_layers, config.hidden_size) == (layers, width)
