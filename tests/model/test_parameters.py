"""Parameter files: what is read, and what is refused without being executed."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Callable

import numpy as np
import paddle
import pytest

from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.parameters import load_arrays, save_arrays

pytestmark = pytest.mark.unit


class _Command:
    """A pickle that runs a shell command when it is loaded by `pickle.load` (and by `paddle.load`)."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.path}",)


def test_what_paddle_writes_is_read_and_the_other_way_round(tmp_path: Path) -> None:
    written = {"x": paddle.to_tensor([1.5, -2.0, 0.0]), "brain": paddle.to_tensor([1.5, -2.0]).astype("bfloat16")}
    paddle.save(written, str(tmp_path / "a.pdparams"))
    arrays = load_arrays(tmp_path / "a.pdparams")
    assert {name: array.tolist() for name, array in arrays.items()} == {"x": [1.5, -2.0, 0.0], "brain": [1.5, -2.0]}
    save_arrays({"x": paddle.to_tensor([1.5, 2.0])}, tmp_path / "a.pdparams")
    assert paddle.load(str(tmp_path / "a.pdparams"))["x"].numpy().tolist() == [1.5, 2.0]


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_every_protocol_of_older_checkpoints(tmp_path: Path, protocol: int) -> None:
    array = np.arange(6, dtype="float32").reshape(2, 3)
    (tmp_path / "a.pdparams").write_bytes(pickle.dumps({"x": array}, protocol=protocol))
    np.testing.assert_array_equal(load_arrays(tmp_path / "a.pdparams")["x"], array)


@pytest.mark.parametrize("wrap", [lambda evil: evil, lambda evil: {"x": evil}, lambda evil: {"x": [evil]}])
def test_a_hostile_pickle_is_refused_and_nothing_runs(tmp_path: Path, wrap: Callable[[object], object]) -> None:
    mark, file = tmp_path / "executed", tmp_path / "a.pdparams"
    file.write_bytes(pickle.dumps(wrap(_Command(mark))))
    with pytest.raises(CheckpointError, match=r"system"):
        load_arrays(file)
    assert not mark.exists()
    pickle.loads(file.read_bytes())  # noqa: S301 - the stream is hostile indeed
    assert mark.exists()


def test_a_hostile_global_of_the_codec_is_refused(tmp_path: Path) -> None:
    stream = b"\x80\x02}q\x00X\x01\x00\x00\x00xc_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86Rs."
    (tmp_path / "a.pdparams").write_bytes(stream)
    with pytest.raises(CheckpointError, match="rot13"):
        load_arrays(tmp_path / "a.pdparams")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged"),
        (pickle.dumps({"x": np.ones(1000, "float32")})[:-500], "damaged"),
        (b"not a pickle", "damaged"),
        (pickle.dumps([1, 2]), "holds a list"),
        (pickle.dumps({}), "no parameters"),
        (pickle.dumps({"x": "text"}), "'x' is a str"),
        (pickle.dumps({"x": np.array(["text"])}), "'x' is a ndarray"),
        (pickle.dumps({"x": np.array([{}], dtype=object)}), "'x' is a ndarray"),
    ],
)
def test_damaged_and_foreign_files(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.pdparams").write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_arrays(tmp_path / "a.pdparams")
    assert str(tmp_path / "a.pdparams") in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no such"):
        load_arrays(tmp_path / "a.pdparams")
