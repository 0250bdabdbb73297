"""Checkpoints survive kills, and nothing is overwritten."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Callable, Optional, cast

import pytest

from paddle_ranker.errors import RankerError
from paddle_ranker.storage.atomic import make_folder, new_file, new_folder, point, remove_unfinished
from paddle_ranker.training.checkpoints import CheckpointKeeper, RunFolder
from paddle_ranker.training.training_options import TrainingOptions

pytestmark = pytest.mark.unit


def write(content: str) -> Callable[[Path], None]:
    def write_into(folder: Path) -> None:
        (folder / "file").write_text(content)

    return write_into


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def start(folder: Path, keep: int = 0) -> CheckpointKeeper:
    keeper = CheckpointKeeper(folder, keep)
    keeper.start()
    return keeper


def save(
    keeper: CheckpointKeeper, step: int, content: str, scheduled: bool = False, best: Optional[int] = None
) -> None:
    steps = keeper.scheduled_with(step) if scheduled else keeper.scheduled
    keeper.save(step, write(content), write(f"state of {content}"), scheduled=steps, best_step=best)


@pytest.mark.parametrize(
    ("keep", "saves", "stay"),  # per save: is it scheduled, and which step is the best so far
    [
        (2, [(True, 1), (False, 2), (True, 2), (True, 2), (False, 2)], ["model_2", "model_3", "model_4", "model_5"]),
        (0, [(True, None), (False, 2), (False, 3)], ["model_1", "model_3"]),  # 0: all scheduled checkpoints
    ],
)
def test_best_and_last_and_scheduled_stay_and_one_state(
    tmp_path: Path, keep: int, saves: list[tuple[bool, Optional[int]]], stay: list[str]
) -> None:
    keeper = start(tmp_path, keep=keep)
    for step, (scheduled, best) in enumerate(saves, 1):
        save(keeper, step, str(step), scheduled, best)
    assert names(tmp_path) == ["best", "last", *stay, f"state_{len(saves)}"]
    assert (tmp_path / "best" / "file").read_text() == str(best)
    assert (tmp_path / "last" / "file").read_text() == str(len(saves))
    assert (tmp_path / f"state_{len(saves)}" / "file").read_text() == f"state of {len(saves)}"


def test_an_earlier_run_is_set_aside_whole(tmp_path: Path) -> None:
    first = start(tmp_path)
    save(first, 1, "first run", scheduled=True, best=1)
    first.close()
    (tmp_path / "notes.txt").write_text("the user's own")
    (tmp_path / "metrics.jsonl").write_text("{}")
    keeper = start(tmp_path)
    assert keeper.set_aside == tmp_path / "previous_1"
    assert (tmp_path / "previous_1" / "best" / "file").read_text() == "first run"
    assert names(tmp_path / "previous_1") == ["best", "last", "metrics.jsonl", "model_1", "state_1"]
    save(keeper, 1, "second run", scheduled=True, best=1)
    assert (tmp_path / "best" / "file").read_text() == "second run"
    keeper.close()
    assert start(tmp_path).set_aside == tmp_path / "previous_2"
    assert names(tmp_path) == ["notes.txt", "previous_1", "previous_2"]


def test_a_resumed_run_drops_what_came_after_its_state(tmp_path: Path) -> None:
    keeper = start(tmp_path)
    save(keeper, 2, "2", scheduled=True, best=2)
    save(keeper, 4, "4")
    keeper.close()
    # Killed while saving step 6, the best so far: the model exists, its state does not, the pointers have not moved.
    (tmp_path / "model_6").mkdir()
    (tmp_path / "last").unlink()
    resumed = CheckpointKeeper(tmp_path)
    resumed.resume(4, 2, [2])
    assert names(tmp_path) == ["best", "last", "model_2", "model_4", "state_4"]
    assert (tmp_path / "last").resolve().name == "model_4" and (tmp_path / "best").resolve().name == "model_2"
    save(resumed, 6, "6", best=6)
    assert names(tmp_path) == ["best", "last", "model_2", "model_6", "state_6"]


def test_what_is_not_a_checkpoint_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "model_x").mkdir()
    (tmp_path / "model_card.txt").write_text("mine")
    (tmp_path / "mine").symlink_to("model_x")
    for run in ("first", "second"):
        keeper = start(tmp_path)
        save(keeper, 1, run, best=1)
        save(keeper, 2, run, best=2)
        keeper.close()
    assert names(tmp_path) == ["best", "last", "mine", "model_2", "model_card.txt", "model_x", "previous_1", "state_2"]


@pytest.mark.parametrize("resume", [True, False])
def test_a_copy_whose_links_were_followed_is_resumed_or_set_aside_whole(tmp_path: Path, resume: bool) -> None:
    keeper, folder = start(tmp_path / "original"), tmp_path / "copy"
    save(keeper, 2, "2", scheduled=True, best=2)
    save(keeper, 4, "4")
    keeper.close()
    shutil.copytree(tmp_path / "original", folder)  # as `cp -rL` and zip do
    assert not (folder / "best").is_symlink()
    if resume:
        resumed = CheckpointKeeper(folder)
        resumed.resume(4, 2, [2])
        save(resumed, 6, "6", best=2)
        assert names(folder) == ["best", "last", "model_2", "model_6", "state_6"]
        assert (os.readlink(folder / "best"), os.readlink(folder / "last")) == ("model_2", "model_6")
    else:
        start(folder)
        assert names(folder) == ["previous_1"]
        assert names(folder / "previous_1") == ["best", "last", "model_2", "model_4", "state_4"]


def test_best_is_the_last_one_until_one_is_evaluated(tmp_path: Path) -> None:
    keeper = start(tmp_path)
    save(keeper, 1, "1")
    assert names(tmp_path) == ["best", "last", "model_1", "state_1"] and (tmp_path / "best" / "file").read_text() == "1"
    save(keeper, 2, "2")
    assert names(tmp_path) == ["best", "last", "model_2", "state_2"] and keeper.best == tmp_path / "model_2"
    save(keeper, 3, "3", best=3)
    save(keeper, 4, "4", best=3)
    assert names(tmp_path) == ["best", "last", "model_3", "model_4", "state_4"]
    assert (tmp_path / "best" / "file").read_text() == "3"


def test_a_failing_save_leaves_the_old_and_no_rubbish(tmp_path: Path) -> None:
    keeper = start(tmp_path)
    save(keeper, 1, "good", best=1)

    def fail(folder: Path) -> None:
        (folder / "file").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        keeper.save(2, fail, write("state"), scheduled=[], best_step=2)
    assert names(tmp_path) == ["best", "last", "model_1", "state_1"]
    assert (tmp_path / "last" / "file").read_text() == "good"


def test_a_model_whose_state_failed_is_named(tmp_path: Path) -> None:
    options = SimpleNamespace(save_dir=str(tmp_path), keep=0, log_to=None)
    run = RunFolder(cast(TrainingOptions, options), None)

    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        run.keeper.save(2, lambda folder: None, full, scheduled=[])
    assert "model_2" in names(tmp_path) and "state_2" not in names(tmp_path)
    assert run.last_good == f"there is no checkpoint to resume from; {tmp_path / 'model_2'} is whole, without its state"
    run.keeper.save(4, lambda folder: None, lambda folder: None, scheduled=[])
    assert run.last_good == f"the last good checkpoint is {tmp_path / 'model_4'}"
    run.close()


def test_files_folders_and_links_are_replaced_at_once_or_never(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(ZeroDivisionError), new_file(tmp_path / "a") as stream:
        stream.write(str(1 / 0))
    assert (tmp_path / "a").read_text() == "old" and names(tmp_path) == ["a"]
    point(tmp_path / "link", tmp_path / "none")
    point(tmp_path / "link", tmp_path / "a")
    assert (tmp_path / "link").read_text() == "old" and names(tmp_path) == ["a", "link"]
    (tmp_path / "model_1").mkdir()
    with pytest.raises(RankerError, match="there already"), new_folder(tmp_path / "model_1"):
        pass
    with pytest.raises(RankerError, match=f"{tmp_path}/a/checkpoint: cannot write there"):
        make_folder(tmp_path / "a" / "checkpoint")


def test_what_a_living_process_writes_is_left_alone(tmp_path: Path) -> None:
    other = subprocess.Popen(["sleep", "60"])
    try:
        (tmp_path / f".unfinished-{other.pid}-x").mkdir()
        (tmp_path / ".unfinished-0-y").mkdir()
        remove_unfinished(tmp_path)
        assert names(tmp_path) == [f".unfinished-{other.pid}-x"]
    finally:
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
