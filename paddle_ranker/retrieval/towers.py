"""The copy of a tower in an index folder, which makes the vectors of its documents and queries."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple, Optional, Union

from paddle_ranker.errors import CheckpointError, UsageError
from paddle_ranker.model.kinds import KINDS
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.parameters import PARAMETERS_FILE
from paddle_ranker.model.pretrained import resolve_model
from paddle_ranker.model.tower import KIND, TowerInfo
from paddle_ranker.retrieval.adding import VectorsOf
from paddle_ranker.retrieval.collection import Collection
from paddle_ranker.retrieval.manifest import TowerCopy
from paddle_ranker.storage.atomic import make_folder, new_folder
from paddle_ranker.storage.digest import content_digest

TOWER = "tower"


class Copied(NamedTuple):
    """A copied tower, and how many components its vectors have."""

    copy: TowerCopy
    size: int


def copy_tower(source: Union[str, Path], index: Path) -> Copied:
    """Copy a tower, or an encoder as one, into a new index folder.

    Args:
        source: as `Tower.open` takes it, but for other parameter files than a folder's own.

    Raises `CheckpointError` if it is none that opens.
    """
    from paddle_ranker.retrieval.vectors import Tower

    folder = _folder_of(source)
    stated = _stated_by(folder)
    load = LoadOptions() if stated is None else LoadOptions(pooling=stated.pooling, normalize=stated.normalize)
    size = Tower.open(folder, load).vectors(["."]).shape[1]
    make_folder(index)
    with new_folder(index / TOWER, replace=True) as target:
        shutil.copytree(folder, target, dirs_exist_ok=True)
        if stated is not None:
            stated.write(target)
    return Copied(TowerCopy(TOWER, content_digest(folder)), size)


def _folder_of(source: Union[str, Path]) -> Path:
    path = resolve_model(str(source))
    if path.is_file() and path.name != PARAMETERS_FILE:
        raise CheckpointError(f"{source}: no folder; --tower needs the folder of a tower or an encoder, or a name")
    return path.parent if path.is_file() else path


def _stated_by(folder: Path) -> Optional[TowerInfo]:
    """Return what the copy of an encoder must state, since it has another name; None for a tower, which states it."""
    from paddle_ranker.model.tower_network import read_tower

    return read_tower(folder, LoadOptions())[1] if KINDS[KIND].read_info(folder) is None else None


def require_tower(collection: Collection, tower: Optional[str]) -> None:
    """Raise `UsageError` if a tower is named that is not the index's own."""
    if tower is None:
        return
    own, given = collection.info.tower, content_digest(_folder_of(tower))
    if own is None or own.digest != given:
        whose = "has no tower of its own" if own is None else f"was built with another tower ({own.digest})"
        raise UsageError(
            f"--tower {tower} ({given}): {collection.folder} {whose}, and vectors of two towers cannot be compared; "
            "leave --tower out, or build another index"
        )


def open_tower(collection: Collection, options: LoadOptions, batch_size: int) -> Optional[VectorsOf]:
    """Return what makes vectors by the index's own tower; None if it has none."""
    if collection.tower_folder is None:
        return None
    from paddle_ranker.retrieval.vectors import Tower

    return Tower.open(collection.tower_folder, options, batch_size, for_search=True).vectors
