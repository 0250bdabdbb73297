"""Say what is installed, what this machine has, which fast paths are on, and the line that installs what is missing.

    paddle-ranker doctor

Each package is imported in a process of its own: one that is broken, or that dies of an illegal instruction, is a line
in the report and not its end. Nothing here needs a package to be installed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Optional

from paddle_ranker.errors import UsageError
from paddle_ranker.options import Options, option, run_command
from paddle_ranker.runtime import choose_math_path, processor_fields, read_cpuinfo, usable_cores

ROOT = Path(__file__).resolve().parents[2]
IMPORT_SECONDS = 180

# stack: (paddlepaddle, paddlenlp), as in requirements/*.in
STACKS = {"modern": ("3.3.1", "3.0.0b4"), "complete": ("2.6.2", "2.8.1")}

# What paddlenlp does not say about its dependencies: later releases of them dropped what it imports.
_PADDLENLP_NEEDS = ("aistudio-sdk==0.2.6", "huggingface-hub<1", "setuptools<80", "numpy==1.26.4")

_PADDLE = """
import json, paddle
from paddle_ranker.runtime import available_devices
core = paddle.base.core
onednn = getattr(core, "is_compiled_with_onednn", None) or core.is_compiled_with_mkldnn
print(json.dumps({"devices": available_devices(), "cuda": paddle.version.cuda(), "onednn": bool(onednn())}))
"""


@dataclass(frozen=True)
class Package:
    """A package to look for: its name in the registry, what to run to see that it works, what it is for."""

    name: str
    code: str
    purpose: str
    essential: bool = False
    pin: str = ""
    beside: tuple[str, ...] = ()
    newest_python: tuple[int, int] = (3, 12)


@dataclass(frozen=True)
class Finding:
    """One line of the report. `status`: ok, on, off, missing, broken."""

    group: str
    name: str
    status: str
    detail: str
    remedy: str = ""
    essential: bool = False


@dataclass(frozen=True)
class DoctorOptions(Options):
    json: bool = option(False, help="print the report as JSON, for programs")


def packages(python: tuple[int, int]) -> list[Package]:
    """Return what to look for on a Python of version `python`."""
    paddle, nlp = (f"=={version}" for version in STACKS["complete" if python < (3, 10) else "modern"])
    serving = [(f"paddle-serving-{part}", f"import paddle_serving_{part}") for part in ("client", "server", "app")]
    return [
        Package("paddlepaddle", _PADDLE, "runs the models", True, paddle),
        Package("paddlenlp", "import paddlenlp.transformers", "published models by name", True, nlp, _PADDLENLP_NEEDS),
        Package("numpy", "import numpy", "arrays", True, "==1.26.4"),
        Package("scipy", "import scipy.stats", "statistics of comparisons"),
        Package("scikit-learn", "import sklearn.linear_model", "the linear model to compare with"),
        Package("jieba", "import jieba", "BM25 over words"),
        Package("pyarrow", "import pyarrow.parquet", ".parquet files", pin="<22" if python < (3, 10) else "<20"),
        Package("tokenizers", "import tokenizers", "Hugging Face's tokenizer, a backend"),
        Package("fast-tokenizer-python", "import fast_tokenizer", "a backend", pin="==1.0.2", newest_python=(3, 10)),
        *(Package(name, code, "Paddle Serving", pin="==0.9.0", newest_python=(3, 9)) for name, code in serving),
        Package("onnxruntime", "import onnxruntime", "the engine onnx, which starts without Paddle"),
        Package("openvino", "import openvino", "the engine openvino, which starts without Paddle"),
        Package("visualdl", "import visualdl", "curves of a training run"),
        Package("pytest", "import pytest", "the tests"),
    ]


def probe_package(package: Package) -> tuple[Finding, str]:
    """Import a package in a process of its own; return the finding and what its code printed last."""
    python = sys.version_info[:2]
    versions = [_version(package.name), _version(f"{package.name}-gpu")]
    version = next((found for found in versions if found), "")
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", package.code],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=IMPORT_SECONDS,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.getenv("PYTHONPATH", "")]))},
        )
    except subprocess.TimeoutExpired:
        return _package_finding(package, "broken", f"{version} importing it took over {IMPORT_SECONDS} s"), ""
    if done.returncode == 0:
        return _package_finding(package, "ok", version or "installed, version unknown"), _last_line(done.stdout)
    if not version:
        detail = f"not installed ({package.purpose})"
        if python > package.newest_python:
            newest = ".".join(map(str, package.newest_python))
            detail = f"not installed: there is none for Python {platform.python_version()}, only up to {newest}"
        return _package_finding(package, "missing", detail), ""
    if done.returncode < 0:
        return _package_finding(package, "broken", f"{version} importing it died of signal {-done.returncode}"), ""
    return _package_finding(package, "broken", f"{version} {_last_line(done.stderr)[:300]}"), ""


def _package_finding(package: Package, status: str, detail: str) -> Finding:
    group = "packages" if package.essential else "optional packages"
    remedy = "" if status == "ok" else install_line(package)
    return Finding(group, package.name, status, detail.strip(), remedy, package.essential)


def install_line(package: Package) -> str:
    """Return the line that installs `package` for this Python."""
    if package.name.startswith("paddle-serving") or sys.version_info[:2] > package.newest_python:
        return "bash scripts/setup.sh complete" + ("" if (ROOT / "scripts").is_dir() else "   (in a checkout)")
    # Its dependencies are pinned to versions that clash with other packages' if it chooses them itself.
    without = "--no-deps " if package.name == "fast-tokenizer-python" else ""
    requirements = shlex.join([package.name + package.pin, *package.beside])
    python = shlex.quote(sys.executable)
    # An environment of uv's has no pip, which paddlenlp itself imports as well.
    first = "" if importlib.util.find_spec("pip") else f"{python} -m ensurepip && "
    return f"{first}{python} -m pip install {without}{requirements}"


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def describe_machine(cpuinfo: str) -> list[Finding]:
    """Return what the machine has: processor, cores this process may use, memory."""
    model = processor_fields(cpuinfo).get("model name") or platform.processor() or platform.machine()
    found = {
        "system": platform.platform(),
        "processor": model,
        "cores": f"{usable_cores()} of {os.cpu_count()} usable by this process",
        "memory": _memory(),
    }
    return [Finding("machine", name, "ok", detail) for name, detail in found.items()]


def _memory() -> str:
    try:
        # Lines of "Name:   number kB".
        rows = (line.split() for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
        kilobytes = {row[0].rstrip(":"): int(row[1]) for row in rows if len(row) > 1}
        return f"{kilobytes['MemAvailable'] / 2**20:.1f} of {kilobytes['MemTotal'] / 2**20:.1f} GiB available"
    except (OSError, KeyError, ValueError):
        return "unknown"


def describe_fast_paths(cpuinfo: str, paddle_facts: str, found: set[str]) -> list[Finding]:
    """Return which fast paths are on.

    Args:
        paddle_facts: what the probe of Paddle printed (JSON), or nothing.
        found: names of the packages that work.
    """
    try:
        path = choose_math_path(dict(os.environ), cpuinfo=cpuinfo, loaded={})
        label = {None: "its own choice", "5": "AVX2", "7": "AVX-512"}.get(path.value, f"type {path.value}")
        math = Finding("fast paths", "math library", "on" if path.value else "off", f"{label}: {path.reason}")
    except UsageError as error:
        math = Finding("fast paths", "math library", "broken", str(error), "unset PADDLE_RANKER_MATH")
    flags = processor_fields(cpuinfo).get("flags", "").split()
    bf16 = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in flags]
    backends = [
        "builtin",
        *(n for n, p in (("tokenizers", "tokenizers"), ("fast_tokenizer", "fast-tokenizer-python")) if p in found),
    ]
    onednn = bool(paddle_facts) and json.loads(paddle_facts)["onednn"]
    return [
        math,
        Finding("fast paths", "fast tokenizer", "on", f"backends: {', '.join(backends)}"),
        Finding("fast paths", "oneDNN", "on" if onednn else "off", "in Paddle Inference" if onednn else "not found"),
        Finding("fast paths", "bf16", "on" if bf16 else "off", ", ".join(bf16) or "not in this processor"),
    ]


def name_stack() -> str:
    """Return `modern`, `complete` or `other`, by the installed versions of Paddle and PaddleNLP."""
    installed = (_version("paddlepaddle") or _version("paddlepaddle-gpu"), _version("paddlenlp"))
    return next((name for name, versions in STACKS.items() if versions == installed), "other")


def examine() -> list[Finding]:
    """Return the whole report."""
    python = sys.version_info[:2]
    cpuinfo = read_cpuinfo()
    with ThreadPoolExecutor(max_workers=max(2, os.cpu_count() or 1)) as pool:
        probed = list(pool.map(probe_package, packages((python[0], python[1]))))
    facts = next((said for finding, said in probed if finding.name == "paddlepaddle"), "")
    suits = (3, 9) <= python <= (3, 12)
    stack = name_stack()
    known = "; ".join(f"{name}: paddlepaddle {one}, paddlenlp {two}" for name, (one, two) in STACKS.items())
    own = f"{platform.python_version()} ({sys.executable})"
    remedy = "" if suits else "bash scripts/setup.sh   (Python 3.9 to 3.12)"
    return [
        Finding("packages", "python", "ok" if suits else "broken", own, remedy, True),
        Finding("packages", "stack", "ok", stack if stack in STACKS else f"other (tried together: {known})"),
        *(finding for finding, _ in probed if finding.essential),
        *describe_machine(cpuinfo),
        Finding("machine", "devices", "ok" if facts else "missing", _devices(facts)),
        *describe_fast_paths(cpuinfo, facts, {finding.name for finding, _ in probed if finding.status == "ok"}),
        *(finding for finding, _ in probed if not finding.essential),
    ]


def _devices(paddle_facts: str) -> str:
    if not paddle_facts:
        return "unknown without Paddle"
    facts = json.loads(paddle_facts)
    build = "CPU build" if facts["cuda"] in ("False", False, None) else f"CUDA {facts['cuda']} build"
    return f"{', '.join(facts['devices'])} ({build})"


def doctor(options: DoctorOptions) -> int:
    """Print the report; return 1 where an essential part is missing or broken."""
    findings = examine()
    bad = [finding for finding in findings if finding.essential and finding.status in ("missing", "broken")]
    if options.json:
        report = {"ok": not bad, "stack": name_stack(), "findings": [asdict(finding) for finding in findings]}
        print(json.dumps(report, ensure_ascii=False, indent=2))
        return 1 if bad else 0
    group = ""
    for finding in findings:
        if finding.group != group:
            group = finding.group
            print(f"\n{group}")
        status = "" if finding.status == "ok" else f"{finding.status}: "
        print(f"  {finding.name:<22} {status}{finding.detail}")
        if finding.remedy:
            print(f"  {'':<22} -> {finding.remedy}")
    print()
    if bad:
        print(f"not ready: {', '.join(finding.name for finding in bad)}; the lines marked -> install what is missing,")
        print("and `bash scripts/setup.sh` makes an environment with all of it")
        return 1
    print("ready")
    return 0


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; return its exit status."""
    return run_command(doctor, DoctorOptions, argv, description=__doc__ or "")
