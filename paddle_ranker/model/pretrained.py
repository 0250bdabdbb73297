"""Find the folder of a model by its path or name.

The order is: a local path; a name of the Hugging Face hub, `owner/model`, which is fetched into the hub's cache; a
PaddleNLP name, which is fetched once.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

from paddle_ranker.encoding.tokenizers.tokenizer_folder import CONFIG_FILE
from paddle_ranker.errors import CheckpointError, DependencyError, RankerError, UsageError, quoted
from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.families import write_config
from paddle_ranker.model.parameters import PARAMETERS_FILE, load_arrays
from paddle_ranker.storage.atomic import cache_folder, made_once, make_folder, new_file
from paddle_ranker.storage.untrusted import UncheckedObject

_PADDLENLP_OWNERS = ("uer/chinese-roberta-",)  # names of PaddleNLP that contain a "/"


def resolve_model(name_or_path: str) -> Path:
    """Return the local path of a model: a folder or a parameter file. A named model is fetched once.

    For a published model of pictures or sounds, the result is the folder of the model's towers in the cache.

    Raises `CheckpointError` for an unknown name, and if a model cannot be fetched; without a network, within seconds.
    Raises `DependencyError` if fetching a named model needs a package that is missing.
    """
    path = find_model(name_or_path)
    if path.exists():
        from paddle_ranker.model.hugging_face.published_towers import as_towers

        return as_towers(path)
    if path.is_absolute() or name_or_path.startswith(".") or path.parent != Path():
        raise CheckpointError(f"{name_or_path}: there is no such model folder")
    return _paddlenlp_folder(name_or_path)


def find_model(name_or_path: Union[str, Path]) -> Path:
    """Return the local folder of a model named `owner/model`; a missing model is fetched. Return other paths unchanged.

    Raises `CheckpointError` if the model cannot be fetched (within some two seconds without a network), `UsageError` if
    `name_or_path` is neither text nor a path.
    """
    if not isinstance(name_or_path, (str, os.PathLike)):
        raise UsageError(f"the model is {quoted(name_or_path)}: expected the path of its folder")
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
    if "@" not in text and path.parent.exists():  # probably a misspelt path, not a name
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
    """Return the URLs where PaddleNLP publishes the model's parameters and vocabulary, by file name."""
    published = published_model(name)
    if published.parameters is None or published.vocabulary is None:
        raise CheckpointError(
            f"{quoted(name)}: PaddleNLP knows the model but not where its parameters are; give a local folder"
        )
    return {PARAMETERS_FILE: published.parameters, "vocab.txt": published.vocabulary}


def _fetch_model(name: str, folder: Path) -> None:
    from paddle_ranker.storage.download import fetch, forget

    model = published_model(name)  # an unknown name ends here
    # Beside the folder, so that an interrupted download keeps the files that have arrived.
    parts = make_folder(folder.with_name(f".{folder.name}.parts"))
    for file, address in _addresses(name).items():
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
        (parts / PARAMETERS_FILE).unlink()  # damaged in transit: the next call fetches it again
        raise
    write_config(parts, model.config)
    if model.tokenizer:  # such as `do_lower_case`
        with new_file(parts / CONFIG_FILE) as stream:
            stream.write(json.dumps(model.tokenizer) + "\n")
    parts.rename(folder)


def _paddlenlp_copy(name: str, file: str, address: str) -> Optional[Path]:
    """Return the path of a model's file in PaddleNLP's cache, or None.

    address: URL of the file
    """
    folder = Path(os.environ.get("PPNLP_HOME") or Path.home() / ".paddlenlp") / "models" / name
    for candidate in (folder / file, folder / address.rsplit("/", 1)[-1]):
        if candidate.is_file():
            return candidate
    return None


@dataclass(frozen=True)
class Published:
    """Model that PaddleNLP publishes under a name: configuration, URLs of files, tokenizer's settings."""

    config: EncoderConfig
    parameters: Optional[str]  # URL; None if PaddleNLP has none
    vocabulary: Optional[str]
    tokenizer: UncheckedObject


def published_model(name: str) -> Published:
    """Look up a model in PaddleNLP's built-in tables; needs PaddleNLP, but no network.

    Raises `CheckpointError` unless the name is of an ERNIE, ERNIE-Gram or BERT model of PaddleNLP, `DependencyError` if
    PaddleNLP is missing.
    """
    try:
        from paddlenlp.transformers import BertTokenizer, ErnieGramTokenizer, ErnieTokenizer
        from paddlenlp.transformers.bert import configuration as bert
        from paddlenlp.transformers.ernie import configuration as ernie
        from paddlenlp.transformers.ernie_gram import configuration as gram
    except ImportError as error:
        raise DependencyError(
            f"{quoted(name)} is no local folder, and PaddleNLP's names need PaddleNLP ({error}): pip install "
            "'paddle-ranker[paddlenlp]', or give a folder or a name of the Hugging Face hub with its owner, OWNER/MODEL"
        ) from error

    for model_type, configurations, files, tokenizer in (
        ("ernie", ernie.ERNIE_PRETRAINED_INIT_CONFIGURATION, ernie.ERNIE_PRETRAINED_RESOURCE_FILES_MAP, ErnieTokenizer),
        (
            "ernie_gram",
            gram.ERNIE_GRAM_PRETRAINED_INIT_CONFIGURATION,
            gram.ERNIE_GRAM_PRETRAINED_RESOURCE_FILES_MAP,
            ErnieGramTokenizer,
        ),
        ("bert", bert.BERT_PRETRAINED_INIT_CONFIGURATION, bert.BERT_PRETRAINED_RESOURCE_FILES_MAP, BertTokenizer),
    ):
        if name in configurations:
            return Published(
                EncoderConfig.from_dict({**configurations[name], "model_type": model_type}),
                files["model_state"].get(name),
                tokenizer.pretrained_resource_files_map["vocab_file"].get(name),
                dict(tokenizer.pretrained_init_configuration.get(name) or {}),
            )
    raise CheckpointError(
        f"{quoted(name)} is neither a local folder nor a model name that is read here: those of PaddleNLP's ERNIE, "
        "ERNIE-Gram and BERT models are (for example ernie-3.0-medium-zh or bert-base-chinese). Check the spelling, or "
        "give the path of a model folder, or a name of the Hugging Face hub with its owner, BAAI/bge-reranker-base say"
    )
