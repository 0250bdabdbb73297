"""Architectures of transformers, by `model_type`: names of parameters and classes, and configurations both ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from paddle_ranker.errors import CheckpointError, quoted
from paddle_ranker.model.config import EncoderConfig, ModernBertConfig
from paddle_ranker.model.hugging_face.names import DEBERTA, ELECTRA, MODERNBERT, ROBERTA, Names, bert_names
from paddle_ranker.registry import Registry
from paddle_ranker.storage.untrusted import UncheckedObject

# Functions that both sides have: transformers' name -> ours. `gelu` is x * Phi(x), by erf; `gelu_new` by tanh.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_new",
    "gelu_fast": "gelu_new",
    "gelu_pytorch_tanh": "gelu_new",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}
_WRITTEN = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "max_position_embeddings",
    "type_vocab_size",
    "initializer_range",
    "layer_norm_eps",
    "pad_token_id",
)
Values = UncheckedObject
Reads = Callable[[Values, Path], Values]
Writes = Callable[[EncoderConfig], Values]


@dataclass(frozen=True)
class Architecture:
    """What transformers calls an architecture's parameters and classes, and how its `config.json` is read and written.

    classes: how the names of its classes begin
    read: returns a configuration under the names of `EncoderConfig`; raises `CheckpointError` for what is not done here
    written: returns a configuration under transformers' names
    """

    names: Names
    classes: str
    read: Reads
    written: Writes


def _refuse(values: Values, path: Path, **expected: object) -> None:
    for name, value in expected.items():
        if values.get(name) not in (None, value):
            raise CheckpointError(f"{path}: {name} is {quoted(values[name])}; only {quoted(value)} is done here")


def activation(values: Values, name: str, path: Path) -> str:
    """Return our name for the activation at `values[name]`, gelu if unsaid; `CheckpointError` for one we lack."""
    stated = values.get(name, "gelu")
    if not isinstance(stated, str) or stated not in ACTIVATIONS:
        raise CheckpointError(
            f"{path}: {name} is {quoted(stated)}, which is not done here; known: {', '.join(ACTIVATIONS)}"
        )
    return ACTIVATIONS[stated]


def _reads(defaults: Mapping[str, object] = {}, narrow: bool = False) -> Reads:
    """Return the reader of a BERT-like configuration; `narrow`: embeddings may be narrower than the layers."""

    def read(values: Values, path: Path) -> Values:
        _refuse(values, path, position_embedding_type="absolute", is_decoder=False, add_cross_attention=False)
        if not narrow:
            _refuse(values, path, embedding_size=values.get("hidden_size"))
        return {**defaults, **values, "hidden_act": activation(values, "hidden_act", path)}

    return read


def _written(*more: str) -> Writes:
    def written(config: EncoderConfig) -> Values:
        values = {name: getattr(config, name) for name in (*_WRITTEN, *more)}
        return {**values, "position_embedding_type": "absolute"}

    return written


_MODERN = {  # transformers' names -> ours
    "hidden_activation": "hidden_act",
    "norm_eps": "layer_norm_eps",
    "mlp_dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
}
_THETAS = {"full_attention": "global_rope_theta", "sliding_attention": "local_rope_theta"}


def _read_modern(values: Values, path: Path) -> Values:
    found = {"pad_token_id": 50283, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, **values}
    found.update((ours, values[theirs]) for theirs, ours in _MODERN.items() if theirs in values)
    found["hidden_act"] = activation(values, "hidden_activation", path)
    found["classifier_activation"] = activation(values, "classifier_activation", path)
    for kind, rotary in (values.get("rope_parameters") or {}).items():  # since transformers 5
        if kind not in _THETAS or not isinstance(rotary, dict) or rotary.get("rope_type", "default") != "default":
            raise CheckpointError(f"{path}: rope_parameters are {quoted(rotary)}; only the default ones are done here")
        found[_THETAS[kind]] = rotary.get("rope_theta", found.get(_THETAS[kind]))
    _refuse(values, path, rope_scaling=None)
    if values.get("layer_types"):
        kinds = list(values["layer_types"])
        every = next((n for n in range(1, len(kinds)) if kinds[n] == "full_attention"), len(kinds))
        pattern = ["sliding_attention" if number % every else "full_attention" for number in range(len(kinds))]
        if kinds != pattern:
            raise CheckpointError(f"{path}: layer_types are {quoted(kinds)}: full attention in every n-th is done here")
        found["global_attn_every_n_layers"] = every
    _refuse(found, path, classifier_pooling=found.get("classifier_pooling") if _is_pooling(found) else "cls or mean")
    return {name: value for name, value in found.items() if value is not None}


def _is_pooling(values: Values) -> bool:
    return values.get("classifier_pooling", "cls") in ("cls", "mean")


def _written_modern(config: EncoderConfig) -> Values:
    assert isinstance(config, ModernBertConfig)
    values = {name: getattr(config, name) for name in _WRITTEN if name not in ("type_vocab_size", *_MODERN.values())}
    values.update((theirs, getattr(config, ours)) for theirs, ours in _MODERN.items())
    same = (
        "global_attn_every_n_layers",
        "local_attention",
        "global_rope_theta",
        "local_rope_theta",
        "norm_bias",
        "attention_bias",
        "mlp_bias",
        "classifier_bias",
        "classifier_activation",
        "classifier_pooling",
    )
    return {**values, **{name: getattr(config, name) for name in same}}


def _read_deberta(values: Values, path: Path) -> Values:
    size, heads = values.get("hidden_size"), values.get("num_attention_heads")
    usual = size // heads if isinstance(size, int) and isinstance(heads, int) and heads > 0 else None
    _refuse(values, path, is_decoder=False, talking_head=False, attention_head_size=usual)
    stated = str(values.get("norm_rel_ebd", "none")).lower()
    if stated not in ("none", "layer_norm"):
        raise CheckpointError(f"{path}: norm_rel_ebd is {quoted(stated)}; only none and layer_norm are done here")
    found = {**values, "norm_rel_ebd": stated, "hidden_act": activation(values, "hidden_act", path)}
    found["pooler_hidden_act"] = activation(values, "pooler_hidden_act", path)
    found["conv_act"] = activation({"conv_act": "tanh", **values}, "conv_act", path)
    return found


def _written_deberta(config: EncoderConfig) -> Values:
    same = (
        "relative_attention",
        "max_relative_positions",
        "position_buckets",
        "norm_rel_ebd",
        "share_att_key",
        "position_biased_input",
        "conv_kernel_size",
        "conv_act",
        "conv_groups",
        "pooler_hidden_act",
    )
    values = {name: getattr(config, name) for name in (*_WRITTEN, *same)}
    size = getattr(config, "embedding_size", 0)
    narrow = {"embedding_size": size} if size else {}
    return {**values, "pos_att_type": list(getattr(config, "pos_att_type", ())), **narrow}


ARCHITECTURES: Registry[Architecture] = Registry("architecture of transformers")
_ROBERTA_PAD = {"pad_token_id": 1}  # of configurations that do not say
for _type, _architecture in {
    "bert": Architecture(bert_names("bert"), "Bert", _reads(), _written()),
    "ernie": Architecture(bert_names("ernie"), "Ernie", _reads(), _written("use_task_id", "task_type_vocab_size")),
    "roberta": Architecture(ROBERTA, "Roberta", _reads(_ROBERTA_PAD), _written()),
    "camembert": Architecture(ROBERTA, "Camembert", _reads(_ROBERTA_PAD), _written()),
    "xlm-roberta": Architecture(ROBERTA, "XLMRoberta", _reads(_ROBERTA_PAD), _written()),
    "electra": Architecture(ELECTRA, "Electra", _reads(narrow=True), _written("embedding_size")),
    "deberta-v2": Architecture(DEBERTA, "DebertaV2", _read_deberta, _written_deberta),
    "modernbert": Architecture(MODERNBERT, "ModernBert", _read_modern, _written_modern),
}.items():
    ARCHITECTURES.add(_type, _architecture)
