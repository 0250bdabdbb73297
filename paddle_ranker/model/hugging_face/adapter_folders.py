"""Find the folder with transformers' weights, and lay an adapter and its base into one folder.

An adapter's folder has `adapter_config.json`, `adapter_model.safetensors`, and often a tokenizer; the first names the
base. The folder of both is in the cache, has links to their files, and is a model for all that reads one:

    folder/                         model.safetensors -> the base's, tokenizer.json -> the adapter's, config.json
    folder/.adapter/                adapter_config.json, adapter_model.safetensors -> the adapter's
"""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Optional

from paddle_ranker.encoding.tokenizers.tokenizer_folder import (
    ADDED_TOKENS_FILE,
    CONFIG_FILE,
    SPECIAL_TOKENS_FILE,
    TOKENIZER_FILE,
    VOCABULARY_FILE,
)
from paddle_ranker.errors import CheckpointError, quoted
from paddle_ranker.model.families import family_of
from paddle_ranker.model.hugging_face.adapters import ADAPTER_FILE, ADAPTER_WEIGHTS, MERGE, PeftAdapter
from paddle_ranker.model.hugging_face.architectures import CLASSIFIES
from paddle_ranker.model.hugging_face.chat import TEMPLATE_FILE
from paddle_ranker.model.hugging_face.library_tokenizer import (
    LENGTH_FILE,
    MODEL_FILE,
    MODULES_FILE,
    SENTENCEPIECE_FILES,
)
from paddle_ranker.model.hugging_face.weights import MERGED_FOLDER, WEIGHT_FILES, read_arrays
from paddle_ranker.storage.atomic import cache_folder, made_once, new_folder, write_json
from paddle_ranker.storage.digest import json_digest
from paddle_ranker.storage.untrusted import UncheckedObject, read_json

_FORMAT = 1  # version of the folders' form in the cache
_CONFIG = "config.json"
_VOCABULARIES = (TOKENIZER_FILE, *SENTENCEPIECE_FILES, VOCABULARY_FILE, "vocab.json")
_TOKENIZER = {*_VOCABULARIES, "merges.txt", CONFIG_FILE, SPECIAL_TOKENS_FILE, ADDED_TOKENS_FILE, TEMPLATE_FILE}
_STEPS = {MODULES_FILE, LENGTH_FILE, MODEL_FILE}  # of sentence-transformers: the adapter's folder has its own, or none


def find_encoder(folder: Path) -> Optional[Path]:
    """Return the folder with transformers' weights: that of the first sentence-transformers step, or else `folder`.

    The folder of an adapter is the one where it lies with its base, see `with_base`. Returns None if there are no such
    weights. Raises `CheckpointError` if `modules.json` is damaged, or an adapter cannot be opened.
    """
    encoder = folder
    if (folder / MODULES_FILE).is_file():
        try:
            first = read_json(folder / MODULES_FILE)[0]["path"]
        except (ValueError, LookupError, TypeError) as error:
            raise CheckpointError(f"{folder / MODULES_FILE}: damaged ({type(error).__name__}: {error})") from error
        if isinstance(first, str) and Path(first).name == first:
            encoder = folder / first
    encoder = with_base(encoder)
    return encoder if _has_weights(encoder) else None


def with_base(folder: Path) -> Path:
    """Return the folder in which an adapter lies with its base; return a folder without an adapter unchanged.

    Raises `CheckpointError` if the adapter cannot be opened, or its base is missing.
    """
    if not (folder / ADAPTER_FILE).is_file():
        return folder
    adapter = PeftAdapter.read(folder)
    base = _find_base(adapter)
    whose = {path.name for path in folder.iterdir()}
    brings_tokenizer = any(name in whose for name in _VOCABULARIES)
    left = {_CONFIG, ADAPTER_FILE, *ADAPTER_WEIGHTS, *_STEPS, *(_TOKENIZER if brings_tokenizer else ())}
    files = {path.name: path.absolute() for path in sorted(base.iterdir()) if path.is_file() and path.name not in left}
    for path in sorted(folder.iterdir()):
        is_weights = path.name in WEIGHT_FILES or path.suffix in (".safetensors", ".bin", ".pt", ".pth")
        if not is_weights and path.name not in (_CONFIG, ADAPTER_FILE, MERGED_FOLDER):
            files[path.name] = path.absolute()
    inner = {path.name: path.absolute() for path in (folder / ADAPTER_FILE, adapter.file)}
    config = base / _CONFIG
    facts = [
        _FORMAT,
        *(
            (name, str(path), path.stat().st_size, path.stat().st_mtime_ns)
            for name, path in [*files.items(), *inner.items(), (_CONFIG, config.absolute())]
        ),
    ]
    target = cache_folder("models", f"{folder.resolve().name}-{json_digest(*facts)}")
    with made_once(target) as missing:
        if missing:
            try:
                values = _configured(adapter, read_json(config))
            except (ValueError, AttributeError) as error:
                raise CheckpointError(f"{config}: damaged ({error}); copy it again") from error
            with new_folder(target) as temporary:
                (temporary / MERGED_FOLDER).mkdir()
                for place, paths in ((temporary, files), (temporary / MERGED_FOLDER, inner)):
                    for name, path in paths.items():
                        (place / name).symlink_to(path)
                write_json(temporary / _CONFIG, values)
    return target


def adapter_of(folder: Path) -> Optional[PeftAdapter]:
    """Return the adapter that is merged when a folder's weights are read; None if there is none."""
    merged = (find_encoder(folder) or folder) / MERGED_FOLDER
    return PeftAdapter.read(merged) if (merged / ADAPTER_FILE).is_file() else None


def _find_base(adapter: PeftAdapter) -> Path:
    """Return the base's folder; fetch it by its name if it is missing.

    Raises `CheckpointError` with the base's name if it cannot be found.
    """
    # By its name, since `hub` stands above: it finds encoders in what it has fetched.
    hub = import_module("paddle_ranker.model.hub")
    if not adapter.base:
        raise adapter.settings.error("names no base (base_model_name_or_path): write its folder or its name there")
    path, advice = Path(adapter.base), "write the folder where it is into base_model_name_or_path"
    if not path.is_dir():
        name = hub.HubName(adapter.base, adapter.revision) if _is_name(adapter.base) else None
        if name is None:
            raise adapter.settings.error(f"its base {quoted(adapter.base)} is not on this machine: {advice}")
        try:
            path = hub.find_cached(name) or hub.fetch_model(name)
        except CheckpointError as error:
            raise adapter.settings.error(f"its base is missing: {error}; or {advice}") from error
    is_same = path.resolve() == adapter.folder.resolve()
    if not is_same and (path / ADAPTER_FILE).is_file():
        raise adapter.settings.error(f"its base {path} is an adapter, too: {MERGE}")
    encoder = path if is_same else find_encoder(path)
    if encoder is None or not (encoder / _CONFIG).is_file() or not _has_weights(encoder):
        raise adapter.settings.error(f"its base {path} has no {_CONFIG} or no weights of transformers; {advice}")
    return encoder


def _is_name(text: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", text) is not None and ".." not in text


def _has_weights(folder: Path) -> bool:
    return any((folder / name).is_file() for name in WEIGHT_FILES)


def _configured(adapter: PeftAdapter, config: UncheckedObject) -> UncheckedObject:
    """Return a base's configuration with the class and the head of the adapter's model."""
    architecture = family_of(config.get("model_type")).architecture
    if architecture is None:
        return config
    head = next(name for name, ours in architecture.names.head.items() if ours == "classifier")
    weight = adapter.named(read_arrays(adapter.file)).get(f"{head}.weight")
    name = _class(adapter, family_of(config.get("model_type")).classes, architecture.names.task, weight is not None)
    values = {**config, **({"architectures": [name]} if name else {})}
    labels = values.get("id2label") or {"0": "", "1": ""}
    if name.endswith(CLASSIFIES) and weight is not None and weight.ndim == 2 and len(labels) != len(weight):
        values["id2label"] = {str(number): f"LABEL_{number}" for number in range(min(len(weight), 1000))}
        values.pop("num_labels", None)
    return values


def _class(adapter: PeftAdapter, classes: str, classifies: str, has_head: bool) -> str:
    """Return the name of the class that peft wraps; "" for the base's own."""
    task, mapping = adapter.settings.get("task_type"), adapter.settings.get("auto_mapping", {})
    ends = {
        "SEQ_CLS": classifies, "FEATURE_EXTRACTION": "Model", "CAUSAL_LM": "ForCausalLM",
        "TOKEN_CLS": "ForTokenClassification", "QUESTION_ANS": "ForQuestionAnswering",
    }  # fmt: skip
    stated = mapping.get("base_model_class") if isinstance(mapping, dict) else None
    if task in ends or (has_head and not stated):
        return classes + ends.get(str(task), classifies)
    return stated if isinstance(stated, str) and "Peft" not in stated else ""
