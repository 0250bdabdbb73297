"""The inference benchmark: its batches, its commands, its ratios and goals, and the command itself."""

from __future__ import annotations

import io
import json
import math
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import inference
from benchmarks.harness.report import ratio
from benchmarks.harness.workers import missing_packages
from benchmarks.inference import EXPORT_PACKAGES, SYSTEMS, Run, System
from benchmarks.inference_report import Measured, best_own_system, goals, shown_tables, write_plot
from benchmarks.peers.answers import answer_commands
from benchmarks.peers.graphs import ONNX_FILE, open_graph
from benchmarks.peers.inference_work import (
    BatchedSystem,
    InferenceWork,
    Pairs,
    answer_as,
    load_inference_work,
    matrix_product_operations,
    peak_memory,
    rows_of,
    save_inference_work,
    sigmoid,
)
from paddle_ranker.encoding.columns import EncodedPairs
from paddle_ranker.errors import RankerError

unit, slow = pytest.mark.unit, pytest.mark.slow
SHAPE = {"hidden_size": 3, "intermediate_size": 5, "num_hidden_layers": 2}
WORK = InferenceWork(SHAPE, 0, 128, batch_size=2, padded_length=8, threads=1, offline=3, queries=2, latency_titles=1)


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
    pairs = pairs_of([3, 6, 4, 3, 5])
    save_inference_work(tmp_path, WORK, pairs)
    work, loaded = load_inference_work(tmp_path)
    assert work == WORK and loaded.titles == pairs.titles
    commands: list[dict[str, Any]] = [
        {"do": "scores", "pairs": 2},
        {"do": "offline", "pairs": 3},
        {"do": "latency", "query": 1, "titles": 1},
        {"do": "memory"},
    ]
    answers = io.StringIO()
    typed = io.StringIO("\n".join(map(json.dumps, commands)) + "\n")
    answer_commands(answers, answer_as(BatchedSystem(Recorder(), loaded, work), work), typed)
    ready, scores, offline, latency, memory = map(json.loads, answers.getvalue().splitlines())
    assert ready == {"ready": True}
    assert scores["logits"] == [10.0, 11.0]
    assert offline["pairs"] == 3 and latency["pairs"] == 1 and offline["seconds"] > 0
    assert rows_of(commands[2], work).tolist() == [4]
    assert memory == {"peak_mb": peak_memory()} or memory["peak_mb"] > 10


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
def test_sigmoid_and_the_work_of_a_pair_by_hand() -> None:
    assert sigmoid([0.0, math.log(3), -1e9, 1e9]).tolist() == pytest.approx([0.5, 0.75, 0.0, 1.0])
    # Two layers; a token: q, k, v and the projection 4 x 3 x 3, the feed-forward 2 x 3 x 5, each twice (add, multiply);
    # a pair of tokens: a product of 3 for the weight and one for the value.
    assert matrix_product_operations(SHAPE, np.array([1, 4])) == 2 * (2 * (36 + 30) * 5 + 12 * (1 + 16))


@unit
def test_a_ratio_is_the_mean_over_rounds_with_an_interval() -> None:
    found = ratio([2.0, 4.0, 8.0], [1.0, 1.0, 1.0])
    assert found.estimate == pytest.approx(4)
    # Logarithms log 2 apart: their deviation is log 2, and t for two degrees of freedom 4.303.
    assert found.high == pytest.approx(4 * 2 ** (4.303 / math.sqrt(3)), rel=1e-3)
    assert found.low * found.high == pytest.approx(16)
    slowed = ratio([2.0, 1.0, 0.2], [1.0, 0.5, 0.1])  # a busy machine slows both
    assert (slowed.low, slowed.high) == pytest.approx((2, 2))


def measured(name: str, speed: float, **changes: object) -> Measured:
    system = next(system for system in SYSTEMS if system.name == name)
    return Measured(system, by_clock=[speed, speed], by_processor=[speed, speed], **changes)  # type: ignore[arg-type]


def a_run() -> Run:
    systems = [
        measured("ours_onnx", 300, difference=1e-7, peak_mb=200.0, starts=[0.3]),
        measured("ours_openvino", 270, latencies={10: [1.0, 2.0, 9.0]}),
        measured("ours_openvino_match", 900),
        measured("published", 10),
        measured("torch_compiled", 250),
        measured("sentence_transformers", 280),
        measured("ours_openvino_bf16", 380),
        measured("openvino_bf16", 400),
    ]
    return Run("nano", 2, "256 pairs", systems, peak={"fp32": 100.0}, operations=1e8, import_seconds=[2.0])


@unit
def test_the_goals_compare_the_best_of_ours_with_the_best_baseline() -> None:
    run = a_run()
    best = best_own_system(run.systems, "fp32")
    assert best and best.system.name == "ours_onnx"  # models with match embeddings are not compared
    assert best_own_system(run.systems, "int8") is None
    found = [(round(goal.value, 4), goal.target, goal.reached) for goal in goals(run)]
    assert found == [(round(300 / 280, 4), 1.15, False), (30.0, 25.0, True), (0.95, 1.0, False), (38.0, 40.0, False)]
    assert "ours_onnx against sentence_transformers" in next(goals(run)).what


@unit
def test_the_table_shows_what_was_measured(tmp_path: Path) -> None:
    shown = shown_tables(a_run())
    rows = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in shown.splitlines()
            if line.startswith("|")}  # fmt: skip
    assert rows["ours: ONNX Runtime"] == ["1e-07", "300.0 (300.0-300.0)", "300.0", "", "30%", "", "200", "0.3"]
    assert rows["ours: OpenVINO"][3:6] == ["1.11 [1.11, 1.11]", "27%", "2.0 / 8.9"]
    assert rows["transformers' ONNX in OpenVINO bf16"][3:5] == ["0.95 [0.95, 0.95]", ""]
    assert "threads: 2" in shown and "import paddle alone: 2.0 s" in shown
    pytest.importorskip("matplotlib", reason="drawing needs matplotlib")
    write_plot(tmp_path / "new" / "speeds.png", [a_run(), a_run()])
    assert (tmp_path / "new" / "speeds.png").read_bytes().startswith(b"\x89PNG")


@unit
def test_another_probability_stops_the_benchmark() -> None:
    class Fixed:
        def __init__(self, logits: list[float]):
            self.logits = logits

        def ask(self, do: str, pairs: int) -> dict[str, list[float]]:
            return {"logits": self.logits[:pairs]}

    names = ["ours_onnx", "ours_openvino", "torch", "openvino_bf16", "ours_openvino_match"]
    run = Run("nano", 1, "", [measured(name, 1) for name in names])
    same = [0.1, 0.2, 0.3]
    workers = {name: Fixed(same) for name in names}
    workers["openvino_bf16"] = workers["ours_openvino_match"] = Fixed([0.1, 0.2, 0.4])
    inference._compare_scores(run, workers, WORK)  # type: ignore[arg-type]
    assert [m.difference for m in run.systems[:3]] == [0, 0, 0]
    assert run.systems[3].difference == pytest.approx(sigmoid([0.4])[0] - sigmoid([0.3])[0])
    assert run.systems[4].difference is None
    workers["torch"] = Fixed([0.1, 0.2, 0.3002])
    with pytest.raises(RankerError, match="the probabilities of torch are off by"):
        inference._compare_scores(run, workers, WORK)  # type: ignore[arg-type]


@unit
def test_systems_are_named_once_and_a_python_is_asked_for_packages() -> None:
    assert len({system.name for system in SYSTEMS}) == len(SYSTEMS) == len({system.title for system in SYSTEMS})
    assert missing_packages(sys.executable, ["numpy", "no_such_module"]) == {"no_such_module"}
    with pytest.raises(RankerError, match="--peer_python /no/python: cannot be run"):
        missing_packages("/no/python", ["numpy"])
    plain = System("ours_x", "")
    assert plain.is_compared and not System("ours_x_match", "").is_compared and not System("x", "").is_compared


@unit
@pytest.mark.parametrize(("name", "value"), [("shapes", "huge"), ("systems", "torch,tensorrt"), ("parts", "speed")])
def test_an_unknown_name_is_refused(name: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert inference.main([f"--{name}", value]) == 2
    assert f"--{name} {value.split(',')[-1]}: choose from" in capsys.readouterr().err


@slow
def test_the_command_measures_a_small_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = missing_packages(sys.executable, ["onnxruntime", "paddle2onnx", *EXPORT_PACKAGES])
    systems = ["ours_inference", "published"]
    has_onnx = metadata.version("paddlepaddle") >= "3" and not {"onnxruntime", "paddle2onnx"} & missing
    systems += ["ours_onnx"] if has_onnx else []
    peers = not missing & set(EXPORT_PACKAGES)
    systems += ["torch", "onnxruntime"] if peers else []
    rows = [f"query{number % 7}\t标题 title {number * number}\t{number % 2}" for number in range(60)]
    (tmp_path / "pairs.tsv").write_text("\n".join(["query\ttitle\tlabel", *rows]) + "\n", encoding="utf-8")
    arguments = ["--shapes=tiny", "--pairs=24", "--rounds=2", "--queries=1", "--titles=3,5", "--starts=1"]
    status = inference.main(
        [*arguments, "--file", str(tmp_path / "pairs.tsv"), "--vocab", str(_vocabulary(tmp_path)),
         "--systems", ",".join(dict.fromkeys([*systems, "ours_onnx"])), "--json", str(tmp_path / "found.json")]
    )  # fmt: skip
    shown, said = capsys.readouterr()
    assert status == 0, said
    (run,) = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["runs"]
    by_name = {row["system"]["name"]: row for row in run["systems"]}
    assert set(by_name) == set(systems)
    for row in by_name.values():
        assert row["difference"] <= inference.TOLERANCE and len(row["by_clock"]) == 2
        assert {count: len(found) for count, found in row["latencies"].items()} == {"3": 1, "5": 1}
        assert len(row["starts"]) == 1 and row["starts"][0] > 0
    assert ("ours: ONNX Runtime" in shown) is has_onnx and "import paddle alone" in shown


def _vocabulary(folder: Path) -> Path:
    from tests.tiny import VOCABULARY

    path = folder / "vocab.txt"
    path.write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    return path
