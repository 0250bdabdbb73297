"""What every test may ask for."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import os
import resource
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Optional, TextIO

import pytest

from paddle_ranker import runtime
from paddle_ranker.encoding.tokenizers.builtin import Tokenizer
from paddle_ranker.training import learning_curve

# Hundreds of processes are started: without bytecode each compiles what it imports of Paddle anew, 3 to 10 s.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# A command takes a GPU where there is one, and these tests compare what a CPU computes. CUDA finds no GPU by these
# names, and `paddle.distributed.launch`, which crashes where there is none, gives each process one of them.
if os.environ.get("PADDLE_RANKER_TESTS_ON_GPU") != "1":
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(["-1"] * 8)
# Before any test file imports Paddle: the tests then run on the code path that the commands run on.
runtime.prepare()
# Paddle 2 asks for the whole stack with its lines of source for a warning that exports suppress: half of their time.
inspect.stack = partial(inspect.stack, 0)
# Where `paddle.distributed.launch` looks for a port, some seconds before it is listened on: where no connection of
# another test gets one, as in `tests.started.free_ports`.
os.environ.setdefault("PORT_RANGE", "20000:32000")
os.environ["HF_HUB_OFFLINE"] = "1"  # but for tests that run a hub of their own: `tests.hub_server`
# What a shell starts in the background, these tests perhaps, ignores SIGINT, and so would all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_draw_learning_curve = learning_curve.draw_learning_curve
REPOSITORY = Path(__file__).resolve().parent.parent
THOROUGH = os.environ.get("PADDLE_RANKER_THOROUGH") == "1"  # set by scripts/test.sh --thorough


def load_script(path: str) -> ModuleType:
    """Import a script by its path in the checkout: `datasets/` is no package, and must not become one."""
    spec = importlib.util.spec_from_file_location(path.replace("/", "_").removesuffix(".py"), REPOSITORY / path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str((REPOSITORY / path).parent))  # as Python does for a script
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


def run_python(code: str, *arguments: object, **variables: str) -> str:
    """Run code in a Python of its own, in the checkout, with these variables too; return what it printed."""
    line = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(line, cwd=REPOSITORY, env={**os.environ, **variables}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def largest_file(nbytes: int) -> Iterator[None]:
    """Let no file grow beyond `nbytes`: the system refuses the write as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, hard))  # Python ignores the signal that comes with it
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real public data (`qbqtc/`, `simclue/`, ...); skips where it is absent."""
    folder = Path(os.environ.get("PADDLE_RANKER_REAL_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"needs real data: {folder} is not there (set PADDLE_RANKER_REAL_DATA to its folder)")
    return folder


@contextmanager
def commands_here(folder: Optional[Path] = None) -> Iterator[None]:
    """Let commands run in the test process, in `folder`, without the seconds that a process of theirs takes.

    It is left as it was: a command may change its memory allocator for good, and takes signals.
    """
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "prepare_command", lambda threads: None)
        patch.setattr(runtime, "prepare", lambda threads=None: None)
        if folder:
            patch.chdir(folder)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def same_process() -> Iterator[None]:
    """Let a test call commands: `commands_here`."""
    with commands_here():
        yield


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str], same_process: None) -> Call:
    """What calls the `main` of a command with arguments of any type; returns its status, output and errors."""

    def main(command: Callable[[list[str]], int], *arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        return (command([*map(str, arguments)]), *capfd.readouterr())

    return main


@pytest.fixture
def unread() -> Iterator[TextIO]:
    """A pipe whose reader has left, as that of `| head` does, open for writing."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as stream:
        yield stream


@pytest.fixture(scope="session", autouse=True)
def no_pictures() -> Iterator[None]:
    """Draw nothing where a training ends, which takes longer than a tiny training; the fixture `pictures` draws."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning_curve, "draw_learning_curve", lambda metrics, picture: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_tokens_on_an_event_loop() -> Iterator[None]:
    """Fail what tokenizes a text in a thread that runs an event loop: all other callers of a server would wait."""
    encode = Tokenizer.encode

    def guarded(self: Tokenizer, texts: Sequence[str], most: Optional[int] = None) -> Any:
        with suppress(RuntimeError):  # no loop runs here
            raise AssertionError(f"a text was tokenized on the event loop {asyncio.get_running_loop()}")
        return encode(self, texts, most)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tokenizer, "encode", guarded)
        yield


@pytest.fixture(scope="session", autouse=True)
def onnx_files_by_forks() -> Iterator[None]:
    """Let forks write ONNX files, where new processes would import Paddle for two seconds each."""
    if "paddle" not in sys.modules:  # no test was collected that exports
        yield
        return
    from paddle_ranker.export import onnx
    from tests.forks import run_code

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx, "subprocess", SimpleNamespace(run=run_code))
        yield


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw learning curves where trainings end, as users have it."""
    monkeypatch.setattr(learning_curve, "draw_learning_curve", _draw_learning_curve)


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Exported rankers by the name of their case, `tests.export_cases.Exports`."""
    from tests.export_cases import Exports  # imports Paddle, which not every test needs

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # which the other processes have, too
    return Exports(folder / "exports")


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """24 triples as the trainer takes them, a `PairwiseExamples`."""
    from tests.training_runs import make_examples  # imports Paddle, which not every test needs

    return make_examples(tmp_path_factory.mktemp("tokenizer"))


def pytest_make_parametrize_id(val: object) -> Optional[str]:
    """Name long bytes by their length: archives hold the time they were made at, and every process must agree."""
    return f"{len(val)} bytes" if isinstance(val, bytes) and len(val) > 40 else None


MARKERS = ("unit", "parity", "server", "browser", "real_data", "slow")
# Side by side, the files that take longest come first: at the end, one would run beside nothing.
LONGEST = (
    "robustness/test_walk_docs.py", "scripts/test_scripts.py", "training/test_distributed.py",
    "extensions/test_extensions.py", "scoring/test_engines.py", "multimodal_entailment/test_export.py",
    "serving/test_server.py", "scripts/test_wheel.py", "paddle_serving/test_export_serving.py", "export/test_export.py",
    "training/test_resume_commands.py", "export/test_quantize.py", "benchmarks/test_entailment.py",
    "commands/test_blend.py", "test_kept_folders.py", "robustness/test_soak.py",
)  # fmt: skip


# The other stack than the modern one runs those that call Paddle, PaddleNLP or Paddle Serving. Beside them the walk of
# two pages runs commands and a server there; that all code is Python 3.9 is seen by mypy and ruff.
OTHER_STACK = (
    "cross_encoder", "encoding", "ernie_matching", "export", "migration", "multimodal_entailment", "paddle_serving",
    "pretraining", "recall", "robustness/test_walk_docs.py", "scoring", "scripts", "serving/test_server.py",
    "stored_titles/test_title_states.py", "training",
    *(f"model/test_{name}.py" for name in (
        "bert", "bert_tokenizers", "dropout", "encoder_loading", "exported_folder", "families", "match_levels",
        "model_folder", "opening", "parameters", "pretrained", "similarity", "torch_files",
    )),
)  # fmt: skip


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> Optional[bool]:
    """Leave to the modern stack what computes alike on both, unless it is named or a thorough run is asked for."""
    tests = REPOSITORY / "tests"
    if THOROUGH or collection_path.suffix != ".py" or tests not in collection_path.parents:
        return None
    named = (Path(given.partition("::")[0]).resolve() for given in config.args)
    chosen = [*(tests / name for name in OTHER_STACK), *(path for path in named if tests in path.parents)]
    if any(path in (collection_path, *collection_path.parents) for path in chosen):
        return None
    from tests.checkout import IS_MODERN  # imports Paddle, as most tests do

    return None if IS_MODERN else True


def _leave_out(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what only a thorough run tries: of a test marked `thorough(keep=N)`, the cases after its first N.

    On the other stack than the modern one, which tries the same cases, those after the first.
    """
    from tests.checkout import IS_MODERN

    seen: Counter[str] = Counter()
    kept: list[pytest.Item] = []
    left: list[pytest.Item] = []
    for item in items:
        mark = item.get_closest_marker("thorough")
        most = len(items) if mark is None else mark.kwargs.get("keep", 0)
        test = item.nodeid.partition("[")[0]
        is_kept = seen[test] < (most if mark is None or IS_MODERN else min(most, 1))
        seen[test] += 1
        (kept if is_kept else left).append(item)
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = kept


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse tests that no run would choose; put unit tests first, then parity, then server, then the rest.

    What fails soonest and says most comes first. Comes before `-m` takes tests away.
    """
    unmarked = [item.nodeid for item in items if not any(map(item.get_closest_marker, MARKERS))]
    if unmarked:
        raise pytest.UsageError(f"mark these tests with one of {', '.join(MARKERS)}: {', '.join(unmarked)}")
    if not THOROUGH and any(item.get_closest_marker("thorough") for item in items):
        _leave_out(config, items)
    order = MARKERS[:3]
    items.sort(key=lambda item: next((place for place, name in enumerate(order) if item.get_closest_marker(name)), 3))
    if "PYTEST_XDIST_WORKER" in os.environ:
        places = {REPOSITORY / "tests" / name: place for place, name in enumerate(LONGEST)}
        items.sort(key=lambda item: places.get(item.path, len(places)))
