"""Describe a folder: its model's kind, inputs and outputs, training, export and quantization.

paddle-ranker info checkpoint/best
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from paddle_ranker.errors import CheckpointError, listed
from paddle_ranker.model.model_options import TokenizerOptions
from paddle_ranker.options import main_of, option
from paddle_ranker.options.declare import FETCHED_FOLDER

if TYPE_CHECKING:
    from paddle_ranker.model.config import EncoderConfig
    from paddle_ranker.model.model_folder import FolderType
    from paddle_ranker.model.model_kind import ModelInfo

Fact = tuple[str, str]  # a name and a value


@dataclass(frozen=True)
class InfoOptions(TokenizerOptions):
    model: Path = option(help="a folder, or a parameter file; or a model's name", leads=True, addresses=FETCHED_FOLDER)  # noqa: RUF009


def run(options: InfoOptions) -> None:
    """Print a description of a folder, without loading Paddle or the model."""
    from paddle_ranker.model.foreign.foreign_files import require_static
    from paddle_ranker.model.model_folder import find_with_tokenizer, identify

    require_static(options.model_name_or_path, options.model)
    folder_type = identify(find_with_tokenizer(options.model, options.model_name_or_path))
    print(f"{options.model}: {folder_type.what}; {folder_type.use}")
    for name, text in facts_of(folder_type):
        print(f"{name}: {text}")


def facts_of(model: FolderType) -> Iterator[Fact]:
    """Yield the facts in a model's files, without loading the model; raises `CheckpointError` if a file is damaged."""
    from paddle_ranker.model.families import read_config
    from paddle_ranker.model.hugging_face.adapter_folders import adapter_of
    from paddle_ranker.model.hugging_face.folder import encoder_config, stated_head
    from paddle_ranker.model.hugging_face.library_tokenizer import stated_length
    from paddle_ranker.model.model_kind import TRANSFORMERS

    kind, info = model.kind, model.info
    adapter = adapter_of(model.folder)
    if adapter is not None:
        yield "adapter", adapter.described()
    if model.form == TRANSFORMERS:
        head = stated_head(model.folder)
        if head is not None:
            yield "head", _head(head.labels)
    if kind is not None and info is not None:
        yield "kind", info.kind
        signature = kind.signature(info)
        for title, arrays in (("takes", signature.inputs), ("returns", signature.outputs)):
            shown = (f"{array.name} {array.dtype} [{', '.join(map(_size, array.shape))}]" for array in arrays)
            yield title, ", ".join(shown)
        for config in kind.configs(model.folder, info):
            yield _encoder_fact(config)
        yield from _info_facts(info)
    elif model.form == TRANSFORMERS:
        config = encoder_config(model.folder)
        yield _encoder_fact(config)
        yield "max_seq_length", str(min(stated_length(model.folder), config.longest_pair))
    elif model.form and (plain_config := read_config(model.folder)) is not None:
        yield _encoder_fact(plain_config)
    yield from _markers(model.folder)


def _markers(folder: Path) -> Iterator[Fact]:
    """Yield how special tokens in texts are read, if the model's folder has a tokenizer."""
    from paddle_ranker.model.hugging_face.folder import folder_tokenizer

    with suppress(CheckpointError):
        files = folder_tokenizer(folder)
        option = "paddle-ranker convert MODEL NEW --special_tokens_in_texts gives them their ids"
        how = "get their ids:" if files.special_tokens_in_texts else f"are plain text ({option}):"
        common = {files.special_tokens.get(role) for role in ("pad_token", "unk_token")}
        yield "special tokens in texts", f"{how} {listed(token for token in files.markers if token not in common)}"


def _head(labels: Sequence[str]) -> str:
    names = listed(labels)
    use = {1: "class, a logit", 2: f"classes ({names}), folded into a logit"}
    other = f"classes ({names}), no ranker's; it is left out"
    return f"{len(labels)} {use.get(len(labels), other)}"


def _encoder_fact(config: EncoderConfig) -> Fact:
    return "encoder", describe_encoder(config)


def describe_encoder(config: EncoderConfig) -> str:
    """Return an encoder's model type and sizes, as text."""
    words = f", {config.vocab_size:,} word pieces" if config.vocab_size else ""
    return f"{config.model_type}, {config.num_hidden_layers} layers, {config.hidden_size} wide{words}"


def _size(size: Optional[int]) -> str:
    return "any" if size is None else str(size)


def _shown(value: object) -> str:
    """Return a fact as text; "" for an empty value."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type) and type(value).__str__ is object.__str__:
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {json.dumps(item, ensure_ascii=False)}" for key, item in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else "" if value is None else str(value)


def _info_facts(info: ModelInfo) -> Iterator[Fact]:
    """Yield each fact in a model folder's info file except the model's kind; facts about its training come last."""
    names = [field.name for field in dataclasses.fields(info) if field.name not in ("kind", "format_version", "export")]
    for name in sorted(names, key=lambda name: name in ("results", "training", "versions")):
        text = _shown(getattr(info, name))
        if text:
            yield name, text
    export: Any = info.export
    if export is not None:
        sizes = ", ".join(f"{name} ({size / 1e6:.1f} MB)" for name, size in export["files"].items())
        yield f"exported with Paddle {export['paddle']}" if "paddle" in export else "made by another program", sizes
        for engine, parity in export["parity"].items():
            yield f"parity, {engine}", ", ".join(f"{name} {value:.2g}" for name, value in parity.items())
        if export.get("int8"):
            for row in export["int8"]["quality"]:
                before_and_after = f"{row['before']:.4f} before, {row['after']:.4f} after"
                yield f"int8, {row['engine']}", f"{row['measure']} {before_and_after}"


main = main_of(run, InfoOptions, __doc__)
