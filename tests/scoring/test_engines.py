"""Engines: the same scores of a ranker in every engine, alone and in any batch, from any number of threads."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_ranker import Ranker
from paddle_ranker.errors import CheckpointError, DataError, DependencyError, RankerError, UsageError
from paddle_ranker.model.exported import open_exported
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import MODEL
from paddle_ranker.model.model_kind import RANKER_SIGNATURE
from paddle_ranker.scoring.engines import dygraph, engine_registry, paddle_inference
from paddle_ranker.scoring.engines.dygraph import DygraphEngine
from paddle_ranker.scoring.engines.engine import Pool
from paddle_ranker.scoring.engines.engine_registry import EngineKind, exported_engines
from paddle_ranker.scoring.engines.inputs import InputLimits
from paddle_ranker.scoring.engines.opening import open_engine, time_engines
from paddle_ranker.scoring.engines.precisions import has_bf16, require_offered
from paddle_ranker.scoring.scorer import BatchRunner
from tests.conftest import run_python
from tests.engine_calls import logits_of
from tests.export_cases import Exports
from tests.started import SECONDS
from tests.tiny import CONFIG, PAIRS, make_network, write_ranker

parity, unit = pytest.mark.parity, pytest.mark.unit
ASKED = [*PAIRS, ("深度", "")]  # with an empty title
QUERIES, TITLES = [list(column) for column in zip(*ASKED)]
IS_MODERN = not paddle.__version__.startswith("2.")
# Only Paddle 3 can write an ONNX file; either stack reads it.
RUNNABLE = [name for name in exported_engines() if name == "inference" or IS_MODERN]
ZEN = "vendor_id\t: AuthenticAMD\nflags\t\t: avx2 avx512f avx512_bf16"
OLD = "vendor_id\t: AuthenticAMD\nflags\t\t: avx2 fma"


@pytest.fixture(scope="module")
def folders(exports: Exports) -> tuple[Path, Path]:
    """Return a trained, calibrated ranker with match levels and lexical features, and its export."""
    exported = exports["everything"].exported.folder
    return exported.parent / "ranker", exported


@pytest.fixture(scope="module")
def trained(folders: tuple[Path, Path]) -> Ranker:
    return Ranker.load(folders[0])


@pytest.fixture(scope="module")
def rankers(folders: tuple[Path, Path]) -> dict[str, Ranker]:
    return {name: loaded(folders[1], name) for name in RUNNABLE}


def loaded(folder: Path, engine: str, **arguments: Any) -> Ranker:
    try:
        return Ranker.load(folder, engine=engine, threads=1, **arguments)
    except DependencyError as error:
        pytest.skip(str(error))
        raise


@parity
@pytest.mark.parametrize("engine", RUNNABLE)
@settings(max_examples=20, deadline=None)
@given(rows=st.lists(st.integers(0, len(ASKED) - 1), min_size=1, max_size=60), batch_size=st.integers(1, 9))
def test_every_engine_gives_the_network_s_scores_in_any_batch(
    trained: Ranker, rankers: dict[str, Ranker], engine: str, rows: list[int], batch_size: int
) -> None:
    scorer = rankers[engine].scorer
    scorer.max_tokens, scorer.max_rows = 32 * batch_size, 4 * batch_size
    reference = trained.score(QUERIES, TITLES)
    scores = rankers[engine].score([QUERIES[i] for i in rows], [TITLES[i] for i in rows])
    np.testing.assert_allclose(scores, reference[rows], atol=1e-5)
    assert np.ptp(reference) > 0.1


@parity
@settings(max_examples=20, deadline=None)
@given(data=st.data(), batch=st.integers(1, 12), length=st.integers(3, 40))
def test_any_ids_of_any_length_score_alike(
    rankers: dict[str, Ranker], trained: Ranker, data: st.DataObject, batch: int, length: int
) -> None:
    random = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    ids = random.integers(0, CONFIG.vocab_size, (batch, length))
    lengths = random.integers(3, length + 1, batch)
    columns = np.arange(length)
    ids[columns >= lengths[:, None]] = 0
    types = ((columns >= lengths[:, None] // 2) & (columns < lengths[:, None])).astype(np.int64)
    ids[:, 0] = 1  # the first id of every pair
    reference = logits_of(trained.scorer.engine, ids, types)
    for ranker in rankers.values():
        np.testing.assert_allclose(logits_of(ranker.scorer.engine, ids, types), reference, atol=2e-5)


@pytest.mark.thorough(keep=1)
@parity
@pytest.mark.parametrize("engine", RUNNABLE)
def test_eight_threads_score_as_one_does(rankers: dict[str, Ranker], trained: Ranker, engine: str) -> None:
    reference = trained.score(QUERIES, TITLES)

    def score(seed: int) -> float:
        rows = np.random.default_rng(seed).integers(0, len(ASKED), 25)
        scores = rankers[engine].score([QUERIES[i] for i in rows], [TITLES[i] for i in rows])
        return float(np.abs(scores - reference[rows]).max())

    with ThreadPoolExecutor(8) as pool:
        assert max(pool.map(score, range(64))) < 1e-5


@parity
@pytest.mark.parametrize("engine", RUNNABLE)
def test_two_processes_at_once_give_the_same_numbers_and_load_no_more_than_they_need(
    folders: tuple[Path, Path], engine: str
) -> None:
    code = (
        f"import sys; from paddle_ranker import Ranker; both = {(QUERIES, TITLES)!r};"
        "print(Ranker.load(sys.argv[1], engine=sys.argv[2], threads=1).score(*both).tolist());"
        "print(sorted({'paddle', 'paddlenlp'} & set(sys.modules)))"
    )
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: run_python(code, folders[1], engine).splitlines(), range(2))
    assert first == second and first[0].startswith("[0.")
    assert first[1] == ("['paddle']" if engine == "inference" else "[]")


@parity
@pytest.mark.parametrize("engine", RUNNABLE)
def test_an_engine_binds_no_thread_to_a_processor(
    folders: tuple[Path, Path], rankers: dict[str, Ranker], engine: str
) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("asks Linux where each thread may run")
    allowed, seen = os.sched_getaffinity(0), set[frozenset[int]]()
    ranker = Ranker.load(folders[1], engine=engine, threads=2)
    with ThreadPoolExecutor(1) as pool:
        scored = pool.submit(ranker.score, QUERIES * 100, TITLES * 100)
        while not scored.done():
            with contextlib.suppress(OSError):  # the thread has ended meanwhile
                seen.update(frozenset(os.sched_getaffinity(int(task))) for task in os.listdir("/proc/self/task"))
    assert seen == {frozenset(allowed)}  # otherwise two workers would share one processor


@parity
@pytest.mark.parametrize("engine", RUNNABLE)
def test_bf16_is_close_and_is_not_fp32(folders: tuple[Path, Path], trained: Ranker, engine: str) -> None:
    if not has_bf16():
        pytest.skip("needs a processor with bfloat16 products")
    if engine == "onnx":
        with pytest.raises(UsageError, match="--precision bf16: the engine onnx does not compute in it on cpu"):
            loaded(folders[1], engine, precision="bf16")
        return
    ranker = loaded(folders[1], engine, precision="bf16")
    assert ranker.scorer.engine.precision == "bf16"
    differences = np.abs(ranker.score(QUERIES, TITLES) - trained.score(QUERIES, TITLES))
    assert 1e-5 < differences.max() < 0.05


@parity
@pytest.mark.parametrize("engine", RUNNABLE)
def test_what_a_graph_does_not_take_is_refused_and_the_next_batch_is_scored(
    rankers: dict[str, Ranker], engine: str
) -> None:
    runs = rankers[engine].scorer.engine
    ids, types = np.array([[1, 5, 2, 6, 2]]), np.array([[0, 0, 0, 1, 1]])
    before = logits_of(runs, ids, types)
    for wrong in (CONFIG.vocab_size, -1):
        with pytest.raises(DataError, match=rf"input_ids\[0, 3\] is {wrong}: the vocabulary's ids are 0 to"):
            logits_of(runs, np.array([[1, 5, 2, wrong, 2]]), types)
    with pytest.raises(DataError, match="token_type_ids from 0 to 2"):
        logits_of(runs, ids, 2 * types)
    with pytest.raises(DataError, match="65 tokens: the ranker has 64 positions"):
        logits_of(runs, np.ones((1, 65), np.int64), np.zeros((1, 65), np.int64))
    with pytest.raises(DataError, match=r"input_ids \[1, 5\] and token_type_ids \[1, 4\]"):
        logits_of(runs, ids, types[:, :4])
    assert logits_of(runs, ids[:0], types[:0]).shape == (0,)
    assert logits_of(runs, ids, types) == before


@parity
def test_a_folder_and_an_engine_that_do_not_fit(folders: tuple[Path, Path]) -> None:
    trained, exported = folders
    cases: list[tuple[type[Exception], str, Path, dict[str, Any]]] = [
        (CheckpointError, "not been exported, which --engine onnx needs; export it first", trained, {"engine": "onnx"}),
        (UsageError, r"--precision bf16 needs an exported ranker", trained, {"precision": "bf16"}),
        (UsageError, r"--engine onxx: choose from .* \(did you mean onnx\?\)", exported, {"engine": "onxx"}),
        (CheckpointError, "which the engine dygraph does not run: choose from", exported, {"engine": "dygraph"}),
        (UsageError, "fp16 needs --device gpu", exported, {"precision": "fp16"}),
        (UsageError, "int8 needs --engine onnx or openvino", exported, {"precision": "int8"}),
        (RankerError, "--device xpu: no xpu here", exported, {"device": "xpu"}),
        (UsageError, "fp16 needs --device gpu", exported, {"precision": "fp16", "device": "xpu:0"}),
        (UsageError, "--device npu: the engine inference runs on cpu, gpu, xpu", exported, {"device": "npu"}),
    ]
    if IS_MODERN:
        int8 = {"engine": "onnx", "precision": "int8"}
        cases.append((CheckpointError, r"no inference\.predict\.int8\.onnx in it", exported, int8))
    for error, message, folder, options in cases:
        with pytest.raises(error, match=message):
            Ranker.load(folder, **options)
    with pytest.raises(UsageError, match="--tensorrt needs --device gpu, not cpu"):
        open_engine(open_exported(exported, MODEL), LoadOptions(tensorrt=True))
    if IS_MODERN:
        with pytest.raises(UsageError, match=r"--tensorrt: .* is of Paddle 3"):
            open_engine(open_exported(exported, MODEL), LoadOptions(tensorrt=True, device="gpu"))


@unit
def test_tensorrt_computes_no_more_rows_at_once_than_it_was_compiled_for(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, rows = open_engine(open_exported(folders[1], MODEL), LoadOptions(engine="inference")), []
    batch = {"input_ids": np.arange(35).reshape(7, 5) + 1, "token_type_ids": np.zeros((7, 5), np.int64)}
    expected, compute = engine.run(batch), paddle_inference._run

    def counted(predictor: Any, arrays: Any, read: Any) -> Any:
        rows.append(len(arrays["input_ids"]))
        return compute(predictor, arrays, read)

    monkeypatch.setattr(paddle_inference, "_run", counted)
    monkeypatch.setattr(paddle_inference, "TENSORRT_ROWS", 3)
    monkeypatch.setattr(engine, "_tensorrt", True)
    found = engine.run(batch)
    assert rows == [3, 3, 1]
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, atol=1e-6)


@parity
def test_onnx_runtime_without_the_gpu_that_was_asked_for_is_an_error(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if not IS_MODERN:
        pytest.skip("needs an ONNX file, which Paddle 3 writes")
    cuda = "CUDAExecutionProvider"
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [cuda])  # its package is the CPU build
    with pytest.warns(UserWarning, match=cuda), pytest.raises(RankerError, match="cannot use the GPU; it needs"):
        Ranker.load(folders[1], engine="onnx", device="gpu")
    session, asked = onnxruntime.InferenceSession, list[str]()
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: asked.append("NVIDIA's packages"))

    class Session(session):  # type: ignore[misc, valid-type]
        """As of ONNX Runtime 1.19: it always falls back, when it is made and later when it runs."""

        def __init__(self, path: str, *_: Any, providers: list[Any], **__: Any):
            if "raises" in asked:
                raise RuntimeError("CUDA failure 35")
            print("EP Error when using", providers)
            super().__init__(path, providers=["CPUExecutionProvider"])

        def disable_fallback(self) -> None:
            asked.append("fallback")

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    for device, message in (("gpu", "cannot use the GPU; it needs"), ("gpu:0", "GPU .CUDA failure 35.; it needs")):
        with pytest.raises(RankerError, match=message):
            Ranker.load(folders[1], engine="onnx", device=device)
        asked.append("raises")
    assert asked[:2] == ["NVIDIA's packages", "fallback"] and capfd.readouterr().out == ""


@parity
def test_a_graph_that_is_cut_short_is_an_error(folders: tuple[Path, Path], tmp_path: Path) -> None:
    for ending in ("pdiparams", *(["onnx"] if IS_MODERN else [])):
        broken = tmp_path / ending
        shutil.copytree(folders[1], broken)
        path = broken / f"inference.predict.{ending}"
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(CheckpointError, match=f"{ending}: has "):
            Ranker.load(broken)


@parity
def test_a_missing_package_is_named_with_the_line_that_installs_it(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not IS_MODERN:
        pytest.skip("needs an ONNX file, which Paddle 3 writes")
    for engine, package in (("onnx", "onnxruntime"), ("openvino", "openvino")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(DependencyError, match=f"pip install {package}"):
            Ranker.load(folders[1], engine=engine)


@parity
def test_auto_says_what_it_chose(folders: tuple[Path, Path], capsys: pytest.CaptureFixture) -> None:
    ranker = Ranker.load(folders[1], engine="auto", threads=1)
    said = capsys.readouterr().err
    assert f"engine for {folders[1]}: {ranker.scorer.engine.name}" in said
    if IS_MODERN and importlib.util.find_spec("onnxruntime"):
        assert f"{ranker.scorer.engine.name} 1.00" in said and "inference " in said
    assert ranker.score(["深度"], ["学习"]).shape == (1,)


SIGNALLED_AFTER_TWO = """
import os, signal, sys
from paddle_ranker import Ranker

rankers = [Ranker.load(sys.argv[1], engine=sys.argv[2], threads=1) for _ in range(2)]
del rankers[0]
del rankers[0]
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.thorough(keep=1)
@parity
@pytest.mark.parametrize("engine", RUNNABLE)
def test_signals_are_handled_after_engines_were_freed(folders: tuple[Path, Path], engine: str) -> None:
    loaded(folders[1], engine)  # or skipped
    assert run_python(SIGNALLED_AFTER_TWO, folders[1], engine) == "interrupted\n"


class _Slow:
    precision = "fp32"

    def __init__(self, name: str, clock: list[float], seconds: float):
        self.name, self._clock, self._seconds = name, clock, seconds

    def run(self, arrays: Any) -> Any:
        self._clock[0] += self._seconds
        return {"logit": np.zeros(len(arrays["input_ids"]), np.float32)}


@unit
def test_engines_are_timed_by_their_best_round() -> None:
    clock = [0.0]
    engines: list[Any] = [_Slow("a", clock, 0.25), _Slow("b", clock, 0.125)]
    batch = {"input_ids": np.ones((1, 5), np.int64), "token_type_ids": np.zeros((1, 5), np.int64)}
    assert time_engines(engines, [batch, batch], 1.0, lambda: clock[0]) == [0.5, 0.25]


@unit
@pytest.mark.parametrize(
    ("providers", "gpu", "expected"),
    [
        (["CPUExecutionProvider"], True, "cpu"),
        (["CUDAExecutionProvider", "CPUExecutionProvider"], False, "cpu"),
        (["CUDAExecutionProvider", "CPUExecutionProvider"], True, "gpu"),
    ],
)
def test_each_engine_finds_a_device_of_its_own(
    providers: list[str], gpu: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0" if gpu else "-1")
    found = {name: kind.find_device for name, kind in engine_registry.ENGINES.items()}
    assert found["onnx"] is not None and found["onnx"]().name == expected
    assert found["openvino"] is not None and found["openvino"]().name == "cpu"


@unit
@pytest.mark.parametrize(
    ("engine", "device", "precision", "cpuinfo", "message"),
    [
        ("openvino", "cpu", "bf16", OLD, "neither avx512_bf16 nor amx_bf16; supported here: fp32, int8$"),
        ("onnx", "cpu", "bf16", ZEN, r"supported here: fp32, int8 \(bf16 needs --engine inference or openvino\)"),
        ("inference", "cpu", "fp64", ZEN, "choose from fp32, bf16, fp16, int8"),
        ("inference", "cpu", "int8", ZEN, r"supported here: fp32, bf16 \(int8 needs --engine onnx or openvino\)"),
        ("inference", "xpu:1", "fp16", ZEN, r"on xpu; supported here: fp32 \(fp16 needs --device gpu\)"),
        ("onnx", "gpu", "int8", ZEN, r"on gpu; supported here: fp32 \(int8 needs --device cpu\)"),
        ("onnx", "xpu", "fp32", ZEN, "--device xpu: the engine onnx runs on cpu, gpu; type --device cpu"),
        # For an engine that does not state devices and precisions.
        ("plain", "cpu", "bf16", ZEN, "the engine plain does not compute in it on cpu; supported here: fp32 "),
        ("plain", "gpu:0", "fp32", ZEN, "--device gpu:0: the engine plain runs on cpu; type --device cpu"),
    ],
)
def test_a_device_and_a_precision_that_are_not_there_are_refused(
    engine: str, device: str, precision: str, cpuinfo: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(engine_registry.ENGINES._items, "plain", EngineKind(engine_registry.ENGINES["onnx"].open, ""))
    with pytest.raises(UsageError, match=message):
        require_offered(engine, device, precision, cpuinfo=cpuinfo)
    require_offered("openvino", "cpu", "bf16", cpuinfo=ZEN)
    require_offered("inference", "gpu", "bf16", cpuinfo=OLD)  # a GPU has its own precisions


@unit
def test_the_ids_of_a_blend_are_held_against_their_own_member_s_vocabulary() -> None:
    limits = InputLimits(RANKER_SIGNATURE, [CONFIG, dataclasses.replace(CONFIG, vocab_size=20)])
    ids, types = np.array([[1, 60, 2, 1, 19, 2]]), np.array([[0, 1, 1, 2, 3, 3]])
    limits.check({"input_ids": ids, "token_type_ids": types})
    with pytest.raises(DataError, match=r"input_ids\[0, 4\] is 20: the vocabulary's ids are 0 to 19"):
        limits.check({"input_ids": ids + np.array([0, 0, 0, 0, 1, 0]), "token_type_ids": types})


@unit
def test_a_pool_makes_no_more_than_are_in_use() -> None:
    made: list[int] = []
    pool = Pool(lambda: made.append(len(made)) or len(made))  # type: ignore[func-returns-value]
    with pool.lend() as one:
        pass
    with pool.lend() as again, pool.lend() as other:
        assert (one, again, other) == (1, 1, 2)
    together = threading.Barrier(4)

    def use() -> None:
        with pool.lend():
            together.wait(SECONDS)

    with ThreadPoolExecutor(4) as threads:
        for end in [threads.submit(use) for _ in range(4)]:
            end.result()
    assert len(made) == 4


@unit
def test_a_network_computes_on_its_gpu_in_every_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[str] = []
    monkeypatch.setattr(dygraph, "_device_of", lambda network: "gpu:1")
    engine = DygraphEngine(make_network())
    monkeypatch.setattr(paddle.device, "set_device", chosen.append)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(engine.run, {"input_ids": np.ones((1, 5), int), "token_type_ids": np.zeros((1, 5), int)}).result()
    assert chosen == ["gpu:1"]
    monkeypatch.undo()
    monkeypatch.setattr(paddle.device, "get_device", lambda: "gpu:1")  # chosen for another model meanwhile
    monkeypatch.setattr(paddle.device, "set_device", chosen.append)
    DygraphEngine(make_network()).run({"input_ids": np.ones((1, 5), int), "token_type_ids": np.zeros((1, 5), int)})
    assert chosen == ["gpu:1", "cpu"]
    assert BatchRunner(engine, 128).max_tokens == 256 * 128 and BatchRunner(engine, 512).max_tokens == 64 * 512


@unit
@pytest.mark.parametrize(("precision", "dtype"), [("bf16", "bfloat16"), ("fp16", "float16")])
def test_a_trained_ranker_in_half_precision_on_a_gpu(
    precision: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CPU stands in for the GPU, where Paddle leaves mixed precision off."""
    folder, found = write_ranker(tmp_path / "ranker"), []
    auto_cast = paddle.amp.auto_cast

    def noted(*given: Any, **settings: Any) -> Any:
        found.append(settings)
        return auto_cast(False)

    monkeypatch.setattr("paddle_ranker.runtime.select_device", lambda name: "gpu:0")
    monkeypatch.setattr(paddle.amp, "is_bfloat16_supported", lambda: True)
    monkeypatch.setattr(paddle.amp, "auto_cast", noted)
    ranker = Ranker.load(folder, precision=precision)
    assert len(ranker.score(["深度学习"], ["深度学习综述"])) == 1
    assert found == [{"level": "O1", "dtype": dtype}]
    monkeypatch.setattr(paddle.amp, "is_bfloat16_supported", lambda: False)
    if precision == "bf16":
        with pytest.raises(UsageError, match="gpu:0 does not multiply bfloat16; type --precision fp16"):
            Ranker.load(folder, precision=precision)
    for refused in ({"precision": "int8"}, {"tensorrt": True}):
        with pytest.raises(UsageError, match="a trained one runs in fp32, and on GPUs in bf16 and fp16"):
            Ranker.load(folder, **refused)
