"""Other people's libraries: none sends telemetry, and all have a HOME that can be written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, run_python
from tests.export_cases import WRITES_ONNX, write_case
from tests.lookups import Lookups
from tests.lookups import lookups as lookups
from tests.started import post, started_server
from tests.tiny import PAIRS

COMMANDS = """
import json, sys
from paddle_ranker.__main__ import main
for line in json.loads(sys.argv[1]):
    assert main(line) == 0, line
"""
# A user without an entry in /etc/passwd, as after `docker run --user`, who may read all files and write few.
STRANGER = ["setpriv", "--reuid", "65432", "--regid", "65432", "--clear-groups"]
STRANGER += ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
ENSURED = """
import json, os
from paddle_ranker.libraries import ensure_home
ensure_home()
print(json.dumps({**os.environ}))
"""


WITHOUT_EFFECT = """
import os, signal, sys

def state():
    return dict(os.environ), [signal.getsignal(number) for number in signal.valid_signals()], list(sys.path)

class Arguments:
    def __getattribute__(self, name):
        raise AssertionError("the arguments were read")

before, loaded, given = state(), {*sys.modules}, sys.argv
sys.argv = Arguments()
import paddle_ranker
sys.argv = given
assert state() == before
print(*sorted(name for name in {*sys.modules} - loaded if not name.startswith("_")))
"""


@pytest.mark.unit
def test_importing_the_package_does_no_work() -> None:
    modules = run_python(WITHOUT_EFFECT).split()
    assert [name for name in modules if name.startswith("paddle")] == ["paddle_ranker", "paddle_ranker.version"]
    assert not {"numpy", "argparse", "pydantic"}.intersection(modules)


@pytest.mark.unit
@pytest.mark.parametrize(
    "entry",
    [
        "from paddle_ranker.__main__ import main; main(['info', '/nonexistent'])",
        "from paddle_ranker import Ranker",
        "from paddle_ranker.model.hub import HubName; HubName.parse('a/b').cached()",
    ],
)
def test_telemetry_is_off_before_libraries_are_imported(entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DO_NOT_TRACK", "0")  # a user's setting stays
    shown = "import os, sys; print(os.environ['ORT_DISABLE_TELEMETRY'], os.environ['DO_NOT_TRACK'])"
    hub = "from huggingface_hub import constants; print(constants.HF_HUB_DISABLE_TELEMETRY)"
    code = f"{entry}\n{shown}; print(sys.modules['openvino_telemetry'])\n{hub}"
    assert run_python(code).splitlines()[-3:] == ["1 0", "None", "True"]


@pytest.mark.slow
def test_commands_and_a_server_on_every_engine_ask_nobody_and_need_no_home(lookups: Lookups) -> None:
    """All commands but `doctor`, which imports all installed packages and has a separate test."""
    folder = lookups.home.parent
    ranker, exported, pairs = write_case(folder / "ranker"), folder / "exported", folder / "pairs.tsv"
    pairs.write_text("".join(f"{query}\t{title}\n" for query, title in PAIRS if query and title), encoding="utf-8")
    engine = "auto" if WRITES_ONNX else "inference"  # auto opens all engines, to time them
    lines = [["export", "--model", ranker, "--output", exported, *(["--onnx"] if WRITES_ONNX else [])]]
    lines += [["predict", "--model", exported, "--input", pairs, "--engine", engine]]
    run_python(COMMANDS, json.dumps([[*map(str, line)] for line in lines]))
    with started_server(exported, folder / "run", "--engine", engine) as (server, [port]):
        query, title = PAIRS[0]
        assert post(port, "/v1/rerank", {"query": query, "documents": [title]})[0] == 200
        server.process.send_signal(signal.SIGTERM)  # telemetry that is sent at the end has been sent by then
        server.until(lambda: server.process.poll() is not None, running=False)
    lookups.require_none()


def ensured(folder: Path, **home: str) -> dict[str, str]:
    """Return the environment of a command that the stranger starts with this HOME, or without one."""
    variables = {"PATH": os.environ["PATH"], "TMPDIR": str(folder), "PYTHONPATH": str(REPOSITORY), **home}
    line = [*STRANGER, sys.executable, "-c", ENSURED]
    done = subprocess.run(line, cwd=folder, env=variables, capture_output=True, text=True)
    if done.stderr.startswith("setpriv: "):
        pytest.skip(f"needs to be root with its capabilities, to become another user: {done.stderr}")
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.fixture
def everybodys() -> Iterator[Path]:
    """Return a folder like /tmp; pytest's folders are readable by their owner alone."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o1777)
        yield Path(name)


@pytest.mark.unit
@pytest.mark.skipif(not shutil.which("setpriv"), reason="needs setpriv of util-linux, to become another user")
def test_without_a_home_that_can_be_written_there_is_a_temporary_one(everybodys: Path) -> None:
    temporary = str(everybodys / "paddle-ranker-home-65432")
    own, read_only = everybodys / "own", everybodys / "read_only"
    read_only.mkdir(0o755)  # owned by root
    homes: tuple[dict[str, str], ...] = ({}, {"HOME": "/"}, {"HOME": str(read_only)}, {"HOME": "/nonexistent"})
    # All share one folder, so that the next command finds the files fetched by this one.
    assert [ensured(everybodys, **home)["HOME"] for home in homes] == [temporary] * 4
    own.mkdir()
    own.chmod(0o777)
    assert ensured(everybodys, HOME=str(own))["HOME"] == str(own)
    for folder in (".cache/paddle_ranker", ".paddlenlp/packages"):
        (own / folder).mkdir(parents=True)
    found = ensured(everybodys, HOME=str(own))
    assert found["HOME"] == temporary
    assert (found["PADDLE_RANKER_CACHE"], found["PPNLP_HOME"]) == (f"{own}/.cache/paddle_ranker", f"{own}/.paddlenlp")


@pytest.mark.unit
def test_a_temporary_home_that_is_somebody_elses_is_not_used(tmp_path: Path) -> None:
    (tmp_path / f"paddle-ranker-home-{os.geteuid()}").symlink_to(tmp_path / "elsewhere")
    home = Path(json.loads(run_python(ENSURED, HOME=os.devnull, TMPDIR=str(tmp_path)))["HOME"])
    assert home.parent == tmp_path and home.is_dir() and not home.is_symlink() and home.stat().st_mode & 0o077 == 0


@pytest.mark.unit
def test_a_training_from_python_has_a_home_as_its_command_has(tmp_path: Path) -> None:
    code = "import os, paddle_ranker\ntry: paddle_ranker.train('x')\nexcept Exception as error: print(error)\n"
    said, home = run_python(f"{code}print(os.environ['HOME'])", HOME=os.devnull, TMPDIR=str(tmp_path)).splitlines()
    assert said.startswith("train 'x': choose from") and Path(home).parent == tmp_path
