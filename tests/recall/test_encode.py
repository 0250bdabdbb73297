"""Files of vectors: in the rows' order, in every type, by several processes, and with the same bytes after a kill."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from paddle_ranker.__main__ import main
from paddle_ranker.array_types import Vectors
from paddle_ranker.commands.convert import main as convert
from paddle_ranker.errors import DataError
from paddle_ranker.retrieval.index import towers
from paddle_ranker.retrieval.vectors import text_vectors as vectors_module
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from paddle_ranker.retrieval.vectors.vector_files import VectorFile, open_vectors, scales_path
from recall.feature_extract import main as feature_extract
from recall.predict import main as predict
from tests.tiny import HAN, write_encoder

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encode")
    write_encoder(folder / "encoder")
    assert convert([str(folder / "encoder"), str(folder / "tower"), "--to", "tower", "--normalize", "true"]) == 0
    return folder / "tower"


@pytest.fixture(scope="module")
def texts() -> list[str]:
    random = np.random.default_rng(0)
    return ["".join(random.choice(HAN, int(size))) for size in random.integers(1, 30, 100)]


@pytest.fixture
def source(texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a file of the texts, which are encoded 16 at a time; return it."""
    monkeypatch.setattr(vectors_module, "CHUNK", 16)
    path = tmp_path / "texts.tsv"
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


def encode(tower: Path, source: Path, output: Path, *more: str) -> int:
    return main(["encode", "--model", str(tower), "--input", str(source), "--output", str(output), *more])


def test_rows_keep_their_order_in_every_type(
    tower: Path, texts: list[str], source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = np.concatenate([Tower.open(tower).vectors([text]) for text in texts])
    for dtype, far in (("float32", 1e-6), ("float16", 1e-3), ("int8", 5e-3)):
        output = tmp_path / f"{dtype}.npy"
        assert encode(tower, source, output, "--dtype", dtype) == 0
        assert capsys.readouterr().out == f"{output}: 100 vectors of 16 numbers, {dtype}\n"
        values = np.load(output)
        assert values.dtype == dtype and scales_path(output).exists() == (dtype == "int8")
        found = values.astype(np.float32)
        if dtype == "int8":
            found = found * np.load(scales_path(output))[:, None]
            assert np.abs(values).max() == 127
        np.testing.assert_allclose(found, wanted, atol=far)
        np.testing.assert_array_equal(open_vectors(output).block(0, 100), found)
    assert not list(tmp_path.glob("*.part*"))


@pytest.mark.parametrize(("many", "is_told"), [(90, True), (101, False)])
def test_many_texts_by_a_network_are_told_the_faster_way(
    tower: Path,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    many: int,
    is_told: bool,
) -> None:
    monkeypatch.setattr(towers, "MANY_TEXTS", many)
    copied = shutil.copytree(tower, tmp_path / "tower")  # a note is printed once
    assert encode(copied, source, tmp_path / "v.npy", "--device", "cpu") == 0
    way = f"paddle-ranker export --model {copied} --output exported --onnx, then encode --model exported --engine onnx"
    assert (way in capsys.readouterr().err) is is_told


def test_several_processes_write_the_rows_in_their_order(
    tower: Path, texts: list[str], source: Path, tmp_path: Path
) -> None:
    assert encode(tower, source, tmp_path / "v.npy", "--processes", "2", "--cpu_threads", "1") == 0
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), Tower.open(tower).vectors(texts), atol=1e-6)


@pytest.mark.parametrize(("dtype", "after"), [("float32", 2), ("int8", 0), ("int8", 6), ("int8", "named")])
def test_a_run_that_was_killed_goes_on_to_the_same_bytes(
    tower: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, after: object,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A child process kills itself, as `kill -9` would, inside a written part or between the renames."""
    unbroken, broken = tmp_path / "unbroken.npy", tmp_path / "broken.npy"
    assert encode(tower, source, unbroken, "--dtype", dtype) == 0
    written = VectorFile._write_state
    calls = iter(range(100))

    def write_state(self: VectorFile) -> None:
        if next(calls) == after:
            os.kill(os.getpid(), signal.SIGKILL)  # the part's rows are in the file, but its state is not
        written(self)
        if after == "named" and self.is_done:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        monkeypatch.setattr(VectorFile, "_write_state", write_state)
        file = VectorFile(broken, dtype, identity(tower, source, dtype))
        for part in parts(unbroken):
            file.append(part)
        file.finish()
        os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert not broken.exists()
    capsys.readouterr()
    file = VectorFile(broken, dtype, identity(tower, source, dtype), resume=True)
    assert file.rows == {0: 0, 2: 32, 6: 96, "named": 100}[after]
    if not file.is_done:
        for part in list(parts(unbroken))[file.rows // 16 :]:
            file.append(part)
        file.finish()
    assert broken.read_bytes() == unbroken.read_bytes()
    if dtype == "int8":
        assert scales_path(broken).read_bytes() == scales_path(unbroken).read_bytes()
    assert sorted(path.name for path in tmp_path.glob("broken*")) == sorted(
        ["broken.npy", *(["broken.scales.npy"] if dtype == "int8" else [])]
    )


def identity(tower: Path, source: Path, dtype: str) -> dict[str, object]:
    return {"the tower": str(tower), "the texts": str(source), "dtype": dtype}


def parts(path: Path) -> Iterator[Vectors]:
    stored = open_vectors(path)
    for start in range(0, len(stored), 16):
        yield stored.block(start, min(start + 16, len(stored)))


def test_the_command_goes_on_where_it_was_stopped(
    tower: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unbroken, broken = tmp_path / "unbroken.npy", tmp_path / "broken.npy"
    assert encode(tower, source, unbroken) == 0
    written, appended = [0], VectorFile.append

    def append(self: VectorFile, vectors: Vectors) -> None:
        written[0] += 1
        if written[0] > 3:
            raise KeyboardInterrupt
        appended(self, vectors)

    with monkeypatch.context() as patched:
        patched.setattr(VectorFile, "append", append)
        with suppress(KeyboardInterrupt):
            encode(tower, source, broken)
    assert encode(tower, source, broken, "--resume", "--dtype", "float16") == 1
    assert "was begun with options" in capsys.readouterr().err
    assert encode(tower, source, broken, "--resume") == 0
    assert "going on after 48 vectors" in capsys.readouterr().err
    assert broken.read_bytes() == unbroken.read_bytes()


def test_published_scripts(
    tower: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("corpus.csv").write_text("深度\t学习\n语言\n", encoding="utf-8")
    Path("bad.csv").write_text("深度\n\u3000\n语言\n", encoding="utf-8")
    assert feature_extract(["--model_dir", str(tower), "--corpus_file", "bad.csv"]) == 1
    assert "bad.csv, line 2: the text is empty" in capsys.readouterr().err
    assert feature_extract(["--model_dir", str(tower), "--corpus_file", "corpus.csv"]) == 0
    model = Tower.open(tower)
    np.testing.assert_allclose(np.load("corpus_embedding.npy"), model.vectors(["深度\t学习", "语言"]), atol=1e-6)
    Path("pairs.tsv").write_text("深度\t深度学习\n语言\t农业\n", encoding="utf-8")
    capsys.readouterr()
    assert predict(["--params_path", str(tower), "--text_pair_file", "pairs.tsv", "--output_emb_size", "16"]) == 0
    printed = [float(line) for line in capsys.readouterr().out.split()]
    wanted = (model.vectors(["深度", "语言"]) * model.vectors(["深度学习", "农业"])).sum(axis=1)
    assert printed == pytest.approx(wanted.tolist(), abs=2e-6)
    assert main(["predict", str(tower), "--input", "pairs.tsv", "--output_emb_size", "7"]) == 2
    assert "have 16 numbers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("dtype", "number", "says"),
    [("int8", np.nan, "not finite"), ("float32", np.inf, "not finite"), ("float16", 7e4, "float16 ends at 65504")],
)
def test_vectors_that_cannot_be_stored_are_named(dtype: str, number: float, says: str, tmp_path: Path) -> None:
    file = VectorFile(tmp_path / "v.npy", dtype, {})
    file.append(np.ones((4, 2), np.float32))
    with pytest.raises(DataError, match=rf"v\.npy, text 6: its vector holds .*{says}"):
        file.append(np.array([[6e4, 1], [1, number]], np.float32))
    file.close()


def test_no_texts_and_files_that_are_none(tower: Path, tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").write_text("")
    encode(tower, tmp_path / "none.jsonl", tmp_path / "none.npy")
    (tmp_path / "bad.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(DataError, match="not a file of vectors"):
        open_vectors(tmp_path / "bad.npy")
    np.save(tmp_path / "flat.npy", np.zeros(3))
    with pytest.raises(DataError, match=r"holds float64 \[3\]"):
        open_vectors(tmp_path / "flat.npy")
