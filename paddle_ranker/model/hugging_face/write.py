"""Write an encoder or a ranker as a folder that transformers loads, with equal scores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from paddle_ranker.encoding.columns import Array
from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.hugging_face.architectures import ACTIVATIONS, ARCHITECTURES
from paddle_ranker.model.hugging_face.names import to_theirs
from paddle_ranker.model.hugging_face.weights import write_weights
from paddle_ranker.model.masked_lm import HEAD
from paddle_ranker.storage.untrusted import UncheckedObject

_ERNIE_GRAM = {"ernie_gram": "ernie"}  # whose fine-tuned form is ERNIE's
_MATCH = "match_embeddings.weight"


def parameters_to_write(
    named: Mapping[str, Array], config: EncoderConfig, *, drop_match_embeddings: bool
) -> dict[str, Array]:
    """Return the parameters, named as in `RankerNetwork`, that a transformers folder of this model holds.

    Match embeddings that are all zero change no score and are dropped; others only with `drop_match_embeddings`.
    Raises `CheckpointError` for anything else that transformers does not support, such as lexical features.
    """
    model_type = _ERNIE_GRAM.get(config.model_type, config.model_type)
    needs_types = model_type in ARCHITECTURES and bool(ARCHITECTURES[model_type].fields.get("type_vocab_size"))
    for problem, is_so in (
        ("LayerNorm before each part of a layer (normalize_before)", config.normalize_before),
        ("no token types (type_vocab_size 0)", config.type_vocab_size < 1 and needs_types),
        (f"the task id {config.task_id} (task_id)", config.use_task_id and config.task_id != 0),
        (f"the activation {config.hidden_act}", config.hidden_act not in ACTIVATIONS.values()),
        (f"the model type {config.model_type}", model_type not in ARCHITECTURES),
        (f"task types in a {config.model_type} (use_task_id)", config.use_task_id and model_type != "ernie"),
    ):
        if is_so:
            raise CheckpointError(f"has {problem}, which transformers' encoders do not have: it cannot be written")
    if any(name.startswith("lexical.") for name in named):
        raise CheckpointError(
            "has lexical features at its head, which transformers has no place for: train without them "
            "(--lexical_features false, from a checkpoint that has none) to take it there"
        )
    if _MATCH in named and named[_MATCH].any() and not drop_match_embeddings:
        raise CheckpointError(
            "has trained match embeddings, which transformers' encoders do not have: use --drop_match_embeddings true "
            "to leave them out, which changes the scores, or train without them (--match_embeddings false)"
        )
    return {name: array for name, array in named.items() if name != _MATCH}


def write_model(folder: Path, named: Mapping[str, Array], config: EncoderConfig) -> str:
    """Write `config.json` and `model.safetensors` into an existing folder; return transformers' class name."""
    model_type = _ERNIE_GRAM.get(config.model_type, config.model_type)
    known = ARCHITECTURES[model_type]
    is_ranker = "head.weight" in named
    is_masked_lm = any(name.startswith(f"{HEAD}.") for name in named)
    task = "ForSequenceClassification" if is_ranker else "ForMaskedLM" if is_masked_lm else "Model"
    architecture = known.classes + task
    values: UncheckedObject = {
        "architectures": [architecture],
        "model_type": model_type,
        **known.written(config),
        "torch_dtype": "float32",
    }
    if is_ranker:
        values.update(num_labels=1, id2label={"0": "relevance"}, label2id={"relevance": 0})
    (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    write_weights(folder, to_theirs(dict(named), known.names))
    return architecture
