"""Find the folder of a model that a user names: a local folder, or a PaddleNLP model that is fetched once."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Optional

from paddle_ranker.encoding.tokenizers.folder import CONFIG_FILE
from paddle_ranker.errors import CheckpointError, RankerError, quoted
from paddle_ranker.model.config import published_model, write_config
from paddle_ranker.model.parameters import PARAMETERS_FILE, load_arrays
from paddle_ranker.storage.atomic import cache_folder, made_once, make_folder, new_file


def resolve_model(name_or_path: str) -> Path:
    """Return the local path of `name_or_path`: a folder, a parameter file, or a PaddleNLP name, which is fetched once.

    Raises `CheckpointError` if it is none of these, or cannot be fetched (within seconds without a network).
    """
    path = Path(name_or_path)
    if path.exists():
        return path
    if path.is_absolute() or name_or_path.startswith(".") or (path.parent != Path() and not _is_name(name_or_path)):
        raise CheckpointError(f"{name_or_path}: there is no such model folder")
    folder = cache_folder("models", name_or_path)
    if not folder.is_dir():
        with made_once(folder) as missing:
            if missing:
                _fetch_model(name_or_path, folder)
    return folder


def _is_name(name: str) -> bool:
    """Return whether a text with a "/" in it is PaddleNLP's name of a model, as in uer/chinese-roberta-base."""
    if name.count("/") != 1 or Path(name).parent.exists():
        return False
    try:
        published_model(name)
    except CheckpointError:
        return False
    return True


def _addresses(name: str) -> dict[str, str]:
    """Return a dict from file name to the URL where PaddleNLP publishes the model's parameters and vocabulary."""
    published = published_model(name)
    if published.parameters is None or published.vocabulary is None:
        raise CheckpointError(
            f"{quoted(name)}: PaddleNLP knows the model but not where its parameters are; give a local folder"
        )
    return {PARAMETERS_FILE: published.parameters, "vocab.txt": published.vocabulary}


def _fetch_model(name: str, folder: Path) -> None:
    from paddle_ranker.storage.download import fetch, forget

    model = published_model(name)  # an unknown name ends here
    # Beside the folder and not in it: what has arrived outlives an interrupted download.
    parts = make_folder(folder.with_name(f".{folder.name}.parts"))
    for file, address in _addresses(name).items():
        if (parts / file).exists():
            continue
        known = _paddlenlp_copy(name, file, address)
        if known is not None:
            with new_file(parts / file, "wb") as stream:
                stream.write(known.read_bytes())
            continue
        try:
            fetch(address, parts / f"{file}.part")
        except RankerError as error:
            raise CheckpointError(
                f"{name} is not on this machine and could not be fetched ({error}): give --model a "
                "local folder that holds model_state.pdparams, config.json and vocab.txt, or make a small "
                "encoder offline with: paddle-ranker starter --corpus YOUR_FILE"
            ) from error
        (parts / f"{file}.part").rename(parts / file)
        forget(parts / f"{file}.part")
    try:
        load_arrays(parts / PARAMETERS_FILE)
    except CheckpointError:
        (parts / PARAMETERS_FILE).unlink()  # damaged on its way: the next call fetches it anew
        raise
    write_config(parts, model.config)
    if model.tokenizer:  # whether upper case becomes lower case
        with new_file(parts / CONFIG_FILE) as stream:
            stream.write(json.dumps(model.tokenizer) + "\n")
    parts.rename(folder)


def _paddlenlp_copy(name: str, file: str, address: str) -> Optional[Path]:
    """Return the file's path in PaddleNLP's own cache; None if it is not there."""
    folder = Path(os.environ.get("PPNLP_HOME") or Path.home() / ".paddlenlp") / "models" / name
    for candidate in (folder / file, folder / address.rsplit("/", 1)[-1]):
        if candidate.is_file():
            return candidate
    return None
