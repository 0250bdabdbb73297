"""The adapters of experiment trackers; importing this module registers them, and imports none of their libraries.

All write files, and send nothing, unless the library's own environment variable asks for it.
"""

from __future__ import annotations

import json
import os
import re
import time as clock
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Union

from paddle_ranker.training.trackers import TRACKERS, TrackerKind

_PROJECT = "paddle-ranker"


class _TensorBoard:
    """An event file; options are the run's hyperparameters. What the folder's earlier files hold is no longer shown."""

    def __init__(self, folder: Path, name: str, options: Mapping[str, object]) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        self._writer = EventFileWriter(str(folder))
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._writer.add_event(self._event(wall_time=clock.time(), step=0, session_log=start))
        self._writer.add_event(self._event(wall_time=clock.time(), summary=hparams_pb(_plain(options), name)))
        self._writer.flush()

    def add(self, step: int, values: Mapping[str, float], time: float) -> None:
        shown = self._summary(value=[self._summary.Value(tag=name, simple_value=v) for name, v in values.items()])
        self._writer.add_event(self._event(wall_time=time, step=step, summary=shown))
        self._writer.flush()

    def close(self, finished: bool) -> None:
        self._writer.close()


class _WandB:
    """A run of Weights & Biases, offline unless WANDB_MODE says otherwise; `wandb sync FOLDER` sends it later."""

    def __init__(self, folder: Path, name: str, options: Mapping[str, object]) -> None:
        import wandb

        self._run = wandb.init(
            dir=str(folder),
            name=name,
            config=_plain(options),
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            mode=os.environ.get("WANDB_MODE", "offline"),
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True),
        )

    def add(self, step: int, values: Mapping[str, float], time: float) -> None:
        self._run.log({**values, "time": time}, step=step)

    def close(self, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)


class _MLflow:
    """A run of MLflow, in `mlflow.db` of the folder unless MLFLOW_TRACKING_URI names a server."""

    def __init__(self, folder: Path, name: str, options: Mapping[str, object]) -> None:
        import mlflow

        place = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.resolve() / 'mlflow.db'}"
        self._client, self._metric = mlflow.MlflowClient(place), mlflow.entities.Metric
        title = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        known = self._client.get_experiment_by_name(title)
        experiment = known.experiment_id if known else self._client.create_experiment(title)
        tags = {"mlflow.source.git.commit": options["commit"]} if options["commit"] else {}
        self._run = self._client.create_run(experiment, run_name=name, tags=tags).info.run_id
        entries = [mlflow.entities.Param(key, str(value)) for key, value in options.items()]
        for first in range(0, len(entries), 100):  # at most so many a call
            self._client.log_batch(self._run, params=entries[first : first + 100])

    def add(self, step: int, values: Mapping[str, float], time: float) -> None:
        # Of the characters in names of measures it takes all but one: ndcg@10.
        named = {name.replace("@", "_at_"): value for name, value in values.items()}
        metrics = [self._metric(name, value, round(1000 * time), step) for name, value in named.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def close(self, finished: bool) -> None:
        self._client.set_terminated(self._run, "FINISHED" if finished else "FAILED")


class _SwanLab:
    """A run of SwanLab, offline unless SWANLAB_MODE says otherwise; `swanlab sync FOLDER` sends it later."""

    def __init__(self, folder: Path, name: str, options: Mapping[str, object]) -> None:
        import swanlab

        self._run = swanlab.init(
            log_dir=str(folder),
            name=re.sub(r"[^\w.+-]", "-", name),
            config=_plain(options),
            project=os.environ.get("SWANLAB_PROJECT", _PROJECT),
            mode=os.environ.get("SWANLAB_MODE", "offline"),
            reinit=True,
            settings=swanlab.Settings(terminal={"proxy_type": "none"}),
        )

    def add(self, step: int, values: Mapping[str, float], time: float) -> None:
        self._run.log(dict(values), step=step)

    def close(self, finished: bool) -> None:
        self._run.finish("success" if finished else "aborted")


class _VisualDL:
    """A file of VisualDL, which shows only the newest one of a folder."""

    def __init__(self, folder: Path, name: str, options: Mapping[str, object]) -> None:
        from visualdl import LogWriter

        # VisualDL's default name has whole seconds, and it appends: two runs started in one second would be mixed up.
        self._writer = LogWriter(logdir=str(folder), file_name=f"vdlrecords.{clock.time():017.6f}.log")
        self._writer.add_text("options", json.dumps(_plain(options), ensure_ascii=False, indent=1), 0)

    def add(self, step: int, values: Mapping[str, float], time: float) -> None:
        for tag, value in values.items():
            self._writer.add_scalar(tag=tag, value=value, step=step, walltime=round(1000 * time))

    def close(self, finished: bool) -> None:
        self._writer.close()


def _plain(options: Mapping[str, object]) -> dict[str, Union[bool, int, float, str]]:
    """Return options with texts for all values that are no numbers, truth values or texts."""
    return {name: v if isinstance(v, (bool, int, float, str)) else str(v) for name, v in options.items()}


_KINDS: dict[str, Any] = {
    "tensorboard": _TensorBoard,
    "wandb": _WandB,
    "mlflow": _MLflow,
    "swanlab": _SwanLab,
    "visualdl": _VisualDL,
}
for _name, _kind in _KINDS.items():
    TRACKERS.add(_name, TrackerKind(_kind, _name, f"'paddle-ranker[{_name}]'"))
