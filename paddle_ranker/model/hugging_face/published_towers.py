"""Open published models of pictures, of pictures and texts, and of sounds as towers; write towers as such models."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Optional

from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.encoders.family import FAMILIES
from paddle_ranker.model.hugging_face.adapter_folders import adapter_of, with_base
from paddle_ranker.model.hugging_face.library_tokenizer import MODULES_FILE
from paddle_ranker.model.tower import FILE_INPUTS, INFO_FILE, FileInput, TowerInfo
from paddle_ranker.storage.atomic import cache_folder, made_once, new_folder
from paddle_ranker.storage.digest import json_digest
from paddle_ranker.storage.untrusted import read_json

_CONFIG = "config.json"
_FORMAT = 3  # version of the folders' form in the cache


def as_towers(folder: Path) -> Path:
    """Convert a published model of pictures or sounds to towers; return their folder, which is in the user's cache.

    A model is converted once. Return any folder without such a model unchanged.
    """
    source = _published(folder) if folder.is_dir() else None
    if source is None:
        return folder
    files = sorted(path for path in {*folder.iterdir(), *source.iterdir()} if path.is_file())
    facts = [_FORMAT, *((str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files)]
    target = cache_folder("models", f"{source.resolve().name}-{json_digest(*facts)}")
    with made_once(target) as missing:
        if missing:
            with new_folder(target) as temporary:
                input_of_model = _input_of(source)
                assert input_of_model is not None
                import_module(input_of_model.published).bring_towers(folder, source, temporary)
                info, adapter = TowerInfo.read(temporary), adapter_of(source)
                if info is not None and adapter is not None:
                    training = {**info.training, "adapter": adapter.described()}
                    dataclasses.replace(info, training=training).write(temporary)
    return target


def write_published(source: Path, target: Path) -> str:
    """Write a tower, and its tower of texts if any, into a folder for transformers; return the name of the class.

    Raises `CheckpointError` for towers that no model of transformers can hold.
    """
    info = TowerInfo.read(source)
    assert info is not None
    return str(import_module(FILE_INPUTS[info.reads].published).write_published(source, target))


def _published(folder: Path) -> Optional[Path]:
    """Return the folder with a published model's files: `folder`, or that of its first sentence-transformers step.

    Returns None if neither folder has a published model of pictures or sounds.
    """
    if (folder / INFO_FILE).is_file():
        return None
    return next((path for path in map(with_base, (folder, *_first_step(folder))) if is_published(path)), None)


def is_published(folder: Path) -> bool:
    """Return whether a folder's `config.json` is that of a published model of pictures or sounds."""
    return _input_of(folder) is not None


def _input_of(folder: Path) -> Optional[FileInput]:
    """Return the input of a published model that reads files; None for any other model.

    Guests' models are loaded only for a type that no family here has.
    """
    model_type = _model_type(folder)
    if isinstance(model_type, str) and model_type not in FAMILIES:
        FILE_INPUTS.load_plugins()  # such as clip, whose networks are of other types
    return next((one for one in FILE_INPUTS.values() if model_type in one.model_types), None)


def reads_texts(folder: Path) -> bool:
    """Return whether a published model also has a tower of texts, and so a tokenizer."""
    return any(_model_type(folder) in one.with_texts for one in FILE_INPUTS.values())


def _model_type(folder: Path) -> object:
    try:
        return read_json(folder / _CONFIG).get("model_type")
    except (OSError, ValueError, AttributeError):  # the code that reads the whole file reports damage
        return None


def _first_step(folder: Path) -> Iterator[Path]:
    if (folder / MODULES_FILE).is_file():
        from paddle_ranker.model.hugging_face.sentences import list_modules

        with suppress(CheckpointError):  # the code that reads the steps reports damage
            yield from [path for _, path in list_modules(folder)][:1]
