"""Another checkout of this project as a further system: `--baseline FOLDER`."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import inference, training
from benchmarks.harness.report import Speeds, print_speeds
from benchmarks.harness.workers import Workers, current, with_baseline
from benchmarks.inference import SYSTEMS
from benchmarks.serving import SYSTEMS as SERVERS
from benchmarks.serving import server_of
from paddle_ranker.errors import UsageError

pytestmark = pytest.mark.unit
WORKER = """
import json, sys
import paddle_ranker
print(json.dumps({"ready": [sys.argv[1], paddle_ranker.__file__]}), flush=True)
for line in sys.stdin:
    print(json.dumps({"triples": 12, "seconds": 2, "cpu_seconds": 3}), flush=True)
"""


@pytest.fixture()
def checkout(tmp_path: Path) -> Path:
    for package in ("paddle_ranker", "benchmarks", "benchmarks/peers"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "benchmarks" / "peers" / "training_worker.py").write_text(WORKER, encoding="utf-8")
    return tmp_path


def test_each_own_system_is_followed_by_that_of_the_other_checkout(checkout: Path) -> None:
    wanted = [system for system in SYSTEMS if system.name in ("ours_onnx", "torch", "ours_openvino_match")]
    found = with_baseline(wanted, str(checkout))
    names = ["ours_onnx", "before_ours_onnx", "ours_openvino_match", "before_ours_openvino_match", "torch"]
    assert [system.name for system in found] == names
    assert found[1].title == "before: ONNX Runtime" and found[1].checkout == str(checkout)
    assert not found[1].ours and not found[1].is_compared and found[1].precision == "fp32"
    assert current(found, found[1]) is found[0] and current(found, found[0]) is None
    assert with_baseline(wanted, None) == wanted
    assert with_baseline(training.SYSTEMS[1:2], str(checkout))[1].title == "before: --match_embeddings false"
    servers = with_baseline(SERVERS, str(checkout))
    peers = {"sentence_transformers", "onnxruntime", "infinity"}
    assert {server_of(server) for server in servers} == {"ours", "before", *peers}


def test_the_code_of_the_other_checkout_runs(checkout: Path, tmp_path: Path) -> None:
    system = with_baseline(training.SYSTEMS[:1], str(checkout))[1]
    with Workers() as workers:
        ready = workers.add(training.start_worker(system.name, tmp_path, 1, {}, system.checkout))
        assert ready == {"ready": ["ours", str(checkout / "paddle_ranker" / "__init__.py")]}
        speeds = training.measure([system], training.TrainingBenchmarkOptions(rounds=2), tmp_path)
    assert speeds[system.title].by_clock == [6, 6] and speeds[system.title].by_processor == [4, 4]


def test_its_rows_are_compared_with_the_same_system(capsys: pytest.CaptureFixture[str]) -> None:
    speeds = {name: Speeds([speed, speed], [speed, speed]) for name, speed in (("a", 8.0), ("b", 6.0), ("b2", 3.0))}
    print_speeds(speeds, "pairs", width=4, digits=0, compared={"b2": "b"})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[3] for line in lines[1:4]] == ["1.00", "1.33", "2.00"]


def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="no checkout of this project"):
        with_baseline(SYSTEMS, str(tmp_path))
    assert inference.main(["--systems", "ours_inference", "--baseline", str(tmp_path)]) == 2
    assert f"--baseline {tmp_path}: no checkout" in capsys.readouterr().err
