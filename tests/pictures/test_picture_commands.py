"""Commands and options on towers of pictures: each works, or says what to do instead; bad pictures are skipped."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import paddle
import pytest
from PIL import Image

from paddle_ranker.__main__ import main
from paddle_ranker.commands.starter import StarterOptions, make_starter
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.parameters import PARAMETERS_FILE, load_arrays
from paddle_ranker.model.pretrained import resolve_model
from paddle_ranker.pictures.picture_networks import Convolutions
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from paddle_ranker.scoring.engines.engine_registry import is_installed
from tests.pictures.test_picture_fields import COLOURS, corpus, picture
from tests.pictures.test_pictures import published

pytestmark = pytest.mark.parity
HAS_ONNX = not paddle.__version__.startswith("2.") and is_installed("onnx")
NAMES = (*COLOURS, "white", "black")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of published models, pictures, and files that name them."""
    folder = tmp_path_factory.mktemp("pictures")
    for name in ("clip", "vit"):
        published(name, folder / name)
    shades = {**COLOURS, "white": (200, 255, 255), "black": (0, 0, 0)}
    (folder / "rows").mkdir()
    for name in NAMES:
        (folder / "rows" / f"{name}.png").write_bytes(picture(shades[name]))
    rows = {
        "pairs.tsv": (f"{name} thing\t{name}.png" for name in NAMES),
        "paths.tsv": (f"{name}.png\t{name}.png" for name in NAMES),
        "paths.txt": (f"{name}.png" for name in NAMES),
        "names.txt": (f"{name} thing" for name in NAMES),
        "labelled.tsv": (f"{name} thing\t{name}\t{number % 2}" for number, name in enumerate(NAMES)),
    }
    for file, lines in rows.items():
        (folder / "rows" / file).write_text("".join(f"{line}\n" for line in lines))
    make_starter(
        StarterOptions(
            corpus=str(folder / "rows" / "names.txt"), output_dir=str(folder / "start"), picture_size=32,
            hidden_size=32, num_hidden_layers=1, num_attention_heads=2, dropout=0.0,
        )
    )  # fmt: skip
    return folder


def run(line: str, folder: Path, output: Path) -> int:
    """Run a command in which `DATA` is the folder of data, and `OUT` a path to write."""
    return main(shlex.split(line.replace("DATA", str(folder)).replace("OUT", str(output))))


TRAIN = "train-batch-neg --output OUT --epochs 1 --batch_size 3 --device cpu --cpu_threads 1 --train DATA/rows/"
REFUSED = [
    (f"{TRAIN}paths.tsv --model DATA/vit --max_seq_length 9", "--max_seq_length is about texts"),
    (f"{TRAIN}paths.tsv --model DATA/vit --pooling mean", "--pooling is about texts"),
    (f"{TRAIN}paths.tsv --model DATA/vit --query_prompt a", "--query_prompt is about texts"),
    (f"{TRAIN}pairs.tsv --model DATA/clip --text_prompt a", "--text_prompt is about texts"),
    (f"{TRAIN}pairs.tsv --model DATA/clip --lexical_size 4", "lexical_size needs texts"),
    (f"{TRAIN}paths.tsv --model DATA/vit --freeze_pictures", "nothing is left to train"),
    (f"{TRAIN}labelled.tsv --model DATA/start/query --freeze_pictures", "reads no pictures"),
    (f"{TRAIN}pairs.tsv --model DATA/clip --lora_rank 2", "adapters are for texts"),
    (f"{TRAIN}pairs.tsv --model DATA/clip --loss in_batch+margin_mse --teacher DATA/start", "--teacher is about texts"),
    ("train-simcse --model DATA/clip --train DATA/rows/paths.txt --output OUT", "SimCSE learns from texts alone"),
    (
        "train-ce --model DATA/clip --train DATA/rows/labelled.tsv --test DATA/rows/labelled.tsv --output OUT",
        "pictures",
    ),
    ("encode --model DATA/vit --input DATA/rows/paths.txt --output OUT --max_seq_length 9", "reads pictures alone"),
    ("export --model DATA/vit --output OUT --max_seq_length 9", "reads pictures alone"),
    ("index build --corpus DATA/rows/names.txt --output OUT --tower DATA/clip", "--field NAME:picture"),
]


@pytest.mark.parametrize(("line", "problem"), REFUSED, ids=[problem for _, problem in REFUSED])
def test_options_about_texts_are_refused_by_name(
    line: str, problem: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(line, data, tmp_path / "out") != 0
    assert problem in capsys.readouterr().err


def test_the_length_of_texts_is_that_of_the_tower_of_texts(data: Path, tmp_path: Path) -> None:
    assert run(f"{TRAIN}pairs.tsv --model DATA/clip --max_seq_length 6", data, tmp_path) == 0
    tower = Tower.open(tmp_path / "last")
    assert tower._queries.encoder.max_length == 6


@pytest.mark.parametrize("model", ["clip", "start"])
def test_gradient_checkpointing_learns_the_same(
    model: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Random changes differ: the encoder of texts draws seeds when it computes its layers again.
    monkeypatch.setattr(Convolutions, "_altered", lambda self, pixels: pixels)
    for name in ("true", "false"):
        line = f"{TRAIN}pairs.tsv --model DATA/{model} --gradient_checkpointing {name} --learning_rate 1e-3 --seed 3"
        assert run(line, data, tmp_path / name) == 0
    before = load_arrays(resolve_model(str(data / model)) / PARAMETERS_FILE)
    for inner in ("last", "last/query"):
        once, again = (load_arrays(tmp_path / name / inner / PARAMETERS_FILE) for name in ("true", "false"))
        for name, array in once.items():
            np.testing.assert_allclose(array, again[name], atol=1e-5, err_msg=name)
        if inner == "last":
            assert all(not np.array_equal(array, once[name]) for name, array in before.items() if array.ndim > 1)


def test_paths_begin_at_the_file(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("encode --model DATA/clip --input DATA/rows/paths.txt --output OUT.npy", data, tmp_path / "v") == 0
    vectors = Tower.open(data / "clip").encode_pictures([data / "rows" / f"{name}.png" for name in NAMES])
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), vectors, atol=1e-5)
    assert (
        run("encode --model DATA/clip --input DATA/rows/names.txt --queries --output OUT.npy", data, tmp_path / "q")
        == 0
    )
    texts = np.load(tmp_path / "q.npy")
    cosines = (vectors * texts).sum(1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(texts, axis=1)
    capsys.readouterr()
    assert run("predict --model DATA/clip --input DATA/rows/pairs.tsv", data, tmp_path) == 0
    np.testing.assert_allclose([*map(float, capsys.readouterr().out.split())], cosines, atol=1e-5)
    mine = "mine --queries DATA/rows/pairs.tsv --tower DATA/clip --output OUT.tsv --max_score_ratio 1"
    assert run(mine, data, tmp_path / "mined") == 0
    assert ".png" in (tmp_path / "mined.tsv").read_text()


@pytest.mark.parametrize("command", ["info DATA/clip", "doctor --model DATA/clip"])
def test_published_models_of_pictures_are_described(
    command: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command, data, tmp_path) == 0
    shown = capsys.readouterr().out
    assert "pixels uint8" in shown and "train-ce" not in shown


def test_exported_towers_of_pictures_have_equal_vectors(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths, queries = [str(data / "rows" / f"{name}.png") for name in NAMES], ["a cat", "a photo of cats"]
    for name in ("clip", "vit", "start"):
        onnx = "--onnx" if HAS_ONNX else ""
        assert run(f"export --model DATA/{name} --output OUT {onnx}", data, tmp_path / name) == 0
        tower = Tower.open(data / name)
        for engine in ("inference", *(("onnx", "openvino") if HAS_ONNX else ())):
            if engine != "openvino" or is_installed("openvino"):
                exported = Tower.open(tmp_path / name, LoadOptions(engine=engine))
                np.testing.assert_allclose(exported.vectors(paths), tower.vectors(paths), atol=1e-5)
                if name != "vit":
                    np.testing.assert_allclose(exported.query_vectors(queries), tower.query_vectors(queries), atol=1e-5)
    files = corpus(tmp_path, {name: picture(colour) for name, colour in COLOURS.items()})
    build = (
        f"index build --corpus {files} --output OUT/index --field photo:picture --field_tower photo={tmp_path / 'clip'}"
    )
    assert run(build, data, tmp_path) == 0
    capsys.readouterr()
    assert run("search --index OUT/index --like DATA/rows/green.png --top_k 1", data, tmp_path) == 0
    assert "green" in capsys.readouterr().out
    if HAS_ONNX:
        line = "quantize --model OUT --calibration_file DATA/rows/pairs.tsv --test DATA/rows/pairs.tsv --max_loss 1"
        line += " --seconds 0.1"
        assert run(line, data, tmp_path / "clip") == 0
        assert (tmp_path / "clip" / "inference.get_pooled_embedding.int8.onnx").is_file()
        assert "recall@10 1.0000 in fp32" in capsys.readouterr().out
        assert run(line, data, tmp_path / "start") == 1
        assert "a network of convolutions" in capsys.readouterr().err


BAD = {
    "absent.png": "no such image",
    "cut.png": "damaged",
    "cut.jpg": "damaged",
    "changed.png": "damaged",
    "cut.webp": "damaged",
    "names.txt": "not an image",
    "empty.png": "empty",
}


def test_bad_pictures_are_skipped_and_counted(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tmp_path / "rows"
    rows.mkdir()
    good = {name: (data / "rows" / f"{name}.png").read_bytes() for name in NAMES}
    for name, content in good.items():
        (rows / f"{name}.png").write_bytes(content)
    changed = bytearray(good["red"])
    changed[60] ^= 255
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for kind in ("jpg", "webp"):
        Image.fromarray(noise).save(rows / f"whole.{kind}")
        (rows / f"cut.{kind}").write_bytes((rows / f"whole.{kind}").read_bytes()[:-300])
    (rows / "cut.png").write_bytes(good["red"][:-20])
    (rows / "changed.png").write_bytes(bytes(changed))
    (rows / "empty.png").write_bytes(b"")
    (rows / "names.txt").write_text("no picture")
    lines = [f"{name} thing\t{name}.png\n" for name in NAMES]
    (rows / "pairs.tsv").write_text("".join([*lines, *(f"bad\t{name}\n" for name in BAD)]))
    (rows / "test.tsv").write_text("".join([*lines[:2], "bad\tcut.png\n"]))
    (rows / "corpus.txt").write_text("blue.png\ncut.jpg\nwhole.jpg\nwhole.webp\n")
    line = TRAIN.replace("DATA/", f"{tmp_path}/") + "pairs.tsv --model DATA/clip"
    assert run(line, data, tmp_path / "stopped") != 0
    stopped = capsys.readouterr().err
    assert "pairs.tsv, line 7: " in stopped and "absent.png: there is no such image" in stopped
    more = f" --skip_bad_rows --test {rows}/test.tsv --corpus {rows}/corpus.txt --eval_step 1"
    assert run(line + more, data, tmp_path / "run") == 0
    shown = "".join(capsys.readouterr())
    assert f"kept {len(NAMES)}; skipped {len(BAD)}" in shown
    assert "2 queries, 5 texts to search, kept 2; skipped 1 (line 3: " in shown
    assert "corpus.txt: kept 3; skipped 1" in shown
    for name, problem in BAD.items():
        (rows / "one.tsv").write_text(f"{lines[0]}bad\t{name}\n")
        assert run(line.replace("pairs.tsv", "one.tsv"), data, tmp_path / "stopped") != 0
        assert problem in capsys.readouterr().err, name
