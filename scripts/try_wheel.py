"""Try the wheel with the newest packages: what a user who follows README.md gets today.

    python scripts/try_wheel.py                     # the extras of the README's `pip install`, and those of searches
    python scripts/try_wheel.py --extras cpu,serving
    python scripts/try_wheel.py --frameworks        # beside LangChain, transformers 5, PaddleOCR 3 and others

Builds the wheel from a copy of this checkout, installs it with pip into an empty environment, without lock files, and
there, away from the checkout, trains, predicts, exports, builds indexes, searches and serves in small. Needs only the
package index. Prints the installed versions, and each command; a failure ends it with the command's output.

Before, pip resolves the wheel together with the frameworks of requirements/frameworks.in, and installs nothing. With
--frameworks they are installed and imported, too, and `pip check` must find no conflict.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MORE_EXTRAS = ("search", "engines")  # beside those of README.md: other engines of indexes and models
ONNX = ["paddle2onnx"] if sys.version_info < (3, 13) else []  # what `export --onnx` asks for; has no build for 3.13
SECONDS = 300  # of one command
RESOLVING_SECONDS = 1800  # of pip, with hundreds of packages
BESIDE = ("cpu", "serving", "search", "pdf")  # extras that share an environment with the frameworks
# What is imported of requirements/frameworks.in, and the classes for it.
FRAMEWORKS = (
    "import sentence_transformers, transformers, langchain, llama_index.core, haystack, mteb, mcp, paddleocr, paddle\n"
    "from paddle_ranker.integrations import haystack, langchain, llama_index, mteb"
)
TRIPLES = "query\ttitle\tneg_title\nred shoe\tred shoes for kids\tblue car\n绿茶\t龙井绿茶 新茶\t咖啡豆\n"
PAIRS = (
    "query\ttitle\tlabel\n"
    "red shoe\tred shoes for kids\t1\nred shoe\tblue car\t0\n绿茶\t龙井绿茶 新茶\t1\n绿茶\t咖啡豆\t0\n"
)
PRODUCTS = (
    "name,price,description\nRunner,49.90,red shoes for kids\nBeetle,9000,a blue car\nLongjing,12.50,龙井绿茶 新茶\n"
)
TINY = "--hidden_size 16 --num_hidden_layers 1 --vocab_size 200 --pretrain_steps 2"
STEPS = "--model encoder --max_steps 3 --batch_size 2 --max_seq_length 32"
# Each command, and a part of what it prints.
COMMANDS = (
    ("doctor", "\nready"),
    (f"starter --corpus pairs.tsv --output encoder {TINY}", "encoder"),
    (f"train-pairwise --train triples.tsv --test pairs.tsv --output pairwise {STEPS}", "trained 3 steps"),
    (f"train-ce --train pairs.tsv --test pairs.tsv --output pointwise {STEPS}", "trained 3 steps"),
    (f"train-batch-neg --train asked.tsv --output tower {STEPS}", "trained 3 steps"),
    ("evaluate --model pairwise/best --test pairs.tsv", "eval_dev auc:"),
    (
        "predict --model pairwise/best --input asked.tsv",
        "{'query': 'red shoe', 'title': 'red shoes for kids', 'pred_prob'",
    ),
    ("predict --model pointwise/best --input asked.tsv", "'pred_prob'"),
    ("export --model pairwise/best --output exported", "parity with the ranker, paddle_inference"),
    ("export --model pointwise/best --output exported_ce", "parity with the ranker, paddle_inference"),
    ("predict --model exported --input asked.tsv", "'pred_prob'"),
    ("export --model pointwise/best --output with_onnx --onnx", "parity with the ranker, onnxruntime"),
    ("predict --model with_onnx --input asked.tsv --engine openvino", "'pred_prob'"),
    ("index build --corpus products.csv --output words", "searched by words"),
    ("search shoes --index words", "Runner"),
    ("index build --corpus titles.tsv --tower tower/last --output index", "searched by words, vectors"),
    ("search shoes --index index --ranker pairwise/best", "red shoes for kids"),
    ("evaluate-recall --index index --test pairs.tsv --ranker pairwise/best", "nDCG@10"),
)
# The options of a server, and a path, a body and a part of the answer.
SERVERS = (
    (
        "serve --model exported",
        "/rerank",
        {"query": "red shoe", "documents": ["blue car", "red shoes"]},
        "relevance_score",
    ),
    ("search-serve --index index --ranker pairwise/best", "/v1/search", {"query": "shoes"}, "red shoes for kids"),
)


def run(*command: object, folder: Path, seconds: float = SECONDS) -> str:
    """Run a command in `folder`, away from this checkout; return what it prints, or exit with it if it fails."""
    done = subprocess.run(
        [*map(str, command)],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
    )
    if done.returncode:
        sys.exit(
            f"{' '.join(map(str, command))}\n{done.stdout[-6000:]}\ntry_wheel: FAILED, exit status {done.returncode}"
        )
    return done.stdout


def environment(folder: Path) -> dict[str, str]:
    """Return this process's environment without what would lead to the checkout or to another environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return {**kept, "PADDLE_RANKER_CACHE": str(folder / "cache"), "CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": "1"}


def readme_extras() -> list[str]:
    """Return the extras of the first `pip install` in README.md."""
    match = re.search(r"pip install '\.\[([\w,]+)\]'", (ROOT / "README.md").read_text(encoding="utf-8"))
    if match is None:
        sys.exit("try_wheel: README.md has no line pip install '.[EXTRAS]'")
    return match[1].split(",")


def frameworks() -> list[str]:
    """Return the packages of requirements/frameworks.in, up to its first empty line."""
    text = (ROOT / "requirements" / "frameworks.in").read_text(encoding="utf-8").partition("\n\n")[0]
    return [line for line in text.splitlines() if not line.startswith("#")]


def install(extras: list[str], folder: Path, with_frameworks: bool) -> Path:
    """Install the wheel of this checkout, with `extras`, into an empty environment; return its folder of programs.

    with_frameworks: whether to install the frameworks, too; else they are resolved only
    """
    source = folder / "source"
    packages = ["paddle_ranker", *runpy.run_path(str(ROOT / "paddle_ranker/recipes/__init__.py"))["RECIPES"]]
    for name in packages:  # building writes into the folder, and would take old files along
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--no-input", "--disable-pip-version-check"]
    run(*pip, "wheel", "--no-deps", "--wheel-dir", folder, source, folder=folder)
    (wheel,) = folder.glob("*.whl")
    target = folder / "environment"
    # A Debian Python has no ensurepip: this pip installs into the other environment.
    run(sys.executable, "-m", "venv", "--without-pip", target, folder=folder)
    pip += ["--python", str(target / "bin" / "python")]
    beside = [f"{wheel}[{','.join(BESIDE)}]", *frameworks()] if sys.version_info >= (3, 11) else []
    wanted = [f"{wheel}[{','.join(extras)}]", *ONNX]
    if with_frameworks:
        wanted += beside
    elif beside:
        run(*pip, "install", "--dry-run", *beside, folder=folder, seconds=RESOLVING_SECONDS)
        print(f"pip resolves {' '.join(beside[1:])} beside the wheel", flush=True)
    run(*pip, "install", *wanted, folder=folder, seconds=RESOLVING_SECONDS)
    if with_frameworks:
        run(*pip, "check", folder=folder)
        run(target / "bin" / "python", "-c", FRAMEWORKS, folder=folder)
    print(*run(*pip, "list", "--format", "freeze", folder=folder).split(), flush=True)
    return target / "bin"


def try_commands(programs: Path, folder: Path) -> None:
    """Run each of `COMMANDS`, and ask both servers; exit with the output of the first that fails."""
    rows = [line.split("\t") for line in PAIRS.splitlines()]
    files = {
        "triples.tsv": TRIPLES,
        "pairs.tsv": PAIRS,
        "asked.tsv": "".join(f"{query}\t{title}\n" for query, title, label in rows if label != "0"),
        "titles.tsv": "".join(f"{title}\n" for _, title, _ in rows[1:]),
        "products.csv": PRODUCTS,
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    for command, expected in COMMANDS:
        if "onnx" in command and not ONNX:
            continue
        began = time.monotonic()
        printed = run(programs / "paddle-ranker", *command.split(), folder=folder)
        if expected not in printed:
            sys.exit(f"paddle-ranker {command}\n{printed}\ntry_wheel: FAILED: {expected!r} is not printed")
        print(f"paddle-ranker {command}: {time.monotonic() - began:.1f} s", flush=True)
    for command, path, body, expected in SERVERS:
        answer = ask(command, path, body, programs, folder)
        if expected not in answer:
            sys.exit(f"paddle-ranker {command}: {path} {body}\n{answer}\ntry_wheel: FAILED: no {expected!r} in it")
        print(f"paddle-ranker {command}: {path} answers", flush=True)


def ask(command: str, path: str, body: dict[str, Any], programs: Path, folder: Path) -> str:
    """Start a server on a free port, send it a request and stop it; return the answer, or exit with its output."""
    line = [programs / "paddle-ranker", *command.split(), "--port", "0"]
    log = folder / "server.log"
    with log.open("w", encoding="utf-8") as output:
        server = subprocess.Popen(
            [*map(str, line)], cwd=folder, env=environment(folder), stdout=output, stderr=subprocess.STDOUT
        )
    try:
        ends, address = time.monotonic() + SECONDS, None
        while address is None and server.poll() is None and time.monotonic() < ends:
            time.sleep(0.1)
            address = re.search(r" on (http://[\d.:]+)", log.read_text(encoding="utf-8"))
        if address is None:
            raise OSError("it does not start")
        request = urllib.request.Request(
            address[1] + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            text: str = answer.read().decode()
        server.terminate()
        if server.wait(SECONDS):
            raise OSError(f"exit status {server.returncode} after SIGTERM")
        return text
    except (OSError, subprocess.TimeoutExpired) as error:
        sys.exit(
            f"paddle-ranker {command}\n{log.read_text(encoding='utf-8')[-6000:]}\ntry_wheel: FAILED: {path}: {error}"
        )
    finally:
        server.kill()
        server.wait()


def main() -> None:
    """Build, install and try the wheel in a temporary folder, which is removed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = ",".join([*readme_extras(), *MORE_EXTRAS])
    parser.add_argument("--extras", default=default, help="extras to install (default: %(default)s)")
    parser.add_argument("--frameworks", action="store_true", help="install the frameworks, too; on Python 3.11 or 3.12")
    options = parser.parse_args()
    if options.frameworks and sys.version_info < (3, 11):
        parser.error("--frameworks needs Python 3.11 or 3.12")
    with tempfile.TemporaryDirectory(prefix="try_wheel_") as name:
        folder = Path(name)
        programs = install(options.extras.split(","), folder, options.frameworks)
        work = folder / "work"
        work.mkdir()
        try_commands(programs, work)
        print("try_wheel: passed")


if __name__ == "__main__":
    main()
