"""An encoder's shape, read from `config.json`, the older `model_config.json` or a known name."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Optional

from paddle_ranker.errors import CheckpointError, DependencyError, brief, quoted
from paddle_ranker.registry import Registry
from paddle_ranker.storage.untrusted import UncheckedObject, read_json

_MAY_BE_0 = frozenset(
    {"type_vocab_size", "task_type_vocab_size", "task_id", "pad_token_id", "conv_kernel_size", "embedding_size"}
)
_MAY_BE_NEGATIVE = frozenset({"max_relative_positions", "position_buckets"})  # -1: not said
_ROBERTAS = ("roberta", "xlm-roberta", "camembert", "mpnet")  # positions start after the padding index
_LARGEST_EPSILON = 0.001
_ALLOWANCE, _SMALL = 2, 1 << 20
# Embeddings without a token: ERNIE's have some of 18,000 or 40,000, other models fill up to a multiple of 8 to 128.
_LEAST_PADDING, _MOST_PADDING = 7, 127


@dataclass(frozen=True)
class EncoderConfig:
    """Hyper-parameters of a BERT-style encoder, under the names PaddleNLP and Hugging Face give them in `config.json`.

    `normalize_before` (pre-LayerNorm) is this toolkit's own; without it, the encoder is plain ERNIE/BERT.

    has_tanh_pooler: whether the encoders' pooler is a linear layer and tanh, and nothing else
    """

    has_tanh_pooler: ClassVar[bool] = True
    vocab_size: int
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    use_task_id: bool = False
    task_type_vocab_size: int = 3
    task_id: int = 0
    pad_token_id: int = 0
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    normalize_before: bool = False
    model_type: str = "ernie"

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, kind = getattr(self, field.name), type(field.default)
            least = -1 if field.name in _MAY_BE_NEGATIVE else 0 if field.name in _MAY_BE_0 else 1
            if field.name == "vocab_size" or kind is int:
                if isinstance(value, bool) or not isinstance(value, int) or value < least:
                    raise CheckpointError(
                        f"{field.name} is {brief(str(value))}, expected a whole number from {least} up"
                    )
            elif kind is float and not (isinstance(value, (int, float)) and math.isfinite(value)):
                raise CheckpointError(f"{field.name} is {brief(str(value))}, expected a number")
        if not 0 <= self.layer_norm_eps <= _LARGEST_EPSILON:
            raise CheckpointError(
                f"layer_norm_eps is {self.layer_norm_eps}; Paddle computes norms with up to {_LARGEST_EPSILON} alone: "
                "take a model whose norms have less"
            )
        if self.hidden_size % self.num_attention_heads:
            raise CheckpointError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}"
            )

    @property
    def least_parameters(self) -> int:
        """A lower bound on the encoder's number of parameters."""
        kinds = self.type_vocab_size + (self.task_type_vocab_size if self.use_task_id else 0)
        layer = 4 * self.hidden_size + 2 * self.intermediate_size
        rows = self.vocab_size + self.max_position_embeddings + kinds + self.num_hidden_layers * layer
        return self.hidden_size * rows

    def require_fits(self, numbers: int, tensors: Optional[int] = None) -> None:
        """Raise `CheckpointError` if a parameter file is far too small for this encoder.

        A network is made before parameters are copied into it, and making one of a thousand million layers would never
        end. Smaller differences are found when the parameters are copied.

        Args:
            numbers: how many numbers the file holds at most.
            tensors: how many tensors the file holds; None: not known.
        """
        few_layers = tensors is None or self.num_hidden_layers <= tensors
        if self.least_parameters > _ALLOWANCE * numbers + _SMALL or not few_layers:
            raise CheckpointError(
                f"config.json describes an encoder of {self.least_parameters:,} parameters ({self.num_hidden_layers:,} "
                f"layers, {self.hidden_size:,} wide, {self.vocab_size:,} word pieces, {self.max_position_embeddings:,} "
                f"positions), and the parameter file has {numbers:,}: they are not of one model; copy the folder again"
            )

    @property
    def longest_pair(self) -> int:
        """The maximum length of a pair in tokens: the number of positions."""
        return self.max_position_embeddings - self.first_position

    @property
    def first_position(self) -> int:
        """The position of the first token: RoBERTa's start after the padding index."""
        return self.pad_token_id + 1 if self.model_type in _ROBERTAS else 0

    @classmethod
    def small(
        cls,
        vocab_size: int,
        *,
        layers: int,
        hidden_size: int,
        heads: int,
        dropout: float,
        positions: int,
        normalize_before: bool,
    ) -> EncoderConfig:
        """Return the shape of an encoder to train from scratch: feed-forward of four times the width, one dropout."""
        return cls(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * hidden_size,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            max_position_embeddings=positions,
            normalize_before=normalize_before,
        )

    @classmethod
    def from_dict(cls, values: UncheckedObject) -> EncoderConfig:
        """Take the known fields of a parsed `config.json`; missing ones get PaddleNLP's defaults for the model type.

        The result is of the class that `SHAPES` has for the `model_type`.

        Raises `CheckpointError` if `vocab_size` is missing or a value is unusable.
        """
        shape = shape_of(values.get("model_type"))
        if cls is EncoderConfig and shape is not EncoderConfig:
            return shape.from_dict(values)
        known = {field.name for field in dataclasses.fields(cls)}
        chosen = {name: value for name, value in values.items() if name in known and value is not None}
        if "vocab_size" not in chosen:
            raise CheckpointError("the configuration has no vocab_size")
        if values.get("pool_act") not in (None, "tanh"):  # of PaddleNLP's ERNIE
            raise CheckpointError(f"pool_act is {quoted(values['pool_act'])}; only tanh is done here")
        if "layer_norm_eps" not in chosen and chosen.get("model_type") == "ernie_gram":
            chosen["layer_norm_eps"] = 1e-5  # what PaddleNLP's ErnieGramModel sets; its ErnieModel sets 1e-12
        return cls(**chosen)

    def to_dict(self) -> UncheckedObject:
        """Return what `config.json` holds; PaddleNLP's `AutoModel` reads it as the plain encoder."""
        prefixes = {model_type: prefix for prefix, model_type in _ARCHITECTURES.items()}
        return {**dataclasses.asdict(self), "architectures": [f"{prefixes.get(self.model_type, 'Bert')}Model"]}


SHAPES: Registry[type[EncoderConfig]] = Registry("shape of encoders")  # by model_type, where it is not EncoderConfig


def shape_of(model_type: object) -> type[EncoderConfig]:
    """Return the class of the configurations of a `model_type`."""
    return SHAPES[model_type] if isinstance(model_type, str) and model_type in SHAPES else EncoderConfig


@dataclass(frozen=True)
class ElectraConfig(EncoderConfig):
    """ELECTRA's: the embeddings may be narrower than the layers, which then begin with a projection."""

    embedding_size: int = 128
    has_tanh_pooler: ClassVar[bool] = False

    @property
    def least_parameters(self) -> int:
        """A lower bound on the encoder's number of parameters."""
        rows = self.vocab_size + self.max_position_embeddings + self.type_vocab_size
        layer = 4 * self.hidden_size + 2 * self.intermediate_size
        return self.embedding_size * rows + self.hidden_size * self.num_hidden_layers * layer


@dataclass(frozen=True)
class MPNetConfig(EncoderConfig):
    """MPNet's: no token types, and biases of attention by relative positions, which all layers share."""

    type_vocab_size: int = 0
    pad_token_id: int = 1


@dataclass(frozen=True)
class DistilBertConfig(EncoderConfig):
    """DistilBERT's: no token types, and a pooler with relu, which only models that classify have."""

    type_vocab_size: int = 0
    has_tanh_pooler: ClassVar[bool] = False


@dataclass(frozen=True)
class ModernBertConfig(EncoderConfig):
    """ModernBERT's: rotary positions, local attention in most layers, gated feed-forward layers, mostly no biases.

    Every `global_attn_every_n_layers`-th layer, from the first on, attends to all tokens, the others to
    `local_attention` tokens around each.
    """

    type_vocab_size: int = 0
    hidden_act: str = "gelu"
    max_position_embeddings: int = 8192
    layer_norm_eps: float = 1e-5
    global_attn_every_n_layers: int = 3
    local_attention: int = 128
    global_rope_theta: float = 160000.0
    local_rope_theta: float = 10000.0
    norm_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    classifier_bias: bool = False
    classifier_activation: str = "gelu"
    classifier_pooling: str = "cls"
    has_tanh_pooler: ClassVar[bool] = False

    @property
    def least_parameters(self) -> int:
        """A lower bound on the encoder's number of parameters."""
        layer = 4 * self.hidden_size + 3 * self.intermediate_size
        size = self.hidden_size // self.num_attention_heads
        angles = 2 * self.max_position_embeddings * size  # in tables, which are not trained
        return self.hidden_size * (self.vocab_size + self.num_hidden_layers * layer) + angles


@dataclass(frozen=True)
class DebertaConfig(EncoderConfig):
    """DeBERTa-v2's and -v3's: attention by content and by relative positions, in logarithmic buckets.

    pos_att_type: c2p and p2c, from content to positions and from positions to content
    share_att_key: whether positions go through the layers' own queries and keys
    norm_rel_ebd: "layer_norm" or "none", for the embeddings of relative positions
    position_biased_input: whether there are embeddings of absolute positions, too
    conv_kernel_size: of a convolution beside the first layer; 0: there is none
    """

    type_vocab_size: int = 0
    layer_norm_eps: float = 1e-7
    relative_attention: bool = False
    max_relative_positions: int = -1
    position_buckets: int = -1
    norm_rel_ebd: str = "none"
    share_att_key: bool = False
    position_biased_input: bool = True
    pos_att_type: tuple[str, ...] = ()
    conv_kernel_size: int = 0
    conv_act: str = "tanh"
    conv_groups: int = 1
    embedding_size: int = 0
    pooler_hidden_act: str = "gelu"
    has_tanh_pooler: ClassVar[bool] = False

    @classmethod
    def from_dict(cls, values: UncheckedObject) -> EncoderConfig:
        """Take the known fields; `pos_att_type` may be a text, "p2c|c2p"."""
        stated = values.get("pos_att_type") or ()
        kinds = stated.lower().split("|") if isinstance(stated, str) else list(map(str, stated))
        return super().from_dict({**values, "pos_att_type": tuple(kind.strip() for kind in kinds)})

    @property
    def has_rel_norm(self) -> bool:
        """Whether the embeddings of relative positions are normalised."""
        return self.relative_attention and self.norm_rel_ebd == "layer_norm"

    @property
    def unused(self) -> tuple[str, ...]:
        """Ends of the names of layers that the network lacks, though files of transformers may have them."""
        there = {
            "embeddings.position_embeddings": self.position_biased_input,
            "encoder.rel_embeddings": self.relative_attention,
            "encoder.rel_norm": self.has_rel_norm,
        }
        return tuple(name for name, is_used in there.items() if not is_used)

    @property
    def span(self) -> int:
        """Number of relative positions to either side."""
        if self.position_buckets > 0:
            return self.position_buckets
        return self.max_relative_positions if self.max_relative_positions > 0 else self.max_position_embeddings

    @property
    def least_parameters(self) -> int:
        """A lower bound on the encoder's number of parameters."""
        layer = 4 * self.hidden_size + 2 * self.intermediate_size
        return self.hidden_size * (self.vocab_size + self.num_hidden_layers * layer)


for _type, _shape in {
    "electra": ElectraConfig,
    "mpnet": MPNetConfig,
    "distilbert": DistilBertConfig,
    "modernbert": ModernBertConfig,
    "deberta-v2": DebertaConfig,
}.items():
    SHAPES.add(_type, _shape)


def read_config(folder: Path) -> Optional[EncoderConfig]:
    """Return the configuration in a model folder (`config.json`, else `model_config.json`); None if it has neither.

    Raises `CheckpointError` if the file exists but cannot be understood.
    """
    for name in ("config.json", "model_config.json"):
        path = folder / name
        if path.is_file():
            try:
                values = read_json(path)
                return EncoderConfig.from_dict(_flatten(values))
            except (ValueError, TypeError, AttributeError, CheckpointError) as error:
                raise CheckpointError(f"{path}: not a usable encoder configuration ({error})") from error
    return None


def write_config(folder: Path, config: EncoderConfig) -> None:
    """Write `config.json` into an existing folder; call it inside `atomic.new_folder`."""
    (folder / "config.json").write_text(json.dumps(config.to_dict(), indent=2) + "\n", encoding="utf-8")


_ARCHITECTURES = {
    "ErnieGram": "ernie_gram",
    "Ernie": "ernie",
    "Bert": "bert",
    "Roberta": "roberta",
    "XLMRoberta": "xlm-roberta",
    "Camembert": "camembert",
    "Electra": "electra",
    "MPNet": "mpnet",
    "DistilBert": "distilbert",
    "ModernBert": "modernbert",
    "DebertaV2": "deberta-v2",
}


def _flatten(values: UncheckedObject) -> UncheckedObject:
    """Merge the nested `init_args` of PaddleNLP 2.x's `model_config.json`, and derive `model_type` from the class."""
    architecture = str(values.get("init_class") or (values.get("architectures") or [""])[0])
    flat: UncheckedObject = {}
    for part in values.get("init_args", []):
        if isinstance(part, dict):
            flat.update(_flatten(part))
    flat.update({name: value for name, value in values.items() if name not in ("init_args", "init_class")})
    if "model_type" not in flat:
        for prefix, model_type in _ARCHITECTURES.items():
            if architecture.startswith(prefix):
                flat["model_type"] = model_type
                break
    return flat


@dataclass(frozen=True)
class Published:
    """A model that PaddleNLP publishes under a name: its shape, its files' URLs, and its tokenizer's settings."""

    config: EncoderConfig
    parameters: Optional[str]  # the address; None where PaddleNLP holds none
    vocabulary: Optional[str]
    tokenizer: UncheckedObject


def published_model(name: str) -> Published:
    """Return what PaddleNLP has built in about a model; needs PaddleNLP, but no network.

    Raises `CheckpointError` if the name is not of an ERNIE, ERNIE-Gram or BERT model that PaddleNLP knows.
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

    for model_type, known, files, tokenizer in (
        ("ernie", ernie.ERNIE_PRETRAINED_INIT_CONFIGURATION, ernie.ERNIE_PRETRAINED_RESOURCE_FILES_MAP, ErnieTokenizer),
        (
            "ernie_gram",
            gram.ERNIE_GRAM_PRETRAINED_INIT_CONFIGURATION,
            gram.ERNIE_GRAM_PRETRAINED_RESOURCE_FILES_MAP,
            ErnieGramTokenizer,
        ),
        ("bert", bert.BERT_PRETRAINED_INIT_CONFIGURATION, bert.BERT_PRETRAINED_RESOURCE_FILES_MAP, BertTokenizer),
    ):
        if name in known:
            return Published(
                EncoderConfig.from_dict({**known[name], "model_type": model_type}),
                files["model_state"].get(name),
                tokenizer.pretrained_resource_files_map["vocab_file"].get(name),
                dict(tokenizer.pretrained_init_configuration.get(name) or {}),
            )
    raise CheckpointError(
        f"{quoted(name)} is neither a local folder nor a model name that is read here: those of PaddleNLP's ERNIE, "
        "ERNIE-Gram and BERT models are (for example ernie-3.0-medium-zh or bert-base-chinese). Check the spelling, or "
        "give the path of a model folder, or a name of the Hugging Face hub with its owner, BAAI/bge-reranker-base say"
    )


def config_by_name(name: str) -> EncoderConfig:
    """Return the configuration that PaddleNLP has built in for a model name; raises as `published_model` does."""
    return published_model(name).config


def require_tokenizer_fits(vocab_size: int, pad_id: int, config: EncoderConfig, may_fall_short: bool = False) -> None:
    """Raise `CheckpointError` if a tokenizer's vocabulary size or padding id does not fit the model of `config`.

    With `may_fall_short`, there may be many more embeddings than tokens.
    """
    if vocab_size > config.vocab_size:
        file = "tokenizer.json" if may_fall_short else "vocab.txt"
        raise CheckpointError(
            f"the vocabulary has ids up to {vocab_size - 1} but the model has {config.vocab_size} "
            f"word embeddings: {file} is another model's"
        )
    lacking = config.vocab_size - vocab_size
    if not may_fall_short and lacking > max(_LEAST_PADDING, min(_MOST_PADDING, config.vocab_size // 100)):
        raise CheckpointError(
            f"the vocabulary has {vocab_size:,} tokens, but the model has {config.vocab_size:,} word embeddings: "
            "vocab.txt was cut short, or is another model's; copy it again"
        )
    if pad_id != config.pad_token_id:
        raise CheckpointError(f"the vocabulary's [PAD] is id {pad_id}, the model's {config.pad_token_id}")
