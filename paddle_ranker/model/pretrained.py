"""Find the folder of a model that a user names.

In this order: a local path; a name of the Hugging Face hub, `owner/model`, in the hub's cache, else fetched into it;
a PaddleNLP name, which is fetched once.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Optional, Union

from paddle_ranker.encoding.tokenizers.folder import CONFIG_FILE
from paddle_ranker.errors import CheckpointError, RankerError, quoted
from paddle_ranker.model.config import published_model, write_config
from paddle_ranker.model.parameters import PARAMETERS_FILE, load_arrays
from paddle_ranker.storage.atomic import cache_folder, made_once, make_folder, new_file

_PADDLENLP_OWNERS = ("uer/chinese-roberta-",)  # PaddleNLP's own names with a "/"


def resolve_model(name_or_path: str) -> Path:
    """Return the local path of `name_or_path`: a folder, a parameter file, or a name, whose model is fetched once.

    Raises `CheckpointError` if it is none of these, or cannot be fetched (within seconds without a network).
    """
    path = find_model(name_or_path)
    if path.exists():
        return path
    if path.is_absolute() or name_or_path.startswith(".") or path.parent != Path():
        raise CheckpointError(f"{name_or_path}: there is no such model folder")
    return _paddlenlp_folder(name_or_path)


def find_model(name_or_path: Union[str, Path]) -> Path:
    """Return the local path of a model: of a hub's name, `owner/model`, its folder in the cache; any other as it is.

    Raises `CheckpointError` if the hub's model cannot be fetched, within some two seconds without a network.
    """
    path, text = Path(name_or_path), str(name_or_path)
    if path.exists() or "/" not in text:
        return path
    from paddle_ranker.model.hub import HubName, fetch_model, find_cached

    name = HubName.parse(text)
    if name is None:
        return path
    cached = find_cached(name)
    if cached is not None:
        return cached
    if text.startswith(_PADDLENLP_OWNERS):
        return _paddlenlp_folder(text)
    if "@" not in text and path.parent.exists():  # a path was meant: nothing is looked up for a misspelt one
        return path
    return fetch_model(name)


def _paddlenlp_folder(name: str) -> Path:
    folder = cache_folder("models", name)
    if not folder.is_dir():
        with made_once(folder) as missing:
            if missing:
                _fetch_model(name, folder)
    return folder


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
