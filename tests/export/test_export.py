"""The static model is the ranker: alone, in any batch, of every kind, and by checked-in numbers."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from paddle_ranker.array_types import Arrays
from paddle_ranker.encoding import samples
from paddle_ranker.errors import DependencyError, RankerError
from paddle_ranker.export.parity import compare
from paddle_ranker.export.static_graph import export_model, write_static_model
from paddle_ranker.export.static_model import StaticModel, write_serving_model
from paddle_ranker.model.exported import INPUTS, OUTPUTS, ExportedRanker, program_file
from paddle_ranker.model.model_folder import TrainedRanker
from paddle_ranker.model.model_kind import RANKER_SIGNATURE, ArraySpec, Signature
from paddle_ranker.paddle_serving.serving_files import SERVING_VARIABLE
from tests.export_cases import CALIBRATION, CASES, IS_MODERN, WRITES_ONNX, Exports, network_logits
from tests.tiny import PAIRS, QUERIES, TITLES, VOCABULARY

pytestmark = pytest.mark.parity
Made = tuple[TrainedRanker, ExportedRanker, StaticModel]

# The parameters are drawn, so the logits of PAIRS are the same on every stack and machine.
GOLDEN = {
    "match levels": [-0.141372, -0.22129, -0.159417, -0.229265, -0.014157, -0.310436],
    "lexical features": [2.115163, 0.860572, 1.226659, 1.165083, 0.527004, 0.654943],
    "LayerNorm before": [1.052135, 1.183771, 0.826735, 0.919322, 1.186677, 1.248616],
    "blend": [-0.023468, -0.040133, 0.880651, 0.279857, 0.535158, 0.400166],
}


def outputs(model: StaticModel, input_ids: np.ndarray, token_type_ids: np.ndarray) -> list[np.ndarray]:
    """Return the probabilities and the logits."""
    return list(model.run({"input_ids": input_ids, "token_type_ids": token_type_ids}).values())


def static_model(exported: ExportedRanker) -> StaticModel:
    return StaticModel(exported.program, exported.parameters)


@pytest.fixture(scope="module")
def ranker(exports: Exports) -> Made:
    """Return a calibrated ranker with match levels and lexical features, and its export."""
    parts, exported, _ = exports["everything"]
    return parts, exported, static_model(exported)


@pytest.mark.thorough(keep=8)
@pytest.mark.parametrize("name", [*CASES, "blend", "two classes"])
def test_every_kind_of_ranker_scores_as_its_network(name: str, exports: Exports) -> None:
    parts, exported, parities = exports[name]
    assert set(parities) == {"paddle_inference", *(["onnxruntime"] if exported.onnx else [])}
    assert parities["paddle_inference"].pairs == samples.PAIRS
    assert exported.info.calibration == parts.info.calibration
    model, encoder = static_model(exported), exported.row_encoder()
    pairs = encoder.encode(QUERIES, TITLES)
    for rows in (np.arange(len(pairs)), np.array([3, 0]), np.array([5])):
        inputs = [*pairs.pad(rows).values()]
        wanted = network_logits(parts, *inputs)
        predict, logit = outputs(model, *inputs)
        assert predict.shape == logit.shape == (len(rows), 1)
        np.testing.assert_allclose(logit[:, 0], wanted, atol=1e-5, rtol=1e-5)
        calibrated = parts.info.calibration.apply(wanted) if parts.info.calibration else wanted
        np.testing.assert_allclose(predict[:, 0], expit(calibrated), atol=1e-5)
        if len(rows) == len(PAIRS):
            assert np.ptp(wanted) > 0.02
            np.testing.assert_allclose(logit[:, 0], GOLDEN.get(name, wanted), atol=2e-5)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_score_depends_on_its_pair_alone(ranker: Made, data: st.DataObject) -> None:
    parts, _, model = ranker
    words = st.text(st.sampled_from("".join(token for token in VOCABULARY if len(token) == 1)), min_size=1, max_size=40)
    texts = data.draw(st.lists(st.tuples(words, words), min_size=1, max_size=4))
    pairs = parts.row_encoder.encode(*[list(column) for column in zip(*texts)])
    order = np.array(data.draw(st.permutations(range(len(texts)))))
    together = outputs(model, *pairs.pad(order).values())
    for place, row in enumerate(order):
        ids, types = pairs.pad(np.array([row])).values()
        more = data.draw(st.integers(0, 9))
        alone = outputs(model, np.pad(ids, [(0, 0), (0, more)]), np.pad(types, [(0, 0), (0, more)]))
        wanted = network_logits(parts, ids, types)
        for found in (together[1][place], alone[1][0]):
            np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(together[0][place], expit(CALIBRATION.apply(wanted)), atol=1e-5)
        np.testing.assert_allclose(together[0][place], alone[0][0], atol=1e-5)


def test_the_second_input_is_token_types_and_not_a_second_text(ranker: Made) -> None:
    # The published pairwise graph takes (input_ids, token_type_ids) for a text and for its negative.
    parts, _, model = ranker
    ids, types = parts.row_encoder.encode(QUERIES[:1], TITLES[:1]).pad(np.array([0])).values()
    given = (types, np.zeros_like(types), 1 - types)
    scores = [float(outputs(model, ids, one)[1][0, 0]) for one in given]
    np.testing.assert_allclose(scores, [network_logits(parts, ids, one)[0] for one in given], atol=1e-5, rtol=1e-5)
    assert len({round(score, 3) for score in scores}) == 3


def test_a_typed_pad_is_text_and_padding_is_nothing(ranker: Made) -> None:
    parts, _, model = ranker
    typed, plain = (parts.row_encoder.encode(["a [PAD] b"], [title]) for title in ("[PAD] b", "b"))
    assert 0 not in typed.pad(np.array([0]))["input_ids"]
    scores = [float(outputs(model, *pairs.pad(np.array([0])).values())[1][0, 0]) for pairs in (typed, plain)]
    assert abs(scores[0] - scores[1]) > 1e-3
    # If a client pads in the middle, the padding is masked too.
    inside = [np.insert(array, 4, 0, axis=1) for array in typed.pad(np.array([0])).values()]
    np.testing.assert_allclose(outputs(model, *inside)[1][0], network_logits(parts, *inside), atol=1e-5, rtol=1e-5)


def test_one_output_alone_under_the_name_that_clients_ask_for(ranker: Made, tmp_path: Path) -> None:
    parts, exported, model = ranker
    inputs = parts.row_encoder.encode(QUERIES, TITLES).pad(np.arange(len(PAIRS))).values()
    for name, variable in (("named", SERVING_VARIABLE), ("plain", None)):
        program = write_serving_model(exported, tmp_path / name, variable)
        assert program == tmp_path / f"{name}.{'json' if IS_MODERN else 'pdmodel'}" and paddle.in_dynamic_mode()
        alone = StaticModel(program, tmp_path / f"{name}.pdiparams")
        [predict] = outputs(alone, *inputs)
        np.testing.assert_array_equal(predict, outputs(model, *inputs)[0])
        names = alone._predictor.get_output_names()
        assert len(names) == 1 and (names == [SERVING_VARIABLE]) == (name == "named")
    assert tuple(model._predictor.get_output_names()) == OUTPUTS
    assert tuple(model._predictor.get_input_names()) == INPUTS


@pytest.mark.parametrize("name", ["match levels", "LayerNorm before", "blend"])
def test_the_onnx_file_scores_as_the_network(name: str, exports: Exports) -> None:
    if not WRITES_ONNX:
        pytest.skip("needs Paddle 3 and paddle2onnx, which write ONNX files")
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    parts, exported, parities = exports[name]
    assert parities["onnxruntime"].differences["logit"] <= 1e-4 and exported.onnx is not None
    session = onnxruntime.InferenceSession(str(exported.onnx))
    assert [value.name for value in session.get_inputs()] == list(INPUTS)
    assert [value.name for value in session.get_outputs()] == list(OUTPUTS)
    import onnx

    graph = onnx.shape_inference.infer_shapes(onnx.load(str(exported.onnx)), data_prop=True).graph
    shapes = {value.name: value.type.tensor_type for value in graph.value_info}
    reshaped = [shapes[node.output[0]] for node in graph.node if node.op_type == "Reshape" and node.output[0] in shapes]
    # OpenVINO 2025 reads no other form.
    assert reshaped and all(value.shape.dim for value in reshaped if value.HasField("shape"))
    pairs = parts.row_encoder.encode(QUERIES, TITLES)
    for rows in (np.arange(len(pairs)), np.array([2]), np.array([4, 1, 1])):
        inputs = [*pairs.pad(rows).values()]
        logit = session.run(["logit"], dict(zip(INPUTS, inputs)))[0][:, 0]
        np.testing.assert_allclose(logit, network_logits(parts, *inputs), atol=1e-5, rtol=1e-5)


def test_paddle_2_and_python_3_13_write_no_onnx_file(
    tmp_path: Path, exports: Exports, monkeypatch: pytest.MonkeyPatch
) -> None:
    if IS_MODERN:  # Paddle 2 is refused before
        monkeypatch.setattr("paddle_ranker.export.onnx.sys", SimpleNamespace(version_info=(3, 13)))
        monkeypatch.setitem(sys.modules, "paddle2onnx", None)
    with pytest.raises(DependencyError, match="no build for Python" if IS_MODERN else "needs Paddle 3"):
        export_model(exports["plain"].parts, tmp_path / "output", onnx=True)
    assert not (tmp_path / "output").exists()


def test_what_scores_otherwise_is_not_written(
    tmp_path: Path, exports: Exports, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = exports["plain"].parts
    output = exports.copy("plain", tmp_path / "output")
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    run = StaticModel.run

    def slightly_wrong(self: StaticModel, arrays: Arrays) -> Arrays:
        return {name: array + 2e-5 for name, array in run(self, arrays).items()}

    monkeypatch.setattr(StaticModel, "run", slightly_wrong)
    with pytest.raises(RankerError, match="does not score as the ranker does"):
        export_model(parts, output)
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["output"]


def test_a_logit_is_held_to_what_float32_can_hold_and_a_probability_to_its_tolerance() -> None:
    expected = {name: np.array([[0.25], [0.5]], np.float32) for name in OUTPUTS}
    batch = {name: np.ones((2, 3), np.int64) for name in INPUTS}

    def found(**moved: float) -> None:
        def run(given: Arrays) -> Arrays:
            return {name: array[: len(given[INPUTS[0]])] + moved.get(name, 0.0) for name, array in expected.items()}

        compare([expected], [batch], run, RANKER_SIGNATURE, "it", lambda: dict.fromkeys(OUTPUTS, 1e-4))

    found(logit=3e-4)
    found(predict=9e-6)
    for name, moved in (("logit", 5e-4), ("predict", 2e-5), ("logit", np.nan)):
        with pytest.raises(RankerError, match=f"{name} differs .* moves the network's 0.0001 off the exact value"):
            found(**{name: moved})


def test_what_differs_by_little_is_no_number_or_of_another_shape_is_seen() -> None:
    expected = {name: np.array([[0.25], [0.5]], np.float32) for name in OUTPUTS}
    batch = {name: np.ones((2, 3), np.int64) for name in INPUTS}
    found: tuple[Arrays, ...] = (
        {name: array + 2e-5 for name, array in expected.items()},
        {name: array * np.nan for name, array in expected.items()},
        {name: array[:, 0] for name, array in expected.items()},
    )
    for arrays in found:
        with pytest.raises(RankerError, match="it does not score as the ranker does"):
            compare([expected], [batch], lambda given, arrays=arrays: arrays, RANKER_SIGNATURE, "it")  # type: ignore[misc]


class Doubled:
    def __init__(self, x: paddle.Tensor):
        self.x = x

    def plus(self, y: int) -> paddle.Tensor:
        return self.x * 2 + y


def doubled(x: paddle.Tensor) -> Doubled:
    return Doubled(x)


def test_a_function_is_converted_while_another_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paddle evaluates `paddle.doubled`, whose result's method is called, while it converts the caller."""
    monkeypatch.setattr(paddle, "doubled", doubled, raising=False)

    class Network(paddle.nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.weight = self.create_parameter([1])

        def forward(self, x: paddle.Tensor) -> paddle.Tensor:
            return paddle.doubled(x).plus(1) + self.weight * 0

    signature = Signature((ArraySpec("x", "float32", (None,)),), (ArraySpec("y", "float32", (None,)),), ("y",))
    write_static_model(Network(), tmp_path / "graph", signature)
    model = StaticModel(program_file(tmp_path, "graph"), tmp_path / "graph.pdiparams", signature)
    found = model.run({"x": np.array([1, 2], np.float32)})
    assert found["y"].tolist() == [3, 5]
