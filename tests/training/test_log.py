"""A training's log: printed lines, metrics.jsonl across kills, resumes and full disks, trackers, the picture."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest

from paddle_ranker.commands.curve import main as curve_main
from paddle_ranker.commands.curve import names_of
from paddle_ranker.errors import DataError, RankerError
from paddle_ranker.training import learning_curve
from paddle_ranker.training.learning_curve import read_curve, read_metrics, smooth
from paddle_ranker.training.log import TrainingLog
from paddle_ranker.training.trackers import Tracker
from tests.conftest import largest_file

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("pictures")]


def begin(folder: Path, *, resumed_step: Optional[int] = None, tracker: Optional[Tracker] = None) -> TrainingLog:
    folder.mkdir(exist_ok=True)
    return TrainingLog(folder, tracker=tracker, resumed_step=resumed_step)


def tell(log: TrainingLog, *steps: int, loss: float = 0.5) -> None:
    for step in steps:
        told = {"learning_rate": 1e-5 * step, "gradient_norm": 2.0}
        log.step(step, 1, step, shown={"loss": loss}, more=told, speed=2.5)


def lines(folder: Path) -> list[dict[str, Any]]:
    """Return the records, read by independent code; every line must be strict JSON."""
    text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    assert text == "" or text.endswith("\n")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def steps(folder: Path) -> list[int]:
    return [record["step"] for record in lines(folder)]


def test_printed_lines_are_the_published_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = begin(tmp_path)
    log.step(10, 1, 10, shown={"loss": 0.072671}, more={"learning_rate": 2e-5}, speed=15.449)
    log.step(45000, 2, 5, shown={"loss": 0.589307, "accuracy": 0.75}, more={}, speed=10.08)
    log.evaluation(200, "auc", {"auc": 0.7914, "pairs": 10})
    log.report("and a line of its own")
    assert capsys.readouterr().out.splitlines() == [
        "global step 10, epoch: 1, batch: 10, loss: 0.07267, speed: 15.45 step/s",
        "global step 45000, epoch: 2, batch: 5, loss: 0.58931, accuracy: 0.75000, speed: 10.08 step/s",
        "eval_dev auc:0.791",
        "and a line of its own",
    ]


def test_metrics_hold_every_figure_at_once_and_nothing_that_is_no_json(tmp_path: Path) -> None:
    log = begin(tmp_path)
    shown: dict[str, Any] = {"loss": np.float32(0.5), "accuracy": math.nan}
    told: dict[str, Any] = {"gradient_norm": np.float64(np.inf), "loss_scale": 32768}
    measured: dict[str, Any] = {"step": 10, "auc": np.float64(0.75), "ndcg@10": math.nan, "pairs": np.int64(7)}
    log.step(10, 1, 4, shown=shown, more=told, speed=2.5)
    log.evaluation(10, "auc", measured)
    first, second = lines(tmp_path)  # while the log is still open
    assert 0 <= second["time"] - first["time"] < 60
    del first["time"], second["time"]
    place = {"step": 10, "epoch": 1, "batch": 4}
    figures = {"loss": 0.5, "accuracy": None, "gradient_norm": None, "loss_scale": 32768, "steps_per_second": 2.5}
    assert first == {**place, **figures}
    assert second == {"step": 10, "metric": "auc", "evaluation": {"auc": 0.75, "ndcg@10": None, "pairs": 7}}


def test_a_new_run_begins_anew_and_a_resumed_one_drops_what_comes_again(tmp_path: Path) -> None:
    log = begin(tmp_path)
    tell(log, 10, 20)
    log.evaluation(20, "auc", {"auc": 0.7})
    tell(log, 30)
    log.evaluation(30, "auc", {"auc": 0.8})
    log.close()
    kept = (tmp_path / "metrics.jsonl").read_bytes().splitlines()[:3]
    with (tmp_path / "metrics.jsonl").open("ab") as stream:
        stream.write('{"step": 20, "名'.encode()[:-1])  # a kill leaves this, in the middle of a character

    log = begin(tmp_path, resumed_step=20)
    assert (tmp_path / "metrics.jsonl").read_bytes().splitlines() == kept
    tell(log, 30, loss=0.25)
    assert steps(tmp_path) == [10, 20, 20, 30]
    assert lines(tmp_path)[-1]["loss"] == 0.25
    log.close()

    begin(tmp_path).close()
    assert lines(tmp_path) == []
    (tmp_path / "metrics.jsonl").unlink()
    begin(tmp_path, resumed_step=20).close()
    assert lines(tmp_path) == []


def test_a_line_cut_before_its_end_is_left_out_even_where_it_reads_as_json(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n[1]\n{"loss": 2}\n\n{"step": "2"}\n{"step": 3}')
    assert list(read_metrics(path)) == [{"step": 1}]


def test_a_resume_that_cannot_be_written_leaves_the_earlier_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = begin(tmp_path)
    tell(log, 10, 20)
    log.close()

    def no_room(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(RankerError, match=r"metrics\.jsonl: cannot write there \(No space left on device\)"):
        begin(tmp_path, resumed_step=10)
    assert steps(tmp_path) == [10, 20]


def test_a_full_disk_costs_lines_and_not_the_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = begin(tmp_path)
    tell(log, 1, 2)
    with largest_file(Path(log.metrics).stat().st_size + 50):  # room for half a line
        tell(log, 3, 4)
    tell(log, 5)
    with largest_file(1000):  # too small for a picture
        log.close()
    printed = capsys.readouterr()
    assert printed.out.count("global step") == 5 and steps(tmp_path) == [1, 2, 5]
    file_warning, picture_warning = printed.err.splitlines()
    assert "metrics.jsonl could not be written" in file_warning
    assert "learning_curve.png could not be written" in picture_warning
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_picture_that_is_never_drawn_holds_no_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where OpenBLAS spins for want of memory; or where the process is ended."""
    monkeypatch.setattr(learning_curve, "_SECONDS", 0.5)
    for child, problem in (("while True: pass", "took more than 0.5 seconds"), ("import os; os.abort()", "status -6")):
        monkeypatch.setattr(learning_curve, "_CHILD", child)
        log = begin(tmp_path / problem[:4])
        tell(log, 1)
        monkeypatch.setattr(learning_curve, "_SECONDS", 0.5 if "while" in child else 60)
        log.close()
        assert problem in capsys.readouterr().err


class Recorder:
    """A tracker that keeps what it gets; from `fails_at` on it cannot."""

    def __init__(self, fails_at: float = math.inf) -> None:
        self.values: dict[str, list[tuple[int, float]]] = {}
        self.times: set[float] = set()
        self.ended: list[bool] = []
        self.calls, self._fails_at = 0, fails_at

    def add(self, step: int, values: Mapping[str, float], time: float) -> None:
        self.calls += 1
        if step >= self._fails_at:
            raise ValueError("the server is gone")
        self.times.add(time)
        for name, value in values.items():
            self.values.setdefault(name, []).append((step, value))

    def close(self, finished: bool) -> None:
        self.ended.append(finished)


def test_a_tracker_gets_the_same_figures_whole_after_a_resume(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first = Recorder()
    log = begin(tmp_path / "run", tracker=first)
    tell(log, 10, 20, 30)
    log.step(40, 1, 40, shown={"loss": math.nan}, more={}, speed=1.5)
    log.evaluation(40, "auc", {"auc": 0.75, "ndcg@10": 0.5})
    log.close({"step": 40, "auc": 0.75, "map": math.nan})
    log.close({"step": 40})
    assert first.values == {
        "train/loss": [(10, 0.5), (20, 0.5), (30, 0.5)],
        "train/learning_rate": [(10, 0.0001), (20, 0.0002), (30, pytest.approx(0.0003))],
        "train/gradient_norm": [(10, 2.0), (20, 2.0), (30, 2.0)],
        "train/speed": [(10, 2.5), (20, 2.5), (30, 2.5), (40, 1.5)],
        "train/epoch": [(10, 1), (20, 1), (30, 1), (40, 1)],
        "dev/auc": [(40, 0.75)],
        "dev/ndcg@10": [(40, 0.5)],
        "best/auc": [(40, 0.75)],
        "best/step": [(40, 40)],
    }
    assert first.ended == [True] and {line["time"] for line in lines(tmp_path / "run")} < first.times
    resumed = Recorder()
    log = begin(tmp_path / "run", resumed_step=20, tracker=resumed)
    tell(log, 30, loss=0.25)
    log.close(finished=False)
    assert resumed.values["train/loss"] == [(10, 0.5), (20, 0.5), (30, 0.25)] and "dev/auc" not in resumed.values
    assert resumed.ended == [False] and capfd.readouterr().err == ""


def test_a_tracker_that_fails_is_asked_no_more_and_the_lines_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = Recorder(fails_at=20)
    log = begin(tmp_path, tracker=tracker)
    tell(log, 10, 20, 30)
    log.close({"step": 30, "auc": 0.5})
    assert tracker.calls == 2 and tracker.ended == [] and steps(tmp_path) == [10, 20, 30]
    assert capsys.readouterr().err.splitlines() == [
        "warning: the run of --log_to could not be written (the server is gone); the training is not affected"
    ]


def pixels(picture: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(picture) as image:
        image.load()  # decodes all of it
        assert (image.format, image.size) == ("PNG", (1000, 800))
        return np.asarray(image.convert("RGB"))


def share_of(color: tuple[int, int, int], picture: np.ndarray) -> int:
    """Return the number of pixels that (nearly) have a colour."""
    return int((np.abs(picture.astype(int) - color).max(axis=-1) < 8).sum())


BLUE, ORANGE = (0, 114, 178), (213, 94, 0)


@pytest.mark.parametrize(("step_lines", "evaluations"), [(0, 0), (1, 0), (0, 1), (3, 1), (200, 4)])
@pytest.mark.filterwarnings("error::UserWarning")
def test_picture_at_the_end_whatever_there_is(
    tmp_path: Path, step_lines: int, evaluations: int, capfd: pytest.CaptureFixture[str]
) -> None:
    log = begin(tmp_path)
    for step in range(1, step_lines + 1):
        log.step(step, 1 + step // 100, step, shown={"loss": 1 / step}, more={"learning_rate": 0.1}, speed=1.0)
    for number in range(1, evaluations + 1):
        log.evaluation(50 * number, "auc", {"auc": 0.5 + 0.1 * number, "ndcg@10": 0.4, "pairs": 1300})
    log.close()
    log.close()
    picture = pixels(tmp_path / "learning_curve.png")
    assert (share_of(BLUE, picture) > 50) == (step_lines + evaluations > 0)
    assert (share_of(ORANGE, picture) > 0) == (evaluations > 0)  # ndcg@10 is drawn; the count is not
    assert capfd.readouterr().err == ""


def test_what_is_read_for_the_picture(tmp_path: Path) -> None:
    log = begin(tmp_path)
    log.step(10, 1, 10, shown={"loss": 0.5}, more={"learning_rate": 1e-5}, speed=1.0)
    log.step(20, 2, 10, shown={"loss": math.nan}, more={}, speed=1.0)
    for step, auc in [(10, 0.6), (20, 0.9), (30, 0.9), (40, math.nan)]:
        log.evaluation(step, "auc", {"auc": auc, **({"map": 0.5} if step == 20 else {})})
    curve = read_curve(tmp_path / "metrics.jsonl", "name")
    np.testing.assert_array_equal(curve.steps, [10, 20])
    np.testing.assert_array_equal(curve.loss, [0.5, math.nan])
    np.testing.assert_array_equal(curve.learning_rate, [1e-5, math.nan])
    np.testing.assert_array_equal(curve.evaluated, [10, 20, 30, 40])
    np.testing.assert_array_equal(curve.metrics["map"], [math.nan, 0.5, math.nan, math.nan])
    assert (curve.metric, curve.best) == ("auc", 1)  # the first of equal values, as for the checkpoint
    with pytest.raises(DataError, match=r"nowhere: cannot read it \(No such file or directory\)"):
        read_curve(tmp_path / "nowhere", "name")


def test_smooth_by_hand() -> None:
    values = np.array([3.0, 1.0, 2.0, math.nan, 6.0])
    np.testing.assert_allclose(smooth(values, 3), [2.0, 2.0, 1.5, 4.0, 6.0])
    np.testing.assert_array_equal(smooth(values, 1), values)
    np.testing.assert_array_equal(smooth(np.array([math.nan, math.nan]), 1), [math.nan, math.nan])


def test_curve_command_lays_runs_over_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [tmp_path / "_$a_$中", tmp_path / "b"]
    for folder, loss in zip(folders, (0.5, 0.25)):
        log = begin(folder)
        tell(log, 10, 20, loss=loss)
        log.close()
    capsys.readouterr()
    picture = tmp_path / "pictures" / "both.png"
    assert curve_main([os.pathsep.join(map(str, folders)), "--output", str(picture)]) == 0
    assert capsys.readouterr() == (f"{picture}\n", "")
    both = pixels(picture)
    assert share_of(BLUE, both) > 100 and share_of(ORANGE, both) > 100
    assert curve_main([str(tmp_path / "none"), "--output", str(picture)]) == 1
    assert "none/metrics.jsonl: cannot read it" in capsys.readouterr().err
    assert curve_main(["", "--output", str(picture)]) == 2


def test_runs_are_named_by_what_tells_them_apart() -> None:
    assert names_of([Path("/x/nano/checkpoint"), Path("/x/medium/checkpoint")]) == ["nano", "medium"]
    assert names_of([Path("/x/a/1/c"), Path("/x/b/1/c")]) == ["a", "b"]
    assert names_of([Path("/x/a"), Path("/x/a/b")]) == ["a", "a/b"]
    assert names_of([Path("/x/a")]) == ["a"]
