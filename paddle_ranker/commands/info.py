"""Describe a folder: its model's kind, inputs and outputs, training, export and quantization.

paddle-ranker info checkpoint/best
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from paddle_ranker.errors import listed
from paddle_ranker.options import Options, main_of, option

if TYPE_CHECKING:
    from paddle_ranker.model.config import EncoderConfig
    from paddle_ranker.model.opened import ModelInfo

Fact = tuple[str, str]  # a name and a value


@dataclass(frozen=True)
class InfoOptions(Options):
    """Options of `info`."""

    model: Path = option(help="a folder, or a parameter file; or a model's name", leads=True)  # noqa: RUF009


def run(options: InfoOptions) -> None:
    """Print a description of a folder, without loading Paddle or the model."""
    from paddle_ranker.model.pretrained import find_model
    from paddle_ranker.model.recognised import recognise

    path = find_model(options.model)
    found = recognise(path.parent if path.is_file() else path)
    if path.is_file() and not found.name:  # Files beside a file that belongs to no model say nothing about it.
        found = recognise(path)
    print(f"{options.model}: {found.what}; {found.use}")
    for name, text in facts_of(path):
        print(f"{name}: {text}")


def facts_of(path: Path) -> Iterator[Fact]:
    """Yield the facts that the files of a folder, or beside a parameter file, state; the model is not loaded.

    Raises `CheckpointError` if one of them is damaged.
    """
    from paddle_ranker.model.families import read_config
    from paddle_ranker.model.hugging_face.folder import find_encoder
    from paddle_ranker.model.kinds import KINDS, stated_kind

    folder = path.parent if path.is_file() else path
    kind = KINDS[name] if (name := stated_kind(path)) is not None else None
    info = kind.read_info(folder) if kind is not None else None
    if kind is None or info is None:
        encoder = find_encoder(folder) if folder.is_dir() else None
        config = read_config(folder) if encoder is None else None
        if encoder is not None:
            yield from _transformers_facts(folder, encoder)
        elif config is not None:
            yield _encoder_fact(config)
        return
    yield "kind", info.kind
    for title, arrays in (("takes", kind.signature(info).inputs), ("returns", kind.signature(info).outputs)):
        shown = (f"{array.name} {array.dtype} [{', '.join(map(_size, array.shape))}]" for array in arrays)
        yield title, ", ".join(shown)
    for config in kind.configs(folder, info):
        yield _encoder_fact(config)
    yield from _info_facts(info)


def _transformers_facts(folder: Path, encoder: Path) -> Iterator[Fact]:
    from paddle_ranker.model.hugging_face.folder import read_encoder_config, stated_head
    from paddle_ranker.model.hugging_face.library_tokenizer import stated_length
    from paddle_ranker.model.hugging_face.sentences import stated_info

    config = read_encoder_config(encoder / "config.json")
    yield _encoder_fact(config)
    head = stated_head(folder)
    if head is not None:
        count = len(head.labels)
        use = {1: "class, a logit", 2: f"classes ({listed(head.labels)}), folded into a logit"}.get(
            count, f"classes ({listed(head.labels)}), no ranker's; it is left out"
        )
        yield "head", f"{count} {use}"
    vectors = stated_info(folder)
    if vectors is not None:
        yield "vectors", f"{vectors.size} numbers, pooling {vectors.pooling}, compared by {vectors.similarity}"
    yield "max_seq_length", str(min(stated_length(encoder), config.longest_pair))


def _encoder_fact(config: EncoderConfig) -> Fact:
    size = f"{config.num_hidden_layers} layers, {config.hidden_size} wide, {config.vocab_size:,} word pieces"
    return "encoder", f"{config.model_type}, {size}"


def _size(size: Optional[int]) -> str:
    return "any" if size is None else str(size)


def _shown(value: object) -> str:
    """Return a fact as text; "" for an empty value."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type) and type(value).__str__ is object.__str__:
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {json.dumps(one, ensure_ascii=False)}" for key, one in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else "" if value is None else str(value)


def _info_facts(info: ModelInfo) -> Iterator[Fact]:
    """Yield each fact that the folder's info states beside its kind; how it came about is last."""
    names = [one.name for one in dataclasses.fields(info) if one.name not in ("kind", "format_version", "export")]
    for name in sorted(names, key=lambda name: name in ("results", "training", "versions")):
        text = _shown(getattr(info, name))
        if text:
            yield name, text
    export: Any = info.export
    if export is not None:
        sizes = ", ".join(f"{name} ({size / 1e6:.1f} MB)" for name, size in export["files"].items())
        yield f"exported with Paddle {export['paddle']}", sizes
        parities = export["parity"]
        if not all(isinstance(parity, dict) for parity in parities.values()):  # the first exports of posts' models
            parities = {"paddle_inference": parities}
        for engine, parity in parities.items():
            yield f"parity, {engine}", ", ".join(f"{name} {value:.2g}" for name, value in parity.items())
        if export.get("int8"):
            for row in export["int8"]["quality"]:
                before_and_after = f"{row['before']:.4f} before, {row['after']:.4f} after"
                yield f"int8, {row['engine']}", f"{row['measure']} {before_and_after}"


main = main_of(run, InfoOptions, __doc__)
