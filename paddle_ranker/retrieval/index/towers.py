"""Copies of towers in an index folder, which compute the vectors of documents and queries."""

from __future__ import annotations

import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Optional, Union

from paddle_ranker import runtime
from paddle_ranker.addresses import is_url
from paddle_ranker.encoding.columns import TEXT
from paddle_ranker.errors import CheckpointError, UsageError
from paddle_ranker.model.load_options import ON_CPU, LoadOptions
from paddle_ranker.model.model_folder import ANY_TOWER, identify, is_exported
from paddle_ranker.model.parameters import PARAMETERS_FILE
from paddle_ranker.model.pretrained import resolve_model
from paddle_ranker.model.tower import FILE_INPUTS, TowerInfo
from paddle_ranker.options import note_once
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.index.ingestion import VectorsOf
from paddle_ranker.retrieval.index.model_urls import HTTP, MODEL_SERVICES, ModelUrl, TowerSettings, lend_tower
from paddle_ranker.retrieval.stored.manifest import URL_FOLDER, VECTORS, TowerCopy
from paddle_ranker.retrieval.stored.schema import FIELD_TYPES, Field
from paddle_ranker.storage.atomic import make_folder, new_folder
from paddle_ranker.storage.digest import content_digest

TOWER_FOLDER = "tower"
MANY_TEXTS = 500  # exporting a tower is worth its time from this number of texts on


class Copied(NamedTuple):
    """Copied tower, with the number of components of its vectors."""

    copy: TowerCopy
    size: int
    reads_texts: bool = True


def copy_tower(source: Union[str, Path], index: Path, name: str = TOWER_FOLDER) -> Copied:
    """Copy a tower, or an encoder as a tower, into a new index folder.

    source: see `Tower.open`; a parameter file must have the name that its folder expects
    name: name of the copy's folder

    Raises `CheckpointError` if no tower can be opened from `source`, `UsageError` if the tower reads no texts.
    """
    from paddle_ranker.retrieval.vectors.text_vectors import Tower

    folder = _folder_of(source)
    settings = _encoder_settings(folder)
    load = ON_CPU if settings is None else replace(ON_CPU, pooling=settings.pooling, normalize=settings.normalize)
    tower = Tower.open(folder, load)
    if (reads := tower.encoder.reads) != TEXT:
        kind = FILE_INPUTS[reads].field
        raise UsageError(f"{source}: reads {reads}s: --field NAME:{kind} --field_tower NAME={source} gives it theirs")
    size = tower.vectors(["."]).shape[1]
    make_folder(index)
    with new_folder(index / name, replace=True) as target:
        shutil.copytree(folder, target, dirs_exist_ok=True)
        if settings is not None:
            settings.write(target)
    return Copied(TowerCopy(name, tower_digest(source)), size)


def copy_url_tower(url: str, index: Path, settings: TowerSettings) -> Copied:
    """Write what an index keeps of a tower behind a URL into a new index folder; the tower itself stays there."""
    parsed = ModelUrl.parse(url, "--tower")
    make_folder(index)
    with new_folder(index / URL_FOLDER, replace=True) as target:
        size = MODEL_SERVICES[HTTP].describe_tower(parsed, settings, target)
    return Copied(TowerCopy(URL_FOLDER, content_digest(index / URL_FOLDER)), size)


def copy_field_tower(field: Field, source: Union[str, Path], index: Path) -> Copied:
    """Copy the tower of a vector field into a new index folder; raises `UsageError` if towers cannot read the field."""
    kind = FIELD_TYPES[field.type]
    if kind.open_tower is None:
        raise UsageError(f"--field_tower {field.name}={source}: no tower reads fields of the type {field.type}")
    folder = f"{TOWER_FOLDER}-{field.name}"
    if kind.is_text:
        return copy_tower(source, index, folder)
    model = _folder_of(source)
    tower, reads_texts = kind.open_tower(model, ON_CPU, 1), True
    try:
        size = tower.query_vectors(["."]).shape[1]
    except UsageError:
        size, reads_texts = tower.vectors([kind.sample]).shape[1], False
    make_folder(index)
    with new_folder(index / folder, replace=True) as target:
        shutil.copytree(model, target, dirs_exist_ok=True)
    return Copied(TowerCopy(folder, tower_digest(source)), size, reads_texts)


def tower_digest(source: Union[str, Path]) -> str:
    """Return the digest of the files that an index copies from a tower: of a hub's model, of its converted copy."""
    return content_digest(_folder_of(source))


def note_export(source: str, device: str, then: str) -> None:
    """Log how to export a tower, so that it is faster on a CPU; do nothing on a GPU, or if it cannot be exported.

    then: the command that uses the exported tower
    """
    path = resolve_model(source)
    folder = path.parent if path.is_file() else path
    is_on_cpu = device == "cpu" or (device == "auto" and not runtime.cuda_devices())
    if is_on_cpu and not is_exported(folder) and isinstance(identify(folder).info, TowerInfo):
        note_once(
            f"{source}: computes many texts by its network; an exported tower is faster on a CPU: paddle-ranker export "
            f"--model {shlex.quote(source)} --output exported --onnx, then {then}"
        )


def _folder_of(source: Union[str, Path]) -> Path:
    path = resolve_model(str(source))
    found = identify(path)
    if found.is_exported:
        return found.folder  # of another program's static model, the export in the cache
    if path.is_file() and path.name != PARAMETERS_FILE:
        raise CheckpointError(f"{source}: no folder; --tower needs the folder of a tower or an encoder, or a name")
    return path.parent if path.is_file() else path


def _encoder_settings(folder: Path) -> Optional[TowerInfo]:
    """Return the tower settings that the copy of an encoder needs; None if the folder is that of a tower."""
    from paddle_ranker.model.tower_network import read_tower

    model = identify(folder)
    if isinstance(model.info, TowerInfo):
        return None
    model.require_parameters(ANY_TOWER)
    return read_tower(folder, ON_CPU)[1]


def require_tower(collection: Collection, tower: Optional[str]) -> None:
    """Raise `UsageError` unless `tower` is None, names the index's own tower, or is a URL, see `open_towers`."""
    if tower is None or is_url(tower):
        return
    tower_copy, digest = collection.info.tower, tower_digest(tower)
    if tower_copy is None or tower_copy.digest != digest:
        built = (
            "has no tower of its own" if tower_copy is None else f"was built with another tower ({tower_copy.digest})"
        )
        raise UsageError(
            f"--tower {tower} ({digest}): {collection.folder} {built}, and vectors of two towers cannot be compared; "
            "leave --tower out, or build another index"
        )


def open_towers(
    collection: Collection, options: LoadOptions, batch_size: int, url: Optional[str] = None
) -> Optional[VectorsOf]:
    """Open the index's own towers, and the ranker that computes its stored states.

    url: URL of the tower of whole documents; a path or a name is left to `require_tower`

    Returns the function that computes vectors of whole documents; None if the index has no tower for them.
    """
    lend_tower(collection, url, batch_size)
    info, models = collection.info, collection.snapshot().models
    if info.states is not None:
        models.states_ranker(info.states, replace(options, engine=None), batch_size)
    towers = {
        name: models.tower(info, name, options, batch_size)
        for name, field in info.vector_fields.items()
        if field.tower is not None
    }
    return towers[VECTORS].vectors if VECTORS in towers else None
