"""The inference benchmark: its batches, its ratios and goals, and the command itself."""

from __future__ import annotations

import io
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import inference
from benchmarks.harness.report import ratio
from benchmarks.harness.workers import missing_packages
from benchmarks.inference import EXPORT_PACKAGES, SYSTEMS, Measured, Run, goals, shown_table
from benchmarks.peers.answers import answer_commands
from benchmarks.peers.graphs import ONNX_FILE, open_graph
from benchmarks.peers.inference_work import (
    BatchedSystem,
    InferenceWork,
    Pairs,
    answer_as,
    load_inference_work,
    save_inference_work,
)
from paddle_ranker.encoding.columns import EncodedPairs
from paddle_ranker.errors import RankerError

unit, slow = pytest.mark.unit, pytest.mark.slow
WORK = InferenceWork({"hidden_size": 3}, 0, 128, batch_size=2, padded_length=8, threads=1)


def pairs_of(lengths: list[int]) -> Pairs:
    offsets = np.append(0, np.cumsum(lengths))
    ids = np.concatenate([np.full(length, 10 + number) for number, length in enumerate(lengths)]).astype(np.int32)
    texts = [str(number) for number in range(len(lengths))]
    return Pairs(texts, texts, EncodedPairs(ids, offsets, np.full(len(lengths), 2, np.int32)))


class Recorder:
    """A model whose logit is a pair's first id."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, input_ids: np.ndarray, token_type_ids: np.ndarray) -> np.ndarray:
        assert input_ids.shape == token_type_ids.shape
        self.shapes.append(input_ids.shape)
        return input_ids[:, :1].astype(np.float32)


@unit
def test_the_peers_sort_by_length_and_the_published_way_pads() -> None:
    pairs = pairs_of([3, 6, 4])
    for padded, shapes in ((0, [(2, 6), (1, 3)]), (8, [(2, 8), (1, 8)])):
        recorder = Recorder()
        system = BatchedSystem(recorder, pairs, WORK, padded_length=padded)
        assert system.score(np.array([2, 0, 1])).tolist() == [12, 10, 11]
        assert recorder.shapes == shapes


@unit
def test_a_worker_answers_commands(tmp_path: Path) -> None:
    save_inference_work(tmp_path, WORK, pairs_of([3, 6, 4]))
    work, loaded = load_inference_work(tmp_path)
    assert work == WORK and loaded.titles == ["0", "1", "2"]
    answers = io.StringIO()
    answer_commands(answers, answer_as(BatchedSystem(Recorder(), loaded, work)), io.StringIO('{"pairs": 2}\n'))
    ready, found = map(json.loads, answers.getvalue().splitlines())
    assert ready == {"ready": True}
    assert found["logits"] == [10.0, 11.0] and found["pairs"] == 2 and found["seconds"] > 0


@unit
@pytest.mark.parametrize(("system", "types_there", "pad"), [("onnxruntime", 2, 0), ("openvino", 2, 0),
                                                            ("onnxruntime", 1, 7)])  # fmt: skip
def test_engines_of_the_peers_are_fed_ids_types_and_a_mask(
    system: str, types_there: int, pad: int, tmp_path: Path
) -> None:
    """Models with several token types get them; the mask hides only padding."""
    pytest.importorskip(system)
    onnx = pytest.importorskip("onnx")
    (tmp_path / "hf").mkdir()
    stated = {"type_vocab_size": types_there, "pad_token_id": pad}
    (tmp_path / "hf" / "config.json").write_text(json.dumps(stated), encoding="utf-8")
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    if types_there == 1:
        inputs.remove("token_type_ids")
    given, (states,) = (
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, ["batch", "length"]) for name in names]
        for names in (inputs, ["states"])
    )
    nodes = [onnx.helper.make_node("Add", ["input_ids", inputs[-2]], ["sum"]),
             onnx.helper.make_node("Add", ["sum", "attention_mask"], ["states"])]  # fmt: skip
    graph = onnx.helper.make_graph(nodes, "g", given, [states])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / ONNX_FILE)
    run = open_graph(system, tmp_path, 1)
    ids, types = np.array([[7, 8, 0], [9, 0, 0]]), np.array([[0, 20, 0], [0, 0, 0]])
    expected = [[8, 29, 0], [10, 0, 0]] if types_there == 2 else [[14, 17, 1], [19, 1, 1]]  # ids twice, and the mask
    for rows in (slice(0, 2), slice(0, 1)):
        assert np.array(run(ids[rows], types[rows])).tolist() == expected[rows]


@unit
def test_a_ratio_is_the_mean_over_rounds_with_an_interval() -> None:
    found = ratio([2.0, 4.0, 8.0], [1.0, 1.0, 1.0])
    assert found.estimate == pytest.approx(4)
    # Logarithms log 2 apart: their deviation is log 2, and t for two degrees of freedom 4.303.
    assert found.high == pytest.approx(4 * 2 ** (4.303 / math.sqrt(3)), rel=1e-3)
    assert found.low * found.high == pytest.approx(16)
    slowed = ratio([2.0, 1.0, 0.2], [1.0, 0.5, 0.1])  # a busy machine slows both
    assert (slowed.low, slowed.high) == pytest.approx((2, 2))


def a_run(**speeds: float) -> Run:
    by_name = {system.name: system for system in SYSTEMS}
    return Run("nano", 2, "256 pairs", {by_name[n]: Measured([v, v], [v, v], 1e-7) for n, v in speeds.items()})


SPEEDS = {"ours_onnx": 300.0, "ours_openvino": 270.0, "published": 10.0, "torch_compiled": 250.0,
          "sentence_transformers": 280.0, "ours_openvino_bf16": 380.0, "openvino_bf16": 400.0}  # fmt: skip


@unit
def test_the_goals_compare_the_best_of_ours_with_the_best_baseline() -> None:
    run = a_run(**SPEEDS)
    best = run.best_of("fp32", ours=True)
    assert best and best.name == "ours_onnx" and run.best_of("int8", ours=True) is None
    found = [(round(goal.value, 4), goal.target, goal.reached) for goal in goals(run)]
    assert found == [(round(300 / 280, 4), 1.15, False), (30.0, 25.0, True), (0.95, 1.0, False), (38.0, 40.0, False)]
    assert "ours_onnx against sentence_transformers" in next(goals(run)).what
    shown = shown_table(run)
    rows = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in shown.splitlines()
            if line.startswith("|")}  # fmt: skip
    assert rows["ours: ONNX Runtime"] == ["1e-07", "300.0 (300.0-300.0)", "300.0", ""]
    assert rows["ours: OpenVINO"][3] == "1.11 [1.11, 1.11]" and "threads: 2" in shown
    assert rows["transformers' ONNX in OpenVINO bf16"][3] == "0.95 [0.95, 0.95]"


@unit
def test_another_probability_stops_the_benchmark() -> None:
    run = a_run(ours_onnx=1, ours_openvino=1, torch=1, openvino_bf16=1)
    same = [0.1, 0.2, 0.3]
    logits = {"ours_onnx": same, "ours_openvino": same, "torch": same, "openvino_bf16": [0.1, 0.2, 0.4]}
    inference.compare_scores(run, logits)
    *exact, rounded = [measured.difference for measured in run.systems.values()]
    assert exact == [0, 0, 0] and rounded == pytest.approx(1 / (1 + math.exp(-0.4)) - 1 / (1 + math.exp(-0.3)))
    with pytest.raises(RankerError, match="the probabilities of torch are off by"):
        inference.compare_scores(run, {**logits, "torch": [0.1, 0.2, 0.3002]})


@unit
def test_a_python_is_asked_for_packages_and_unknown_names_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert missing_packages(sys.executable, ["numpy", "no_such_module"]) == {"no_such_module"}
    with pytest.raises(RankerError, match="--peer_python /no/python: cannot be run"):
        missing_packages("/no/python", ["numpy"])
    for name, value in (("shapes", "huge"), ("systems", "torch,tensorrt")):
        assert inference.main([f"--{name}", value]) == 2
        assert f"--{name} {value.split(',')[-1]}: choose from" in capsys.readouterr().err


@pytest.mark.thorough
@slow
def test_the_command_measures_a_small_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import paddle

    from tests.tiny import VOCABULARY

    missing = missing_packages(sys.executable, ["onnxruntime", "paddle2onnx", *EXPORT_PACKAGES])
    has_onnx = paddle.__version__ >= "3" and not {"onnxruntime", "paddle2onnx"} & missing
    names = ["ours_inference", "published", "ours_onnx", *(["torch", "onnxruntime"] * (not missing))]
    rows = [f"query{number % 7}\t标题 title {number * number}\t{number % 2}" for number in range(60)]
    (tmp_path / "pairs.tsv").write_text("\n".join(["query\ttitle\tlabel", *rows]) + "\n", encoding="utf-8")
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    files = ["--file", str(tmp_path / "pairs.tsv"), "--vocab", str(tmp_path / "vocab.txt")]
    status = inference.main([*files, "--shapes=tiny", "--pairs=24", "--rounds=2", "--systems", ",".join(names)])
    shown, said = capsys.readouterr()
    assert status == 0, said
    titles = {system.title for system in SYSTEMS if system.name in names and (has_onnx or system.name != "ours_onnx")}
    assert {line.split("|")[1].strip() for line in shown.splitlines() if line.startswith("| ")} == titles | {
        "system", "-" * max(map(len, titles)),
    }  # fmt: skip
