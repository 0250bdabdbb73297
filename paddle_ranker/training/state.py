"""Save and restore a training's state, so that an interrupted training continues as if it had not been interrupted.

The state of a step is `<save_dir>/state_<step>/`. It is written atomically after the step's checkpoint,
`<save_dir>/model_<step>/`, which has the parameters. A run can be resumed from a step that has both folders.

| file | holds |
| --- | --- |
| `state.json` | the progress of the run, and its options, data and number of processes |
| `optimizer.npz` | the optimizer's moments of each parameter; missing once the run is finished |
| `parameters.npz` | parameters that the checkpoint lacks, if there are any |
"""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Optional, Union

import numpy as np
import paddle
from paddle import nn

from paddle_ranker.array_types import Array
from paddle_ranker.errors import CheckpointError, RankerError, brief
from paddle_ranker.model.parameters import PARAMETERS_FILE, load_arrays, set_parameters

FORMAT_VERSION = 2
STATE_FILE = "state.json"
OPTIMIZER_FILE = "optimizer.npz"
APART_FILE = "parameters.npz"
_DIFFERENCES_SHOWN = 4


@dataclass
class RunProgress:
    """The progress of a run after a step."""

    step: int = 0
    epoch: int = 1
    batches: int = 0  # done in this epoch
    examples: int = 0
    seconds: float = 0.0
    best: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    without_improvement: int = 0  # evaluations since the best one
    scheduled: list[int] = field(default_factory=list)  # steps of the scheduled checkpoints that are kept
    precision: dict[str, float] = field(default_factory=dict)
    finished: bool = False


@dataclass(frozen=True)
class SavedState:
    """A state on the disk from which a run can be resumed."""

    folder: Path  # state_<step>
    model: Path  # model_<step>
    progress: RunProgress
    identity: dict[str, object]  # JSON-ready
    part_factors: dict[str, float]

    def restore(
        self,
        network: nn.Layer,
        optimizer: paddle.optimizer.AdamW,
        schedule: paddle.optimizer.lr.LRScheduler,
    ) -> None:
        """Restore the parameters, the optimizer's moments and the schedule's step.

        Raises `CheckpointError` if a file is damaged or does not fit the network.
        """
        apart = self.folder / APART_FILE
        try:
            arrays = load_arrays(self.model / PARAMETERS_FILE)
            arrays = {**arrays, **_read_arrays(apart)} if apart.exists() else arrays
            set_parameters(network, arrays, may_lack=getattr(network, "loaded_before", ()))
        except CheckpointError as error:
            raise CheckpointError(
                f"{self.model}: belongs to another network ({error}); start anew without --resume"
            ) from error
        schedule.step(self.progress.step)
        if self.progress.finished:  # no step is left
            return
        path = self.folder / OPTIMIZER_FILE
        moments = _read_arrays(path)
        names = {structured: p.name for structured, p in network.named_parameters()}
        state = {}
        for key, array in moments.items():
            structured, _, accumulator = key.rpartition("/")
            if structured not in names:
                raise CheckpointError(f"{path}: holds {key}, which this network lacks; start anew without --resume")
            state[f"{names[structured]}_{accumulator}"] = paddle.to_tensor(array)
        optimizer.set_state_dict({**state, "LR_Scheduler": schedule.state_dict()})


def _write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays for `np.load`; unlike `np.savez`, close the archive even if the disk is full."""
    with path.open("wb") as stream, zipfile.ZipFile(stream, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)  # type: ignore[no-untyped-call]


def _read_arrays(path: Path) -> dict[str, Array]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise CheckpointError(f"{path}: missing or damaged ({error}); start anew without --resume") from error


def write_state(
    folder: Path,
    network: nn.Layer,
    optimizer: paddle.optimizer.AdamW,
    progress: RunProgress,
    identity: Mapping[str, object],
    part_factors: dict[str, float],
    apart: Sequence[str] = (),
) -> None:
    """Write a state into an existing folder; call it inside `atomic.new_folder`.

    progress: the progress of the run
    identity: see `Task`
    part_factors: see `Task`
    apart: prefixes of the names of parameters that the checkpoint lacks
    """
    kept = {name: value.numpy() for name, value in network.state_dict().items() if name.startswith(tuple(apart))}
    if kept:
        _write_arrays(folder / APART_FILE, kept)
    if not progress.finished:
        accumulators = {key: value for key, value in optimizer.state_dict().items() if key != "LR_Scheduler"}
        # Paddle names parameters in the order in which a process makes them, so use their names in the network.
        arrays = {}
        for structured, parameter in network.named_parameters():
            prefix = f"{parameter.name}_"
            for key in [key for key in accumulators if key.startswith(prefix)]:
                arrays[f"{structured}/{key[len(prefix) :]}"] = accumulators.pop(key).numpy()
        if accumulators:
            raise RuntimeError(f"the optimizer holds {sorted(accumulators)[:3]}, which belong to no parameter")
        _write_arrays(folder / OPTIMIZER_FILE, arrays)
    content = {
        "format_version": FORMAT_VERSION,
        "progress": asdict(progress),
        "identity": identity,
        "part_factors": part_factors,
    }
    (folder / STATE_FILE).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def find_state(save_dir: Union[str, Path]) -> Optional[SavedState]:
    """Return the latest state in a folder from which a run can be resumed; None if the folder has no state.

    Raises `CheckpointError` if the state is damaged, or if its format is not that of this version.
    """
    save_dir = Path(save_dir)
    steps = [
        int(match.group(1)) for path in save_dir.glob("state_*") if (match := re.match(r"state_(\d+)$", path.name))
    ]
    steps = [step for step in steps if (save_dir / f"model_{step}").is_dir()]
    if not steps:
        return None
    folder, model = save_dir / f"state_{max(steps)}", save_dir / f"model_{max(steps)}"
    path = folder / STATE_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format_version"] != FORMAT_VERSION:
            raise CheckpointError(
                f"{path}: a state of format {brief(str(content['format_version']))}, and this version resumes format "
                f"{FORMAT_VERSION}; start anew without --resume"
            )
        progress = RunProgress(**content["progress"])
        return SavedState(folder, model, progress, content["identity"], content["part_factors"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: damaged ({type(error).__name__}: {error}); start anew without --resume"
        ) from error


def require_identity(state: SavedState, identity: Mapping[str, object]) -> None:
    """Raise `RankerError` if `identity` (options, data, ...) differs from the saved run's; the message says in what."""
    flat, saved = flatten(identity), flatten(state.identity)
    differences = [
        f"{name} was {brief(str(saved.get(name)))}, is {brief(str(flat.get(name)))}"
        for name in sorted(set(flat) | set(saved))
        if flat.get(name) != saved.get(name)
    ]
    if differences:
        more = f"; and {len(differences) - _DIFFERENCES_SHOWN} more" if len(differences) > _DIFFERENCES_SHOWN else ""
        raise RankerError(
            f"{state.model.parent}: the run to resume was started otherwise: "
            f"{'; '.join(differences[:_DIFFERENCES_SHOWN])}{more}: repeat its options, start anew without "
            "--resume, or continue anyway with --force_resume true"
        )


def flatten(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Flatten nested dicts into one dict; a key is the keys of all levels, joined by spaces.

    prefix: text that is put before each key
    """
    flat: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{name} "))
        else:
            flat[f"{prefix}{name}"] = value
    return flat
