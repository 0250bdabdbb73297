"""Families of encoders: an entry of `FAMILIES` per `model_type`, with what differs between architectures.

docs/architecture.md lists the few facts of a family that stand outside its entry.

Importing this module does not import Paddle, since servers without Paddle create pair encoders with it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from paddle_ranker.array_types import Array
from paddle_ranker.encoding.pair_encoder import InstructedPairEncoder, PairEncoder
from paddle_ranker.encoding.tokenizers.interface import ModelTokenizer
from paddle_ranker.encoding.tokenizers.tokenizer_folder import SENTENCEPIECE_FILE, TokenizerFiles, read_tokenizer
from paddle_ranker.errors import CheckpointError, quoted
from paddle_ranker.model.config import (
    BigBirdConfig,
    ConvolutionsConfig,
    DebertaConfig,
    DistilBertConfig,
    ElectraConfig,
    EncoderConfig,
    ErnieMConfig,
    LayoutLMConfig,
    LiltConfig,
    LongformerConfig,
    ModernBertConfig,
    MPNetConfig,
    PictureConfig,
    PictureTextConfig,
    Qwen3Config,
    SoundConfig,
    TapasConfig,
    ViltConfig,
    require_tokenizer_fits,
)
from paddle_ranker.model.hugging_face.architectures import PLAIN, Architecture, Names, Values, of_paddlenlp
from paddle_ranker.model.hugging_face.tapas_heads import CELL_HEADS, TAPAS_ANSWERS
from paddle_ranker.registry import Registry
from paddle_ranker.storage.atomic import write_json
from paddle_ranker.storage.foreign_config import ForeignConfig, read_preprocessor
from paddle_ranker.storage.untrusted import UncheckedObject, read_json

if TYPE_CHECKING:
    from paddle_ranker.model.networks.bert import Encoder

Named = dict[str, Array]  # arrays by parameter name
Encodes = Callable[[ModelTokenizer, int, EncoderConfig], PairEncoder]


def _of_texts(files: ModelTokenizer, max_seq_length: int, config: EncoderConfig) -> PairEncoder:
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
    pair_encoder: Encodes = _of_texts
    config: type[EncoderConfig] = EncoderConfig
    classes: str = "Bert"
    architecture: Optional[Architecture] = None

    @property
    def is_causal(self) -> bool:
        """Whether a token attends only to itself and to earlier tokens, so that only the last sees the whole text."""
        return self.architecture is not None and self.architecture.answers


def _network(module: str, name: str) -> Callable[[EncoderConfig], Encoder]:
    """Return a function that creates the network `name` of `module`, which is imported when the function is called."""

    def create(config: EncoderConfig) -> Encoder:
        network: Encoder = getattr(import_module(f"paddle_ranker.model.networks.{module}"), name)(config)
        return network

    return create


def _name_parameters(arrays: Named) -> Named:
    from paddle_ranker.model.network import name_parameters

    return name_parameters(arrays)


def _bring_tokenizer(source: Path, target: Path) -> None:
    from paddle_ranker.model.hugging_face.library_tokenizer import bring_tokenizer

    bring_tokenizer(source, target)


BERT = EncoderFamily(_network("bert", "Encoder"), _name_parameters, _bring_tokenizer)  # also the base of plugins
FAMILIES: Registry[EncoderFamily] = Registry("family of encoders")


def _add(
    model_type: str,
    classes: str,
    architecture: Architecture,
    network: Callable[[EncoderConfig], Encoder] = BERT.network,
    config: type[EncoderConfig] = EncoderConfig,
    pair_encoder: Encodes = _of_texts,
) -> None:
    """Add a family whose PaddleNLP classes use transformers' parameter names.

    model_type: key of the family in `FAMILIES`
    classes, architecture, network, config, pair_encoder: as in `EncoderFamily`
    """

    def name_parameters(arrays: Named) -> Named:
        return _name_parameters(of_paddlenlp(arrays, architecture.names))

    family = EncoderFamily(network, name_parameters, _bring_tokenizer, pair_encoder, config, classes, architecture)
    FAMILIES.add(model_type, family)


_BERT_LINEAR = {
    "encoder.layer.{}.attention.self.query": "encoder.layers.{}.self_attn.q_proj",
    "encoder.layer.{}.attention.self.key": "encoder.layers.{}.self_attn.k_proj",
    "encoder.layer.{}.attention.self.value": "encoder.layers.{}.self_attn.v_proj",
    "encoder.layer.{}.attention.output.dense": "encoder.layers.{}.self_attn.out_proj",
    "encoder.layer.{}.intermediate.dense": "encoder.layers.{}.linear1",
    "encoder.layer.{}.output.dense": "encoder.layers.{}.linear2",
}
_TABLES = {
    "embeddings.word_embeddings": "embeddings.word_embeddings",
    "embeddings.position_embeddings": "embeddings.position_embeddings",
    "embeddings.LayerNorm": "embeddings.layer_norm",
}
_NORMS = {
    "encoder.layer.{}.attention.output.LayerNorm": "encoder.layers.{}.norm1",
    "encoder.layer.{}.output.LayerNorm": "encoder.layers.{}.norm2",
}
_TYPES = ("embeddings.token_type_embeddings", "embeddings.task_type_embeddings")
_BERT_PLAIN = {**_TABLES, **_NORMS, **{name: name for name in _TYPES}}
VIT_NORMS = {
    "encoder.layer.{}.layernorm_before": "encoder.layers.{}.norm1",
    "encoder.layer.{}.layernorm_after": "encoder.layers.{}.norm2",
}
VIT_LINEAR = {
    "encoder.layer.{}.attention.attention.query": "encoder.layers.{}.self_attn.q_proj",
    "encoder.layer.{}.attention.attention.key": "encoder.layers.{}.self_attn.k_proj",
    "encoder.layer.{}.attention.attention.value": "encoder.layers.{}.self_attn.v_proj",
    **{name: ours for name, ours in _BERT_LINEAR.items() if ".self." not in name},
}
_POOLER = {"pooler.dense": "pooler.dense"}
# A two-layer head has a dense layer and an activation before the projection; BERT calls them the pooler.
_TWO_LAYERS = {"classifier.dense": "pooler.dense", "classifier.out_proj": "classifier"}
_FIELDS: Mapping[str, object] = {  # keys of BERT's config.json, with transformers' defaults
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
_ROBERTA_FIELDS = {**_FIELDS, "pad_token_id": 1}


def _added(config: type[EncoderConfig]) -> dict[str, object]:
    """Return the fields that a configuration adds to `EncoderConfig`, with their defaults."""
    shared = {field.name for field in fields(EncoderConfig)}
    return {field.name: field.default for field in fields(config) if field.name not in shared}


def _check_bert(settings: ForeignConfig, values: Values) -> None:
    """Raise `CheckpointError` unless a BERT has absolute positions and embeddings as wide as its layers."""
    settings.require("position_embedding_type", "absolute", remedy=PLAIN)
    settings.require("embedding_size", values["hidden_size"], remedy=PLAIN)


FAMILIES.add("ernie_gram", replace(BERT, classes="ErnieGram"))


def _of_pieces(files: ModelTokenizer, max_seq_length: int, config: EncoderConfig) -> PairEncoder:
    if isinstance(files, TokenizerFiles):
        raise CheckpointError(
            f"its tokenizer has no {SENTENCEPIECE_FILE}: copy it from PaddleNLP's folder of the model"
        )
    return PairEncoder(files, max_seq_length)


_ERNIE_M = replace(BERT, pair_encoder=_of_pieces, config=ErnieMConfig, classes="ErnieM")
# Before ERNIE, with which the names of its classes begin.
FAMILIES.add("ernie_m", replace(_ERNIE_M, network=_network("bert", "ErnieMEncoder")))
for _type, _classes, _fields in (
    ("bert", "Bert", _FIELDS),
    ("ernie", "Ernie", {**_FIELDS, "use_task_id": False, "task_type_vocab_size": 3}),
):
    _names = Names(_BERT_PLAIN, {**_BERT_LINEAR, **_POOLER}, _type)
    FAMILIES.add(_type, replace(BERT, classes=_classes, architecture=Architecture(_names, _fields, _check_bert)))
_ROBERTA = Architecture(
    Names(_BERT_PLAIN, {**_BERT_LINEAR, **_POOLER}, "roberta", _TWO_LAYERS), _ROBERTA_FIELDS, _check_bert
)
for _type, _classes in (("roberta", "Roberta"), ("camembert", "Camembert"), ("xlm-roberta", "XLMRoberta")):
    _add(_type, _classes, _ROBERTA)


def _check_longformer(settings: ForeignConfig, values: Values) -> None:
    _check_bert(settings, values)
    windows = settings.get("attention_window", 512)
    windows = windows if isinstance(windows, list) and windows else [windows]
    if any(type(window) is not int or window % 2 or window != windows[0] for window in windows):
        raise settings.error(f"attention_window is {quoted(windows)}, expected one even number for all layers")
    values["attention_window"] = windows[0]


_add(
    "longformer",
    "Longformer",
    Architecture(
        Names(
            _BERT_PLAIN,
            {
                **_BERT_LINEAR,
                **_POOLER,
                "encoder.layer.{}.attention.self.query_global": "encoder.layers.{}.self_attn.q_global",
                "encoder.layer.{}.attention.self.key_global": "encoder.layers.{}.self_attn.k_global",
                "encoder.layer.{}.attention.self.value_global": "encoder.layers.{}.self_attn.v_global",
            },
            "longformer",
            _TWO_LAYERS,
        ),
        {**_ROBERTA_FIELDS, **_added(LongformerConfig)},
        _check_longformer,
        without_effect=frozenset({"onnx_export", "ignore_attention_mask", "attention_mode"}),
    ),
    _network("longformer", "LongformerEncoder"),
    LongformerConfig,
)


def _check_big_bird(settings: ForeignConfig, values: Values) -> None:
    _check_bert(settings, values)
    settings.require("use_bias", True, remedy=PLAIN)
    settings.require("rescale_embeddings", False, remedy=PLAIN)


def _boxed(*, last_corner: bool) -> Encodes:
    """Return what makes an encoder with boxes, whose separators have the last corner or the first."""

    def encoder(files: ModelTokenizer, max_seq_length: int, config: EncoderConfig) -> PairEncoder:
        from paddle_ranker.encoding.boxed_pairs import SIDE, BoxedPairEncoder

        return BoxedPairEncoder(files, max_seq_length, SIDE if last_corner else 0)

    return encoder


_BOX_TABLES = {
    f"embeddings.{side}_position_embeddings": f"embeddings.{side}_position_embeddings" for side in ("x", "y", "h", "w")
}
_add(
    "layoutlm",
    "LayoutLM",
    Architecture(
        Names({**_BERT_PLAIN, **_BOX_TABLES}, {**_BERT_LINEAR, **_POOLER}, "layoutlm"),
        {**_FIELDS, **_added(LayoutLMConfig)},
        _check_bert,
    ),
    _network("layouts", "LayoutLMEncoder"),
    LayoutLMConfig,
    # transformers' tokenizer of LayoutLMv2 and the models' authors give separators the last corner
    _boxed(last_corner=True),
)
_add(
    "lilt",
    "Lilt",
    Architecture(
        Names(
            {
                **_BERT_PLAIN,
                **{f"layout_{name}": ours for name, ours in _BOX_TABLES.items()},
                "layout_embeddings.box_position_embeddings": "embeddings.box_position_embeddings",
                "layout_embeddings.LayerNorm": "embeddings.layout_norm",
                "encoder.layer.{}.attention.layout_output.LayerNorm": "encoder.layers.{}.layout_norm1",
                "encoder.layer.{}.layout_output.LayerNorm": "encoder.layers.{}.layout_norm2",
            },
            {
                **_BERT_LINEAR,
                **_POOLER,
                "layout_embeddings.box_linear_embeddings": "embeddings.box_linear_embeddings",
                "encoder.layer.{}.attention.self.layout_query": "encoder.layers.{}.self_attn.layout_q",
                "encoder.layer.{}.attention.self.layout_key": "encoder.layers.{}.self_attn.layout_k",
                "encoder.layer.{}.attention.self.layout_value": "encoder.layers.{}.self_attn.layout_v",
                "encoder.layer.{}.attention.layout_output.dense": "encoder.layers.{}.self_attn.layout_out",
                "encoder.layer.{}.layout_intermediate.dense": "encoder.layers.{}.layout_linear1",
                "encoder.layer.{}.layout_output.dense": "encoder.layers.{}.layout_linear2",
            },
            "lilt",
            _TWO_LAYERS,
        ),
        {**_FIELDS, **_added(LiltConfig)},
        _check_bert,
    ),
    _network("layouts", "LiltEncoder"),
    LiltConfig,
    _boxed(last_corner=False),
)


def _check_tapas(settings: ForeignConfig, values: Values) -> None:
    values["names_cells"] = TAPAS_ANSWERS in settings.get("architectures", [])
    names, count = settings.get("aggregation_labels", {}), settings.get("num_aggregation_labels", 0)
    if type(count) is not int or not isinstance(names, dict) or len(names) not in (0, count):
        raise settings.error(f"num_aggregation_labels is {quoted(count)}, aggregation_labels are {quoted(names)}: one "
                           "needs a name for each; copy it again")  # fmt: skip
    values["operations"] = tuple(str(names.get(str(number), number)) for number in range(count))
    sizes = values["type_vocab_sizes"]
    if isinstance(sizes, list):
        values["type_vocab_size"] = sizes[0] if sizes else 0
    tokenizer = ForeignConfig.read(settings.path.with_name("tokenizer_config.json"))
    for name in _IDS_OF_CELLS:
        number = tokenizer.get(name, tokenizer.get("model_max_length", 512))  # as in TapasTokenizer
        if not isinstance(number, (int, float)) or number < 2:
            raise tokenizer.error(f"{name} is {quoted(number)}, expected a number of at least 2, or none at all")
        values[name] = int(number) if number < _MANY_CELLS else 0


_OF_ANSWERS_LOSS = """
positive_label_weight aggregation_loss_weight use_answer_as_supervision answer_loss_importance
use_normalized_answer_loss huber_loss_delta aggregation_temperature use_gumbel_for_cells use_gumbel_for_aggregation
average_approximation_function cell_selection_preference answer_loss_cutoff softmax_temperature
init_cell_selection_weights_to_zero disable_per_token_loss no_aggregation_label_index
"""
_MANY_CELLS = 1 << 15  # no table of embeddings has as many rows
_IDS_OF_CELLS = ("max_row_id", "max_column_id")
# Fields that transformers states under other keys, or in other files.
_NAMED_OTHERWISE = ("names_cells", "operations", *_IDS_OF_CELLS)


def _of_tables(files: ModelTokenizer, max_seq_length: int, config: EncoderConfig) -> PairEncoder:
    from paddle_ranker.encoding.table_pairs import TableLimits, TablePairEncoder

    assert isinstance(config, TapasConfig)
    restarts, limits = config.reset_position_index_per_cell, TableLimits(*config.table_limits)
    return TablePairEncoder(files, max_seq_length, restarts, config.operations, limits)


_PLACES_OF_CELLS = {
    f"embeddings.token_type_embeddings_{number}": f"embeddings.token_type_embeddings_{number}" for number in range(1, 7)
}
_add(
    "tapas",
    "Tapas",
    Architecture(
        Names(
            {
                **_TABLES,
                **_NORMS,
                "embeddings.token_type_embeddings_0": "embeddings.token_type_embeddings",
                **_PLACES_OF_CELLS,
            },
            {**_BERT_LINEAR, **_POOLER, **{name: name for name in CELL_HEADS}},
            "tapas",
        ),
        {
            **{name: default for name, default in _FIELDS.items() if name != "type_vocab_size"},
            "max_position_embeddings": 1024,
            **{name: default for name, default in _added(TapasConfig).items() if name not in _NAMED_OTHERWISE},
        },
        _check_tapas,
        without_effect=frozenset(_OF_ANSWERS_LOSS.split()),
    ),
    _network("layouts", "TapasEncoder"),
    TapasConfig,
    _of_tables,
)


_add(
    "big_bird",
    "BigBird",
    Architecture(
        Names(_BERT_PLAIN, _BERT_LINEAR, "bert", _TWO_LAYERS),
        {**_FIELDS, "hidden_act": "gelu_new", "max_position_embeddings": 4096, **_added(BigBirdConfig)},
        _check_big_bird,
    ),
    _network("big_bird", "BigBirdEncoder"),
    BigBirdConfig,
)


def _check_electra(settings: ForeignConfig, values: Values) -> None:
    settings.require("position_embedding_type", "absolute", remedy=PLAIN)


_add(
    "electra",
    "Electra",
    Architecture(
        Names(_BERT_PLAIN, {**_BERT_LINEAR, "embeddings_project": "embeddings.project"}, "electra", _TWO_LAYERS),
        {**_FIELDS, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024, **_added(ElectraConfig)},
        _check_electra,
        without_effect=frozenset({"summary_type", "summary_use_proj", "summary_activation", "summary_last_dropout"}),
    ),
    _network("bert", "ElectraEncoder"),
    ElectraConfig,
)


def _check_mpnet(settings: ForeignConfig, values: Values) -> None:
    settings.require("relative_attention_num_buckets", 32, remedy=PLAIN)
    settings.require("pad_token_id", 1, remedy=PLAIN)


_add(
    "mpnet",
    "MPNet",
    Architecture(
        Names(
            {
                **_TABLES,
                "encoder.layer.{}.attention.LayerNorm": "encoder.layers.{}.norm1",
                "encoder.layer.{}.output.LayerNorm": "encoder.layers.{}.norm2",
                "encoder.relative_attention_bias": "encoder.relative_attention_bias",
            },
            {
                **{name: ours for name, ours in _BERT_LINEAR.items() if ".attention." not in name},
                "encoder.layer.{}.attention.attn.q": "encoder.layers.{}.self_attn.q_proj",
                "encoder.layer.{}.attention.attn.k": "encoder.layers.{}.self_attn.k_proj",
                "encoder.layer.{}.attention.attn.v": "encoder.layers.{}.self_attn.v_proj",
                "encoder.layer.{}.attention.attn.o": "encoder.layers.{}.self_attn.out_proj",
                **_POOLER,
            },
            "mpnet",
            _TWO_LAYERS,
        ),
        {name: default for name, default in _ROBERTA_FIELDS.items() if name != "type_vocab_size"},
        _check_mpnet,
        without_effect=frozenset({"position_embedding_type", "type_vocab_size"}),
    ),
    _network("bert", "MPNetEncoder"),
    MPNetConfig,
)


def _check_distilbert(settings: ForeignConfig, values: Values) -> None:
    for alias, name in (("hidden_size", "dim"), ("num_hidden_layers", "n_layers"), ("num_attention_heads", "n_heads")):
        if name in settings:
            settings.require(alias, settings.get(name), remedy=f"{name} says another; remove one of them")
        values[alias] = settings.get(alias, values[alias])


_add(
    "distilbert",
    "DistilBert",
    Architecture(
        Names(
            {
                **_TABLES,
                "transformer.layer.{}.sa_layer_norm": "encoder.layers.{}.norm1",
                "transformer.layer.{}.output_layer_norm": "encoder.layers.{}.norm2",
            },
            {
                "transformer.layer.{}.attention.q_lin": "encoder.layers.{}.self_attn.q_proj",
                "transformer.layer.{}.attention.k_lin": "encoder.layers.{}.self_attn.k_proj",
                "transformer.layer.{}.attention.v_lin": "encoder.layers.{}.self_attn.v_proj",
                "transformer.layer.{}.attention.out_lin": "encoder.layers.{}.self_attn.out_proj",
                "transformer.layer.{}.ffn.lin1": "encoder.layers.{}.linear1",
                "transformer.layer.{}.ffn.lin2": "encoder.layers.{}.linear2",
            },
            "distilbert",
            {"pre_classifier": "pooler.dense", "classifier": "classifier"},
        ),
        {
            "vocab_size": None,
            "dim": 768,
            "n_layers": 6,
            "n_heads": 12,
            "hidden_dim": 3072,
            "activation": "gelu",
            "dropout": 0.1,
            "attention_dropout": 0.1,
            "max_position_embeddings": 512,
            "initializer_range": 0.02,
            "pad_token_id": 0,
        },
        _check_distilbert,
        ours={
            "dim": "hidden_size",
            "n_layers": "num_hidden_layers",
            "n_heads": "num_attention_heads",
            "hidden_dim": "intermediate_size",
            "activation": "hidden_act",
            "dropout": "hidden_dropout_prob",
            "attention_dropout": "attention_probs_dropout_prob",
        },
        without_effect=frozenset(
            {"qa_dropout", "seq_classif_dropout", "sinusoidal_pos_embds", "position_embedding_type"}
        ),
    ),
    _network("bert", "DistilBertEncoder"),
    DistilBertConfig,
)


def _share(size: object, heads: object) -> object:
    return size // heads if isinstance(size, int) and isinstance(heads, int) and heads > 0 else None


def _check_deberta(settings: ForeignConfig, values: Values) -> None:
    settings.require("talking_head", False, remedy=PLAIN)
    usual = _share(values["hidden_size"], values["num_attention_heads"])
    settings.require("attention_head_size", usual, remedy=PLAIN)
    settings.require("pooler_hidden_size", values["hidden_size"], remedy=PLAIN)
    values["norm_rel_ebd"] = str(values["norm_rel_ebd"]).lower()
    if values["norm_rel_ebd"] not in ("none", "layer_norm"):
        settings.require("norm_rel_ebd", "none", "layer_norm", remedy=PLAIN)


_add(
    "deberta-v2",
    "DebertaV2",
    Architecture(
        Names(
            {
                **_BERT_PLAIN,
                "encoder.rel_embeddings": "encoder.rel_embeddings",
                "encoder.LayerNorm": "encoder.rel_norm",
                "encoder.conv.conv": "encoder.conv.conv",
                "encoder.conv.LayerNorm": "encoder.conv.norm",
            },
            {
                **{name: ours for name, ours in _BERT_LINEAR.items() if ".self." not in name},
                "encoder.layer.{}.attention.self.query_proj": "encoder.layers.{}.self_attn.q_proj",
                "encoder.layer.{}.attention.self.key_proj": "encoder.layers.{}.self_attn.k_proj",
                "encoder.layer.{}.attention.self.value_proj": "encoder.layers.{}.self_attn.v_proj",
                "encoder.layer.{}.attention.self.pos_key_proj": "encoder.layers.{}.self_attn.pos_k_proj",
                "encoder.layer.{}.attention.self.pos_query_proj": "encoder.layers.{}.self_attn.pos_q_proj",
                "embeddings.embed_proj": "embeddings.project",
            },
            "deberta",
            {**_POOLER, "classifier": "classifier"},
        ),
        {
            **_FIELDS,
            "hidden_size": 1536,
            "num_hidden_layers": 24,
            "num_attention_heads": 24,
            "intermediate_size": 6144,
            "type_vocab_size": 0,
            "layer_norm_eps": 1e-7,
            **_added(DebertaConfig),
            "embedding_size": None,
        },
        _check_deberta,
        without_effect=frozenset({"pooler_dropout", "cls_dropout", "legacy", "position_embedding_type"}),
    ),
    _network("deberta", "DebertaEncoder"),
    DebertaConfig,
)


_THETAS = {"full_attention": "global_rope_theta", "sliding_attention": "local_rope_theta"}
_MODERN_IDLE = """
embedding_dropout decoder_bias deterministic_flash_attn sparse_prediction sparse_pred_ignore_index
reference_compile repad_logits_with_grad layer_norm_eps position_embedding_type
"""


_OF_SCALING = """
factor original_max_position_embeddings partial_rotary_factor attention_factor beta_fast beta_slow short_factor
long_factor low_freq_factor high_freq_factor mscale mscale_all_dim truncate
"""  # keys of rotary positions that are scaled


def _theta(rotary: ForeignConfig, default: object) -> object:
    """Return the base of rotary positions; raises `CheckpointError` unless they are plain.

    rotary: `rope_parameters` of transformers 5, or `rope_scaling` of older files; the type had another key before 4.43
    default: the base, if it is stated elsewhere
    """
    rotary.require("rope_type" if "rope_type" in rotary else "type", "default", remedy=PLAIN)
    rotary.ignore(("type", *_OF_SCALING.split()))
    return rotary.get("rope_theta", default)


def _check_modern(settings: ForeignConfig, values: Values) -> None:
    size, heads = values["hidden_size"], values["num_attention_heads"]
    settings.require("head_dim", _share(size, heads), remedy=PLAIN)
    rotary, scaling = settings.inner("rope_parameters"), settings.inner("rope_scaling")
    for kind, ours in _THETAS.items():
        values[ours] = _theta(scaling, _theta(rotary.inner(kind), values[ours]))
    if "layer_types" in settings:
        kinds = settings.get("layer_types")
        if not isinstance(kinds, list):
            raise settings.error(f"layer_types is {quoted(kinds)}, expected a list")
        every = next((n for n in range(1, len(kinds)) if kinds[n] == "full_attention"), len(kinds))
        pattern = ["sliding_attention" if number % every else "full_attention" for number in range(len(kinds))]
        if kinds != pattern:
            raise settings.error(f"layer_types are {quoted(kinds)}: full attention in every n-th is done here")
        values["global_attn_every_n_layers"] = every
    if "sliding_window" in settings:  # tokens to either side; takes precedence
        window = settings.get("sliding_window")
        if type(window) is not int:
            raise settings.error(f"sliding_window is {quoted(window)}, expected a whole number")
        values["local_attention"] = 2 * window
    settings.require("classifier_pooling", "cls", "mean", remedy=PLAIN)


_add(
    "modernbert",
    "ModernBert",
    Architecture(
        Names(
            {
                "embeddings.tok_embeddings": "embeddings.word_embeddings",
                "embeddings.norm": "embeddings.layer_norm",
                "layers.{}.attn_norm": "encoder.layers.{}.norm1",
                "layers.{}.mlp_norm": "encoder.layers.{}.norm2",
                "final_norm": "encoder.norm",
            },
            {
                "layers.{}.attn.Wqkv": "encoder.layers.{}.self_attn.qkv_proj",
                "layers.{}.attn.Wo": "encoder.layers.{}.self_attn.out_proj",
                "layers.{}.mlp.Wi": "encoder.layers.{}.linear1",
                "layers.{}.mlp.Wo": "encoder.layers.{}.linear2",
            },
            "model",
            {"head.dense": "pooler.dense", "head.norm": "pooler.norm", "classifier": "classifier"},
        ),
        {
            "vocab_size": None,
            "hidden_size": 768,
            "num_hidden_layers": 22,
            "num_attention_heads": 12,
            "intermediate_size": 1152,
            "hidden_activation": "gelu",
            "mlp_dropout": 0.0,
            "attention_dropout": 0.0,
            "max_position_embeddings": 8192,
            "initializer_range": 0.02,
            "norm_eps": 1e-5,
            "pad_token_id": 50283,
            **_added(ModernBertConfig),
        },
        _check_modern,
        ours={
            "hidden_activation": "hidden_act",
            "norm_eps": "layer_norm_eps",
            "mlp_dropout": "hidden_dropout_prob",
            "attention_dropout": "attention_probs_dropout_prob",
        },
        without_effect=frozenset(_MODERN_IDLE.split()),
        checked=frozenset({"rope_scaling"}),
    ),
    _network("modernbert", "ModernBertEncoder"),
    ModernBertConfig,
)


def _of_chats(files: ModelTokenizer, max_seq_length: int, config: EncoderConfig) -> PairEncoder:
    assert isinstance(config, Qwen3Config)
    if not config.instruction:
        return PairEncoder(files, max_seq_length)
    return InstructedPairEncoder(files, max_seq_length, config.instruction)


def _check_qwen3(settings: ForeignConfig, values: Values) -> None:
    name = "rope_scaling" if settings.get("rope_scaling") else "rope_parameters"
    values["rope_theta"] = _theta(settings.inner(name), values["rope_theta"])
    if settings.states_null("num_key_value_heads"):  # not the default of the missing key
        values["num_key_value_heads"] = values["num_attention_heads"]
    settings.require("use_sliding_window", False, remedy=PLAIN)
    settings.require("is_causal", True, remedy=PLAIN)  # False: tokens also attend to those after them
    kinds = settings.get("layer_types", [])
    if not isinstance(kinds, list) or any(kind != "full_attention" for kind in kinds):
        raise settings.error(f"layer_types are {quoted(kinds)}: full attention in all layers is done here")


_add(
    "qwen3",
    "Qwen3",
    Architecture(
        Names(
            {
                "embed_tokens": "embeddings.word_embeddings",
                "layers.{}.input_layernorm": "encoder.layers.{}.norm1",
                "layers.{}.post_attention_layernorm": "encoder.layers.{}.norm2",
                "norm": "encoder.norm",
                "layers.{}.self_attn.q_norm": "encoder.layers.{}.self_attn.q_norm",
                "layers.{}.self_attn.k_norm": "encoder.layers.{}.self_attn.k_norm",
                # These are not transposed, since the network has transformers' layout of these matrices.
                "layers.{}.self_attn.q_proj": "encoder.layers.{}.self_attn.q_proj",
                "layers.{}.self_attn.k_proj": "encoder.layers.{}.self_attn.k_proj",
                "layers.{}.self_attn.v_proj": "encoder.layers.{}.self_attn.v_proj",
                "layers.{}.self_attn.o_proj": "encoder.layers.{}.self_attn.out_proj",
                "layers.{}.mlp.gate_proj": "encoder.layers.{}.gate_proj",
                "layers.{}.mlp.up_proj": "encoder.layers.{}.up_proj",
                "layers.{}.mlp.down_proj": "encoder.layers.{}.down_proj",
            },
            {},
            "model",
            {"score": "classifier"},
            head_has_bias=False,
        ),
        {
            "vocab_size": None,
            "hidden_size": 4096,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "intermediate_size": 22016,
            "hidden_act": "silu",
            "attention_dropout": 0.0,
            "max_position_embeddings": 32768,
            "initializer_range": 0.02,
            "rms_norm_eps": 1e-6,
            "pad_token_id": None,
            **{name: default for name, default in _added(Qwen3Config).items() if name != "instruction"},
        },
        _check_qwen3,
        ours={"rms_norm_eps": "layer_norm_eps", "attention_dropout": "attention_probs_dropout_prob"},
        without_effect=frozenset({"sliding_window", "max_window_layers", "layer_norm_eps"}),
        checked=frozenset({"is_causal", "rope_scaling"}),
        answers=True,
    ),
    _network("qwen3", "Qwen3Encoder"),
    Qwen3Config,
    _of_chats,
)


# Keys of a picture's processor that never change the pixels of ViLT. Padding has no effect: pictures are read alone.
_OF_PIXELS = """
image_processor_type feature_extractor_type processor_class data_format input_data_format return_tensors device
disable_grouping do_convert_rgb _valid_processor_keys auto_map image_seq_length do_center_crop crop_size pad_size do_pad
crop_pct
"""
_VILT_IDLE = frozenset(_OF_PIXELS.split())


def _check_vilt(settings: ForeignConfig, values: Values) -> None:
    settings.require("num_channels", 3, remedy="take a model of pictures in RGB")
    settings.require("qkv_bias", True, remedy="take a model whose attention has biases")
    settings.require("max_image_length", -1, remedy="take a model that reads all patches")
    remedy = "take a model whose pictures are scaled as ViLT's are"
    scaling = read_preprocessor(settings.path.parent, "image_processor", "how pictures are scaled", _VILT_IDLE)
    name = str(scaling.get("image_processor_type", scaling.get("feature_extractor_type", "ViltImageProcessor")))
    if not name.startswith(("ViltImageProcessor", "ViltFeatureExtractor")):
        raise scaling.error(f"image_processor_type is {quoted(name)}; ViltImageProcessor is done here: {remedy}")
    for name, done in (
        ("do_resize", (True,)), ("do_rescale", (True,)), ("do_normalize", (True,)),
        ("rescale_factor", (1 / 255,)), ("default_to_square", (False,)), ("image_mean", ([0.5] * 3, 0.5)),
        ("image_std", ([0.5] * 3, 0.5)),
    ):  # fmt: skip
        scaling.require(name, *done, remedy=remedy)
        if scaling.states_null(name) and name != "default_to_square":  # null is no default: it turns steps off
            raise scaling.error(f"{scaling.place}{name} is null; only {quoted(done[0])} is done here: {remedy}")
    divisor, patch = scaling.get("size_divisor", 32), values["patch_size"]  # 32 as in ViltImageProcessor
    if type(divisor) is not int or type(patch) is not int or divisor < 1 or patch < 1 or divisor % patch:
        raise scaling.error(
            f"{scaling.place}size_divisor is {quoted(divisor)}, expected a multiple of the patch_size {quoted(patch)} "
            f"in config.json: {remedy}"
        )
    values["size_divisor"] = divisor
    values["resample"] = scaling.get("resample", 3)
    size = scaling.get("size", {"shortest_edge": 384})
    side = size.get("shortest_edge") if isinstance(size, dict) else size
    if type(side) is not int or side < divisor:
        raise scaling.error(
            f"{scaling.place}size is {quoted(size)}, expected its shortest_edge, at least the size_divisor {divisor}: "
            f"{remedy}"
        )
    values["shortest_edge"] = side
    if scaling.unknown:
        raise scaling.error(f"{', '.join(scaling.unknown)}: unknown here, and may change the pixels; remove it if not")


def _of_pictures(files: ModelTokenizer, max_seq_length: int, config: EncoderConfig) -> PairEncoder:
    from paddle_ranker.encoding.picture_pairs import PicturePairEncoder

    assert isinstance(config, ViltConfig)
    longest = min(max_seq_length, config.max_position_embeddings)
    sides = config.shortest_edge, config.patch_size, config.size_divisor
    return PicturePairEncoder(files, longest, *sides, config.resample)


_VILT_TEXT = "embeddings.text_embeddings"
_VILT = Architecture(
    Names(
        {
            f"{_VILT_TEXT}.word_embeddings": "embeddings.word_embeddings",
            f"{_VILT_TEXT}.position_embeddings": "embeddings.position_embeddings",
            f"{_VILT_TEXT}.token_type_embeddings": "embeddings.token_type_embeddings",
            f"{_VILT_TEXT}.LayerNorm": "embeddings.layer_norm",
            "embeddings.cls_token": "embeddings.class_embedding",
            "embeddings.position_embeddings": "embeddings.patch_positions",
            "embeddings.token_type_embeddings": "embeddings.modality_embeddings",
            "embeddings.patch_embeddings.projection": "embeddings.patch_embeddings",
            "layernorm": "encoder.norm",
            **VIT_NORMS,
        },
        {**VIT_LINEAR, **_POOLER},
        "vilt",
        {"rank_output": "classifier"},
        bare=("embeddings.cls_token", "embeddings.position_embeddings"),
        task="ForImageAndTextRetrieval",
    ),
    {
        **_FIELDS,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "max_position_embeddings": 40,
        "image_size": 384,
        "patch_size": 32,
        "modality_type_vocab_size": 2,
    },
    _check_vilt,
    without_effect=frozenset({"num_images"}),
)
# Not by `_add`: PaddleNLP has no such class, and transformers' position embeddings are the patches', not the text's.
FAMILIES.add(
    "vilt",
    replace(
        BERT,
        network=_network("vilt", "ViltEncoder"),
        pair_encoder=_of_pictures,
        config=ViltConfig,
        classes="Vilt",
        architecture=_VILT,
    ),
)


# Networks of pictures, of the texts compared with them, and of sounds; `hugging_face/picture_models.py` and
# `hugging_face/sound_models.py` read them from folders.
def _named_already(arrays: Named) -> Named:
    return {name: array for name, array in arrays.items() if name.startswith("encoder.")}


for _type, _module, _class, _config in (
    ("vit", "vision", "PictureTransformer", PictureConfig),
    ("clip_vision_model", "vision", "PictureTransformer", PictureConfig),
    ("siglip_vision_model", "vision", "PictureTransformer", PictureConfig),
    ("convolutions", "vision", "Convolutions", ConvolutionsConfig),
    ("clip_text_model", "vision", "PictureTextEncoder", PictureTextConfig),
    ("siglip_text_model", "vision", "PictureTextEncoder", PictureTextConfig),
    ("wav2vec2", "sounds", "SoundTransformer", SoundConfig),
    ("hubert", "sounds", "SoundTransformer", SoundConfig),
):
    FAMILIES.add(
        _type,
        EncoderFamily(_network(_module, _class), _named_already, _bring_tokenizer, config=_config, classes=_class),
    )


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
