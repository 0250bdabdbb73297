"""The scripts after an export by the other stack: the scripts' exports are made again, the user's stay."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import paddle
import pytest

from paddle_ranker.errors import CheckpointError
from paddle_ranker.export.static_graph import export_model
from paddle_ranker.model.exported import exporting_again, open_exported, require_readable
from paddle_ranker.model.model_folder import MODEL, RANKER, load_model
from tests.conftest import REPOSITORY
from tests.tiny import write_ranker

pytestmark = pytest.mark.server
PADDLE_2 = paddle.__version__.startswith("2.")
OWN, OTHERS = ("pdmodel", "json") if PADDLE_2 else ("json", "pdmodel")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a demo ranker, and an export of it in the form of the other stack."""
    made = tmp_path_factory.mktemp("made")
    export_model(load_model(write_ranker(made / "checkpoint/pairwise/best"), RANKER), made / "output")
    give_to_the_other_stack(made / "output")
    return made


@pytest.fixture
def checkout(tmp_path: Path, made: Path) -> Path:
    """Return a checkout with the ranker and the export."""
    checkout = Path(shutil.copytree(made, tmp_path / "a checkout"))
    for folder in ("paddle_ranker", "ernie_matching", "scripts", "deploy", "datasets"):
        (checkout / folder).symlink_to(REPOSITORY / folder)
    return checkout


def give_to_the_other_stack(folder: Path) -> None:
    """Change the graph to one of the other stack's, as far as one can tell without reading it."""
    (folder / f"inference.predict.{OWN}").rename(folder / f"inference.predict.{OTHERS}")
    path = folder / "ranker.json"
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    files = facts["export"]["files"]
    files[f"inference.predict.{OTHERS}"] = files.pop(f"inference.predict.{OWN}")
    facts["export"]["format"] = OTHERS
    path.write_text(json.dumps(facts), encoding="utf-8")


def script(checkout: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PADDLE_RANKER_PYTHON": sys.executable}
    command = ["bash", str(checkout / name), *arguments]
    return subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, timeout=300)


def test_the_demo_s_export_is_made_anew(checkout: Path) -> None:
    done = script(checkout, "scripts/export_to_serving.sh")
    assert done.returncode == 0, done.stderr
    assert "the other stack has exported the demo's ranker" in done.stdout
    assert open_exported(checkout / "output", MODEL).program.suffix == f".{OWN}"
    assert open_exported(checkout / "serving_server", MODEL).program.suffix == f".{OWN}"


def test_an_export_of_the_user_s_own_is_left_alone_and_the_advice_fits(checkout: Path) -> None:
    path = checkout / "checkpoint/pairwise/best/ranker.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    # The export now belongs to another ranker.
    path.write_text(json.dumps({**facts, "results": {"auc": 0.9}}), encoding="utf-8")
    before = {file.name: file.stat().st_mtime_ns for file in (checkout / "output").iterdir()}
    done = script(checkout, "scripts/export_to_serving.sh")
    beside = f"--output output_paddle{2 if PADDLE_2 else 3}"
    assert done.returncode == 1 and done.stderr.strip().splitlines()[-1].endswith(beside), done.stderr
    assert {file.name: file.stat().st_mtime_ns for file in (checkout / "output").iterdir()} == before
    assert not (checkout / "serving_server").exists()


def test_a_folder_for_paddle_serving_is_made_in_two_steps(checkout: Path) -> None:
    folder = checkout / "output"
    path = folder / "ranker.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    facts["export"]["outputs"] = ["predict"]
    path.write_text(json.dumps(facts), encoding="utf-8")
    shutil.move(str(folder), str(checkout / "serving_server"))
    advice = exporting_again(checkout / "serving_server", "2.6.2")
    assert "export --model RANKER --output output_paddle2 && " in advice
    assert advice.endswith(f"export-serving --model output_paddle2 --server_path {checkout / 'serving_server'}")
    with pytest.raises(CheckpointError, match="export-serving --model output_paddle2"):
        (checkout / "serving_server/inference.predict.json").touch()
        require_readable(open_exported(checkout / "serving_server", MODEL).program, "2.6.2")
