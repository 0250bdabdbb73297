"""Report the installed packages, the machine, the active fast paths, and how to install what is missing.

    paddle-ranker doctor
    paddle-ranker doctor --imports    # also import every optional package, which takes half a minute
    paddle-ranker doctor --model BAAI/bge-reranker-base    # kind of a model, and the commands and engines for it

Packages are imported in separate processes, so that a broken package, or a package that dies of an illegal
instruction, becomes a line in the report and does not end it. This module needs no package to be installed.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from importlib.machinery import PathFinder
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Optional

from paddle_ranker.commands import command_registry
from paddle_ranker.commands.info import Fact, facts_of
from paddle_ranker.errors import PADDLE_INDEX, CheckpointError, RankerError, UsageError, in_checkout, one_line, quoted
from paddle_ranker.model.model_options import TokenizerOptions
from paddle_ranker.model.role_names import TRAINED_MODEL
from paddle_ranker.options import json_text, main_of, option
from paddle_ranker.options.declare import FETCHED_FOLDER
from paddle_ranker.runtime import (
    TF32_VARIABLE,
    choose_math_path,
    own_environment,
    processor_fields,
    read_cpuinfo,
    usable_cores,
    uses_tf32,
)

if TYPE_CHECKING:
    from paddle_ranker.encoding.pair_encoder import PairEncoder
    from paddle_ranker.model.exported import ExportedFolder
    from paddle_ranker.model.model_folder import FolderType
    from paddle_ranker.model.model_kind import ModelInfo, RowEncoder
    from paddle_ranker.scoring.loading import ScoringModel

PYTHON, IMPORT_SECONDS = sys.version_info[:2], 180
STACKS = {"modern": ("3.3.1", "3.0.0b4"), "complete": ("2.6.2", "2.8.1")}  # Paddle and PaddleNLP: requirements/*.in
STACK = STACKS["complete" if PYTHON < (3, 10) else "modern"]
# paddlenlp does not pin these dependencies, although it uses parts that their later releases dropped.
PADDLENLP_NEEDS = ("aistudio-sdk==0.2.6", "huggingface-hub<1", "setuptools<80", "numpy==1.26.4")
# The table in docs/setup.md: GPUs by their least compute capability, and the CUDA versions of Paddle's builds with code
# for them, best first. Paddle 2.6 is built for CUDA 11.
CUDA_BUILDS = (
    (0.0, "up to Turing", ("cu126", "cu118")),
    (8.0, "Ampere, Ada", ("cu126", "cu118", "cu129")),
    (9.0, "Hopper", ("cu126", "cu129")),
    (10.0, "Blackwell", ("cu129", "cu130")),
)
BF16_CAPABILITY = 8.0
TWO_BUILDS = ("paddlepaddle", "onnxruntime")  # NAME, and NAME-gpu, whose files are partly the same
_PADDLE = """
import json, paddle
from paddle_ranker.commands.doctor import train_a_step
from paddle_ranker.runtime import available_devices
core, cuda = paddle.base.core, paddle.version.cuda()
onednn = getattr(core, "is_compiled_with_onednn", None) or core.is_compiled_with_mkldnn
cuda = "" if cuda in ("False", False, None) else cuda
devices = f"{', '.join(available_devices())} ({f'CUDA {cuda}' if cuda else 'CPU'} build)"
print(json.dumps({"devices": devices, "onednn": bool(onednn()), "cuda": cuda, "training": train_a_step()}))
"""


class Package(NamedTuple):
    """A package to look for.

    name: the package's name on PyPI
    code: Python code that runs without an error if the package works
    purpose: the package's use in this toolkit
    pin: requirement on the version to install, such as "==1.0.2"; "": any version
    newest_python: newest Python that the package supports
    """

    name: str
    code: str
    purpose: str
    pin: str = ""
    newest_python: tuple[int, int] = (3, 13)


ESSENTIAL = (
    Package("paddlepaddle", _PADDLE, "runs the models", f"=={STACK[0]}"),
    Package("numpy", "import numpy", "arrays", "<2" if PYTHON < (3, 10) else ""),
)
OPTIONAL = (
    Package("paddlenlp", "import paddlenlp.transformers", "published models by name", f"=={STACK[1]}", (3, 12)),
    Package("scipy", "import scipy.stats", "statistics of comparisons"),
    Package("scikit-learn", "import sklearn.linear_model", "the linear model to compare with"),
    Package("jieba", "import jieba", "BM25 over words"),
    Package("pyarrow", "import pyarrow.parquet", ".parquet files"),
    Package("tokenizers", "import tokenizers", "tokenizer.json, training of vocabularies"),
    Package("sentencepiece", "import sentencepiece", "texts of ERNIE-M"),
    Package("huggingface-hub", "import huggingface_hub", "models of the Hugging Face hub by name"),
    Package("safetensors", "import safetensors", "models of Hugging Face's transformers"),
    Package("fast-tokenizer-python", "import fast_tokenizer", "tests of the tokenizer", "==1.0.2", (3, 10)),
    Package("paddle-serving-client", "import paddle_serving_client", "Paddle Serving", "==0.9.0", (3, 9)),
    Package("paddle-serving-server", "import paddle_serving_server", "Paddle Serving", "==0.9.0", (3, 9)),
    Package("paddle-serving-app", "import paddle_serving_app", "Paddle Serving", "==0.9.0", (3, 9)),
    Package("onnxruntime", "import onnxruntime", "the engine onnx, which starts without Paddle"),
    Package("openvino", "import openvino", "the engine openvino, which starts without Paddle"),
    Package("ray", "import ray", "clusters of machines", "[data,serve]==2.60.*"),
    Package("visualdl", "import visualdl", "curves of a training run"),
    Package("pytest", "import pytest", "the tests"),
)


class Gpu(NamedTuple):
    """A GPU as NVIDIA's driver reports it."""

    name: str
    driver: str
    capability: Optional[float]

    @property
    def builds(self) -> tuple[str, ...]:
        """CUDA versions of the Paddle builds that run on this GPU, the best first.

        If the GPU's compute capability is unknown, the oldest supported one is assumed.
        """
        least = CUDA_BUILDS[0][0] if self.capability is None else self.capability
        return next(builds for capability, _, builds in reversed(CUDA_BUILDS) if capability <= least)

    def __str__(self) -> str:
        return f"{self.name}, driver {self.driver}, compute capability {self.capability or 'unknown'}"


class Finding(NamedTuple):
    """Line of the report; `status` is ok, on, off, missing or broken."""

    group: str
    name: str
    status: str
    detail: str
    remedy: str = ""
    essential: bool = False


@dataclass(frozen=True)
class DoctorOptions(TokenizerOptions):
    model: Optional[str] = option(
        None,
        help="report on a model instead: open it by its folder or name, and list the commands and engines for it",
        addresses=FETCHED_FOLDER,
    )
    imports: bool = option(False, help="also import the optional packages, which shows broken ones")
    json: bool = option(False, help="print the report as JSON")


def probe_package(package: Package, imports: bool = True) -> tuple[Finding, str]:
    """Run `package.code` in a separate process; return the finding, and the last line that the code prints.

    imports: whether to run the code of optional packages; if not, an optional package is ok if it is installed

    The printed line is "" if the code fails or is not run.
    """
    version = _version(package.name)
    if version and not (imports or package in ESSENTIAL):
        return Finding("optional packages", package.name, "ok", version), ""
    essential, status, result = package in ESSENTIAL, "broken", ""
    # Some packages send telemetry when they are imported.
    silent = "from paddle_ranker.libraries import switch_off_telemetry\nswitch_off_telemetry()"
    line = [sys.executable, "-W", "ignore", "-c", f"{silent}\n{package.code}"]
    try:
        done = subprocess.run(line, capture_output=True, timeout=IMPORT_SECONDS, env=own_environment())
        printed = (done.stderr if done.returncode else done.stdout).decode(errors="replace").strip()
        last_line = printed.rpartition("\n")[2]
        if done.returncode == 0:
            status, detail, result = "ok", version or "installed, version unknown", last_line
        elif not version:
            newest = ".".join(map(str, package.newest_python))
            none = f": there is none for Python {platform.python_version()}, only up to {newest}"
            is_late = package.newest_python < PYTHON
            status, detail = "missing", f"not installed{none if is_late else f' ({package.purpose})'}"
        elif done.returncode < 0:
            detail = f"{version} importing it died of signal {-done.returncode}"
        else:
            detail = f"{version} {last_line[:300]}"
    except subprocess.TimeoutExpired:
        detail = f"{version} importing it took over {IMPORT_SECONDS} s"
    group, remedy = "packages" if essential else "optional packages", "" if status == "ok" else install_line(package)
    if "libcuda.so" in detail:
        remedy = "install NVIDIA's driver; docker run needs --gpus all"
    return Finding(group, package.name, status, detail.strip(), remedy, essential), result


def train_a_step() -> str:
    """Train a tiny network for one step, as trainings do; return the error in one line, or "" if the step succeeds."""
    try:
        import paddle
        from paddle import nn

        from paddle_ranker.model.networks.dropout import Dropout, Masks
        from paddle_ranker.training.trainer import squared_norm

        masks = Masks()
        masks.restart()
        network = nn.Sequential(nn.Linear(4, 4), Dropout(0.5, masks), nn.Linear(4, 1))
        optimizer = paddle.optimizer.AdamW(1e-3, parameters=network.parameters())
        network(paddle.ones([2, 4])).square().mean().backward()
        squared_norm([parameter.grad for parameter in network.parameters()]).item()
        optimizer.step()
    except Exception as error:  # whatever another version of a library raises
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return ""


def _training(facts: dict[str, str]) -> Finding:
    """Return the finding about the step of `train_a_step`; `facts`: what Paddle's probe printed, {} if it failed."""
    if not facts:
        return Finding("machine", "training", "missing", "unknown without Paddle")
    if not facts["training"]:
        return Finding("machine", "training", "ok", "a step of a tiny network succeeds", essential=True)
    remedy = f"the versions of the project's tests: {in_checkout('bash scripts/setup.sh')}"
    return Finding("machine", "training", "broken", f"a step of a tiny network: {facts['training']}", remedy, True)


def install_line(package: Package) -> str:
    """Return the shell command that installs a package for this Python.

    If the package has builds for CPUs and GPUs, the line installs the build that is present already. If neither is,
    it installs the build that fits this machine.
    """
    if package.purpose == "Paddle Serving" or package.newest_python < PYTHON:
        return in_checkout("bash scripts/setup.sh complete")
    # Without --no-deps, pip would install pinned dependencies that conflict with other packages.
    without = "--no-deps " if package.name == "fast-tokenizer-python" else ""
    needed = shlex.join([package.name + package.pin, *(PADDLENLP_NEEDS if package.name == "paddlenlp" else ())])
    if package.name in TWO_BUILDS:
        versions, gpus = _builds(package.name), find_gpus()[0]
        if f"{package.name}-gpu" in versions or (gpus and not versions):
            needed = f"{package.name}-gpu{package.pin}"
            if package.name == "paddlepaddle" and PYTHON >= (3, 10):
                needed += f" --index-url {PADDLE_INDEX}{cuda_for(gpus)}/"
    python = shlex.quote(sys.executable)
    # An environment of uv's has no pip, which paddlenlp itself imports as well.
    # `importlib.util.find_spec` would start a hook of setuptools, after which this process cannot import Paddle.
    pip = "" if PathFinder.find_spec("pip") else f"{python} -m ensurepip && "
    return f"{pip}{python} -m pip install {without}{needed}"


def _builds(name: str) -> dict[str, str]:
    """Return the versions of the installed distributions of a package, by name: `name` and `name-gpu`."""
    versions = {}
    for distribution in (name, f"{name}-gpu"):
        with suppress(metadata.PackageNotFoundError):
            versions[distribution] = metadata.version(distribution)
    return versions


def _version(name: str) -> str:
    return next(iter(_builds(name).values()), "")


def find_gpus() -> tuple[list[Gpu], str]:
    """Return the GPUs that `nvidia-smi` lists, and its error in one line; both are empty without `nvidia-smi`."""
    message = ""
    for fields in ("name,driver_version,compute_cap", "name,driver_version"):  # old drivers do not know the last one
        line = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
        try:
            done = subprocess.run(line, capture_output=True, text=True, timeout=IMPORT_SECONDS)
        except (OSError, subprocess.TimeoutExpired):
            return [], message
        if done.returncode == 0:
            rows = [[*map(str.strip, row.split(",")), ""] for row in done.stdout.splitlines() if "," in row]
            return [Gpu(name, driver, _capability(number)) for name, driver, number, *_ in rows], ""
        message = (done.stdout + done.stderr).strip().rpartition("\n")[2]
    return [], message


def _capability(text: str) -> Optional[float]:
    return float(text) if re.fullmatch(r"\d+\.\d+", text) else None  # "[N/A]" where the driver does not say


def cuda_for(gpus: Sequence[Gpu]) -> str:
    """Return the CUDA version of the Paddle build that supports most of `gpus`."""
    votes = [build for gpu in gpus for build in gpu.builds]
    return max(votes, key=votes.count, default="cu126")


def _gpus(gpus: Sequence[Gpu], problem: str, cuda: object) -> list[Finding]:
    """Return the findings about GPUs and TF32.

    gpus, problem: result of `find_gpus`
    cuda: CUDA version of the installed Paddle; "" for the CPU build
    """
    if not gpus:
        return [Finding("machine", "GPUs", "off", f"nvidia-smi: {problem[:200]}")] if problem else []
    listed_gpus = "; ".join(map(str, gpus))
    # CUDA 11's builds know the same GPUs.
    build = "cu118" if str(cuda).startswith("11.") else f"cu{str(cuda).replace('.', '')}"
    others = [gpu.name for gpu in gpus if any(build in row[2] for row in CUDA_BUILDS) and build not in gpu.builds]
    gpu = Finding("machine", "GPUs", "ok", listed_gpus)
    if cuda == "" or others:
        why = "is the CPU build" if cuda == "" else f"for CUDA {cuda} has no code for {', '.join(others)}"
        wanted = cuda_for(gpus)
        setup = f"{'' if wanted == 'cu126' else f'PADDLE_RANKER_CUDA={wanted} '}bash scripts/setup.sh gpu"
        gpu = gpu._replace(status="off", detail=f"{listed_gpus}: this Paddle {why}", remedy=in_checkout(setup))
    why = f"{TF32_VARIABLE}=1" if uses_tf32() else f"fp32 is fp32; {TF32_VARIABLE}=1 turns it on"
    return [gpu, Finding("fast paths", "TF32", "on" if uses_tf32() else "off", why)]


def _one_build(probed: Finding, gpus: Sequence[Gpu]) -> Finding:
    """Return `probed`; if both builds of a package are installed, or the build cannot use the GPUs, say so instead."""
    versions = _builds(probed.name) if probed.name in TWO_BUILDS else {}
    python = shlex.quote(sys.executable)
    remove = f"{python} -m pip uninstall -y {' '.join(versions)}, then install "
    if len(versions) == 2:
        both = " and ".join(f"{name} {version}" for name, version in versions.items())
        detail = f"{both} are both installed, and share files"
        return probed._replace(status="broken", detail=detail, remedy=f"{remove}the one that you need (docs/setup.md)")
    if probed.status == "ok" and gpus and "onnxruntime" in versions:
        detail = f"{probed.detail} is the CPU build: the engine onnx takes no --device gpu"
        return probed._replace(status="off", detail=detail, remedy=f"{remove}onnxruntime-gpu")
    return probed


def _memory() -> str:
    try:
        sizes = dict(re.findall(r"(?m)^(\w+): +(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii")))
        available, total = (int(sizes[name]) / 2**20 for name in ("MemAvailable", "MemTotal"))
        return f"{available:.1f} of {total:.1f} GiB available"
    except (OSError, KeyError):
        return "unknown"


def _math_library(cpuinfo: str) -> Finding:
    try:
        path = choose_math_path(dict(os.environ), cpuinfo=cpuinfo, loaded={})
    except UsageError as error:
        return Finding("fast paths", "math library", "broken", str(error), "unset PADDLE_RANKER_MATH")
    label = {None: "its own choice", "5": "AVX2", "7": "AVX-512"}.get(path.value, f"type {path.value}")
    return Finding("fast paths", "math library", "on" if path.value else "off", f"{label}: {path.reason}")


def examine(imports: bool = True) -> list[Finding]:
    """Return all findings of the report, in order; `imports`: see `probe_package`."""
    with ThreadPoolExecutor(max_workers=max(2, os.cpu_count() or 1)) as pool:
        probed = list(pool.map(lambda package: probe_package(package, imports), [*ESSENTIAL, *OPTIONAL]))
    facts = json.loads(probed[0][1] or "{}")  # Paddle's
    gpus, problem = find_gpus()
    about_gpus = _gpus(gpus, problem, facts.get("cuda"))
    cpuinfo = read_cpuinfo()
    processor = processor_fields(cpuinfo)
    model = processor.get("model name") or platform.processor() or platform.machine()
    bf16 = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in processor.get("flags", "").split()]
    bf16 += dict.fromkeys(gpu.name for gpu in gpus if (gpu.capability or 0) >= BF16_CAPABILITY)
    stacks = "; ".join(f"{name}: paddlepaddle {paddle}, paddlenlp {nlp}" for name, (paddle, nlp) in STACKS.items())
    names = {f"{paddle} {nlp}": name for name, (paddle, nlp) in STACKS.items()}
    names.update({f"{paddle} ": name for name, (paddle, _) in STACKS.items()})
    stack = names.get(f"{_version('paddlepaddle')} {_version('paddlenlp')}", f"other (tried together: {stacks})")
    suits = (3, 9) <= PYTHON <= (3, 13)
    remedy = "" if suits else f"Python 3.9 to 3.13: {in_checkout('bash scripts/setup.sh')}"
    python = f"{platform.python_version()} ({sys.executable})"
    onednn = ("on", "in Paddle Inference") if facts.get("onednn") else ("off", "not found")
    return [
        Finding("packages", "python", "ok" if suits else "broken", python, remedy, True),
        Finding("packages", "stack", "ok", stack),
        *(_one_build(finding, gpus) for finding, _ in probed if finding.essential),
        Finding("machine", "system", "ok", platform.platform()),
        Finding("machine", "processor", "ok", model),
        Finding("machine", "cores", "ok", f"{usable_cores()} of {os.cpu_count()} usable by this process"),
        Finding("machine", "memory", "ok", _memory()),
        Finding("machine", "devices", "ok" if facts else "missing", facts.get("devices", "unknown without Paddle")),
        _training(facts),
        *about_gpus[:1],
        _math_library(cpuinfo),
        Finding("fast paths", "fast tokenizer", "on", "built in"),
        Finding("fast paths", "oneDNN", *onednn),
        Finding(
            "fast paths",
            "bf16",
            "on" if bf16 else "off",
            ", ".join(bf16) or f"not in this processor{' or GPU' if gpus else ''}",
        ),
        *about_gpus[1:],
        *(_one_build(finding, gpus) for finding, _ in probed if not finding.essential),
    ]


@dataclass
class Examined:
    """The result of examining a model.

    facts: the model's kind and path, and the facts in its files
    counts_as: the model's roles for commands, as in `command_registry.Command.takes`
    works: names and descriptions of the commands, engines and server options that accept the model
    problem: the reason why the model does not open, and what to do; "" if it opens
    """

    facts: list[Fact] = field(default_factory=list)
    counts_as: set[str] = field(default_factory=set)
    works: list[Fact] = field(default_factory=list)
    problem: str = ""


def examine_model(source: str, tokenizer: Optional[str] = None) -> Examined:
    """Open a model by its folder or name, run it on a few rows, and return the findings."""
    from paddle_ranker.model.model_folder import ROLES, find_with_tokenizer, identify
    from paddle_ranker.model.pretrained import resolve_model

    findings = Examined()
    try:
        path = resolve_model(str(find_with_tokenizer(source, tokenizer)))
        model = identify(path)
        path = model.path
        place = str(path.resolve()) if Path(source).exists() else f"{path}, in the cache"
        findings.facts += [("found at", place), ("what", model.what), *facts_of(model), *_weights(model.folder)]
        findings.works += _open(model, findings.facts)
        findings.counts_as |= {role.name for role in ROLES if role.fits(model)}
    except (RankerError, OSError) as error:
        findings.problem = one_line(error)
        return findings
    findings.works += [*_commands(findings.counts_as, model), *_slots(model)]
    return findings


def _weights(folder: Path) -> Iterator[Fact]:
    """Yield the names and sizes of a folder's parameter files, if there are any."""
    endings = (".safetensors", ".bin", ".pdparams", ".pdiparams", ".onnx")
    paths = [*folder.glob("*"), *folder.glob("*/*")]  # members of a blend, steps of sentence-transformers
    files = sorted(path.relative_to(folder) for path in paths if path.name.endswith(endings))
    if files:
        yield "files", ", ".join(f"{file} ({(folder / file).stat().st_size / 1e6:,.1f} MB)" for file in files)


def _open(folder_type: FolderType, facts: list[Fact]) -> list[Fact]:
    """Open a model, run it on sample rows, and return the engines that accept it.

    An encoder without a head is only opened; the result is then []. Facts about the model are appended to `facts`.
    """
    from paddle_ranker import runtime

    runtime.prepare()
    from paddle_ranker.model.model_folder import MODEL, load_encoder
    from paddle_ranker.scoring.loading import open_model

    began = time.perf_counter()
    if folder_type.is_encoder:
        loaded = load_encoder(folder_type.path)
        length = min(loaded.checkpoint.stated_length or loaded.config.longest_pair, loaded.config.longest_pair)
        facts += _encoder_facts(loaded.pair_encoder(length))
        facts.append(("opens", f"in {time.perf_counter() - began:.1f} s"))
        return []
    model = open_model(folder_type.path, MODEL)
    _compute(model)
    facts += _encoder_facts(model.row_encoder)
    facts.append(("opens", f"in {time.perf_counter() - began:.1f} s, and computes"))
    return [*(_engines(folder_type.folder) if folder_type.is_exported else _engines_after_export())]


def _compute(model: ScoringModel[ModelInfo, RowEncoder]) -> None:
    """Run a model on sample rows; raises `CheckpointError` if an output is not finite."""
    import numpy as np

    from paddle_ranker.model.builtin_kinds import KINDS

    rows = next(iter(KINDS[model.info.kind].sample_inputs(model.row_encoder, model.info)))
    for name, array in model.engine.run(rows).items():
        if not np.isfinite(array).all():
            raise CheckpointError(f"its {name} is not a finite number: the parameters are damaged; copy them again")


def _encoder_facts(encoder: object) -> Iterator[Fact]:
    """Yield, for each text encoder of a model, its tokenizer, template and maximum length."""
    from paddle_ranker.encoding.pair_encoder import LOST_CAPITALS, PairEncoder

    members = getattr(encoder, "members", None) or (getattr(encoder, "texts", None),)  # of a blend; of pairs of posts
    tower = getattr(encoder, "tokens", None)
    for member in (tower,) if isinstance(tower, PairEncoder) else members:
        if isinstance(member, PairEncoder):
            shown = _single(member) if member is tower else _pair(member)
            yield (
                "tokenizer",
                f"{member.vocab_size:,} ids, {'WordPiece' if member.backend == 'builtin' else member.backend}",
            )
            yield f"a {'text' if member is tower else 'pair'}", f"{shown}, at most {member.max_seq_length:,} tokens"
            if member.loses_capitals:
                yield "capitals", LOST_CAPITALS


def _pair(encoder: PairEncoder) -> str:
    template = encoder.template
    before, between, after = (_tokens(encoder, ids) for ids in (template.before, template.between, template.after))
    query = f"{quoted(encoder.query_prompt)} query" if encoder.query_prompt else "query"
    return " ".join([*before, query, *between, "title", *after])


def _single(encoder: PairEncoder) -> str:
    before, after = (_tokens(encoder, ids) for ids in (encoder.template.text_before, encoder.template.text_after))
    return " ".join([*before, "text", *after])


def _tokens(encoder: PairEncoder, ids: Sequence[int]) -> list[str]:
    tokens = {number: token for token, number in encoder.token_to_id.items() if number in ids}
    return [tokens.get(number, str(number)) for number in ids]


def _engines(path: Path) -> Iterator[Fact]:
    """Open the exported model with each engine; yield the engine's precisions, or the reason why it fails."""
    from paddle_ranker.model.exported import open_exported
    from paddle_ranker.model.model_folder import MODEL
    from paddle_ranker.scoring.engines.engine_registry import ENGINES, exported_engines, is_installed

    folder = open_exported(path, MODEL)
    for name in exported_engines():
        kind = ENGINES[name]
        if not is_installed(name):
            yield f"--engine {name}", f"not here: {kind.runs} is not installed"
        else:
            yield f"--engine {name}", _tried(name, folder) or f"{kind.runs}, in {_precisions(name)}"


def _tried(engine: str, folder: ExportedFolder) -> str:
    """Return the reason why an engine does not open a folder; "" if the engine opens it."""
    from paddle_ranker.model.load_options import LoadOptions
    from paddle_ranker.scoring.engines.opening import open_engine

    try:
        open_engine(folder, LoadOptions(engine=engine, device="cpu"))
    except RankerError as error:
        return f"not here: {one_line(error)}"
    return ""


def _engines_after_export() -> Iterator[Fact]:
    from paddle_ranker.scoring.engines.engine_registry import DYGRAPH, ENGINES, exported_engines, is_installed

    yield f"--engine {DYGRAPH}", ENGINES[DYGRAPH].runs
    for name in exported_engines():
        missing = "" if is_installed(name) else ", which is not installed"
        yield f"--engine {name}", f"after paddle-ranker export: {ENGINES[name].runs}{missing}, in {_precisions(name)}"


def _precisions(engine: str) -> str:
    from paddle_ranker.scoring.engines.engine_registry import ENGINES

    return ", ".join(ENGINES[engine].precisions.get("cpu", ()))


def _commands(counts_as: set[str], model: FolderType) -> Iterator[Fact]:
    """Yield the commands that accept the model's roles or have a version for its kind, ordered by group."""
    command_registry.COMMANDS.load_plugins()
    groups: dict[str, list[str]] = {group: [] for group in command_registry.GROUPS}
    for name, command in command_registry.COMMANDS.items():
        kind = "" if model.kind is None else model.kind.name
        has_own = f"{name} {kind}" in command_registry.OF_KIND and TRAINED_MODEL not in command.takes
        if has_own or counts_as & set(command.takes):
            groups.setdefault(command.group, []).append(name)
    yield from ((group, ", ".join(names)) for group, names in groups.items() if names)


def _slots(model: FolderType) -> Iterator[Fact]:
    """Yield the server's options that accept the model, each with the URL paths that the server then answers."""
    from paddle_ranker.serving.http.endpoints import ENDPOINTS
    from paddle_ranker.serving.slots.slot_kinds import SLOTS

    SLOTS.load_plugins()
    ENDPOINTS.load_plugins()
    for name, slot in SLOTS.items():
        if slot.takes is not None and slot.takes.fits(model):
            paths = [path for endpoint in ENDPOINTS.values() if endpoint.slots == (name,) for path in endpoint.paths]
            yield f"serve --{slot.option}", f"a {slot.what}: {', '.join(dict.fromkeys(paths))}"


def report_model(source: str, as_json: bool, tokenizer: Optional[str] = None) -> int:
    """Print a model's facts, and the commands, engines and server options that accept it.

    Returns 1 if the model does not open, else 0.
    """
    findings = examine_model(source, tokenizer)
    if as_json:
        report = {"ok": not findings.problem, "model": source, "problem": findings.problem}
        report.update(facts=findings.facts, counts_as=sorted(findings.counts_as), works_with=dict(findings.works))
        print(json_text(report, indent=2))
        return 1 if findings.problem else 0
    for title, facts in ((source, findings.facts), ("works with", findings.works)):
        if facts:
            print(f"\n{title}")
        for name, text in facts:
            print(f"  {name:<22} {text}")
    print(f"\ndoes not open: {findings.problem}" if findings.problem else "\nopens")
    return 1 if findings.problem else 0


def doctor(options: DoctorOptions) -> int:
    """Print the report; return 1 if an essential package is missing or broken or a model does not open, else 0."""
    if options.model is None and options.model_name_or_path is not None:
        raise UsageError("--model_name_or_path belongs to --model: give both, or leave it out")
    if options.model is not None:
        from paddle_ranker.model.foreign.foreign_files import require_static  # imports NumPy, which may be missing

        require_static(options.model_name_or_path, options.model)
        return report_model(options.model, options.json, options.model_name_or_path)
    findings = examine(options.imports)
    bad = [finding.name for finding in findings if finding.essential and finding.status in ("missing", "broken")]
    if options.json:
        stack = next(finding.detail.split()[0] for finding in findings if finding.name == "stack")
        report = {"ok": not bad, "stack": stack, "findings": [finding._asdict() for finding in findings]}
        print(json_text(report, indent=2))
        return 1 if bad else 0
    for group, members in groupby(findings, key=lambda finding: finding.group):
        print(f"\n{group}")
        for finding in members:
            print(f"  {finding.name:<22} {'' if finding.status == 'ok' else f'{finding.status}: '}{finding.detail}")
            if finding.remedy:
                print(f"  {'':<22} -> {finding.remedy}")
    if bad:
        print(f"\nnot ready: {', '.join(bad)}; the lines marked -> install what is missing,")
        print(f"and an environment with all of it is made by: {in_checkout('bash scripts/setup.sh')}")
        return 1
    print("\nready")
    return 0


main = main_of(doctor, DoctorOptions, __doc__)
