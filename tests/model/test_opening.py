"""What opening a model does not do: draw parameters, copy what lies on the disk, or change it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file, save_file

from paddle_ranker.model.hugging_face.weights import read_weights
from paddle_ranker.model.model_folder import load_encoder
from paddle_ranker.model.ranker_folder import load_single
from paddle_ranker.storage.untrusted import map_file
from tests.model.test_families import logits_of, write_folder

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("case", ["xlm-roberta", "modernbert", "deberta-v3"])
def test_nothing_is_drawn_but_what_the_files_lack(tmp_path: Path, case: str) -> None:
    folder = write_folder(tmp_path / "hf", case)
    paddle.seed(3)
    wanted = paddle.rand([4]).numpy()
    paddle.seed(3)
    load_encoder(folder)
    np.testing.assert_array_equal(paddle.rand([4]).numpy(), wanted)
    arrays = load_file(folder / "model.safetensors")
    of_pooler = [name for name in arrays if name.startswith(("pooler.", "head.", "classifier.dense."))]
    save_file({name: array for name, array in arrays.items() if name not in of_pooler}, folder / "model.safetensors")
    paddle.seed(3)
    loaded = load_encoder(folder)
    assert "encoder.pooler.dense" in loaded.new_parts
    drawn = loaded.network.pooler.dense.weight.numpy()
    assert 0.01 < drawn.std() < 0.03  # initializer_range is 0.02
    assert not np.array_equal(paddle.rand([4]).numpy(), wanted)


def test_two_networks_of_one_file_are_two_and_the_file_stays(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "hf", "xlm-roberta")
    before = (folder / "model.safetensors").read_bytes()
    first, second = load_single(folder).network, load_single(folder).network
    wanted = logits_of(first)
    for parameter in second.parameters():
        parameter.set_value(parameter.numpy() + 1.0)
    words = second.encoder.embeddings.word_embeddings.weight
    (words * 1.0).sum().backward()
    paddle.optimizer.SGD(0.5, parameters=[words]).step()  # in place
    assert not np.allclose(logits_of(second), wanted)
    np.testing.assert_array_equal(logits_of(first), wanted)
    assert (folder / "model.safetensors").read_bytes() == before
    np.testing.assert_array_equal(logits_of(load_single(folder).network), wanted)


def test_the_numbers_of_a_file_may_lie_anywhere(tmp_path: Path) -> None:
    """Of a header whose length is odd, so that no number lies at a multiple of its size."""
    folder = write_folder(tmp_path / "hf", "modernbert")
    wanted = logits_of(load_single(folder).network)
    file = folder / "model.safetensors"
    data = file.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:begin])).encode()
    header += b" " * (1 - len(header) % 2)
    file.write_bytes(len(header).to_bytes(8, "little") + header + data[begin:])
    np.testing.assert_array_equal(logits_of(load_single(folder).network), wanted)


def test_arrays_lie_in_the_file_s_pages(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "hf", "xlm-roberta")
    _, arrays = read_weights(folder)
    expected = load_file(folder / "model.safetensors")
    assert sorted(arrays) == sorted(expected)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, expected[name])
        assert not array.flags.owndata and array.flags.writeable, name
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(ValueError, match="empty"):
        map_file(tmp_path / "empty", 100)
