"""PyTorch's parameter files: both formats are read as torch reads them, and hostile ones are refused unexecuted."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Callable

import numpy as np
import pytest

from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.hugging_face.weights import load_torch_arrays
from tests import torch_writer as w
from tests.conftest import run_python

pytestmark = pytest.mark.unit

ARRAYS = {
    "a.weight": np.arange(6, dtype="float32").reshape(2, 3),
    "half": np.array([1.5, -2.0], dtype="float16"),
    "brain": np.array([0x3FC0, 0xC000], dtype="uint16"),  # 1.5 and -2 as bfloat16
    "double": np.array([[0.1]], dtype="float64"),
    "ids": np.arange(4, dtype="int64"),
    "flags": np.array([True, False]),
    "scalar": np.array(2.5, dtype="float32"),
    "empty": np.empty((0, 3), dtype="float32"),
}


@pytest.mark.parametrize("legacy", [False, True])
def test_every_type_of_number(tmp_path: Path, legacy: bool) -> None:
    found = load_torch_arrays(w.save(tmp_path / "a.bin", ARRAYS, legacy=legacy))
    assert list(found) == list(ARRAYS)
    assert found.pop("brain").tolist() == [1.5, -2.0]
    for name, array in found.items():
        assert array.dtype == ARRAYS[name].dtype and array.shape == ARRAYS[name].shape, name
        np.testing.assert_array_equal(array, ARRAYS[name])


@pytest.mark.parametrize("legacy", [False, True])
def test_views_of_one_storage(tmp_path: Path, legacy: bool) -> None:
    of = w.storage("FloatStorage", "0", 12, legacy=legacy)
    views = {
        "whole": w.tensor(of, 0, [3, 4], [4, 1]),
        "transposed": w.tensor(of, 0, [4, 3], [1, 4]),
        "slice": w.tensor(of, 5, [2, 2], [4, 2]),
        "last": w.tensor(of, 11, [1], [1]),
    }
    base = np.arange(12, dtype="float32")
    path = w.write(tmp_path / "a.bin", w.pickled(w.mapping(views)), {"0": base}, legacy=legacy)
    found = load_torch_arrays(path)
    assert found["whole"].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert found["transposed"].tolist() == found["whole"].T.tolist()
    assert found["slice"].tolist() == [[5, 7], [9, 11]]
    assert found["last"].tolist() == [11]


TORCH = """
import sys, torch
torch.manual_seed(0)
base = torch.randn(6, 8)
state = torch.nn.Linear(3, 4).state_dict()  # an OrderedDict with attributes of its own
state.update(base=base, transposed=base.t(), slice=base[2:4, 1::3], brain=torch.randn(5).bfloat16(),
             half=torch.randn(3).half(), ids=torch.arange(7).expand(1, -1), empty=torch.empty(0, 4))
for name, is_zip in (("zip", True), ("legacy", False)):
    torch.save(state, f"{sys.argv[1]}/{name}.bin", _use_new_zipfile_serialization=is_zip)
import numpy
numpy.savez(f"{sys.argv[1]}/expected.npz", **{name: value.float().numpy() for name, value in state.items()})
"""


@pytest.mark.slow
def test_what_torch_writes(tmp_path: Path) -> None:
    # In a process of its own: torch and Paddle bring runtime libraries that need not agree.
    if subprocess.run([sys.executable, "-c", "import torch"], capture_output=True).returncode:
        pytest.skip("needs torch: pip install -r requirements/peers.in")
    subprocess.run([sys.executable, "-c", TORCH, str(tmp_path)], check=True)
    expected = np.load(tmp_path / "expected.npz")
    for name in ("zip", "legacy"):
        found = load_torch_arrays(tmp_path / f"{name}.bin")
        assert sorted(found) == sorted(expected)
        for key, array in found.items():
            np.testing.assert_array_equal(array, expected[key], err_msg=f"{name} {key}")


OF = w.storage("FloatStorage", "0", 2)
GOOD = w.tensor(OF, 0, [2], [1])
ONES = {"0": np.ones(2, "float32")}
DATA = {"0": ONES["0"].tobytes()}


def hostile(body: bytes) -> bytes:
    return w.pickled(w.mapping({"x": body}))


MARK = w.text("touch MARK")
DOUBLED = (b"0](h" + bytes([i]) + b"h" + bytes([i]) + b"eq" + bytes([i + 1]) for i in range(60))  # each twice the last


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        (w.call(w.name("os", "system"), MARK), "os.system"),
        (w.call(w.name("builtins", "eval"), w.text("open('MARK', 'w')")), "builtins.eval"),
        (w.call(w.name("__builtin__", "eval"), w.text("open('MARK', 'w')")), "__builtin__.eval"),
        (w.call(w.name("subprocess", "Popen"), w.row(w.text("touch"), w.text("MARK"))), "subprocess.Popen"),
        (w.call(w.name("torch", "load"), w.text("MARK")), "torch.load"),
        (w.call(w.name("torch._utils", "_rebuild_parameter"), GOOD), "torch._utils._rebuild_parameter"),
        (w.name("numpy.core.multiarray", "_reconstruct"), "numpy.core.multiarray._reconstruct"),
        (w.text("os") + w.text("system") + b"\x93" + w.row(MARK) + b"R", "os.system"),  # STACK_GLOBAL
        (b"(" + MARK + b"ios\nsystem\n", "os.system"),  # INST
        (b"(" + w.name("os", "system") + MARK + b"o", "os.system"),  # OBJ
        (w.name("torch._utils", "_rebuild_tensor_v2.__globals__"), "_rebuild_tensor_v2.__globals__"),
        (w.name("collections", "OrderedDict.__class__"), "OrderedDict.__class__"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("legacy", [False, True])
def test_whatever_else_it_asks_for_is_named_and_not_done(
    tmp_path: Path, body: bytes, asked: str, legacy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = w.write(tmp_path / "a.bin", hostile(body), ONES, legacy=legacy)
    with pytest.raises(CheckpointError, match="refused, it asks for") as caught:
        load_torch_arrays(path)
    assert asked in str(caught.value)
    assert os.listdir(tmp_path) == ["a.bin"]
    if body == w.call(w.name("os", "system"), MARK):  # which is hostile indeed
        pickle.loads(hostile(body))  # noqa: S301
        assert sorted(os.listdir(tmp_path)) == ["MARK", "a.bin"]


@pytest.mark.parametrize("legacy", [False, True])
def test_the_pickles_around_the_tensors_are_not_trusted_either(tmp_path: Path, legacy: bool) -> None:
    evil = w.pickled(w.call(w.name("os", "system"), w.text(f"touch {tmp_path / 'MARK'}")))
    good = w.save(tmp_path / "good.bin", {"x": np.ones(2, "float32")}, legacy=True).read_bytes()
    magic = len(w.pickled(w.number(0x1950A86A20F9469CFC6C)))
    path = tmp_path / "a.bin"
    path.write_bytes(evil if legacy else good[:magic] + evil + good[magic:])
    with pytest.raises(CheckpointError, match=r"refused, it asks for os\.system"):
        load_torch_arrays(path)
    assert not (tmp_path / "MARK").exists()


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, [3], [1]), (1, [2], [1]), (2, [1], [1]), (0, [2], [2]), (10**30, [1], [1]), (-1, [1], [1]), (1, [2], [-1]),
        (0, [2**62, 4], [4, 1]),  # as 64-bit integers, 2**64 numbers are none
        (0, [1 << 40], [0]),  # a terabyte out of one number
        (0, [2, 2], [1, 0]), (0, [-1], [1]), (0, [2], [1, 1]), (0, [2], []),
    ],
)  # fmt: skip
@pytest.mark.parametrize("legacy", [False, True])
def test_a_tensor_outside_its_storage(
    tmp_path: Path, offset: int, shape: list[int], strides: list[int], legacy: bool
) -> None:
    of = w.storage("FloatStorage", "0", 2, legacy=legacy)
    path = w.write(tmp_path / "a.bin", hostile(w.tensor(of, offset, shape, strides)), ONES, legacy=legacy)
    with pytest.raises(CheckpointError, match="refused, its tensor 'x'"):
        load_torch_arrays(path)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (w.tensor(w.storage("FloatStorage", "0", 1 << 50), 0, [1 << 50], [1]), "is 8 bytes long"),
        (w.tensor(w.storage("DoubleStorage", "0", 2), 0, [2], [1]), "is 8 bytes long"),
        (w.tensor(w.storage("FloatStorage", "../../../etc/passwd", 2), 0, [2], [1]), "is not there"),
        (w.tensor(w.storage("FloatStorage", "0", -2), 0, [2], [1]), "of -2 numbers"),
        (w.tensor(w.storage("QInt8Storage", "0", 8), 0, [8], [1]), r"asks for torch\.QInt8Storage"),
        (w.tensor(w.text("a storage"), 0, [2], [1]), "'x' is made of 'a storage'"),
        (w.tensor(GOOD, 0, [2], [1]), "'x' is made of a Tensor"),
        (w.call(w.name("torch", "FloatStorage"), w.number(1 << 40)), "damaged"),  # not to be called
        (w.row(w.text("module"), w.text("os"), w.text("x.py"), w.text("source")) + b"Q", "refers to a tuple"),
        (w.text("elsewhere") + b"Q", "refers to 'elsewhere'"),
        (b"Pelsewhere\n", "refers to 'elsewhere'"),
        (OF, "'x' is a Storage, not a tensor"),
        (w.number(3), "'x' is 3, not a tensor"),
        (b"]q\x00" + b"".join(DOUBLED), "a list"),  # whose text has no end
        (GOOD + b"N" + w.mapping({"_offset": w.number(9)}) + b"\x86b", "it changes a Tensor"),
        (w.tensor(OF + b"N" + w.mapping({"count": w.number(9)}) + b"\x86b", 0, [9], [1]), "it changes a Storage"),
        (w.name("torch._utils", "_rebuild_tensor_v2") + w.mapping({"__defaults__": b"N"}) + b"b", "it changes a Re"),
        (w.name("collections", "OrderedDict") + w.mapping({"get": b"N"}) + b"b", "damaged"),
        (GOOD + b"r\xff\xff\xff\x7f", "a memory of"),  # room for two billion objects
        (b"\x8e" + (1 << 45).to_bytes(8, "little") + b"abc", "damaged"),  # 32 TB announced
    ],
)
def test_what_is_no_tensor(tmp_path: Path, body: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_torch_arrays(w.write_zip(tmp_path / "a.bin", hostile(body), DATA))


def overlapping(path: Path) -> None:
    """Ten entries over the same bytes: the directory at the archive's end says where each begins."""
    big = np.zeros(1000, "float32")
    of = [w.storage("FloatStorage", str(key), 1000) for key in range(10)]
    body = w.pickled(w.mapping({str(key): w.tensor(part, 0, [1000], [1]) for key, part in enumerate(of)}))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a/data.pkl", body)
        archive.writestr("a/data/0", big.tobytes())
        first = archive.getinfo("a/data/0")
        for key in range(1, 10):
            entry = zipfile.ZipInfo(f"a/data/{key}")
            for field in ("header_offset", "CRC", "compress_size", "file_size"):
                setattr(entry, field, getattr(first, field))
            archive.filelist.append(entry)
            archive.NameToInfo[entry.filename] = entry
    path.write_bytes(stream.getvalue())


TWO_SIZES = w.mapping({"x": GOOD, "y": w.tensor(w.storage("HalfStorage", "0", 4), 0, [4], [1])})
LEGACY = w.described({"x": np.ones(2, "float32")}, legacy=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: w.write_zip(path, hostile(GOOD), DATA, compression=zipfile.ZIP_DEFLATED), "unpacks to more"),
        (overlapping, "unpacks to more"),
        (lambda path: w.write_zip(path, hostile(GOOD), DATA, more={"archive/constants.pkl": b""}), "TorchScript"),
        (lambda path: w.write_zip(path, hostile(GOOD), DATA, more={"archive/code/data.pkl": b""}), "2 data.pkl"),
        (lambda path: w.write_zip(path, hostile(GOOD), DATA, more={"archive/byteorder": b"big"}), "big-endian"),
        (lambda path: w.write_zip(path, w.pickled(TWO_SIZES), DATA), "the storage '0' in two ways"),
        (lambda path: w.write_legacy(path, LEGACY, ONES, False), "big-endian"),
        (lambda path: w.write_legacy(path, LEGACY, {}), "not those of its tensors"),
        (lambda path: w.write_legacy(path, LEGACY, {"0": np.ones(3, "float32")}), "is not whole"),
        (lambda path: path.write_bytes(b"not a model at all"), "damaged"),
        (lambda path: path.write_bytes(pickle.dumps({"x": 1})), "damaged"),
        (lambda path: w.write_zip(path, w.pickled(b"]"), {}), "it holds "),
        (lambda path: w.write_zip(path, w.pickled(b"}"), {}), "no parameters"),
        (lambda path: None, "no such parameter file"),
    ],
)
def test_a_file_that_is_not_what_it_should_be(tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
    make(tmp_path / "a.bin")
    with pytest.raises(CheckpointError, match=message):
        load_torch_arrays(tmp_path / "a.bin")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_that_was_cut_short_anywhere(tmp_path: Path, legacy: bool) -> None:
    whole = w.save(tmp_path / "whole.bin", {"x": np.ones(20, "float32")}, legacy=legacy).read_bytes()
    for length in range(0, len(whole) - 1, 7):
        (tmp_path / "a.bin").write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            load_torch_arrays(tmp_path / "a.bin")


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    array = np.full(50, 1.0, "float32")
    content = bytearray(w.save(tmp_path / "a.bin", {"x": array}).read_bytes())
    content[content.index(array.tobytes()) + 10] ^= 1
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(CheckpointError, match="CRC"):
        load_torch_arrays(tmp_path / "a.bin")


def test_entries_with_paths_elsewhere_are_not_unpacked(tmp_path: Path) -> None:
    more = {str(tmp_path / "MARK"): b"x", "../MARK": b"x"}
    found = load_torch_arrays(w.write_zip(tmp_path / "a.bin", hostile(GOOD), DATA, more=more))
    assert found["x"].tolist() == [1, 1]
    assert os.listdir(tmp_path) == ["a.bin"] and not (tmp_path.parent / "MARK").exists()


def test_memory_stays_in_proportion(tmp_path: Path) -> None:
    """A hostile file of some hundred bytes is refused within a process that may take 1 GB."""
    for place, body in enumerate((GOOD + b"r\xff\xff\xff\x7f", w.tensor(OF, 0, [1 << 45], [0]))):
        w.write_zip(tmp_path / f"{place}.bin", hostile(body), DATA)
    program = (
        "import resource, sys\n"
        "from paddle_ranker.errors import CheckpointError\n"
        "from paddle_ranker.model.hugging_face.weights import load_torch_arrays\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n        load_torch_arrays(path)\n"
        "    except CheckpointError as error:\n        assert 'refused' in str(error), error\n"
        "    else:\n        raise SystemExit('read')\n"
    )
    run_python(program, tmp_path / "0.bin", tmp_path / "1.bin")
