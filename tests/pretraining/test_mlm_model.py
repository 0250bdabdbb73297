"""The masked language model: its loss against NumPy, its logits against PaddleNLP's models, and its checkpoints."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.families import FAMILIES, write_config
from paddle_ranker.model.hugging_face.architectures import to_theirs
from paddle_ranker.model.parameters import PARAMETERS_FILE, load_arrays, save_arrays
from pretraining.examples import MaskedExamples, token_losses
from pretraining.model import MaskedLanguageModel, load_masked_lm
from tests.numpy_bert import NumpyBert
from tests.tiny import CONFIG, write_encoder, write_tokenizer

LENGTH = 7
IDS = np.array([[1, 10, 3, 12, 13, 3, 2], [1, 20, 3, 2, 0, 0, 0], [1, 30, 31, 3, 32, 2, 0]])
PLACES = np.array([2, 5, 9, 17])  # [MASK] has the id 3 in the flattened batch


def make(seed: int = 1, **changes: Any) -> MaskedLanguageModel:
    """Return a tiny network with random parameters, including biases."""
    paddle.seed(seed)
    network = MaskedLanguageModel(dataclasses.replace(CONFIG, **changes), has_pooler=True)
    random = np.random.RandomState(seed)
    for parameter in network.parameters():
        if parameter.ndim == 1:
            parameter.set_value(parameter.numpy() + 0.3 * random.randn(*parameter.shape).astype("float32"))
    network.eval()
    return network


def write(folder: Path, network: MaskedLanguageModel) -> Path:
    write_tokenizer(folder)
    write_config(folder, network.config)
    save_arrays(network.state_dict(), folder / PARAMETERS_FILE)
    return folder


def logits_by_numpy(network: MaskedLanguageModel, ids: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the logits, `[m, vocab]` float64, by the formulas of the papers."""
    kind = network.config.model_type
    state = {re.sub(rf"^{kind}\.", "encoder.", name): tensor.numpy() for name, tensor in network.state_dict().items()}
    architecture = FAMILIES[kind].architecture
    assert architecture is not None
    theirs = to_theirs(state, architecture.names)
    return NumpyBert(theirs, dataclasses.asdict(network.config)).masked_logits(ids, places)


@pytest.mark.unit
@pytest.mark.parametrize("changes", [{"model_type": "ernie"}, {"model_type": "bert"}, {"hidden_act": "gelu_new"}])
def test_the_loss_is_the_one_worked_out_in_numpy(changes: dict[str, Any]) -> None:
    network = make(**changes)
    expected = logits_by_numpy(network, IDS, PLACES)
    np.testing.assert_allclose(network(IDS, PLACES).numpy(), expected, atol=2e-4)

    class Given(MaskedExamples):
        def masked(self, indices: np.ndarray) -> Any:
            return batch

    labels = np.array([11, 14, 21, 33])
    batch = type("Batch", (), {"ids": IDS, "indices": PLACES, "labels": labels})()
    shifted = expected - expected.max(axis=1, keepdims=True)
    by_hand = -(shifted[np.arange(4), labels] - np.log(np.exp(shifted).sum(axis=1))).mean()
    examples = Given.__new__(Given)
    assert float(examples.loss(network, np.arange(3))[0]) == pytest.approx(by_hand, abs=1e-4)
    assert by_hand > 1.0 and examples.weight(np.arange(3)) == 4.0


@pytest.mark.unit
def test_a_token_thought_impossible_costs_what_it_should() -> None:
    logits = paddle.to_tensor([[0.0, 100.0, 99.0], [3.0, 1.0, 2.0]], stop_gradient=False)
    losses = token_losses(logits, paddle.to_tensor([0, 0]))
    usual = np.log(1 + np.exp(-2) + np.exp(-1))
    np.testing.assert_allclose(losses.numpy(), [100 + np.log(1 + np.exp(-1)), usual], rtol=1e-6)
    losses.sum().backward()  # softmax(l), less 1 at the label
    first, second = np.exp([-100.0, 0, -1]), np.exp([0.0, -2, -1])
    expected = np.stack([first / first.sum(), second / second.sum()]) - [[1, 0, 0]] * 2
    np.testing.assert_allclose(logits.grad.numpy(), expected, atol=1e-6)


@pytest.mark.unit
@pytest.mark.parametrize("normalize_before", [False, True])
def test_the_last_layer_at_some_places_is_the_whole_one_there(normalize_before: bool) -> None:
    network = make(normalize_before=normalize_before)
    ids = paddle.to_tensor(IDS)
    whole = network.encoder(ids, paddle.zeros_like(ids)).reshape([-1, CONFIG.hidden_size]).numpy()
    places = np.array([[0, 2], [9, 7], [17, 14]])
    some = network.encoder.at(ids, paddle.zeros_like(ids), paddle.to_tensor(places)).numpy()
    np.testing.assert_allclose(some, whole[places], atol=2e-6)


@pytest.mark.unit
def test_a_pooler_is_not_trained_and_in_no_checkpoint_of_a_new_network(tmp_path: Path) -> None:
    network = make()
    network(IDS, PLACES).sum().backward()
    missing = [name for name, p in network.named_parameters() if p.grad is None]
    assert missing == ["ernie.pooler.dense.weight", "ernie.pooler.dense.bias"]
    write(tmp_path / "a", MaskedLanguageModel(CONFIG))
    assert not [name for name in load_arrays(tmp_path / "a" / PARAMETERS_FILE) if "pooler" in name]
    assert not load_masked_lm(tmp_path / "a", need_head=True).network.has_pooler


@pytest.mark.unit
def test_an_encoder_without_a_head_gets_a_new_one_or_is_refused(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "encoder")
    loaded = load_masked_lm(folder, need_head=False)
    assert loaded.new_parts == ["cls"]
    name = "embeddings.word_embeddings.weight"
    np.testing.assert_array_equal(
        loaded.network.state_dict()[f"ernie.{name}"].numpy(), load_arrays(folder / PARAMETERS_FILE)[name]
    )
    with pytest.raises(CheckpointError, match=r"has no head of a masked language model .*--model"):
        load_masked_lm(folder, need_head=True)


@pytest.mark.unit
def test_checkpoints_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    network = make()
    folder = write(tmp_path / "a", network)
    state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}

    def refuse(change: dict[str, np.ndarray], message: str, drop: str = "") -> None:
        arrays = {name: array for name, array in {**state, **change}.items() if name != drop}
        save_arrays(arrays, folder / PARAMETERS_FILE)
        with pytest.raises(CheckpointError, match=message):
            load_masked_lm(folder, need_head=True)

    refuse(
        {"cls.predictions.decoder.weight": state["ernie.embeddings.word_embeddings.weight"] + 1}, "matrix of its own"
    )
    refuse({"cls.predictions.decoder_bias": np.zeros(3, "float32")}, r"decoder_bias is \[3\], the configuration says")
    refuse({}, "missing: cls.predictions.layer_norm.bias", drop="cls.predictions.layer_norm.bias")
    with pytest.raises(CheckpointError, match="type ernie_gram are not supported; known: ernie, bert"):
        MaskedLanguageModel(dataclasses.replace(CONFIG, model_type="ernie_gram"))


@pytest.mark.parity
@pytest.mark.parametrize("model_type", ["ernie", "bert"])
def test_logits_are_those_of_paddlenlp(model_type: str, tmp_path: Path) -> None:
    import paddlenlp.transformers as theirs

    name = {"ernie": "Ernie", "bert": "Bert"}[model_type]
    shape = {k: v for k, v in dataclasses.asdict(CONFIG).items() if k not in ("normalize_before", "model_type")}
    paddle.seed(3)
    reference = getattr(theirs, f"{name}ForMaskedLM")(getattr(theirs, f"{name}Config")(**shape))
    reference.eval()
    random = np.random.RandomState(3)
    for parameter in reference.parameters():
        if parameter.ndim == 1:
            parameter.set_value(parameter.numpy() + 0.3 * random.randn(*parameter.shape).astype("float32"))
    folder = tmp_path / "theirs"
    write_tokenizer(folder)
    write_config(folder, dataclasses.replace(CONFIG, model_type=model_type))
    save_arrays(reference.state_dict(), folder / PARAMETERS_FILE)
    ids = paddle.to_tensor(IDS)
    expected = reference(ids, paddle.zeros_like(ids))
    expected = (expected if isinstance(expected, paddle.Tensor) else expected[0]).reshape([-1, CONFIG.vocab_size])
    loaded = load_masked_lm(folder, need_head=True)
    assert loaded.new_parts == [] and loaded.network.has_pooler
    loaded.network.eval()
    ours = loaded.network(IDS, PLACES).numpy()
    np.testing.assert_allclose(ours, expected.numpy()[PLACES], atol=1e-5)
    assert np.ptp(ours) > 1.0

    # In the other direction, PaddleNLP loads a folder of this toolkit.
    ours_folder = write(tmp_path / "ours", loaded.network)
    again = getattr(theirs, f"{name}ForMaskedLM").from_pretrained(str(ours_folder))
    again.eval()
    logits = again(ids, paddle.zeros_like(ids))
    logits = (logits if isinstance(logits, paddle.Tensor) else logits[0]).reshape([-1, CONFIG.vocab_size])
    np.testing.assert_allclose(logits.numpy()[PLACES], ours, atol=1e-5)


@pytest.mark.unit
def test_attention_within_documents_sees_nothing_of_the_others() -> None:
    network = make()
    ids = np.array([[1, 10, 3, 2, 20, 21, 3, 2], [1, 10, 3, 12, 13, 2, 0, 0]])
    places = np.array([2, 6, 10])
    crossing = network(ids, places).numpy()
    network.separator = 2
    within = network(ids, places).numpy()
    np.testing.assert_allclose(within[2], crossing[2], atol=1e-5)  # with one document there is nothing to keep apart
    assert np.abs(within[:2] - crossing[:2]).max() > 0.01
    for column, seen in ((1, 0), (4, 1)):
        changed = ids.copy()
        changed[0, column] = 33
        moved = np.abs(network(changed, places).numpy() - within).max(axis=1)
        assert moved[seen] > 0.01 and moved[1 - seen] < 1e-5
    network.separator = None
    changed = ids.copy()
    changed[0, 4] = 33
    assert np.abs(network(changed, places).numpy() - crossing).max(axis=1)[0] > 0.01
