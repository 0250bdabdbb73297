"""The network: the path of each input, missing images, attention, frozen encoders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from multimodal_entailment.examples import logits_of, regions_of
from multimodal_entailment.model import WIDTH, DotAttention, EntailmentNetwork, Missing, Projection, Shape
from paddle_ranker.model.dropout import Masks
from tests.entailment_cases import draw_images, make_parts

pytestmark = pytest.mark.unit
FUSIONS = ("concat", "dot_attention", "multihead")
TEXTS = [("abc", "bcd"), ("x y z", "q"), ("dog", "dog and cat")]


@dataclass(frozen=True)
class Batch:
    """A batch whose images are one array: all first images, then all second images."""

    input_ids: np.ndarray
    token_type_ids: np.ndarray
    images: np.ndarray
    present: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the batch as `Posts.pad` does."""
        half = len(self.present)
        return {
            "input_ids": self.input_ids,
            "token_type_ids": self.token_type_ids,
            "image_1": self.images[:half],
            "image_2": self.images[half:],
            "present": self.present,
        }


def batch_of(parts: Any, images: np.ndarray, present: np.ndarray) -> Batch:
    encoder = parts.row_encoder.texts
    ids, types = encoder.encode(*zip(*TEXTS)).pad(np.arange(len(TEXTS))).values()
    return Batch(ids, types, images, present)


@pytest.fixture(params=FUSIONS)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[EntailmentNetwork, Batch]:
    parts = make_parts(tmp_path, shape=Shape(fusion=request.param))
    return parts.network, batch_of(parts, draw_images(6), np.ones((3, 2), np.float32))


def logits(network: EntailmentNetwork, batch: Batch) -> np.ndarray:
    with paddle.no_grad():
        return logits_of(network, batch.arrays()).numpy()


def changed(batch: Batch, **parts: np.ndarray) -> Batch:
    return Batch(**{**vars(batch), **parts})


def test_swapped_images_change_the_output(case: tuple[EntailmentNetwork, Batch]) -> None:
    network, batch = case
    assert batch.images is not None
    swapped = changed(batch, images=np.concatenate([batch.images[3:], batch.images[:3]]))
    before, after = logits(network, batch), logits(network, swapped)
    assert before.shape == (3, 3) and (np.abs(before - after).max(axis=1) > 1e-3).all()


def test_each_input_reaches_its_own_branch(case: tuple[EntailmentNetwork, Batch]) -> None:
    """With all projections but one removed, only the input of the remaining one moves the output."""
    network, batch = case
    assert batch.images is not None and batch.input_ids is not None
    fusion = network.fusion
    moved = {
        "text": changed(batch, input_ids=np.where(batch.input_ids > 10, batch.input_ids - 1, batch.input_ids)),
        "image_1": changed(batch, images=np.concatenate([255 - batch.images[:3], batch.images[3:]])),
        "image_2": changed(batch, images=np.concatenate([batch.images[:3], 255 - batch.images[3:]])),
    }
    order = ["text", "image_1", "image_2"]
    assert fusion.joint is not None
    weight = fusion.joint.first.weight.numpy().copy()
    for place, name in enumerate(order):
        alone = np.zeros_like(weight)
        alone[place * WIDTH : (place + 1) * WIDTH] = weight[place * WIDTH : (place + 1) * WIDTH]
        fusion.joint.first.weight.set_value(alone)
        before = logits(network, batch)
        for other, inputs in moved.items():
            difference = np.abs(logits(network, inputs) - before).max()
            assert (difference > 1e-4) if other == name else (difference < 1e-6), (name, other)


def test_the_gradient_reaches_both_images(case: tuple[EntailmentNetwork, Batch]) -> None:
    network, batch = case
    assert batch.images is not None and batch.present is not None
    regions = regions_of(network, batch.images, batch.present.T.reshape(-1) > 0).detach()
    regions.stop_gradient = False
    ids, types = paddle.to_tensor(batch.input_ids), paddle.to_tensor(batch.token_type_ids)
    network(ids, types, (regions[:3], regions[3:]), paddle.to_tensor(batch.present))[:, 0].sum().backward()
    gradient = np.abs(regions.grad.numpy()).sum(axis=(1, 2))
    assert (gradient > 0).all() and not np.allclose(gradient[:3], gradient[3:])


def test_a_missing_image_is_the_learned_vector(case: tuple[EntailmentNetwork, Batch]) -> None:
    network, batch = case
    assert batch.images is not None
    missing = changed(batch, present=np.array([[1, 0], [0, 1], [0, 0]], np.float32))
    other = missing.images.copy()
    for place in (1, 2, 3, 5):  # the contents of missing images do not matter
        other[place] = 255 - other[place]
    base = logits(network, missing)
    np.testing.assert_allclose(base, logits(network, changed(missing, images=other)), atol=1e-6)
    assert (np.abs(base - logits(network, batch)).max(axis=1) > 1e-4).all()
    network.fusion.missing_image.vector.set_value(network.fusion.missing_image.vector + 1.0)
    assert (np.abs(base - logits(network, missing)).max(axis=1) > 1e-4).all()
    none = changed(batch, present=np.zeros((3, 2), np.float32))
    assert np.isfinite(logits(network, none)).all()


def test_padding_changes_nothing(case: tuple[EntailmentNetwork, Batch]) -> None:
    network, batch = case
    assert batch.input_ids is not None and batch.token_type_ids is not None
    wider = [np.concatenate([a, np.zeros((3, 4), a.dtype)], axis=1) for a in (batch.input_ids, batch.token_type_ids)]
    padded = changed(batch, input_ids=wider[0], token_type_ids=wider[1])
    np.testing.assert_allclose(logits(network, batch), logits(network, padded), atol=2e-5)


def test_every_parameter_is_trained(case: tuple[EntailmentNetwork, Batch]) -> None:
    network, batch = case
    network.train()
    logits_of(network, changed(batch, present=np.array([[1, 1], [0, 1], [1, 0]], np.float32)).arrays())[
        :, 1
    ].sum().backward()
    idle = {name for name, p in network.named_parameters() if p.grad is None or not np.abs(p.grad.numpy()).any()}
    # Keys' biases do not move a softmax; word embeddings of padding are untouched but those of tokens are not.
    assert not {name for name in idle if not name.endswith("k_proj.bias")}


def test_frozen_encoders_stay_and_compute_as_in_evaluation(tmp_path: Path) -> None:
    parts = make_parts(tmp_path, frozen_text=True, frozen_vision=True)
    network = parts.network
    network.train()
    assert network.text is not None and network.vision is not None
    assert not network.text.encoder.training and not network.vision.training and network.fusion.training
    logits_of(network, batch_of(parts, draw_images(6), np.ones((3, 2), np.float32)).arrays()).sum().backward()
    with_gradient = {name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None}
    assert with_gradient == {"fusion"}


def test_features_that_were_kept_give_the_same(case: tuple[EntailmentNetwork, Batch]) -> None:
    network, batch = case
    assert batch.images is not None and network.vision is not None
    with paddle.no_grad():
        features = network.regions(paddle.to_tensor(batch.images)).numpy()
    np.testing.assert_allclose(logits(network, batch), logits(network, changed(batch, images=features)), atol=1e-5)


def test_modality_dropout(tmp_path: Path) -> None:
    """With a dropout of nearly 1, each of two examples with different images and texts lost one kind of input."""
    parts = make_parts(tmp_path, shape=Shape(modality_dropout=0.999, dropout=0.0))
    network = parts.network
    fusion = network.fusion
    network.train()
    text, present = paddle.randn([400, 16]), paddle.ones([400, 2])
    paddle.seed(3)
    kept_text, _, kept = fusion._without_some(text, None, present)
    assert kept_text is not None and kept is not None
    lost_text = np.abs(kept_text.numpy() - fusion.missing_text.vector.numpy()).max(axis=1) < 1e-6
    lost_images = kept.numpy().sum(axis=1) == 0
    assert (lost_text ^ lost_images).mean() > 0.99 and 0.4 < lost_text.mean() < 0.6
    paddle.seed(3)
    again, _, _ = fusion._without_some(text, None, present)
    assert again is not None
    np.testing.assert_array_equal(kept_text.numpy(), again.numpy())
    network.eval()
    batch = batch_of(parts, draw_images(6), np.ones((3, 2), np.float32))
    np.testing.assert_array_equal(logits(network, batch), logits(network, batch))


def test_without_the_joint_layer_parts_only_add_up(tmp_path: Path) -> None:
    """If logits are sums, f(a, b) - f(a', b) does not depend on b; with the joint layer it does."""
    for joint in (False, True):
        parts = make_parts(tmp_path / str(joint), shape=Shape(joint=joint, compare_images=False))
        images = draw_images(4)
        present = np.ones((1, 2), np.float32)

        def f(one: int, two: int, parts: Any = parts, images: Any = images, present: Any = present) -> np.ndarray:
            ids, types = parts.row_encoder.texts.encode(["a"], ["b"]).pad(np.arange(1)).values()
            return logits(parts.network, Batch(ids, types, images[[one, two]], present))

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


def test_a_network_needs_something_to_look_at() -> None:
    with pytest.raises(ValueError, match="texts, images or both"):
        EntailmentNetwork(None, None, Shape())
