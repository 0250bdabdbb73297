"""Families of encoders by `model_type`: their configurations in model folders, their tokenizers and pair encoders.

Each family is a file of `encoders/`, with its configuration, its parameters' names both ways, what it takes of foreign
settings, and the name of its network; `FAMILIES` has them all. docs/architecture.md lists the few facts of a family
that stand elsewhere.

Importing this module does not import Paddle, since servers without Paddle create pair encoders with it.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Optional

from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.encoding.tokenizers.interface import ModelTokenizer
from paddle_ranker.encoding.tokenizers.tokenizer_folder import read_tokenizer
from paddle_ranker.errors import CheckpointError, quoted
from paddle_ranker.model.config import EncoderConfig, require_tokenizer_fits
from paddle_ranker.model.encoders.family import BERT as BERT
from paddle_ranker.model.encoders.family import FAMILIES as FAMILIES
from paddle_ranker.model.encoders.family import EncoderFamily
from paddle_ranker.storage.atomic import write_json
from paddle_ranker.storage.untrusted import UncheckedObject, read_json

# Before others whose classes' names begin with theirs.
for _module in (
    "bert", "longformer", "big_bird", "electra", "mpnet", "distilbert", "deberta", "modernbert", "qwen3",
):  # fmt: skip
    import_module(f"paddle_ranker.model.encoders.{_module}")


def family_of(model_type: object) -> EncoderFamily:
    """Return the family of a `model_type`; the BERT family for an unknown type."""
    return FAMILIES[model_type] if isinstance(model_type, str) and model_type in FAMILIES else BERT


def config_from(values: UncheckedObject) -> EncoderConfig:
    """Create the configuration of any family from a parsed `config.json`, see `EncoderConfig.from_dict`."""
    return family_of(values.get("model_type")).config.from_dict(values)


def read_config(folder: Path) -> Optional[EncoderConfig]:
    """Read the configuration in a model folder (`config.json`, else `model_config.json`); None if there is neither.

    Raises `CheckpointError` if the file is unusable.
    """
    for name in ("config.json", "model_config.json"):
        path = folder / name
        if path.is_file():
            try:
                values = read_json(path)
                return config_from(_flatten(values))
            except (ValueError, TypeError, AttributeError, CheckpointError) as error:
                raise CheckpointError(f"{path}: not a usable encoder configuration ({error})") from error
    return None


def require_config(folder: Path) -> EncoderConfig:
    """Read the configuration in a model folder; raises `CheckpointError` if it has none."""
    config = read_config(folder)
    if config is None:
        raise CheckpointError(f"{folder}: has no config.json; copy the folder again, or export it again")
    return config


def _flatten(values: UncheckedObject) -> UncheckedObject:
    """Flatten PaddleNLP 2's `model_config.json`, whose `init_args` nest the values.

    A missing `model_type` is derived from the name of the model's class.
    """
    named, parts = values.get("architectures"), values.get("init_args") or []
    named = [] if named is None else named
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise CheckpointError(f"architectures is {quoted(named)}, expected the names of classes")
    architecture = str(values.get("init_class") or (named or [""])[0])
    flat: UncheckedObject = {}
    for part in parts:
        if isinstance(part, dict):
            flat.update(_flatten(part))
    flat.update({name: value for name, value in values.items() if name not in ("init_args", "init_class")})
    if "model_type" not in flat:
        FAMILIES.load_plugins()
        names = [name for name, family in FAMILIES.items() if architecture.startswith(family.classes)]
        if names:
            flat["model_type"] = names[0]
    return flat


def write_config(folder: Path, config: EncoderConfig) -> None:
    """Write `config.json` into an existing folder; call it inside `atomic.new_folder`.

    PaddleNLP's `AutoModel` can read it as the configuration of the encoder alone.
    """
    values = {**asdict(config), "architectures": [f"{family_of(config.model_type).classes}Model"]}
    write_json(folder / "config.json", values)


def known_to_transformers() -> list[str]:
    """Return the model types whose transformers folders this toolkit reads."""
    FAMILIES.load_plugins()
    return [name for name, family in FAMILIES.items() if family.architecture is not None]


def pair_encoder_of(
    files: ModelTokenizer, config: EncoderConfig, max_seq_length: int, query_prompt: str = ""
) -> PairEncoder:
    """Create a pair encoder for a tokenizer and a configuration, with its family's template.

    query_prompt: text before every query of a pair

    Raises `CheckpointError` if the model has too few positions for `max_seq_length`, or the tokenizer does not fit it.
    """
    if max_seq_length > config.longest_pair:
        raise CheckpointError(
            f"max_seq_length {max_seq_length} is above the {config.longest_pair} positions of this model"
        )
    encoder = family_of(config.model_type).pair_encoder(files, max_seq_length, config)
    require_tokenizer_fits(encoder.vocab_size, encoder.pad_id, config, files.may_fall_short)
    return encoder.with_query_prompt(query_prompt)


def brought_tokenizer(folder: Path, family: EncoderFamily) -> ModelTokenizer:
    """Read a transformers folder's tokenizer, converted by its family; raises `CheckpointError` if unusable."""
    with tempfile.TemporaryDirectory() as temporary:
        family.bring_tokenizer(folder, Path(temporary))
        return read_tokenizer(Path(temporary))
