"""Type every command and every piece of code that the pages show, in a fresh copy, and compare the sample output.

python -m tests.robustness.walk_docs [--pages README.md docs/scores.md ...] [--long true]

Commands run as printed and without a network: the files and folders that they speak of are made before, and a page's
server is on a free port. The README names no encoder that is fetched; for the other pages one of two layers stands
under the published ones' names, and the steps that use it say so. `--long true` runs the scripts too, which train for
minutes. What is not run is listed with the reason. The exit status is 1 where a command fails or a sample has drifted.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from benchmarks.harness.report import format_table
from paddle_ranker.options import Options, option, run_command
from paddle_ranker.scoring.engines.precisions import has_bf16
from tests.checkout import IS_MODERN, copy_checkout
from tests.conftest import REPOSITORY
from tests.robustness.doc_blocks import Block, blocks, commands, missing
from tests.robustness.walk_files import PUBLISHED, make_encoders, name_rankers, write_posts, write_texts
from tests.started import free_ports

SECONDS = 900
NOBODY = "http://127.0.0.1:9"
FIRST = "README.md"  # trains and exports what the other pages go on with
NOT_RUN = {
    "scripts/test.sh": "runs this",
    "scripts/setup.sh": "an environment takes minutes: scripts/test.sh sets up both",
    "pip ": "replaces an environment's package: tests/scripts/test_wheel.py installs in one of its own",
    "newest/bin/": "needs a package index: the newest versions of all packages",
    ".venv/bin/python -m pip": "replaces the environment's Paddle",
    "benchmarks.": "measures for minutes or hours; tests/benchmarks runs short ones",
    "tests.robustness.": "attacks for minutes; short ones are tests",
    "paddle_ranker doctor": "imports every package there is; tests/commands/test_doctor.py does, too",
    "paddle-ranker judgments": "needs the log of many searches: tests/commands/test_judgments.py makes one",
    "judgments/dev": "is made of the log of many searches",
    "datasets/download.py": "needs a network; tests/data downloads from a server of its own",
    "datasets/make_real.py": "needs a network, or a package; tests/data makes a package of its own",
    "datasets/manpages": "is made of that package",
    "--budget_minutes": "takes as many minutes; tests/pretraining runs a short one",
    '--gpus "0,1,2,3"': "needs four GPUs",
    "--nproc_per_node": "tests/training/test_distributed.py starts several processes",
}
LONG = {"bash scripts/": "trains for minutes: tests/scripts runs the scripts"}
# What only the modern stack has: it writes ONNX files.
MODERN = dict.fromkeys(("openvino", "quantize", '"onnx"'), "needs an ONNX file, which the modern stack writes")
# What the pages show for processors that multiply bfloat16.
BF16 = {} if has_bf16() else {"--precision bf16": "needs a processor that multiplies bfloat16"}
# What is typed otherwise: for seconds instead of minutes, and since models of a few steps are hardly good.
SHORTER = {
    "max_steps=1000": "max_steps=2",
    "--ranker RANKER --output mined": "--ranker RANKER --max_score_ratio 1 --output mined",
    "--model static_tower --calibration_file": "--model static_tower --max_loss 1 --calibration_file",
}
# What `…` stands for at the end of a command.
AND_SO_ON = {
    "cross_encoder/train_ce.py": "--train_set train.tsv --test_file dev.tsv --model_name_or_path STARTER --epochs 1",
    "ernie_matching/train_pairwise.py": "--train_file mine.tsv --test_file dev.tsv --model_name_or_path STARTER",
}
GIVEN = {"--train_set": "--train_set train.tsv ", "--model_name_or_path": "--model_name_or_path STARTER "}
NO_SAMPLE = {
    ("README.md", "setup: ready"): "tests/scripts/test_scripts.py compares it with what the script prints",
    ("docs/migration.md", "global step"): "the tutorial's own lines",
    ("docs/lexical.md", "logit ="): "a formula",
    ("docs/entailment.md", '{"pairs"'): "a request",
}
# What a page goes on with that other pages made, or that stands for something of the reader's.
PRELUDE = "titles = ['深度学习综述', '水稻病害诊断']\nquery = '深度学习'\n"


@dataclass
class Step:
    """A command or a sample of a page: `status` begins with ok, failed or drifted, or is why it was not run."""

    place: str
    text: str
    status: str
    seconds: float = 0.0
    printed: str = field(default="", repr=False)

    @property
    def is_bad(self) -> bool:
        return self.status.startswith(("failed", "drifted"))


class Walk:
    """One page, walked through in its own copy of what the README left."""

    def __init__(self, folder: Path, *, long: bool):
        self.folder, self.environment, self.long = folder, environment_of(folder), long
        self._printed = ""
        self._server: Optional[subprocess.Popen[bytes]] = None
        self._port = str(free_ports(1)[0])

    def page(self, name: str) -> Iterator[Step]:
        """Yield each command, piece of code and sample of a page with what became of it."""
        try:
            for block in blocks(self.folder / name, name):
                if block.kind == "shell":
                    yield from self._shell(block)
                elif block.kind == "python" and not IS_MODERN and any(part in block.text for part in MODERN):
                    yield Step(f"{name}:{block.line}", block.text, MODERN['"onnx"'])
                elif block.kind == "python":
                    yield self._run(f"{name}:{block.line}", block.text, ["python", "-c", PRELUDE + block.text])
                elif IS_MODERN:  # whose output the pages show
                    yield self._sample(block)
        finally:
            self._stop()

    def _shell(self, block: Block) -> Iterator[Step]:
        for line, command, sample in commands(block):
            place = f"{block.page}:{line}"
            reasons = {**NOT_RUN, **BF16, **({} if self.long else LONG), **({} if IS_MODERN else MODERN)}
            reason = next((why for part, why in reasons.items() if is_kind(command, part)), None)
            if reason:
                yield Step(place, command, reason)
                continue
            if re.search(r"paddle[-_]ranker (search-)?serve\b", command):
                step = self._serve(place, command)
            else:
                refused = any('"error"' in text for text in sample)
                step = self._run(place, command, ["bash", "-euo", "pipefail", "-c", _whole(command)], refused=refused)
            yield step
            absent = [] if step.is_bad else missing("\n".join(sample), step.printed)
            if absent:
                yield Step(place, absent[0], f"drifted: printed was {step.printed[:300]!r}")

    def _run(self, place: str, text: str, command: Sequence[str], *, refused: bool = False) -> Step:
        began = time.monotonic()
        for printed, typed in {**SHORTER, "8600": self._port}.items():
            command = [part.replace(printed, typed) for part in command]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=SECONDS,
        )  # fmt: skip
        printed = done.stdout + done.stderr
        for written in re.findall(r"--output_file (\S+)", text):
            if (self.folder / written).is_file():
                printed += (self.folder / written).read_text(encoding="utf-8")
        self._printed += printed
        failed = done.returncode != 0 or ('"error"' in done.stdout) != refused
        fetched = [name for name in PUBLISHED if name in text]
        status = f"ok with a folder for {fetched[0]}, which is fetched" if fetched else "ok"
        status = f"failed ({done.returncode}): {printed[-600:]}" if failed else status
        return Step(place, text, status, time.monotonic() - began, printed)

    def _serve(self, place: str, command: str) -> Step:
        """Start a server; it goes on until the page ends, or another one is started."""
        self._stop()
        began, log = time.monotonic(), self.folder / "server.log"
        with log.open("wb") as output:
            self._server = subprocess.Popen(
                command.replace("8600", self._port).split("#")[0].split(), cwd=self.folder, env=self.environment,
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        while "serving " not in (printed := log.read_text(encoding="utf-8")):
            if self._server.poll() is not None or time.monotonic() > began + SECONDS:
                return Step(place, command, f"failed: {printed[-600:]}")
            time.sleep(0.05)
        self._printed += printed
        return Step(place, command, "ok", time.monotonic() - began, printed)

    def _stop(self) -> None:
        if self._server is not None:
            self._server.terminate()
            self._server.wait(SECONDS)
            self._server = None

    def _sample(self, block: Block) -> Step:
        place, first = f"{block.page}:{block.line}", block.text.splitlines()[0]
        for (page, begins), reason in NO_SAMPLE.items():
            if page == block.page and first.startswith(begins):
                return Step(place, first, reason)
        absent = missing(block.text, self._printed)
        return Step(place, first, f"drifted: no line like {absent[0]!r}" if absent else "ok")


def is_kind(command: str, part: str) -> bool:
    """Return whether a command is of the kind that a part names: how it begins, or what it holds before a comment."""
    command = re.sub(r"\s#\s.*", "", command)
    return command.startswith(part) or (not part.endswith((" ", "/")) and part in command)


def _whole(command: str) -> str:
    """Return a command with what `…` at its end stands for."""
    command = command if IS_MODERN else command.replace(" --onnx", "")
    begun = re.sub(r"(?:…|\.\.\.)\s*$", "", command)
    if begun == command:
        return command
    script = next((name for name in AND_SO_ON if name in begun), None)
    rest = AND_SO_ON[script] if script else ""
    for name, options in GIVEN.items():
        if name in begun:
            rest = rest.replace(options, "")
    return begun + rest


def prepare(folder: Path, environment: dict[str, str]) -> None:
    """Make the copy in which the README is walked through: a checkout, an environment, the reader's own files."""
    copy_checkout(folder)
    (folder / ".venv").symlink_to(sys.prefix, target_is_directory=True)
    write_texts(folder)
    write_posts(folder)
    make_encoders(folder, sys.executable, environment)


def environment_of(folder: Path) -> dict[str, str]:
    """Return the variables of a walk: this Python first on the path, the copy's packages, a cache of its own.

    They leave it no network: nothing listens at the proxy, so what is fetched from anywhere but this machine fails.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {
        **os.environ,
        "PATH": path,
        "PYTHONPATH": str(folder),
        "PADDLE_RANKER_PYTHON": sys.executable,
        "PADDLE_RANKER_CACHE": str(folder / "cache"),
        "HF_HOME": str(folder / "hf"),
        "CUDA_VISIBLE_DEVICES": "",
        **{name: NOBODY for proxy in ("http_proxy", "https_proxy", "all_proxy") for name in (proxy, proxy.upper())},
        **dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1,localhost"),
    }


def walk(pages: Sequence[str], target: Path, *, long: bool = False) -> Iterator[Step]:
    """Walk through the README and then through pages, two at a time, each in a copy of what the README left.

    Args:
        pages: Relative to the repository.
        target: An empty folder.
        long: Whether the scripts run too.
    """
    home = target / "checkout"
    prepare(home, environment_of(home))
    yield from Walk(home, long=long).page(FIRST)
    name_rankers(home, sys.executable, environment_of(home))

    def walked(page: str) -> list[Step]:
        copy = target / page.replace("/", "_").replace(".", "_")
        shutil.copytree(home, copy, symlinks=True)
        steps = list(Walk(copy, long=long).page(page))
        shutil.rmtree(copy)
        return steps

    with ThreadPoolExecutor(2) as pool:  # one page's servers start and stop while another page computes
        for steps in pool.map(walked, pages):
            yield from steps


def all_pages() -> list[str]:
    """Return the pages beside the README that show commands; tests/training runs docs/python.md as one program."""
    paths = [
        *sorted(REPOSITORY.glob("docs/*.md")),
        REPOSITORY / "datasets" / "README.md",
        REPOSITORY / "CONTRIBUTING.md",
    ]
    names = [path.relative_to(REPOSITORY).as_posix() for path in paths]
    return [name for name in names if name != "docs/python.md" and blocks(REPOSITORY / name, name)]


@dataclass(frozen=True)
class WalkOptions(Options):
    """Options of the command."""

    pages: tuple[str, ...] = option((), help="pages to walk through after the README (default: all)", several=True)
    long: bool = option(False, help="run the scripts too, which train for minutes")


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; return its exit status."""
    return run_command(run, WalkOptions, argv, description=(__doc__ or "").split("\n")[0])


def run(options: WalkOptions) -> int:
    """Walk, print a line a step and a table; return 1 where something is not as printed."""
    steps = []
    with tempfile.TemporaryDirectory() as folder:
        for step in walk(options.pages or all_pages(), Path(folder), long=options.long):
            steps.append(step)
            print(f"{step.place}: {step.status} ({step.seconds:.1f} s)  {step.text.splitlines()[0][:90]}", flush=True)
    bad = [step for step in steps if step.is_bad]
    ran = [step for step in steps if step.status.startswith("ok") or step.is_bad]
    print(format_table(["steps", "run", "not as printed"], [[str(len(steps)), str(len(ran)), str(len(bad))]]))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
