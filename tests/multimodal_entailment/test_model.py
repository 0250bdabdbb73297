"""The network: the path of each input, missing images, attention, frozen encoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from multimodal_entailment.examples import logits_of, regions_of
from multimodal_entailment.model import WIDTH, DotAttention, EntailmentNetwork, Missing, Projection, Shape
from paddle_ranker.model.networks.dropout import Masks
from tests.entailment_cases import draw_images, make_parts

pytestmark = pytest.mark.unit
FUSIONS = ("concat", "dot_attention", "multihead")
TEXTS = [("abc", "bcd"), ("x y z", "q"), ("dog", "dog and cat")]


Batch = dict[str, np.ndarray]  # as `Posts.pad` makes it


def batch_of(parts: Any) -> Batch:
    """Return a batch of three pairs of texts with six different images."""
    images, texts = draw_images(6), parts.row_encoder.texts.encode(*zip(*TEXTS)).pad(np.arange(len(TEXTS)))
    return {**texts, "image_1": images[:3], "image_2": images[3:], "present": np.ones((3, 2), np.float32)}


def logits(network: EntailmentNetwork, batch: Batch) -> np.ndarray:
    with paddle.no_grad():
        return logits_of(network, batch).numpy()


@pytest.fixture(params=FUSIONS)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[EntailmentNetwork, Batch]:
    parts = make_parts(tmp_path, shape=Shape(fusion=request.param))
    return parts.network, batch_of(parts)


def test_swapped_images_change_the_output(case: tuple[EntailmentNetwork, Batch]) -> None:
    network, batch = case
    before = logits(network, batch)
    after = logits(network, {**batch, "image_1": batch["image_2"], "image_2": batch["image_1"]})
    assert before.shape == (3, 3) and (np.abs(before - after).max(axis=1) > 1e-3).all()


def test_each_input_reaches_its_own_branch(case: tuple[EntailmentNetwork, Batch]) -> None:
    """With all projections but one removed, only the input of the remaining one moves the output."""
    network, batch = case
    fusion, ids = network.fusion, batch["input_ids"]
    moved = {
        "text": {**batch, "input_ids": np.where(ids > 10, ids - 1, ids)},
        "image_1": {**batch, "image_1": 255 - batch["image_1"]},
        "image_2": {**batch, "image_2": 255 - batch["image_2"]},
    }
    assert fusion.joint is not None
    weight = fusion.joint.first.weight.numpy().copy()
    for place, name in enumerate(moved):
        alone = np.zeros_like(weight)
        alone[place * WIDTH : (place + 1) * WIDTH] = weight[place * WIDTH : (place + 1) * WIDTH]
        fusion.joint.first.weight.set_value(alone)
        before = logits(network, batch)
        for other, inputs in moved.items():
            difference = np.abs(logits(network, inputs) - before).max()
            assert (difference > 1e-4) if other == name else (difference < 1e-6), (name, other)


def test_the_gradient_reaches_both_images(case: tuple[EntailmentNetwork, Batch]) -> None:
    network, batch = case
    images = np.concatenate([batch["image_1"], batch["image_2"]])
    regions = regions_of(network, images, np.ones(6, bool)).detach()
    regions.stop_gradient = False
    ids, types, present = (paddle.to_tensor(batch[name]) for name in ("input_ids", "token_type_ids", "present"))
    network(ids, types, (regions[:3], regions[3:]), present)[:, 0].sum().backward()
    gradient = np.abs(regions.grad.numpy()).sum(axis=(1, 2))
    assert (gradient > 0).all() and not np.allclose(gradient[:3], gradient[3:])


def test_a_missing_image_is_the_learned_vector(case: tuple[EntailmentNetwork, Batch]) -> None:
    network, batch = case
    missing = {**batch, "present": np.array([[1, 0], [0, 1], [0, 0]], np.float32)}
    other = {name: batch[name].copy() for name in ("image_1", "image_2")}
    for name, rows in (("image_1", [1, 2]), ("image_2", [0, 2])):  # the contents of missing images do not matter
        other[name][rows] = 255 - other[name][rows]
    base = logits(network, missing)
    np.testing.assert_allclose(base, logits(network, {**missing, **other}), atol=1e-6)
    assert (np.abs(base - logits(network, batch)).max(axis=1) > 1e-4).all()
    network.fusion.missing_image.vector.set_value(network.fusion.missing_image.vector + 1.0)
    assert (np.abs(base - logits(network, missing)).max(axis=1) > 1e-4).all()
    assert np.isfinite(logits(network, {**batch, "present": np.zeros((3, 2), np.float32)})).all()


def test_padding_changes_nothing(case: tuple[EntailmentNetwork, Batch]) -> None:
    network, batch = case
    wider = {name: np.pad(batch[name], ((0, 0), (0, 4))) for name in ("input_ids", "token_type_ids")}
    np.testing.assert_allclose(logits(network, batch), logits(network, {**batch, **wider}), atol=2e-5)


def test_every_parameter_is_trained(case: tuple[EntailmentNetwork, Batch]) -> None:
    network, batch = case
    network.train()
    present = np.array([[1, 1], [0, 1], [1, 0]], np.float32)
    logits_of(network, {**batch, "present": present})[:, 1].sum().backward()
    idle = {name for name, p in network.named_parameters() if p.grad is None or not np.abs(p.grad.numpy()).any()}
    # Keys' biases do not move a softmax; word embeddings of padding are untouched but those of tokens are not.
    assert not {name for name in idle if not name.endswith("k_proj.bias")}


def test_frozen_encoders_stay_and_compute_as_in_evaluation(tmp_path: Path) -> None:
    parts = make_parts(tmp_path, frozen_text=True, frozen_vision=True)
    network = parts.network
    network.train()
    assert network.text is not None and network.vision is not None
    assert not network.text.encoder.training and not network.vision.training and network.fusion.training
    logits_of(network, batch_of(parts)).sum().backward()
    with_gradient = {name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None}
    assert with_gradient == {"fusion"}


def test_features_that_were_kept_give_the_same(case: tuple[EntailmentNetwork, Batch]) -> None:
    network, batch = case
    with paddle.no_grad():
        kept = {name: network.regions(paddle.to_tensor(batch[name])).numpy() for name in ("image_1", "image_2")}
    np.testing.assert_allclose(logits(network, batch), logits(network, {**batch, **kept}), atol=1e-5)


def test_modality_dropout_loses_one_kind_of_input_in_training(tmp_path: Path) -> None:
    parts = make_parts(tmp_path, shape=Shape(modality_dropout=0.999, dropout=0.0))
    network, batch = parts.network, batch_of(parts)
    assert network.text is not None
    whole = logits(network, batch)
    np.testing.assert_array_equal(logits(network, batch), whole)
    network.train()
    network.text.eval()
    paddle.seed(3)
    found = [logits(network, batch) for _ in range(40)]
    network.eval()
    no_images = logits(network, {**batch, "present": np.zeros((3, 2), np.float32)})
    lost_images = np.array([np.abs(one - no_images).max(axis=1) < 1e-5 for one in found])
    assert 0.3 < lost_images.mean() < 0.7 and not any(np.allclose(one, whole, atol=1e-5) for one in found)
    paddle.seed(3)
    network.train()
    network.text.eval()
    np.testing.assert_array_equal(logits(network, batch), found[0])


def test_without_the_joint_layer_parts_only_add_up(tmp_path: Path) -> None:
    """If logits are sums, f(a, b) - f(a', b) does not depend on b; with the joint layer it does."""
    for joint in (False, True):
        parts = make_parts(tmp_path / str(joint), shape=Shape(joint=joint, compare_images=False))
        batch, images = batch_of(parts), draw_images(4)

        def f(one: int, two: int, parts: Any = parts, batch: Any = batch, images: Any = images) -> np.ndarray:
            return logits(parts.network, {**batch, "image_1": images[[one] * 3], "image_2": images[[two] * 3]})

        interaction = np.abs((f(0, 2) - f(1, 2)) - (f(0, 3) - f(1, 3))).max()
        assert (interaction > 1e-4) == joint


def test_layers_by_hand() -> None:
    attention = DotAttention()
    attention.scale.set_value(np.array([2.0], np.float32))
    query = np.zeros((1, 1, WIDTH), np.float32)
    states = np.zeros((1, 2, WIDTH), np.float32)
    query[0, 0, 0], states[0, 0, 0] = 1.0, 0.5
    states[0, :, 1] = 3.0, 7.0
    attended = attention(paddle.to_tensor(query), paddle.to_tensor(states), paddle.zeros([1, 1, 1, 2])).numpy()
    share = np.e / (np.e + 1)  # products: 2 x 0.5 and 0
    assert attended[0, 0, 1] == pytest.approx(3 * share + 7 * (1 - share), rel=1e-6)

    projection = Projection(4, 0.1, Masks())
    projection.eval()
    rows = paddle.randn([5, 4])
    projected = projection(rows).numpy()
    np.testing.assert_allclose(projected.mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(projected.std(axis=1), 1, atol=1e-2)

    missing = Missing(2)
    missing.vector.set_value(np.array([5.0, 6.0], np.float32))
    filled = missing(paddle.ones([2, 1, 2]), paddle.to_tensor([1.0, 0.0])).numpy()
    assert filled.tolist() == [[[1, 1]], [[5, 6]]]
