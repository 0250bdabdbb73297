"""GPUs of a cluster: who asks for one, and who sees them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from paddle_ranker.errors import RankerError, UsageError
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.runtime import FoundDevice
from paddle_ranker.scale.cluster import connected, gpus_for, hide_other_gpus
from paddle_ranker.scoring.engines.engine_registry import ENGINES, EngineKind

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A cluster with a GPU, as it believes."""
    ray.init("local", num_cpus=1, num_gpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.thorough(keep=2)
@pytest.mark.parametrize(
    ("engine", "device", "precision", "gpus"),
    [
        ("onnx", "gpu", "fp32", 1),
        ("cuda", "cpu", "fp32", 0),
        ("cuda", "auto", "fp32", 1),
        ("cuda", "auto", "int8", 0),
        (None, "auto", "fp32", 0),  # the CPU build of Paddle
        ("auto", "auto", "fp32", 0),  # and of ONNX Runtime
    ],
)
def test_a_process_asks_for_the_gpu_that_its_engine_would_use(
    engine: str, device: str, precision: str, gpus: int, cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    precisions = {"cpu": ("fp32", "int8"), "gpu": ("fp32",)}
    kind = EngineKind(ENGINES["onnx"].open, "", precisions=precisions, find_device=lambda: FoundDevice("gpu", ""))
    monkeypatch.setitem(ENGINES._items, "cuda", kind)
    if engine == "auto":
        monkeypatch.setitem(ENGINES._items, "cuda", ENGINES["onnx"])
    busy = ray.remote(num_cpus=0, num_gpus=1)(threading.Event).remote()
    ray.get(busy.is_set.remote())
    assert gpus_for(LoadOptions(engine=engine, device=device, precision=precision)) == gpus
    ray.kill(busy)
    with pytest.raises(UsageError, match="Ray chooses which"):
        gpus_for(LoadOptions(engine=engine, device="gpu:1"))


@pytest.mark.parametrize(("gpus", "seen"), [(0, "-1"), (1, "0")])
def test_a_process_sees_no_gpu_but_its_own(gpus: int, seen: str, cluster: None) -> None:
    def visible() -> str:
        hide_other_gpus()
        return os.environ["CUDA_VISIBLE_DEVICES"]

    machine = {"env_vars": {"CUDA_VISIBLE_DEVICES": "0"}}
    assert ray.get(ray.remote(num_gpus=gpus, runtime_env=machine)(visible).remote()) == seen


def test_a_cluster_that_does_not_start_in_time_is_an_error_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(*_: object, **__: object) -> None:
        raise Exception("The current node timed out during startup.")  # Ray's own, of a machine that is too busy

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(RankerError, match=r"'local': cannot be started \(The current node timed"), connected("local"):
        pass
