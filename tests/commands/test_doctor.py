"""The doctor's report: of this environment, of one where nothing is installed, and of a broken package."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

import pytest

from paddle_ranker.commands import doctor
from paddle_ranker.commands.doctor import Package, probe_package
from tests.conftest import REPOSITORY
from tests.lookups import Lookups
from tests.lookups import lookups as lookups

pytestmark = pytest.mark.unit


def run_doctor(python: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name != "MKL_DEBUG_CPU_TYPE"}
    return subprocess.run(
        [python, "-m", "paddle_ranker", "doctor", *arguments],
        cwd=REPOSITORY,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_report_of_this_environment_asks_nobody_and_needs_no_home(lookups: Lookups) -> None:
    done = run_doctor(sys.executable, "--json")
    lookups.require_none()
    report = json.loads(done.stdout)
    assert (done.returncode, report["ok"]) == (0, True), done.stdout
    by_name = {finding["name"]: finding for finding in report["findings"]}
    assert by_name["paddlepaddle"]["detail"] == metadata.version("paddlepaddle")
    assert report["stack"] == ("complete" if sys.version_info < (3, 10) else "modern")
    assert by_name["devices"]["detail"].startswith("cpu")


def test_report_where_nothing_is_installed(tmp_path: Path) -> None:
    venv.create(tmp_path / "empty", symlinks=True)
    python = str(tmp_path / "empty" / "bin" / "python")
    done = run_doctor(python)
    assert done.returncode == 1
    assert not done.stderr
    assert f"-m pip install paddlepaddle=={doctor.STACK[0]}\n" in done.stdout
    assert re.search(r"^  paddlenlp +missing: not installed", done.stdout, re.M)
    assert "not ready: paddlepaddle, numpy;" in done.stdout

    report = json.loads(run_doctor(python, "--json", PADDLE_RANKER_MATH="amx").stdout)
    assert report["ok"] is False
    (path,) = [finding for finding in report["findings"] if finding["name"] == "math library"]
    assert (path["status"], path["remedy"]) == ("broken", "unset PADDLE_RANKER_MATH")


SMI = """#!/bin/sh
echo "NVIDIA A10, 550.54, 8.6"
echo "NVIDIA H100 80GB HBM3, 550.54, 9.0"
"""


def test_gpus_beside_the_cpu_build_and_two_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._gpus({"is_cpu_build": True}) == []
    (tmp_path / "nvidia-smi").write_text(SMI)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    gpus, tf32 = doctor._gpus({"is_cpu_build": True})
    assert gpus.status == "off" and "H100 80GB HBM3, driver 550.54, compute capability 9.0" in gpus.detail
    assert gpus.remedy == "bash scripts/setup.sh gpu" and (tf32.name, tf32.status) == ("TF32", "off")
    monkeypatch.setattr(doctor, "_version", lambda name: "3.3.1")
    assert doctor._gpus({"is_cpu_build": False})[0].status == "ok"
    monkeypatch.setattr(doctor, "_version", lambda name: "2.6.2")
    assert "knows no compute capability 9" in doctor._gpus({"is_cpu_build": False})[0].detail

    probed = doctor.Finding("packages", "paddlepaddle", "ok", "3.3.1", "", True)
    assert doctor._builds(probed) == probed
    monkeypatch.setattr(metadata, "version", lambda name: {"paddlepaddle": "3.3.1", "paddlepaddle-gpu": "3.3.1"}[name])
    both = doctor._builds(probed)
    assert both.status == "broken" and both.essential and "uninstall -y paddlepaddle paddlepaddle-gpu" in both.remedy


@pytest.mark.parametrize(
    ("code", "detail"),
    [
        ("raise ImportError('libgomp.so.1: cannot open')", "ImportError: libgomp.so.1: cannot open"),
        ("import os; os.kill(os.getpid(), 4)", "importing it died of signal 4"),
    ],
)
def test_a_broken_package_is_one_line(code: str, detail: str) -> None:
    finding, said = probe_package(Package("pytest", code, "the tests"))
    assert (finding.status, said) == ("broken", "")
    assert finding.detail.endswith(detail)
    assert finding.remedy.endswith("-m pip install pytest")


def test_the_doctors_versions_are_those_of_the_requirements() -> None:
    for stack, (paddle, paddlenlp) in doctor.STACKS.items():
        lines = (REPOSITORY / "requirements" / f"{stack}.in").read_text(encoding="utf-8").splitlines()
        assert f"paddlepaddle=={paddle}" in lines
        assert f"paddlenlp=={paddlenlp}" in lines
        for needed in doctor.PADDLENLP_NEEDS:
            assert needed in lines
