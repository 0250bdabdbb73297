"""The copy of a tower in an index folder, which makes the vectors of its documents and queries."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple, Optional, Union

from paddle_ranker.errors import CheckpointError, UsageError
from paddle_ranker.model.load_options import LoadOptions
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
    """Copy a tower into a new index folder; raises `CheckpointError` if it is none that opens."""
    from paddle_ranker.retrieval.vectors import Tower

    source = Path(source)
    if not source.is_dir():
        raise CheckpointError(f"{source}: no folder; --tower needs the folder of a trained or exported tower")
    size = Tower.open(source).vectors(["."]).shape[1]
    make_folder(index)
    with new_folder(index / TOWER, replace=True) as target:
        shutil.copytree(source, target, dirs_exist_ok=True)
    return Copied(TowerCopy(TOWER, content_digest(index / TOWER)), size)


def require_tower(collection: Collection, tower: Optional[str]) -> None:
    """Raise `UsageError` if a tower is named that is not the index's own."""
    if tower is None:
        return
    own, given = collection.info.tower, content_digest(Path(tower)) if Path(tower).is_dir() else "no folder"
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
