"""Quantizing: rounding worked out by hand, and the command on a tiny ranker."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from scipy.special import logit

from paddle_ranker import Ranker
from paddle_ranker.__main__ import main
from paddle_ranker.data.rows.records import LabeledPair, read_records
from paddle_ranker.errors import CheckpointError
from paddle_ranker.export import quantization
from paddle_ranker.export.quantizer import Calibrated, Quantizer, activation_scale, quantize_weight
from paddle_ranker.export.static_graph import export_model
from paddle_ranker.metrics.intervals import Interval
from paddle_ranker.metrics.measures import evaluate_ranking
from paddle_ranker.model.exported import INPUTS, open_exported
from paddle_ranker.model.foreign import onnx_data
from paddle_ranker.model.info import RankerInfo
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import MODEL, RANKER, load_model
from paddle_ranker.options import note_once
from paddle_ranker.scoring.engines import engine_registry, precisions
from paddle_ranker.scoring.engines.precisions import has_int8
from paddle_ranker.stored_titles.stored_ranker import SplitRanker
from tests.conftest import Call
from tests.tiny import HAN, change_json, draw_words, write_ranker

unit, parity = pytest.mark.unit, pytest.mark.parity
VNNI = "vendor_id\t: GenuineIntel\nflags\t\t: avx2 avx512f avx512_vnni"
OLD = "vendor_id\t: GenuineIntel\nflags\t\t: avx2 avx512f"


@unit
@pytest.mark.parametrize(
    ("lowest", "highest", "scale", "zero"),
    [
        (-1.0, 4.0, 5 / 255, 51),
        (2.0, 4.0, 4 / 255, 0),  # 0 must be representable: padding becomes 0
        (-4.0, -2.0, 4 / 255, 255),
        (0.0, 0.0, 1.0, 0),
    ],
)
def test_activations_spread_over_a_byte(lowest: float, highest: float, scale: float, zero: int) -> None:
    found: tuple[Any, Any] = activation_scale(lowest, highest)
    assert found == (pytest.approx(scale), zero)


@unit
def test_weights_have_a_scale_a_column() -> None:
    integers, scales = quantize_weight(np.array([[1.0, -2.0, 0.0], [0.25, 0.5, 0.0]], np.float32))
    assert integers.tolist() == [[127, -127, 0], [32, 32, 0]]
    assert scales == pytest.approx([1 / 127, 2 / 127, 1.0])
    assert quantize_weight(np.array([[1.0], [-0.4]]), full_range=False)[0].tolist() == [[64], [-26]]


@unit
def test_which_processors_take_8_bits() -> None:
    assert [has_int8(text) for text in (VNNI, OLD, "")] == [True, False, True]


@parity
@pytest.mark.parametrize(
    "full_range", [False, pytest.param(True, marks=pytest.mark.skipif(not has_int8(), reason="8 bits saturate here"))]
)
def test_a_quantized_product_is_the_product_of_the_rounded(tmp_path: Path, full_range: bool) -> None:
    onnx = pytest.importorskip("onnx", reason="needs onnx: pip install onnx onnxruntime")
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install onnxruntime")
    random = np.random.default_rng(0)
    table, first, second = (random.normal(size=shape).astype(np.float32) for shape in ((9, 4), (4, 6), (6, 3)))
    table[:, 1] *= 8
    make, tensor = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [
        make("Gather", ["table", "input_ids"], ["embedded"], "gather"),
        make("MatMul", ["embedded", "first"], ["hidden"], "one"),
        make("MatMul", ["hidden", "second"], ["projected"], "two"),
        make("ReduceSum", ["projected"], ["logit"], "sum", keepdims=0),
        make("Cast", ["token_type_ids"], ["unused"], "cast", to=1),
    ]
    weights = [onnx.numpy_helper.from_array(array, name) for array, name in ((table, "table"), (first, "first"))]
    weights.append(onnx.numpy_helper.from_array(second, "second"))
    inputs = [tensor(name, onnx.TensorProto.INT64, ["batch", "length"]) for name in INPUTS]
    outputs = [tensor("projected", 1, ["batch", "length", 3]), tensor("logit", 1, [])]
    outputs.append(tensor("unused", 1, ["batch", "length"]))
    graph = onnx.helper.make_graph(nodes, "g", inputs, outputs, weights)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(tmp_path / "model.onnx"))

    quantizer = Quantizer(tmp_path / "model.onnx", tmp_path)
    assert [(one.weight, one.shape) for one in quantizer.products] == [("first", (4, 6)), ("second", (6, 3))]
    ids = np.arange(9, dtype=np.int64).reshape(3, 3)

    def batch(rows: np.ndarray) -> dict[str, np.ndarray]:
        return {"input_ids": rows, "token_type_ids": rows}

    with pytest.raises(CheckpointError, match="one token a pair"):
        Quantizer(tmp_path / "model.onnx", tmp_path).calibrate([batch(ids[:, :1])])
    found = quantizer.calibrate([batch(ids[:2]), batch(ids[2:])])
    assert found.lowest["embedded"] == pytest.approx(table.min()) and found.highest["embedded"] == table.max()
    assert found.samples["hidden"].shape == (9, 6)

    def rounded(values: np.ndarray, name: str) -> np.ndarray:
        scale, zero = activation_scale(found.lowest[name], found.highest[name])
        return (np.clip(np.rint(values / scale) + zero, 0, 255) - zero) * scale

    def weight(values: np.ndarray) -> np.ndarray:
        integers, scales = quantize_weight(values, full_range)
        return integers * scales

    def run(quantized_model: Any) -> np.ndarray:
        session = onnxruntime.InferenceSession(quantized_model.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(["projected"], {"input_ids": ids, "token_type_ids": ids})[0]

    hidden = rounded(table[ids], "embedded") @ weight(first)
    whole = quantizer.quantize(found, full_range=full_range)
    assert run(whole) == pytest.approx(rounded(hidden, "hidden") @ weight(second), abs=2e-3)
    worst = quantizer.by_error(found, full_range)
    assert sorted(one.node for one in worst) == ["one", "two"]
    left_out = [one for one in worst if one.node == "two"]
    only_first = quantizer.quantize(found, left_out=left_out, full_range=full_range)
    assert run(only_first) == pytest.approx(hidden @ second, abs=1e-4)
    names = {one.name for one in only_first.graph.initializer}
    assert "second" in names and "first" not in names and "first_quantized" in names
    exact = quantizer.quantize(found, left_out=quantizer.products)
    assert run(exact) == pytest.approx(table[ids] @ first @ second, abs=1e-5)


@unit
def test_the_product_with_the_largest_error_comes_first() -> None:
    quantizer = Quantizer.__new__(Quantizer)
    arrays = {"even": np.eye(4, dtype=np.float32), "spoilt": np.eye(4, dtype=np.float32)}
    arrays["spoilt"][0, 0] = 0.0
    # Only small values count in column 0: the activation's outlier costs all of its precision.
    arrays["spoilt"][1:, 0] = 1e-3
    quantizer.products = [quantization.Product(name, name, name, (4, 4)) for name in arrays]
    quantizer._array = lambda name: arrays[name]  # type: ignore[method-assign]
    rows = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    outlier = rows.copy()
    outlier[0, 0] = 1000.0
    found = Calibrated(
        {"even": float(rows.min()), "spoilt": float(outlier.min())},
        {"even": float(rows.max()), "spoilt": 1000.0},
        {"even": rows, "spoilt": outlier},
    )
    assert [one.node for one in quantizer.by_error(found, True)] == ["spoilt", "even"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an exported ranker with its ONNX file."""
    if paddle.__version__.startswith("2."):
        pytest.skip("needs Paddle 3, which writes ONNX files")
    for package in ("onnx", "onnxruntime", "paddle2onnx"):
        pytest.importorskip(package, reason=f"needs {package}: pip install 'paddle2onnx>=2.0' onnx onnxruntime")
    folder = tmp_path_factory.mktemp("quantize")
    export_model(load_model(write_ranker(folder / "ranker"), RANKER), folder / "exported", onnx=True)
    return folder / "exported"


@pytest.fixture(scope="module")
def dev(exported: Path) -> Path:
    """Return pairs labelled by the ranker itself, which is never wrong in fp32."""
    random, words = draw_words(30)
    pairs = [(f"{word}{number}", "".join(random.choice(HAN, 6))) for number, word in enumerate(words) for _ in range(8)]
    probabilities = Ranker.load(exported, engine="onnx").score(*[list(column) for column in zip(*pairs)])
    labels = (probabilities > np.median(probabilities)).astype(int)
    rows = [f"{query}\t{title}\t{label}\n" for (query, title), label in zip(pairs, labels)]
    path = exported.parent / "dev.tsv"
    path.write_text("query\ttitle\tlabel\n" + "".join(rows), encoding="utf-8")
    return path


def command(call: Call, folder: Path, dev: Path, *more: object) -> tuple[int, str, str]:
    own = [] if "--eval_file" in more else ["--eval_file", dev]
    files = ["--calibration_file", dev, *own, "--seconds", 0.1, "--cpu_threads", 1]
    return call(main, "quantize", "--model_dir", folder, *files, *more)


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "exported"))


def facts_of(folder: Path) -> dict[str, Any]:
    info = RankerInfo.read(folder)
    assert info and info.export and info.export["int8"]
    return dict(info.export["int8"])


@parity
def test_the_command_writes_measures_and_records(folder: Path, dev: Path, call: Call) -> None:
    status, printed, _ = command(call, folder, dev, "--max_loss", 1, "--calibration_pairs", 100)
    assert status == 0
    opened = open_exported(folder, MODEL)
    assert f"quantized: {opened.int8}" in printed and opened.int8 and "6 of 6 products" in printed
    facts = facts_of(folder)
    # The products of the first layer.
    assert (facts["products"], facts["left_out"], facts["calibration"]["pairs"]) == (6, [], 100)
    assert (facts["evaluation"]["pairs"], facts["evaluation"]["queries"]) == (240, 30)
    pairs = read_records(dev, LabeledPair)
    queries, titles, labels = zip(*((pair.query, pair.title, pair.label) for pair in pairs))
    int8, fp32 = (Ranker.load(folder, engine="onnx", precision=name) for name in ("int8", "fp32"))
    probabilities, before = (ranker.score(queries, titles) for ranker in (int8, fp32))
    figures = evaluate_ranking(queries, labels, logit(probabilities))
    rows = {(row["engine"], row["measure"]): row for row in facts["quality"]}
    for measure in ("auc", "ndcg@10"):
        assert rows["onnx", measure]["after"] == pytest.approx(figures[measure], abs=1e-3)
    assert rows["onnx", "auc"]["before"] == 1.0 > rows["onnx", "auc"]["after"] > 0.9
    assert f"AUC      1.0000 in fp32, {rows['onnx', 'auc']['after']:.4f} in int8 (onnx): -0.0" in printed
    moved = np.sqrt(np.mean((logit(probabilities) - logit(before)) ** 2)) / np.std(logit(before))
    assert rows["onnx", "auc"]["moved"] == pytest.approx(moved, rel=1e-3) and f"onnx {moved:.1%}" in printed
    speeds = {(row["engine"], row["precision"]) for row in facts["speed"]}
    assert {("onnx", "fp32"), ("onnx", "int8"), ("inference", "fp32")} <= speeds
    assert 1e-5 < np.abs(probabilities - before).max() < 0.3
    alone = [float(int8.score([query], [title])[0]) for query, title in zip(queries[:9], titles[:9])]
    assert alone == pytest.approx(probabilities[:9].tolist(), abs=1e-5)
    assert not list(folder.glob(".unfinished*"))
    assert command(call, folder, dev, "--max_loss", 1, "--weight_bits", 7)[0] == 0  # the file is replaced
    assert facts_of(folder)["weight_bits"] == 7


@parity
def test_a_loss_beyond_the_limit_is_refused_and_a_missing_package_named(
    folder: Path, dev: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    status, _, error = command(call, folder, dev, "--max_loss", 0)
    assert status == 1 and "more than --max_loss 0; nothing was written" in error and "falls from 1.0000" in error
    monkeypatch.setitem(sys.modules, "onnx", None)
    status, _, error = command(call, folder, dev)
    assert status == 1
    assert "quantizing needs the package onnx; install it with: python -m pip install onnx" in error
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@parity
def test_products_are_left_out_until_the_loss_is_small(
    folder: Path, dev: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    losses = iter([0.5, 0.5, 0.0])

    def measured(*_: Any) -> list[quantization.Quality]:
        loss = next(losses)
        return [quantization.Quality("onnx", "auc", 1.0, 1.0 - loss, Interval(-loss, -loss, -loss), 0.1)]

    monkeypatch.setattr(quantization, "measure", measured)
    monkeypatch.setattr(quantization, "engines_with", lambda precision: ("onnx",))
    status, printed, _ = command(call, folder, dev)
    assert status == 0 and "4 of 6 products" in printed
    assert len(facts_of(folder)["left_out"]) == 2  # first an eighth, then a quarter of six


@parity
def test_a_missing_onnx_file_is_made_and_a_large_one_s_parameters_lie_beside_it(
    folder: Path, dev: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_exported(folder, MODEL)
    assert opened.onnx is not None and opened.info.export is not None
    before = Ranker.load(folder, engine="onnx").score(["a b"], ["b c"])
    opened.onnx.unlink()
    files = {name: size for name, size in opened.info.export["files"].items() if not name.endswith(".onnx")}
    opened.info.export["files"] = files
    opened.kind.write_info(folder, opened.info)
    monkeypatch.setattr(onnx_data, "LARGE", 0)
    monkeypatch.setattr(onnx_data, "LARGE_PARAMETER", 100)
    status, printed, error = command(call, folder, dev, "--max_loss", 1)
    assert status == 0, error
    assert "made, largest difference" in printed
    again = open_exported(folder, MODEL)
    assert again.onnx and again.int8 and again.info.export
    for path in (again.onnx, again.int8):
        beside = onnx_data.data_file(path)
        assert again.info.export["files"][beside.name] == beside.stat().st_size > 1000
    np.testing.assert_allclose(Ranker.load(folder, engine="onnx").score(["a b"], ["b c"]), before, atol=1e-6)
    monkeypatch.undo()
    large = Ranker.load(folder, engine="onnx", precision="int8").score(["a b"], ["b c"])
    assert command(call, folder, dev, "--max_loss", 1)[0] == 0
    assert not onnx_data.data_file(again.int8).exists()  # the parameters are small now
    assert "int8.onnx.data" not in str(open_exported(folder, MODEL).info.export)
    small = Ranker.load(folder, engine="onnx", precision="int8").score(["a b"], ["b c"])
    np.testing.assert_allclose(small, large, atol=1e-6)


@parity
def test_what_int8_cannot_do_is_said(folder: Path, dev: Path, monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    def failed(result: tuple[int, str, str], status: int, message: str) -> None:
        assert result[0] == status and message in result[2]

    rank = ["rank", "--params_path", folder, "--input_file", dev, "--device", "cpu", "--precision", "int8"]
    failed(call(main, *rank, "--engine", "onnx"), 1, "paddle-ranker quantize --model ")
    failed(call(main, *rank, "--engine", "inference"), 2, "int8 needs --engine onnx or openvino")
    assert command(call, folder, dev, "--max_loss", 1, "--weight_bits", 8)[0] == 0
    monkeypatch.setattr(precisions, "has_int8", lambda: True)
    assert call(main, *rank, "--engine", "onnx")[0] == 0
    monkeypatch.setattr(precisions, "has_int8", lambda: False)
    failed(call(main, *rank, "--engine", "onnx"), 1, "--weight_bits 7")
    failed(command(call, folder, dev, "--eval_file", dev.with_name("nothing.tsv")), 1, "nothing.tsv")
    failed(command(call, folder.parent, dev), 1, "there is no static model in it")


@parity
def test_int8_runs_on_the_cpu_beside_a_gpu(
    folder: Path, dev: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(engine_registry, "cuda_devices", lambda: 1)
    note_once.cache_clear()
    status, _, errors = command(call, folder, dev, "--max_loss", 1)
    assert status == 0, errors
    rank = ["rank", "--params_path", folder, "--input_file", dev, "--precision", "int8"]
    for engine in ("onnx", "auto"):
        status, _, errors = call(main, *rank, "--engine", engine)
        assert status == 0 and ("device: cpu (the engine does not compute int8 on gpu)" in errors) == (engine == "onnx")
    status, _, errors = call(main, *rank, "--engine", "onnx", "--device", "gpu")
    assert status == 2 and "int8 needs --device cpu" in errors


@parity
@pytest.mark.parametrize(("layers", "products"), [(1, 6), (2, 0)])  # the last layer computes one token a pair
def test_stored_titles_are_ranked_in_int8(dev: Path, tmp_path: Path, call: Call, layers: int, products: int) -> None:
    ranker = write_ranker(tmp_path / "ranker", num_hidden_layers=3)
    change_json(ranker / "ranker.json", stored_titles=layers)
    folder = tmp_path / "exported"
    export_model(load_model(ranker, RANKER), folder, onnx=True)
    how = LoadOptions(engine="onnx", precision="int8")
    with pytest.raises(CheckpointError, match=r"predict\.upper\.int8\.onnx in it; make it with"):
        SplitRanker.open(folder, how)
    status, printed, error = command(call, folder, dev, "--max_loss", 1)
    assert (status, facts_of(folder)["upper_products"]) == (0, products), error
    assert ("(onnx, stored titles)" in printed) == (products > 0)
    pairs = read_records(dev, LabeledPair)[:40]
    queries, titles = ([getattr(pair, name) for pair in pairs] for name in ("query", "title"))
    whole = Ranker.load(folder, engine="onnx").score(queries, titles, logits=True)
    split = SplitRanker.open(folder, how)
    found = split.logits(split.query_states(queries), split.title_states(titles), np.arange(len(pairs)))
    moved = np.sqrt(np.mean((found - whole) ** 2)) / np.std(whole)
    assert moved < 0.2 and (moved > 1e-4) == (products > 0)
    assert split.states_info == SplitRanker.open(folder, LoadOptions(engine="onnx")).states_info
