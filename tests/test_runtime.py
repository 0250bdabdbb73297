"""The choice of the math path from a processor's report, and the products that it gives."""

from __future__ import annotations

import dataclasses
import importlib
import os
import random
from typing import Any

import numpy as np
import pytest

from paddle_ranker import runtime
from paddle_ranker.errors import RankerError, UsageError
from paddle_ranker.options import Options, note_once
from paddle_ranker.recipes import RECIPES
from paddle_ranker.runtime import choose_math_path, decide_math_path
from tests.conftest import REPOSITORY, run_python

pytestmark = pytest.mark.unit
AVX2 = "fpu sse2 avx fma avx2"
AVX512 = f"{AVX2} avx512f avx512dq avx512cd avx512bw avx512vl"


def cpuinfo(vendor: str, flags: str) -> str:
    one = f"processor\t: 0\nvendor_id\t: {vendor}\nmodel name\t: Some CPU @ 2: fast\nflags\t\t: {flags}\n"
    return f"{one}\n{one}\n"


@pytest.mark.parametrize(
    ("vendor", "flags", "choice", "expected"),
    [
        ("AuthenticAMD", AVX512, "auto", "7"),
        ("HygonGenuine", AVX2, "auto", "5"),
        ("AuthenticAMD", AVX2, "auto", "5"),
        ("AuthenticAMD", AVX512.replace(" avx512vl", ""), "auto", "5"),  # one of five flags is missing
        ("AuthenticAMD", AVX2.replace("fma ", ""), "auto", None),
        ("AuthenticAMD", "fpu sse2 avx", "auto", None),
        ("GenuineIntel", AVX512, "auto", None),
        ("AuthenticAMD", AVX512, "avx2", "5"),
        ("GenuineIntel", AVX512, "avx512", "7"),
        ("AuthenticAMD", AVX512, "off", None),
    ],
)
def test_path_follows_vendor_flags_and_choice(vendor: str, flags: str, choice: str, expected: str | None) -> None:
    assert decide_math_path(cpuinfo(vendor, flags), choice).value == expected
    assert decide_math_path("").value is None  # without a report the library chooses


@pytest.mark.parametrize(
    ("choice", "message"), [("avx512", "does not report avx512bw, .*avx512vl"), ("sse", "choose from auto, avx2")]
)
def test_a_choice_that_cannot_be_is_refused(choice: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        decide_math_path(cpuinfo("AuthenticAMD", AVX2), choice)


@pytest.mark.parametrize(
    ("before", "loaded", "value", "reason", "added"),
    [
        ({"PADDLE_RANKER_MATH": "avx2"}, {}, "5", "", {"MKL_DEBUG_CPU_TYPE": "5"}),
        ({"MKL_DEBUG_CPU_TYPE": "4"}, {}, "4", "MKL_DEBUG_CPU_TYPE=4 is set in the environment", {}),
        ({"PADDLE_RANKER_MATH": "off"}, {}, None, "", {}),
        ({}, {"paddle": object()}, None, "too late: paddle was imported before", {}),
    ],
)
def test_the_environment_is_set_once_and_the_users_value_stays(
    before: dict[str, str], loaded: dict[str, object], value: str | None, reason: str, added: dict[str, str]
) -> None:
    environment = dict(before)
    path = choose_math_path(environment, cpuinfo=cpuinfo("AuthenticAMD", AVX512), loaded=loaded)
    assert path.value == value and path.reason.startswith(reason)
    assert environment == {**before, **added}


def test_importing_runtime_does_nothing() -> None:
    run_python(
        "import os, sys; before = dict(os.environ); import paddle_ranker.runtime\n"
        "assert dict(os.environ) == before and not {'paddle', 'numpy', 'paddlenlp'} & set(sys.modules)"
    )


PRODUCT = """
import os
os.dup2(1, 2)
from paddle_ranker import runtime
path = runtime.prepare(threads=1)
import numpy, paddle
runtime.select_device("cpu")
random = numpy.random.default_rng(5)
left, right = (random.integers(-8, 9, shape).astype("float32") for shape in ((256, 768), (768, 512)))
# Sums of small whole numbers are exact in single precision, whatever the order of summation.
found = paddle.matmul(paddle.to_tensor(left), paddle.to_tensor(right)).numpy()
assert (found == left.astype("int64") @ right.astype("int64")).all()
from paddle_ranker.serving.slots.self_check import tolerance_of
print(os.environ["NVIDIA_TF32_OVERRIDE"], tolerance_of("fp32"))
print("value", path.value, "environment", os.environ.get("MKL_DEBUG_CPU_TYPE"))
"""


@pytest.mark.parametrize(
    ("choice", "tf32", "precision"),
    [("auto", {}, ["0", "1e-05"]), ("off", {"NVIDIA_TF32_OVERRIDE": "1"}, ["1", "0.002"])],
)
def test_products_are_right_on_the_path_taken(
    choice: str, tf32: dict[str, str], precision: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("MKL_DEBUG_CPU_TYPE", "NVIDIA_TF32_OVERRIDE"):
        monkeypatch.delenv(variable, raising=False)
    shown = run_python(PRODUCT, PADDLE_RANKER_MATH=choice, PYTHONWARNINGS="ignore", **tf32)
    assert shown.split()[-6:-4] == precision
    expected = choose_math_path({"PADDLE_RANKER_MATH": choice}, loaded={}).value
    assert shown.split()[-4:] == ["value", str(expected), "environment", str(expected)]
    assert "OMP_NUM_THREADS" not in shown


@pytest.mark.parametrize(
    ("device", "visible", "number", "own"),
    [
        ("gpu", "0,1", "3", "gpu:1"),
        ("gpu", "4,7,-1,2", "3", "gpu:1"),  # CUDA leaves out what follows an unknown one
        ("gpu", "0", "3", "gpu"),
        ("gpu", "", "3", "gpu"),
        ("gpu", "0,1", None, "gpu"),
        ("gpu:0", "0,1", "3", "gpu:0"),
        ("cpu", "0,1", "3", "cpu"),
    ],
)
def test_processes_take_gpus_in_turn(
    device: str, visible: str, number: str | None, own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    if number is not None:
        monkeypatch.setenv(runtime.PROCESS_VARIABLE, number)
    assert runtime.own_gpu(device) == own


def test_a_launched_process_has_the_gpu_that_the_launcher_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAGS_selected_gpus", "2")
    assert [runtime.own_gpu(device) for device in ("gpu", "gpu:0", "cpu")] == ["gpu:2", "gpu:0", "cpu"]


@pytest.mark.parametrize("visible", ["0", "-1"])
def test_a_gpu_is_looked_for_in_another_process(visible: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    run = runtime.subprocess.run

    def recorded(line: list[str], **options: Any) -> Any:
        asked.append(line)
        return run(line, **{**options, "env": {**options["env"], "CUDA_VISIBLE_DEVICES": "-1"}})

    monkeypatch.setattr(runtime, "available_devices", lambda: ["cpu", "gpu"])  # of this process
    monkeypatch.setattr(runtime.subprocess, "run", recorded)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert not runtime.finds_gpu()
    assert len(asked) == (visible == "0")


def test_the_cpu_is_chosen_without_starting_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    import paddle

    counted = list[int]()
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    monkeypatch.setattr(paddle.device, "is_compiled_with_cuda", lambda: True)
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: len(counted.__iadd__([1])) - 1)
    assert (runtime.select_device("cpu"), counted, os.environ["NVIDIA_TF32_OVERRIDE"]) == ("cpu", [], "0")
    with pytest.raises(RankerError, match="no gpu here"):
        runtime.select_device("gpu")
    assert counted == [1]


def test_unknown_and_absent_devices_say_what_is_there() -> None:
    with pytest.raises(UsageError, match="--device tpu: choose from cpu, gpu, xpu, npu"):
        runtime.select_device("tpu")
    absent = next(kind for kind in ("npu", "xpu", "gpu") if kind not in runtime.available_devices())
    with pytest.raises(RankerError, match=f"no {absent} here .*available here: cpu"):
        runtime.select_device(absent)
    assert runtime.select_device("cpu") == "cpu"


@pytest.mark.parametrize(("here", "expected"), [(["cpu"], "cpu"), (["cpu", "gpu"], "gpu"), (["cpu", "xpu"], "cpu")])
def test_the_device_is_a_gpu_or_else_the_cpu_and_the_first_process_reports_it_once(
    here: list[str], expected: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "available_devices", lambda: here)
    assert runtime.find_device().name == expected
    if expected != "cpu":
        return  # it cannot be selected here
    for process, lines in (("1", 0), ("0", 1)):
        note_once.cache_clear()
        monkeypatch.setenv("PADDLE_TRAINER_ID", process)
        assert [runtime.select_device("auto") for _ in range(2)] == ["cpu", "cpu"]
        assert capsys.readouterr().err.count("device: cpu (") == lines


def test_every_command_takes_the_device_that_is_there() -> None:
    for folder in ("paddle_ranker/commands", *RECIPES):
        for path in sorted((REPOSITORY / folder).glob("*.py")):
            if "Options" in path.read_text(encoding="utf-8"):
                importlib.import_module(f"{folder.replace('/', '.')}.{path.stem}")
    classes, defaults = [Options], []
    while classes:
        found = classes.pop()
        classes += found.__subclasses__()
        if found.__module__.split(".")[0] in {"paddle_ranker", *RECIPES}:
            defaults += [field.default for field in dataclasses.fields(found) if field.name == "device"]
    assert len(defaults) > 20 and set(defaults) == {"auto"}


def test_a_seed_fixes_all_three_generators() -> None:
    import paddle

    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.random()), float(paddle.rand([1]).numpy()[0])

    runtime.set_seed(7)
    first, second = draw(), draw()
    runtime.set_seed(7)
    assert draw() == first and all(a != b for a, b in zip(first, second))
    with pytest.raises(UsageError, match="--seed -1"):
        runtime.set_seed(-1)


THREADS = """
import os, sys
from paddle_ranker.runtime import prepare
prepare(int(sys.argv[1]))
print(os.environ["MKL_NUM_THREADS"])
"""


CORES = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("asked", "variables", "threads"),
    [
        (3, {"MKL_NUM_THREADS": "7"}, 3),
        (0, {"MKL_NUM_THREADS": "7"}, 7),
        (0, {}, CORES),
        (0, {"PADDLE_TRAINERS_NUM": str(CORES)}, 1),
        (0, {"PADDLE_TRAINERS_NUM": "999"}, 1),
    ],
)
def test_threads(asked: int, variables: dict[str, str], threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.endswith("_NUM_THREADS")]:
        monkeypatch.delenv(name)
    assert run_python(THREADS, asked, **variables) == f"{threads}\n"


STEPS = """
import hashlib, sys
from paddle_ranker import runtime
if sys.argv[1] == "command":
    runtime.prepare_command(1)
else:
    runtime.choose_math_path()
import numpy as np, paddle
from paddle_ranker.training.trainer import gradients_of, make_optimizer, scale_gradients, squared_norm
from tests.tiny import make_network
network = make_network()
network.train()
optimizer, _ = make_optimizer(network, learning_rate=1e-3, part_factors={}, layer_decay=1.0, weight_decay=0.01,
                              warmup_proportion=0.0, schedule="linear", total_steps=9)
random = np.random.RandomState(0)
for step in range(6):
    paddle.seed(step)
    ids = paddle.to_tensor(random.randint(5, 60, (16, 40)))
    network(ids, paddle.to_tensor((np.arange(40) > 12).astype("int64")[None].repeat(16, 0))).square().mean().backward()
    gradients = gradients_of(network)
    scale_gradients(gradients, float(squared_norm(gradients)) ** -0.5)
    optimizer.step()
    optimizer.clear_grad(set_to_zero=False)
print(hashlib.sha256(b"".join(p.numpy().tobytes() for p in network.parameters())).hexdigest())
"""


@pytest.mark.parity
def test_what_a_command_prepares_changes_no_bit_of_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("FLAGS_")]:
        monkeypatch.delenv(name)
    digests = [run_python(STEPS, way, MKL_NUM_THREADS="1").split()[-1] for way in ("command", "plain")]
    assert digests[0] == digests[1] and len(digests[0]) == 64
