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
from typing import Optional

import paddle
import pytest

from paddle_ranker.commands import doctor
from paddle_ranker.commands.doctor import Package, probe_package
from tests.conftest import REPOSITORY, run_python
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
    done = run_doctor(sys.executable, "--imports", "--json")
    lookups.require_none()
    report = json.loads(done.stdout)
    assert (done.returncode, report["ok"]) == (0, True), done.stdout
    by_name = {finding["name"]: finding for finding in report["findings"]}
    assert by_name["paddlepaddle"]["detail"] == paddle.__version__
    assert report["stack"] == ("complete" if sys.version_info < (3, 10) else "modern")
    assert by_name["devices"]["detail"].startswith("cpu")


def test_report_where_nothing_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_nvidia_smi(tmp_path, monkeypatch)
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


A10, H100, B200, T4 = (
    "NVIDIA A10, 550.54, 8.6",
    "NVIDIA H100 80GB HBM3, 550.54, 9.0",
    "B200, 580.1, 10.0",
    "T4, 550.54, 7.5",
)


def put_nvidia_smi(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *rows: str, known: str = "*", error: str = ""
) -> None:
    """Put an nvidia-smi first on PATH: it prints `rows` if the query is like `known`, else `error`, and fails."""
    text = "\n".join(rows)
    script = f"""#!/bin/sh
case "$1" in {known}) [ -n "{text}" ] && echo "{text}" && exit 0 ;; esac
echo "{error}"; exit 2
"""
    (folder / "nvidia-smi").write_text(script)
    (folder / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


@pytest.mark.parametrize(
    ("rows", "cuda", "status", "fragment", "remedy"),
    [
        (
            [A10, H100],
            "",
            "off",
            "H100 80GB HBM3, driver 550.54, compute capability 9.0: this Paddle is the CPU",
            "bash",
        ),
        ([A10, H100], "12.6", "ok", "NVIDIA A10, driver", ""),
        (
            [A10, H100],
            "11.8",
            "off",
            "for CUDA 11.8 has no code for NVIDIA H100 80GB HBM3",
            "bash scripts/setup.sh gpu",
        ),
        ([A10, T4], "11.2", "ok", "", ""),
        ([H100], "12.0", "ok", "", ""),  # none of the index's builds: nothing is known about it
        ([B200], "12.6", "off", "no code for B200", "PADDLE_RANKER_CUDA=cu129 bash scripts/setup.sh gpu"),
        ([B200], "12.9", "ok", "", ""),
        ([B200], "", "off", "is the CPU build", "PADDLE_RANKER_CUDA=cu129 bash"),
        ([A10, B200], "13.0", "off", "no code for NVIDIA A10", "PADDLE_RANKER_CUDA=cu129"),
        (["vGPU, 550.54, [N/A]"], "12.6", "ok", "compute capability unknown", ""),
        (["vGPU, 550.54, [N/A]"], "", "off", "is the CPU build", "bash scripts/setup.sh gpu"),
        ([H100], None, "ok", "", ""),  # Paddle cannot be imported, which is a finding of its own
    ],
)
def test_gpus_and_the_build_of_paddle(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows: list[str],
    cuda: Optional[str],
    status: str,
    fragment: str,
    remedy: str,
) -> None:
    put_nvidia_smi(tmp_path, monkeypatch, *rows)
    gpus, tf32 = doctor._gpus(*doctor.find_gpus(), cuda)
    assert (gpus.status, tf32.name, tf32.status) == (status, "TF32", "off")
    assert fragment in gpus.detail and gpus.remedy.startswith(remedy) and bool(gpus.remedy) == bool(remedy)


def test_old_drivers_and_those_that_answer_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor.find_gpus() == ([], "") and doctor._gpus([], "", "") == []
    monkeypatch.undo()
    rejected = 'Field \\"compute_cap\\" is not a valid field to query.'
    put_nvidia_smi(tmp_path, monkeypatch, "Tesla K80, 450.80.02", known="*driver_version", error=rejected)
    (gpu,), _ = doctor.find_gpus()
    assert (gpu.name, gpu.driver, gpu.capability) == ("Tesla K80", "450.80.02", None)
    put_nvidia_smi(tmp_path, monkeypatch, error="NVIDIA-SMI has failed because the driver is not running.")
    (finding,) = doctor._gpus(*doctor.find_gpus(), "")
    assert finding.status == "off" and "driver is not running" in finding.detail


@pytest.mark.parametrize(
    ("name", "installed", "gpus", "error", "status", "fragment"),
    [
        ("paddlepaddle", ["paddlepaddle"], [], "", "ok", ""),
        ("paddlepaddle", ["paddlepaddle-gpu"], [A10], "", "ok", ""),
        ("paddlepaddle", ["paddlepaddle", "paddlepaddle-gpu"], [], "", "broken", "-y paddlepaddle paddlepaddle-gpu,"),
        ("onnxruntime", ["onnxruntime", "onnxruntime-gpu"], [], "", "broken", "-y onnxruntime onnxruntime-gpu,"),
        ("onnxruntime", ["onnxruntime"], [], "", "ok", ""),
        ("onnxruntime", ["onnxruntime"], [A10], "", "off", "-y onnxruntime, then install onnxruntime-gpu"),
        ("onnxruntime", ["onnxruntime-gpu"], [A10], "", "ok", ""),
        # An import that fails: the remedy names the build that is installed, or else that for the machine.
        ("paddlepaddle", ["paddlepaddle-gpu"], [], "x", "broken", "pip install paddlepaddle-gpu=={paddle}{cu126}"),
        ("paddlepaddle", ["paddlepaddle-gpu"], [B200], "x", "broken", "pip install paddlepaddle-gpu=={paddle}{cu129}"),
        ("paddlepaddle", ["paddlepaddle-gpu"], [], "libcuda.so.1: cannot open", "broken", "install NVIDIA's driver"),
        ("paddlepaddle", ["paddlepaddle"], [A10], "x", "broken", "pip install paddlepaddle=={paddle}"),
        ("paddlepaddle", [], [], "x", "missing", "pip install paddlepaddle=={paddle}"),
        ("paddlepaddle", [], [A10], "x", "missing", "pip install paddlepaddle-gpu=={paddle}{cu126}"),
        ("onnxruntime", ["onnxruntime-gpu"], [], "x", "broken", "pip install onnxruntime-gpu"),
    ],
)  # fmt: skip
def test_the_remedy_is_for_the_build_that_is_installed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    installed: list[str],
    gpus: list[str],
    error: str,
    status: str,
    fragment: str,
) -> None:
    versions = dict.fromkeys(installed, "3.3.1")

    def version(of: str) -> str:
        if of in versions:
            return versions[of]
        raise metadata.PackageNotFoundError(of)

    monkeypatch.setattr(metadata, "version", version)
    put_nvidia_smi(tmp_path, monkeypatch, *gpus)
    (package,) = (one for one in (*doctor.ESSENTIAL, *doctor.OPTIONAL) if one.name == name)
    code = f"raise ImportError({error!r})" if error else "pass"
    monkeypatch.setattr(doctor, "ESSENTIAL", ())
    finding = doctor._one_build(probe_package(package._replace(code=code))[0], doctor.find_gpus()[0])
    index = " --index-url https://www.paddlepaddle.org.cn/packages/stable/{}/" * (sys.version_info >= (3, 10))
    expected = fragment.format(paddle=doctor.STACK[0], cu126=index.format("cu126"), cu129=index.format("cu129"))
    assert (finding.status, finding.name) == (status, name)
    assert expected in finding.remedy and bool(expected) == bool(finding.remedy)


def test_the_page_s_table_is_the_doctor_s() -> None:
    page = (REPOSITORY / "docs" / "setup.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in row.split("|")] for row in page.splitlines() if "`cu1" in row and row.count("|") == 5
    ]
    builds = [(row[1].partition(" (")[0], set(re.findall("`(cu[0-9]+)`", row[2])), row[3] == "CUDA 11") for row in rows]
    assert builds == [(name, set(known), "cu118" in known) for _, name, known in doctor.CUDA_BUILDS]


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


def test_a_training_that_fails_is_no_ready_installation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor.train_a_step() == ""
    refused = "only 0-dimensional arrays can be converted to Python scalars"

    def randint(*_: object) -> None:
        raise TypeError(refused)

    monkeypatch.setattr(paddle, "randint", randint)
    facts = {"devices": "cpu", "cuda": "", "training": doctor.train_a_step()}
    assert facts["training"] == f"TypeError: {refused}"
    finding = doctor.Finding("packages", "paddlepaddle", "ok", "3.3.1", "", True)
    monkeypatch.setattr(doctor, "probe_package", lambda package, imports: (finding, json.dumps(facts)))
    assert doctor.main([]) == 1
    printed = capsys.readouterr().out
    assert f"broken: a step of a tiny network: TypeError: {refused}" in printed and "not ready: training;" in printed


def test_the_doctors_versions_are_those_of_the_requirements() -> None:
    for stack, (core, paddlenlp) in doctor.STACKS.items():
        lines = (REPOSITORY / "requirements" / f"{stack}.in").read_text(encoding="utf-8").splitlines()
        assert f"paddlepaddle=={core}" in lines
        assert f"paddlenlp=={paddlenlp}" in lines
        for needed in doctor.PADDLENLP_NEEDS:
            assert needed in lines


def test_paddle_is_imported_after_an_install_line() -> None:
    """Looking for pip must not start the hook of setuptools, with which Paddle's import fails."""
    run_python(
        "from paddle_ranker.commands.doctor import ESSENTIAL, install_line\ninstall_line(ESSENTIAL[0])\nimport paddle"
    )
