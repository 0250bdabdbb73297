"""ONNX files of other programs with a tokenizer beside them: scored, ranked, served and searched with as they are.

They are made by paddle2onnx, by this toolkit's own export without its info files, and by hand with optimum's names; the
network by hand is computed by NumPy, too.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Optional

import numpy as np
import paddle
import pytest

from paddle_ranker import Ranker
from paddle_ranker.__main__ import main
from paddle_ranker.errors import CheckpointError
from paddle_ranker.export.static_graph import export_model
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import MODEL, identify, load_model
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from tests.conftest import Call
from tests.tiny import VOCABULARY, change_json, write_ranker, write_tokenizer, write_tower

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

pytestmark = pytest.mark.parity

QUERIES = ["深度学习", "深度", "农业水稻病害"]
TITLES = ["神经网络", "农业水稻", "水稻病害诊断"]  # of many lengths, so that padding shows
WIDTH = 16
PAD = VOCABULARY.index("[PAD]")
HEADS = {  # what the file returns, by optimum's and sentence-transformers' forms
    "logit": "one logit", "logits": "two logits", "probability": "a probability", "softmax": "two probabilities",
    "mean": "states of tokens", "first": "states of tokens", "sentence_embedding": "a vector",
}  # fmt: skip
TOWERS = ("mean", "first", "sentence_embedding")
needs_paddle_3 = pytest.mark.skipif(paddle.__version__.startswith("2."), reason="paddle2onnx reads graphs of Paddle 3")


def _arrays() -> dict[str, Any]:
    draw = np.random.RandomState(0)
    shapes = {"words": (len(VOCABULARY), WIDTH), "types": (2, WIDTH), "one": (WIDTH, 1), "two": (WIDTH, 2)}
    return {name: draw.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def _computed(kind: str, texts: list[tuple[str, Optional[str]]]) -> Any:
    """Compute by NumPy what the network by hand returns of each text alone, and the toolkit's use of it."""
    arrays, rows = _arrays(), []
    for first, second in texts:
        parts = [["[CLS]", *first, "[SEP]"], [*second, "[SEP]"] if second else []]
        ids = [VOCABULARY.index(token) for part in parts for token in part]
        types = [0] * len(parts[0]) + [1] * len(parts[1])
        states = arrays["words"][ids] + arrays["types"][types]
        rows.append(states[0] if kind == "first" else states.mean(0))
    pooled = np.array(rows, np.float64)
    if kind in TOWERS:
        return pooled / np.linalg.norm(pooled, axis=1, keepdims=True) if kind != "first" else pooled
    logits = pooled @ arrays["two" if kind in ("logits", "softmax") else "one"]
    logits = logits[:, 1:] - logits[:, :1] if logits.shape[1] == 2 else logits
    return 1 / (1 + np.exp(-logits[:, 0]))


def write_onnx(
    folder: Path, kind: str, kinds: tuple[str, str, str] = ("INT64", "INT64", "INT64"), *, sizes: Any = ("n", "m"),
    outside: str = "",
) -> Path:  # fmt: skip
    """Write a network by hand in a folder of optimum: embeddings, their mean without the padding, and a head.

    kinds: types of the inputs
    outside: name of the file of the parameters; "": the graph's
    """
    write_tokenizer(folder)
    arrays = _arrays()
    names = ("input_ids", "attention_mask", "token_type_ids")
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["a"]),
        helper.make_node("Gather", ["types", "token_type_ids"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["states"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["mask3"]),
        helper.make_node("Mul", ["states", "mask3"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "middle"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "middle"], ["count"], keepdims=1),
        helper.make_node("Div", ["sum", "count"], ["pooled"]),
    ]
    outputs = [("last_hidden_state", ["n", "m", WIDTH])]
    if kind in ("mean", "first"):
        nodes.append(helper.make_node("Identity", ["states"], ["last_hidden_state"]))
    elif kind == "sentence_embedding":
        nodes.append(helper.make_node("Identity", ["states"], ["token_embeddings"]))
        nodes.append(helper.make_node("LpNormalization", ["pooled"], ["sentence_embedding"], axis=-1, p=2))
        outputs = [("token_embeddings", ["n", "m", WIDTH]), ("sentence_embedding", ["n", WIDTH])]
    else:
        width = 2 if kind in ("logits", "softmax") else 1
        last = {"probability": "Sigmoid", "softmax": "Softmax"}.get(kind, "Identity")
        nodes.append(helper.make_node("MatMul", ["pooled", "two" if width == 2 else "one"], ["scores"]))
        nodes.append(helper.make_node(last, ["scores"], ["logits"]))
        outputs = [("logits", ["n", width])]
    graph = helper.make_graph(
        nodes,
        "by hand",
        [helper.make_tensor_value_info(n, getattr(TensorProto, each), list(sizes)) for n, each in zip(names, kinds)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()]
        + [numpy_helper.from_array(np.array([place]), name) for name, place in (("last", -1), ("middle", 1))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    beside = {"save_as_external_data": True, "location": outside, "size_threshold": 100} if outside else {}
    onnx.save_model(model, str(folder / "model.onnx"), **beside)
    config = {
        "model_type": "bert", "architectures": ["BertModel"], "vocab_size": len(VOCABULARY), "hidden_size": WIDTH,
        "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 64,
        "transformers_version": "4.57.0",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    if kind in TOWERS:
        steps = [("", "Transformer"), ("1_Pooling", "Pooling")] + [("2_Normalize", "Normalize")] * (kind != "first")
        modules = [
            {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{step}"}
            for at, (path, step) in enumerate(steps)
        ]
        (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
        (folder / "1_Pooling").mkdir()
        mode = {"pooling_mode_cls_token": kind == "first", "pooling_mode_mean_tokens": kind != "first"}
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(mode), encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PADDLE_RANKER_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    rows = [f"{query}\t{title}" for query, title in zip(QUERIES, TITLES)]
    Path("pairs.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    Path("texts.tsv").write_text("\n".join(TITLES) + "\n", encoding="utf-8")


def _of(source: Path, kind: str, engine: str = "onnx") -> Any:
    if kind in TOWERS:
        return Tower.open(source, LoadOptions(engine=engine)).vectors(TITLES)
    return Ranker.load(source, engine=engine).score(QUERIES, TITLES)


def _wanted(kind: str) -> Any:
    return _computed(kind, [(title, None) for title in TITLES] if kind in TOWERS else [*zip(QUERIES, TITLES)])


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
@pytest.mark.parametrize("kind", HEADS)
def test_a_file_of_optimum_is_a_model(
    kind: str, engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(engine if engine == "openvino" else "onnxruntime")
    np.testing.assert_allclose(_of(write_onnx(tmp_path / "hub", kind), kind, engine), _wanted(kind), atol=1e-5)
    assert f"returns {HEADS[kind]}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    ["int32", "a mask of floats", "parameters outside", "a file's path", "the subfolder onnx", "others beside it"],
)
def test_odd_but_legal_files(change: str, tmp_path: Path) -> None:
    kinds = {"int32": ("INT32",) * 3, "a mask of floats": ("INT64", "FLOAT", "INT32")}.get(change, ("INT64",) * 3)
    outside = "model.onnx_data" if change == "parameters outside" else ""
    folder = source = write_onnx(tmp_path / "hub", "logits", kinds, outside=outside)
    if change == "a file's path":
        source = (folder / "model.onnx").rename(folder / "x.onnx")
        (folder / "model.safetensors").write_bytes(b"")
    elif change == "the subfolder onnx":
        (folder / "onnx").mkdir()
        (folder / "model.onnx").rename(folder / "onnx" / "model.onnx")
    elif change == "others beside it":
        (folder / "model_quantized.onnx").write_bytes(b"damaged")
    np.testing.assert_allclose(_of(source, "logits"), _wanted("logits"), atol=1e-5)


def test_a_file_of_half_precision(tmp_path: Path) -> None:
    folder = write_onnx(tmp_path / "hub", "logits")
    model = onnx.load(str(folder / "model.onnx"))
    model.graph.node[-1].output[0] = "full"
    model.graph.node.append(helper.make_node("Cast", ["full"], ["logits"], to=TensorProto.FLOAT16))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.save(model, str(folder / "model.onnx"))
    np.testing.assert_allclose(_of(folder, "logits"), _wanted("logits"), atol=1e-5)


def test_the_class_that_means_relevant_is_the_named_one(tmp_path: Path) -> None:
    folder = write_onnx(tmp_path / "hub", "logits")
    named = {"id2label": {"0": "relevant", "1": "irrelevant"}, "architectures": ["BertForSequenceClassification"]}
    change_json(folder / "config.json", **named)
    np.testing.assert_allclose(_of(folder, "logits"), 1 - _wanted("logits"), atol=1e-5)


@needs_paddle_3
@pytest.mark.parametrize("named", [False, True])
def test_the_own_export_without_its_description_is_paddle2onnxs(named: bool, tmp_path: Path) -> None:
    pytest.importorskip("paddle2onnx")
    ranker, tower = write_ranker(tmp_path / "ranker", match=False), write_tower(tmp_path / "tower", size=16)
    for trained, name in ((ranker, "predict"), (tower, "get_pooled_embedding")):
        exported, _ = export_model(load_model(trained, MODEL), tmp_path / f"{name}-exported", onnx=True)
        folder = tmp_path / name
        write_tokenizer(folder if not named else tmp_path / "words")
        folder.mkdir(exist_ok=True)
        shutil.copyfile(exported.folder / f"inference.{name}.onnx", folder / f"inference.{name}.onnx")
        options = LoadOptions(model_name=str(tmp_path / "words") if named else None)
        if trained == ranker:
            scores = Ranker.load(folder, model_name=options.model_name).score(QUERIES, TITLES)
            np.testing.assert_allclose(scores, Ranker.load(trained).score(QUERIES, TITLES), atol=1e-5)
        else:
            texts = [f"a {title}" for title in TITLES]  # no file beside the graph has the prompt
            wanted = Tower.open(trained, LoadOptions()).vectors(TITLES)
            np.testing.assert_allclose(Tower.open(folder, options).vectors(texts), wanted, atol=1e-5)


COMMANDS = (
    ("logits", "predict --model {} --input pairs.tsv --device cpu"),
    ("logit", "rank {} --input pairs.tsv --device cpu --engine openvino"),
    ("logits", "info {}"),
    ("mean", "doctor --model {}"),
    ("mean", "encode --model {} --input texts.tsv --output vectors.npy --device cpu"),
    ("sentence_embedding", "index build --corpus texts.tsv --tower {} --output index --device cpu"),
)


@pytest.mark.parametrize("kind, line", COMMANDS)
def test_every_command_takes_an_onnx_file(kind: str, line: str, tmp_path: Path, call: Call) -> None:
    folder = write_onnx(tmp_path / "hub", kind)
    status, _, errors = call(main, *line.replace("{}", str(folder)).split())
    assert status == 0, errors
    (folder / "vocab.txt").rename(tmp_path / "words.txt")
    words = line.replace("{}", str(folder)).replace("vectors.npy", "more.npy").replace("output index", "output more")
    status, printed, errors = call(main, *words.split())
    assert "--model_name_or_path NAME" in printed + errors
    status, _, errors = call(main, *words.split(), "--model_name_or_path", tmp_path / "words.txt")
    assert status == 0, errors


def test_an_onnx_file_needs_no_paddle(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['paddle'] = None; from paddle_ranker import Ranker;"
        f"print(*Ranker.load({str(write_onnx(tmp_path / 'hub', 'logits'))!r}).score({QUERIES}, {TITLES}))"
    )
    repository = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=repository)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose([float(word) for word in done.stdout.split()], _wanted("logits"), atol=1e-5)


def test_an_index_keeps_the_export_of_its_tower(tmp_path: Path, call: Call) -> None:
    folder = write_onnx(tmp_path / "hub", "mean")
    line = f"index build --corpus texts.tsv --tower {folder} --output index --device cpu"
    assert call(main, *line.split())[0] == 0
    shutil.rmtree(folder)
    shutil.rmtree(tmp_path / "cache")
    assert identify(Path("index") / "tower").is_exported
    status, printed, errors = call(main, "search", TITLES[1], "--index", "index", "--device", "cpu")
    assert status == 0 and TITLES[1] in printed, errors


def test_a_changed_step_is_read_again(tmp_path: Path) -> None:
    folder = write_onnx(tmp_path / "hub", "first")
    _of(folder, "first")
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    lengths = np.linalg.norm(_of(folder, "mean"), axis=1, keepdims=True)
    np.testing.assert_allclose(_of(folder, "mean") / lengths, _wanted("mean"), atol=1e-5)


def test_a_server_takes_an_onnx_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from paddle_ranker.commands.serve import main as serve

    found: list[Any] = []
    monkeypatch.setattr("paddle_ranker.serving.process.server.run", lambda config: found.append(config.model))
    folder = write_onnx(tmp_path / "hub", "logits")
    assert serve(["--model", str(folder)]) == 0
    assert identify(Path(found[0])).is_exported


REFUSED = (
    ("convert {} new", "no model is made of it"),
    ("export-serving --model {}", "another program's ONNX file"),
    ("predict --model {} --input pairs.tsv --engine inference --device cpu", "another program's ONNX file"),
    (
        "train-ce --train pairs.tsv --test pairs.tsv --epochs 1 --output trained --model {}",
        "to train or to export, give the folder",
    ),
)


@pytest.mark.parametrize("line, said", REFUSED)
def test_what_an_onnx_file_cannot_is_refused_by_name(line: str, said: str, tmp_path: Path, call: Call) -> None:
    status, _, errors = call(main, *line.replace("{}", str(write_onnx(tmp_path / "hub", "logits"))).split())
    assert status == 1 and said in errors and "Traceback" not in errors


def _change(folder: Path, change: str) -> None:
    path = folder / "model.onnx"
    model = onnx.load(str(path), load_external_data=False)
    if change == "another input":
        model.graph.input.append(helper.make_tensor_value_info("position_ids", TensorProto.INT64, ["n", "m"]))
    elif change == "another vocabulary":
        change_json(folder / "config.json", vocab_size=len(VOCABULARY) + 1)
    elif change == "no steps":
        (folder / "modules.json").unlink()
    elif change == "steps in the file":
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        dense = {"name": "dense", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
        modules.insert(2, {**modules[1], **dense})
        (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    elif change == "unnamed classes":
        named = {"id2label": {"0": "red", "1": "blue"}, "architectures": ["BertForSequenceClassification"]}
        change_json(folder / "config.json", **named)
    elif change in ("..", "twice"):
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if change == ".." and entry.key == "location":
                    entry.value = "../model.onnx_data"
                elif change == "twice" and entry.key in ("offset", "length"):
                    entry.value = {"offset": "0", "length": str((folder / "model.onnx_data").stat().st_size)}[entry.key]
        shutil.copyfile(folder / "model.onnx_data", folder.parent / "model.onnx_data")
    path.write_bytes(b"\x08" * 40 if change == "damaged" else model.SerializeToString())
    if change == "a second file":
        path.rename(folder / "a.onnx")
        shutil.copyfile(folder / "a.onnx", folder / "b.onnx")


@pytest.mark.parametrize(
    "kind, change, said",
    [
        ("logits", "another input", "takes attention_mask, input_ids, position_ids, token_type_ids"),
        ("logits", "another vocabulary", "word pieces"),
        ("logits", "unnamed classes", "its classes are"),
        ("logits", "damaged", "is no ONNX file"),
        ("logits", "a second file", "several static models, a.onnx, b.onnx"),
        ("logits", "fixed sizes", "any number of rows and tokens"),
        ("logits", "..", "expected the name of a file in it"),
        ("logits", "twice", "is smaller than what model.onnx has in it"),
        ("mean", "no steps", "returns last_hidden_state .*put them beside it"),
        ("mean", "steps in the file", "another order of steps than Transformer, Pooling and Normalize"),
    ],
)
def test_other_files_are_refused_by_name(kind: str, change: str, said: str, tmp_path: Path) -> None:
    sizes = (1, 128) if change == "fixed sizes" else ("n", "m")
    outside = "model.onnx_data" if change in ("..", "twice") else ""
    folder = write_onnx(tmp_path / "hub", kind, sizes=sizes, outside=outside)
    _change(folder, change)
    with pytest.raises(CheckpointError, match=said):
        _of(folder, kind)
