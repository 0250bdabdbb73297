"""The entry of a family of encoders, the registry of all, and what several families share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from paddle_ranker.array_types import Array
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.encoding.tokenizers.interface import ModelTokenizer
from paddle_ranker.model.checkpoint_names import name_parameters
from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.hugging_face.architectures import PLAIN, Architecture, Values, of_paddlenlp
from paddle_ranker.registry import Registry
from paddle_ranker.storage.foreign_config import ForeignConfig

if TYPE_CHECKING:
    from paddle_ranker.model.networks.bert import Encoder

Named = dict[str, Array]  # arrays by parameter name
Encodes = Callable[[ModelTokenizer, int, EncoderConfig], PairEncoder]


def of_texts(files: ModelTokenizer, max_seq_length: int, config: EncoderConfig) -> PairEncoder:
    return PairEncoder(files, max_seq_length)


@dataclass(frozen=True)
class EncoderFamily:
    """Encoders of one architecture.

    network: called with a configuration; returns an encoder (such as a subclass of `Encoder`) with random parameters.
        If the parameters come from files, it is called in a `paddle.LazyGuard`, in which parameters have no values yet
    name_parameters: called with a checkpoint's arrays by name; returns the arrays that a ranker uses, by their names in
        the network. There, names of the encoder's arrays begin with `encoder.`
    bring_tokenizer: called with a transformers folder and a new folder; writes the tokenizer into the new folder, in a
        format that `read_tokenizer` reads
    pair_encoder: called with a tokenizer, a maximum length in tokens and a configuration; returns the encoder of pairs
        and texts, with the family's template
    config: class of the family's configurations
    classes: beginning of the names of the family's classes in PaddleNLP and transformers
    architecture: names and configuration of the family in transformers; None if transformers lacks it
    """

    network: Callable[[EncoderConfig], Encoder]
    name_parameters: Callable[[Named], Named]
    bring_tokenizer: Callable[[Path, Path], object]
    pair_encoder: Encodes = of_texts
    config: type[EncoderConfig] = EncoderConfig
    classes: str = "Bert"
    architecture: Optional[Architecture] = None

    @property
    def is_causal(self) -> bool:
        """Whether a token attends only to itself and to earlier tokens, so that only the last sees the whole text."""
        return self.architecture is not None and self.architecture.answers


def network_of(module: str, name: str) -> Callable[[EncoderConfig], Encoder]:
    """Return a function that creates the network `name` of `module`, which is imported when the function is called.

    module: a module of `model/networks/`, or the full name of another
    """

    def create(config: EncoderConfig) -> Encoder:
        full = module if "." in module else f"paddle_ranker.model.networks.{module}"
        network: Encoder = getattr(import_module(full), name)(config)
        return network

    return create


def bring_tokenizer(source: Path, target: Path) -> None:
    from paddle_ranker.model.hugging_face.library_tokenizer import bring_tokenizer

    bring_tokenizer(source, target)


BERT = EncoderFamily(network_of("bert", "Encoder"), name_parameters, bring_tokenizer)  # also the base of plugins
FAMILIES: Registry[EncoderFamily] = Registry("family of encoders", recipes="kind")


def add_family(
    model_type: str,
    classes: str,
    architecture: Architecture,
    network: Callable[[EncoderConfig], Encoder] = BERT.network,
    config: type[EncoderConfig] = EncoderConfig,
    pair_encoder: Encodes = of_texts,
) -> None:
    """Add a family whose PaddleNLP classes use transformers' parameter names.

    model_type: key of the family in `FAMILIES`
    classes, architecture, network, config, pair_encoder: as in `EncoderFamily`
    """

    def named(arrays: Named) -> Named:
        return name_parameters(of_paddlenlp(arrays, architecture.names))

    family = EncoderFamily(network, named, bring_tokenizer, pair_encoder, config, classes, architecture)
    FAMILIES.add(model_type, family)


BERT_LINEAR = {
    "encoder.layer.{}.attention.self.query": "encoder.layers.{}.self_attn.q_proj",
    "encoder.layer.{}.attention.self.key": "encoder.layers.{}.self_attn.k_proj",
    "encoder.layer.{}.attention.self.value": "encoder.layers.{}.self_attn.v_proj",
    "encoder.layer.{}.attention.output.dense": "encoder.layers.{}.self_attn.out_proj",
    "encoder.layer.{}.intermediate.dense": "encoder.layers.{}.linear1",
    "encoder.layer.{}.output.dense": "encoder.layers.{}.linear2",
}
TABLES = {
    "embeddings.word_embeddings": "embeddings.word_embeddings",
    "embeddings.position_embeddings": "embeddings.position_embeddings",
    "embeddings.LayerNorm": "embeddings.layer_norm",
}
NORMS = {
    "encoder.layer.{}.attention.output.LayerNorm": "encoder.layers.{}.norm1",
    "encoder.layer.{}.output.LayerNorm": "encoder.layers.{}.norm2",
}
_TYPES = ("embeddings.token_type_embeddings", "embeddings.task_type_embeddings")
BERT_PLAIN = {**TABLES, **NORMS, **{name: name for name in _TYPES}}
POOLER = {"pooler.dense": "pooler.dense"}
# A two-layer head has a dense layer and an activation before the projection; BERT calls them the pooler.
TWO_LAYERS = {"classifier.dense": "pooler.dense", "classifier.out_proj": "classifier"}
BERT_FIELDS: Mapping[str, object] = {  # keys of BERT's config.json, with transformers' defaults
    "vocab_size": None,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}
ROBERTA_FIELDS = {**BERT_FIELDS, "pad_token_id": 1}


def added_fields(config: type[EncoderConfig]) -> dict[str, object]:
    """Return the fields that a configuration adds to `EncoderConfig`, with their defaults."""
    shared = {field.name for field in fields(EncoderConfig)}
    return {field.name: field.default for field in fields(config) if field.name not in shared}


def check_bert(settings: ForeignConfig, values: Values) -> None:
    """Raise `CheckpointError` unless a BERT has absolute positions and embeddings as wide as its layers."""
    settings.require("position_embedding_type", "absolute", remedy=PLAIN)
    settings.require("embedding_size", values["hidden_size"], remedy=PLAIN)


def head_size(size: object, heads: object) -> object:
    return size // heads if isinstance(size, int) and isinstance(heads, int) and heads > 0 else None


_OF_SCALING = """
factor original_max_position_embeddings partial_rotary_factor attention_factor beta_fast beta_slow short_factor
long_factor low_freq_factor high_freq_factor mscale mscale_all_dim truncate
"""  # keys of rotary positions that are scaled


def rotary_base(rotary: ForeignConfig, default: object) -> object:
    """Return the base of rotary positions; raises `CheckpointError` unless they are plain.

    rotary: `rope_parameters` of transformers 5, or `rope_scaling` of older files; the type had another key before 4.43
    default: the base, if it is stated elsewhere
    """
    rotary.require("rope_type" if "rope_type" in rotary else "type", "default", remedy=PLAIN)
    rotary.ignore(("type", *_OF_SCALING.split()))
    return rotary.get("rope_theta", default)


def add_own(model_type: str, module: str, name: str, config: type[EncoderConfig]) -> None:
    """Add a family whose arrays have the names of its network: readers of other programs' folders rename them.

    module, name: module and class of the network, as in `network_of`
    """
    family = EncoderFamily(network_of(module, name), _of_encoder, bring_tokenizer, config=config, classes=name)
    FAMILIES.add(model_type, family)


def _of_encoder(arrays: Named) -> Named:
    return {name: array for name, array in arrays.items() if name.startswith("encoder.")}
