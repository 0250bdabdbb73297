"""`--log_to`: what each tracker holds after a training, read by its own reader, is what `metrics.jsonl` holds."""

from __future__ import annotations

import importlib.util
import json
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from ernie_matching.train_pairwise import TrainPairwiseOptions, main, train
from paddle_ranker.errors import DependencyError, RankerError, UsageError
from paddle_ranker.tracking.trackers import _KINDS
from paddle_ranker.training.trackers import TRACKERS, require_tracker
from tests.conftest import REPOSITORY, Call
from tests.tiny import HAN, write_encoder

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("same_process")]
Curves = dict[str, list[tuple[int, float]]]
Read = tuple[Curves, dict[str, str]]  # curves, and options as texts


def _tensorboard(folder: Path) -> Read:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    plugin = HParamsPluginData.FromString(events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content)
    options = plugin.session_start_info.hparams
    curves = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    return curves, {name: _text(getattr(value, value.WhichOneof("kind"))) for name, value in options.items()}


def _mlflow(folder: Path) -> Read:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    *_, run = client.search_runs([one.experiment_id for one in client.search_experiments()])[::-1]
    assert run.info.status == "FINISHED" and run.data.tags["mlflow.source.git.commit"] == run.data.params["commit"]
    histories = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    curves = {name.replace("_at_", "@"): [(one.step, one.value) for one in all_] for name, all_ in histories.items()}
    return curves, run.data.params


def _log_records(path: Path) -> Iterator[bytes]:
    """Yield the records of a file in LevelDB's log format, after a header of its own of 7 bytes."""
    data, place, record = path.read_bytes(), 7, b""
    while place < len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _, size, kind = struct.unpack("<IHB", data[place : place + 7])
        record += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def _wandb(folder: Path) -> Read:
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = max(folder.glob("wandb/offline-run-*"), key=lambda path: path.stat().st_mtime_ns).glob("*.wandb")
    curves: Curves = {}
    options: dict[str, str] = {}
    for record in map(Record.FromString, _log_records(file)):
        if record.HasField("run"):
            options.update((item.key, _text(json.loads(item.value_json))) for item in record.run.config.update)
        items = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for name, value in items.items():
            if not name.startswith("_") and name != "time":
                curves.setdefault(name, []).append((items["_step"], value))
        assert not record.HasField("exit") or record.exit.exit_code == 0
    return curves, options


def _swanlab(folder: Path) -> Read:
    import yaml  # type: ignore[import-untyped]
    from swanlab.proto.swanlab.record.v1.record_pb2 import Record

    run = max(folder.glob("run-*"), key=lambda path: path.stat().st_mtime_ns)
    (file,) = run.glob("*.swanlab")
    curves: Curves = {}
    for record in map(Record.FromString, _log_records(file)):
        if record.HasField("scalar"):
            curves.setdefault(record.scalar.key, []).append((record.scalar.step, record.scalar.value.number))
    config = yaml.safe_load((run / "files" / "config.yaml").read_text(encoding="utf-8"))
    return curves, {name: _text(entry["value"]) for name, entry in config.items()}


def _visualdl(folder: Path) -> Read:
    from visualdl import LogReader
    from visualdl.proto import record_pb2
    from visualdl.reader.record_reader import RecordReader

    (newest,) = LogReader(logdir=str(folder)).logs().values()
    curves: Curves = {}
    options: dict[str, str] = {}
    for data in RecordReader(str(folder / newest)).get_all():
        for value in record_pb2.Record.FromString(data).values:
            if value.WhichOneof("one_value") == "value":
                curves.setdefault(value.tag, []).append((value.id, value.value))
            elif value.WhichOneof("one_value") == "text":
                options = {name: _text(one) for name, one in json.loads(value.text.encoded_text_string).items()}
    return curves, options


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


READERS: dict[str, Callable[[Path], Read]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
    "swanlab": _swanlab,
    "visualdl": _visualdl,
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("data")
    write_encoder(folder / "encoder")
    words = [first + second for first, second in zip(HAN[:12], HAN[12:24])]
    (folder / "train.csv").write_text("".join(f"{w}\t论{w}\t{o}的研究\n" for w, o in zip(words, words[::-1])))
    (folder / "dev.csv").write_text("".join(f"{w}\t论{w}\t1\n{w}\t研究\t0\n{w}\t文化\t0\n" for w in words))
    names = {"train_file": "train.csv", "test_file": "dev.csv", "model_name_or_path": "encoder"}
    return {option: str(folder / name) for option, name in names.items()}


def values_of(files: dict[str, str], **changes: Any) -> dict[str, Any]:
    settings = {"batch_size": 4, "eval_step": 2, "logging_steps": 1, "device": "cpu", "learning_rate": 0.001}
    return {**files, **settings, **changes}


def expected(folder: Path) -> Curves:
    """Return the curves of `metrics.jsonl`, and the best checkpoint's measures at the last step."""
    curves: Curves = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        shown = record.get("evaluation") or {name: record[name] for name in record if name not in ("batch", "time")}
        group = "dev" if "evaluation" in record else "train"
        for name, value in shown.items():
            name = "speed" if name == "steps_per_second" else name
            if name != "step":
                curves.setdefault(f"{group}/{name}", []).append((record["step"], pytest.approx(value, rel=1e-6)))
    results = json.loads((folder / "best" / "ranker.json").read_text())["results"]
    best = {**results, "step": int((folder / "best").resolve().name.removeprefix("model_"))}
    curves.update({f"best/{name}": [(record["step"], pytest.approx(value))] for name, value in best.items()})
    return curves


def test_every_tracker_is_tried() -> None:
    assert list(READERS) == list(_KINDS)


@pytest.mark.parametrize("name", READERS)
def test_a_run_has_options_commit_and_curves(tmp_path: Path, files: dict[str, str], name: str) -> None:
    pytest.importorskip(name)
    folder, where = tmp_path / "run", tmp_path / "runs"
    values = values_of(files, save_dir=str(folder), log_to=name, log_dir=str(where))
    train(TrainPairwiseOptions(**values, epochs=3, max_steps=4, schedule="constant"))
    curves, options = READERS[name](where)
    assert curves == expected(folder)
    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=REPOSITORY, text=True).strip()
    assert options["commit"].removesuffix("-dirty") == commit
    assert options.items() >= {"learning_rate": "0.001", "batch_size": "4", "use_amp": "False", "metric": "auc"}.items()
    if name in ("tensorboard", "visualdl"):  # which show a folder as one run
        train(TrainPairwiseOptions(**{**values, "learning_rate": 2e-3}, max_steps=2, epochs=1))
        curves, options = READERS[name](where)
        assert curves == expected(folder)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"log_to": "tensorbord"}, r"--log_to tensorbord: choose from .*\(did you mean tensorboard\?\)"),
        ({"log_dir": "runs"}, "--log_dir is the folder of an experiment tracker: add --log_to, or leave it out"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], problem: str, files: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=problem):
        TrainPairwiseOptions(**values_of(files, **options))


@pytest.mark.parametrize("name", READERS)
def test_a_missing_library_is_said_before_anything_is_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert name in TRACKERS
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda module, *more: None if module == name else find(module))
    with pytest.raises(DependencyError, match=rf"--log_to {name} .*: pip install 'paddle-ranker\[{name}\]'"):
        require_tracker(name)


def test_a_folder_that_cannot_be_written_ends_the_training_before_it_begins(
    tmp_path: Path, files: dict[str, str], call: Call
) -> None:
    pytest.importorskip("visualdl")
    (tmp_path / "file").touch()
    given = values_of(files, output=tmp_path / "run", log_to="visualdl", log_dir=tmp_path / "file" / "runs")
    arguments = [part for name, value in given.items() for part in (f"--{name}", str(value))]
    status, out, err = call(main, *arguments)
    assert status == 1 and "global step" not in out
    assert f"--log_to visualdl: cannot begin a run in {tmp_path / 'file' / 'runs'} (" in err
    assert RankerError.__name__ not in err
