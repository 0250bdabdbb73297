"""The shapes of encoders to train: those of ERNIE 3.0 by name, or a configuration file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from paddle_ranker.errors import CheckpointError, UsageError, did_you_mean
from paddle_ranker.model.config import EncoderConfig

# Layers and width; twelve heads, and a feed-forward of four times the width.
SHAPES = {"nano": (4, 312), "micro": (4, 384), "mini": (6, 384), "medium": (6, 768), "base": (12, 768)}
POSITIONS = 512


def config_named(name: str, vocab_size: int, pad_id: int, model_type: str) -> EncoderConfig:
    """Return the configuration of a shape of `SHAPES`, or of a file `*.json` with fields of `config.json`.

    The vocabulary's size and the padding's id are the tokenizer's; `model_type` is the file's, where it says one.

    Raises `UsageError` for an unknown name, `CheckpointError` for a file that is no configuration.
    """
    if name in SHAPES:
        layers, size = SHAPES[name]
        config = EncoderConfig(
            vocab_size=vocab_size,
            hidden_size=size,
            num_hidden_layers=layers,
            intermediate_size=4 * size,
            max_position_embeddings=POSITIONS,
        )
        return dataclasses.replace(config, pad_token_id=pad_id, model_type=model_type)
    path = Path(name)
    if not path.is_file():
        hint = did_you_mean(name, list(SHAPES))
        raise UsageError(f"--config {name}: choose from {', '.join(SHAPES)}, or name a JSON file that is there{hint}")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        known = {field.name for field in dataclasses.fields(EncoderConfig)} | {"architectures"}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"unknown {', '.join(unknown[:3])}")
        described = {"model_type": model_type, **values, "vocab_size": vocab_size, "pad_token_id": pad_id}
        return EncoderConfig.from_dict(described)
    except (ValueError, TypeError, AttributeError, ZeroDivisionError, CheckpointError) as error:
        raise CheckpointError(f"{path}: not a usable configuration ({error})") from error
