"""Every command and every piece of code that the pages show runs as a stranger types it, in a fresh copy.

Commands run as printed and without a network: the files and folders that they speak of are made before, and a page's
server is on a free port. The README names no encoder that is fetched; for the other pages one of two layers stands
under the published ones' names. `PADDLE_RANKER_PAGES="docs/serving.md docs/search.md"` walks through these pages alone.
"""

from __future__ import annotations

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Optional

import pytest

from paddle_ranker.scoring.engines.precisions import has_bf16
from tests.checkout import IS_MODERN, copy_checkout
from tests.conftest import REPOSITORY
from tests.forks import execute, fork
from tests.robustness.doc_blocks import blocks, commands
from tests.robustness.walk_files import make_encoders, name_rankers, write_posts, write_texts
from tests.started import free_ports

SECONDS = 300
NOBODY = "http://127.0.0.1:9"
FIRST = "README.md"  # trains and exports what the other pages go on with
NOT_RUN = {
    "bash scripts/": "trains for minutes, or sets up an environment: tests/scripts runs the scripts",
    "PADDLE_RANKER_STACK=gpu": "is such a script",
    "pip ": "replaces an environment's package: tests/scripts/test_wheel.py installs in one of its own",
    ".venv-gpu/": "is the environment of a GPU",
    ".venv-frameworks": "is an environment of other packages",
    "scripts/try_wheel.py": "needs a package index: the newest versions of all packages",
    "benchmarks.": "measures for minutes or hours; tests/benchmarks runs short ones",
    "tests.robustness.": "attacks for minutes; short ones are tests",
    "paddle-ranker judgments": "needs the log of many searches: tests/commands/test_judgments.py makes one",
    "paddle-ranker report-searches": "needs a log, too: tests/commands/test_report_searches.py makes one",
    "held_out.tsv --index": "needs judged queries of an index: tests/commands/test_calibrate.py makes both",
    "judgments/dev": "is made of the log of many searches",
    "datasets/download.py": "needs a network; tests/data downloads from a server of its own",
    "datasets/make_real.py": "needs a network, or a package; tests/data makes a package of its own",
    "datasets/make_packages.py": "needs the package lists of apt",
    "manuals": "needs packages of apt, of which datasets/make_manuals.py makes it",
    "datasets/manpages": "is made of that package",
    "--budget_minutes": "takes as many minutes; tests/pretraining runs a short one",
    '--gpus "0,1,2,3"': "needs four GPUs",
    "--ray local --output": "starts a cluster of Ray: tests/scale/test_offline.py runs these lines in one",
    "s3://bucket": "needs a store of objects: tests/scale/test_addresses.py starts one",
    "deploy ray": "serves until Ctrl-C, or needs a cluster: tests/scale/test_serve.py deploys",
    "--nproc_per_node": "tests/training/test_distributed.py starts several processes",
    "datasets/scenes": "draws and trains for minutes: tests/data/test_scenes.py draws fewer",
    "http://gpu": "asks another machine: tests/remote_models starts such services",
    "paddle-ranker improve": "needs the log of many searches: tests/commands/test_improve.py makes one",
}
MODELS = {
    "emoji": "needs packages of npm, of which datasets/make_emoji.py makes it",
    "prompts": "needs packages of apt, of which datasets/make_prompts.py makes it",
    "film": "needs films and a model: tests/recordings/test_film_fields.py makes some",
    "talks": "needs recordings and a model: tests/recordings/test_speech.py makes some",
    "whisper": "needs a published model",
    "VILT": "needs a published model: tests/pictures/test_vilt.py writes one",
    "openai/clip": "needs a published model: tests/pictures/test_pictures.py makes one",
    "--picture_size": "needs pictures: tests/pictures/test_picture_training.py makes some",
    "pictures.tsv": "lists such pictures",
    "convert CLIP": "needs a published model, too: tests/pictures/test_picture_commands.py converts some",
    "tower CLIP": "is made of it",
    "library/rows.jsonl": "needs files of its own: tests/retrieval/test_read_files.py makes some",
    "manuals/w7.pdf": "is one of them",
    "paddle_ranker.scale.offline": "starts such a cluster, too",
    "Qwen/Qwen3": "needs a published model: tests/model/test_decoders.py makes one",
    "google/tapas": "needs a published model: tests/model/test_tables.py makes one",
    "--to peft": "needs a model of --lora_rank: tests/model/test_written_adapters.py makes some",
    "AutoPeftModel": "needs peft",
}
# What only the modern stack has: it writes ONNX files.
MODERN = dict.fromkeys(("openvino", "quantize", '"onnx"'), "needs an ONNX file, which the modern stack writes")
MODERN |= dict.fromkeys(("--mcp", "paddle-ranker mcp", "/mcp"), "needs Python 3.10")
# What the pages show for processors that multiply bfloat16.
BF16 = {} if has_bf16() else {"--precision bf16": "needs a processor that multiplies bfloat16"}
# What is typed otherwise: for seconds instead of minutes, and since models of a few steps are hardly good.
SHORTER = {
    "max_steps=1000": "max_steps=2",
    "--ranker RANKER --output mined": "--ranker RANKER --max_score_ratio 1 --output mined",
    "--model static_tower --calibration_file": "--model static_tower --max_loss 1 --calibration_file",
    "quantize --model": "quantize --seconds 0.1 --model",
}
# What `…` stands for at the end of a command.
AND_SO_ON = {
    "cross_encoder/train_ce.py": "--train_set train.tsv --test_file dev.tsv --model_name_or_path STARTER --epochs 1",
    "ernie_matching/train_pairwise.py": "--train_file mine.tsv --test_file dev.tsv --model_name_or_path STARTER",
}
GIVEN = {"--train_set": "--train_set train.tsv ", "--model_name_or_path": "--model_name_or_path STARTER "}
# Names that a page's code takes from the reader.
PRELUDE = "titles = ['深度学习综述', '水稻病害诊断']\nquery = '深度学习'\n"


# The complete stack has other packages under the same commands: those that meet most of them.
SHORT = ["docs/export.md", "docs/serving.md"]
unit, server, slow = pytest.mark.unit, pytest.mark.server, pytest.mark.slow


class Walk:
    """One page, walked through in its own copy of what the README left."""

    def __init__(self, folder: Path):
        self.folder, self.environment = folder, environment_of(folder)
        self._server: Optional[subprocess.Popen[bytes]] = None
        self._port = str(free_ports(1)[0])

    def failures(self, page: str) -> Iterator[str]:
        """Run each command and piece of code of a page; yield what fails."""
        try:
            for block in blocks(self.folder / page, page):
                if block.kind == "shell":
                    for line, command, is_refused in commands(block):
                        reasons = {**NOT_RUN, **MODELS, **BF16, **({} if IS_MODERN else MODERN)}
                        if not any(is_kind(command, part) for part in reasons):
                            yield from self._command(f"{page}:{line}", command, is_refused)
                elif block.kind == "python":
                    if any(part in block.text for part in {**MODELS, **({} if IS_MODERN else MODERN)}):
                        continue
                    yield from self._run(f"{page}:{block.line}", ["python", "-c", PRELUDE + block.text])
        finally:
            self._stop()

    def _command(self, place: str, command: str, is_refused: bool) -> Iterator[str]:
        if re.search(r"paddle[-_]ranker (search-)?serve\b", command):
            yield from self._serve(place, command)
        else:
            yield from self._run(place, ["bash", "-euo", "pipefail", "-c", _whole(command)], is_refused)

    def _run(self, place: str, command: Sequence[str], is_refused: bool = False) -> Iterator[str]:
        for printed, typed in {**SHORTER, "8600": self._port}.items():
            command = [part.replace(printed, typed) for part in command]
        words = _words(command)
        if words:
            output = self.folder / "command.log"
            for _ in range(2):
                status = fork(_run_forked, words, self.folder, self.environment, output=output, seconds=SECONDS)
                if status != 255:  # Python's word for a server of forks that has ended, for want of memory perhaps
                    break
            printed = output.read_text(encoding="utf-8", errors="replace")
        else:
            done = subprocess.run(
                command, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True, timeout=SECONDS,
            )  # fmt: skip
            status, printed = done.returncode, done.stdout
        if status != 0 or ('"error"' in printed) != is_refused:
            yield f"{place}: {command[-1]}\n  {status}: {printed[-600:]}"

    def _serve(self, place: str, command: str) -> Iterator[str]:
        """Start a server; it goes on until the page ends, or another one is started."""
        self._stop()
        began, log = time.monotonic(), self.folder / "server.log"
        words = shlex.split(command.replace("8600", self._port), comments=True)
        if "--port" not in words:
            words += ["--port", self._port]  # another page's server may have the default one
        with log.open("wb") as output:
            self._server = subprocess.Popen(
                words, cwd=self.folder, env=self.environment,
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        while "serving " not in (printed := log.read_text(encoding="utf-8")):
            if self._server.poll() is not None or time.monotonic() > began + SECONDS:
                yield f"{place}: {command}\n  {printed[-600:]}"
                return
            time.sleep(0.05)

    def _stop(self) -> None:
        if self._server is not None:
            self._server.terminate()
            self._server.wait(SECONDS)
            self._server = None


# What a line may begin with to be run in a fork.
FORKED = re.compile(r"paddle-ranker |python (?:-m paddle_ranker|\S+\.py) ")


def _words(command: Sequence[str]) -> list[str]:
    """Return the words of Python code, or of a line that a shell would only divide into words; else none."""
    if command[0] == "python":
        return [*command]
    line = command[-1].replace("\\\n", " ")
    plain = re.sub(r"'[^']*'|\"[^\"]*\"|\s#\s.*", "", line)
    return shlex.split(line, comments=True) if FORKED.match(line) and not re.search(r"[|&;<>$`*?~\[{\n]", plain) else []


def _run_forked(words: Sequence[str], folder: Path, environment: dict[str, str]) -> None:
    """Run a line of Python or of paddle-ranker in this process, as a new one would in `folder`."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    if words[:2] == ["python", "-c"]:
        execute(words[2], ["-c"])
    elif words[0] == "python" and words[1] != "-m":
        sys.argv = [*words[1:]]
        runpy.run_path(words[1], run_name="__main__")
    else:
        sys.argv = ["paddle-ranker", *words[1 if words[0] == "paddle-ranker" else 3 :]]
        runpy.run_module("paddle_ranker", run_name="__main__")


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
        "RAY_ADDRESS": "local",  # not the cluster of another page or test, which may end meanwhile
        **{name: NOBODY for proxy in ("http_proxy", "https_proxy", "all_proxy") for name in (proxy, proxy.upper())},
        **dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1,localhost"),
    }


def walk(pages: Sequence[str], target: Path) -> list[str]:
    """Walk through the README and then through pages, two at a time, each in a copy of what the README left.

    Args:
        pages: Relative to the repository.
        target: An empty folder.

    Returns:
        What fails.
    """
    home = target / "checkout"
    prepare(home, environment_of(home))
    found = list(Walk(home).failures(FIRST))
    name_rankers(home, sys.executable, environment_of(home))

    def walked(page: str) -> list[str]:
        copy = target / page.replace("/", "_").replace(".", "_")
        shutil.copytree(home, copy, symlinks=True)
        failures = list(Walk(copy).failures(page))
        shutil.rmtree(copy)
        return failures

    with ThreadPoolExecutor(2) as pool:  # one page's servers start and stop while another page computes
        for failures in pool.map(walked, pages):
            found += failures
    return found


def all_pages() -> list[str]:
    """Return the pages beside the README that show commands; tests/training runs docs/python.md as one program."""
    paths = [
        *sorted(REPOSITORY.glob("docs/*.md")),
        REPOSITORY / "datasets" / "README.md",
        REPOSITORY / "CONTRIBUTING.md",
    ]
    names = [path.relative_to(REPOSITORY).as_posix() for path in paths]
    return [name for name in names if name != "docs/python.md" and blocks(REPOSITORY / name, name)]


PAGE = """# A page

```bash
python a.py --to x  # once

# then
python b.py \\
    --more
# {'query': '…', 'p': 0.5}
curl c
{"error": "no"}
```

It prints

    best: step 3 (auc 0.91) -> x

and code:

    from a import b
    b()

<!-- part of: tests/x.py -->
```python
never()
```
"""


@unit
def test_commands_code_and_samples_are_found(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(PAGE, encoding="utf-8")
    found = blocks(tmp_path / "page.md", "page.md")
    assert [(block.line, block.kind) for block in found] == [(3, "shell"), (16, "output"), (20, "python")]
    assert list(commands(found[0])) == [
        (4, "python a.py --to x  # once", False),
        (7, "python b.py \\\n    --more", False),
        (10, "curl c", True),
    ]


@unit
def test_every_exception_of_the_walk_is_one() -> None:
    text = "".join((REPOSITORY / name).read_text(encoding="utf-8") for name in [FIRST, *all_pages()])
    for part in {**NOT_RUN, **MODELS}:
        assert part in text, f"{part}: no page has such a command"


@unit
def test_chinese_pages_show_commands_of_english_ones() -> None:
    def shown(names: Iterable[str]) -> dict[str, str]:
        """Return the commands of pages, without comments, with their places."""
        parts = [part for name in names for part in blocks(REPOSITORY / name, name) if part.kind == "shell"]
        found = ((f"{part.page}:{line}", text) for part in parts for line, text, _ in commands(part))
        return {" ".join(text.split(" #")[0].split()): place for place, text in found}

    chinese = shown(f"docs/zh/{path.name}" for path in sorted((REPOSITORY / "docs" / "zh").glob("*.md")))
    walked = shown([FIRST, *all_pages()])
    assert len(chinese) > 20
    assert {text: place for text, place in chinese.items() if text not in walked} == {}


@slow
@server
def test_every_command_of_the_pages_works_as_printed(tmp_path: Path) -> None:
    chosen = os.environ.get("PADDLE_RANKER_PAGES", "").split()
    failures = walk(chosen or (all_pages() if IS_MODERN else SHORT), tmp_path)
    assert not failures, "\n".join(failures)
