"""Configurations of encoders, as `config.json` states them."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Optional

from paddle_ranker.errors import CheckpointError, quoted
from paddle_ranker.storage.declared import Between, Count, OneOf, Positive, require_declared
from paddle_ranker.storage.untrusted import UncheckedObject

ACTIVATIONS = (
    "gelu", "gelu_new", "relu", "silu", "tanh", "relu6", "swish", "mish", "elu", "selu", "celu", "sigmoid", "hardswish",
    "hardsigmoid", "leaky_relu", "softplus", "softsign", "quick_gelu",
)  # fmt: skip
Activation = Annotated[str, OneOf(*ACTIVATIONS)]
Share = Annotated[float, Between(0, 1)]
# Families whose positions start after the padding index.
_ROBERTAS = ("roberta", "xlm-roberta", "camembert", "mpnet", "longformer", "lilt")
ENCODER_PREFIX = "encoder."  # begins the names of the encoder's parameters
WORD_EMBEDDINGS = "embeddings.word_embeddings.weight"  # ends the name of the word embeddings, behind any prefix
_LARGEST_EPSILON = 0.001
_ALLOWANCE, _SMALL = 2, 1 << 20  # factor by which an estimate may exceed a file, and values that it always may
# Number of embeddings without a token: ERNIE has a few, other models round up to a multiple of 8 to 128.
_LEAST_PADDING, _MOST_PADDING = 7, 127


@dataclass(frozen=True)
class EncoderConfig:
    """Hyper-parameters of a BERT-style encoder, under the names of `config.json` in PaddleNLP and Hugging Face.

    Only this toolkit has `normalize_before` (pre-LayerNorm); without it, the encoder is plain ERNIE/BERT.

    has_tanh_pooler: whether the encoder's pooler is a linear layer and tanh
    heads_share_width: whether a head's size is the width of a state divided by the number of heads
    shares_queries: whether the network computes the query once for all pairs of a batch that begin with it
    reads_markers: whether the texts that transformers gives the model hold special tokens, as of empty cells
    needs_types: whether the tokenizer must give token types, by which the places of tokens are told apart
    tokenizer_class: transformers' class with which its users make the model's inputs
    """

    has_tanh_pooler: ClassVar[bool] = True
    heads_share_width: ClassVar[bool] = True
    shares_queries: ClassVar[bool] = False
    needs_types: ClassVar[bool] = False
    reads_markers: ClassVar[bool] = False
    tokenizer_class: ClassVar[str] = "PreTrainedTokenizerFast"
    vocab_size: Positive
    hidden_size: Positive = 768
    num_hidden_layers: Positive = 12
    num_attention_heads: Positive = 12
    intermediate_size: Positive = 3072
    hidden_act: Activation = "gelu"
    hidden_dropout_prob: Share = 0.1
    attention_probs_dropout_prob: Share = 0.1
    max_position_embeddings: Positive = 512
    type_vocab_size: Count = 2
    use_task_id: bool = False
    task_type_vocab_size: Count = 3
    task_id: Count = 0
    pad_token_id: Count = 0
    initializer_range: Annotated[float, Between(0, 1e6)] = 0.02
    layer_norm_eps: float = 1e-12
    normalize_before: bool = False
    model_type: str = "ernie"

    def __post_init__(self) -> None:
        require_declared(self)
        if not 0 <= self.layer_norm_eps <= _LARGEST_EPSILON:
            raise CheckpointError(
                f"layer_norm_eps is {self.layer_norm_eps}; Paddle computes norms with up to {_LARGEST_EPSILON} alone: "
                "take a model whose norms have less"
            )
        if self.heads_share_width and self.hidden_size % self.num_attention_heads:
            raise CheckpointError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}"
            )

    @property
    def estimated_parameters(self) -> int:
        """Rough number of the encoder's parameters, and of the values in its constant tables."""
        kinds = self.type_vocab_size + (self.task_type_vocab_size if self.use_task_id else 0)
        layer = 4 * self.hidden_size + 2 * self.intermediate_size
        rows = self.vocab_size + self.max_position_embeddings + kinds + self.num_hidden_layers * layer
        return self.hidden_size * rows

    def require_fits(self, numbers: int, tensors: Optional[int] = None) -> None:
        """Raise `CheckpointError` if a parameter file is far too small for this encoder.

        A network is created before parameters are copied into it, and it would take forever to create a thousand
        million layers. Smaller differences are found when the parameters are copied.

        numbers: an upper bound on the number of values in the file
        tensors: number of tensors in the file; None if unknown
        """
        few_layers = tensors is None or self.num_hidden_layers <= tensors
        if self.estimated_parameters > _ALLOWANCE * numbers + _SMALL or not few_layers:
            raise CheckpointError(
                f"config.json describes an encoder of {self.estimated_parameters:,} parameters "
                f"({self.num_hidden_layers:,} layers, {self.hidden_size:,} wide, {self.vocab_size:,} word pieces, "
                f"{self.max_position_embeddings:,} positions), and the parameter file has {numbers:,}: they are not of "
                "one model; copy the folder again"
            )

    @property
    def longest_pair(self) -> int:
        """Maximum length of a pair in tokens: the number of positions from `first_position` on."""
        return self.max_position_embeddings - self.first_position

    @property
    def place_limits(self) -> tuple[int, ...]:
        """Exclusive upper limit of each number in a token's place (box, cell or patch); () if tokens have no places."""
        return ()

    @property
    def names_cells(self) -> bool:
        """Whether a ranker answers questions by selecting cells of a table; its encoder then has heads, `cells`."""
        return False

    def files(self) -> dict[str, UncheckedObject]:
        """Return the files that transformers reads beside `config.json`, as JSON contents by file name."""
        return {}

    @property
    def tokenizer_settings(self) -> UncheckedObject:
        """Return what transformers' `tokenizer_config.json` says of this kind of model alone."""
        return {}

    @property
    def first_position(self) -> int:
        """Position of the first token: 0; in families such as RoBERTa, the padding id plus 1."""
        return self.pad_token_id + 1 if self.model_type in _ROBERTAS else 0

    @classmethod
    def from_dict(cls, values: UncheckedObject) -> EncoderConfig:
        """Create a configuration from a parsed `config.json`; missing fields get PaddleNLP's defaults.

        Raises `CheckpointError` if a value is unusable, or `vocab_size` is missing and has no default.
        """
        fields = {field.name: field.default for field in dataclasses.fields(cls)}
        chosen = {name: value for name, value in values.items() if name in fields and value is not None}
        chosen = {name: tuple(value) if isinstance(value, list) else value for name, value in chosen.items()}
        if "vocab_size" not in chosen and fields["vocab_size"] is dataclasses.MISSING:
            raise CheckpointError("the configuration has no vocab_size")
        if values.get("pool_act") not in (None, "tanh"):  # of PaddleNLP's ERNIE
            raise CheckpointError(f"pool_act is {quoted(values['pool_act'])}; only tanh is done here")
        if "layer_norm_eps" not in chosen and chosen.get("model_type") == "ernie_gram":
            chosen["layer_norm_eps"] = 1e-5  # as in PaddleNLP's ErnieGramModel; ErnieModel has 1e-12
        return cls(**chosen)


def most_new_words(rows: int) -> int:
    """Return how many tokens a vocabulary may have above a model's `rows` word embeddings, for a training to add them.

    Published vocabularies differ by thousands of tokens.
    """
    return max(1000, rows // 10)


def require_tokenizer_fits(vocab_size: int, pad_id: int, config: EncoderConfig, may_fall_short: bool = False) -> None:
    """Raise `CheckpointError` if a tokenizer's vocabulary size or padding id does not fit the model of `config`.

    may_fall_short: whether the model may have many more embeddings than the vocabulary has tokens
    """
    if vocab_size > config.vocab_size:
        file = "tokenizer.json" if may_fall_short else "vocab.txt"
        added = vocab_size - config.vocab_size <= most_new_words(config.vocab_size)
        raise CheckpointError(
            f"the vocabulary has ids up to {vocab_size - 1} but the model has {config.vocab_size} "
            f"word embeddings: {file} is another model's"
            + (", or has words that were added since: a training from here gives them embeddings" if added else "")
        )
    lacking, rows = config.vocab_size - vocab_size, config.vocab_size
    rounded = math.gcd(rows, _MOST_PADDING + 1) - 1 if 2 * vocab_size > rows else 0  # up to the next multiple
    if not may_fall_short and lacking > max(_LEAST_PADDING, min(_MOST_PADDING, rows // 100), rounded):
        raise CheckpointError(
            f"the vocabulary has {vocab_size:,} tokens, but the model has {config.vocab_size:,} word embeddings: "
            "vocab.txt was cut short, or is another model's; copy it again"
        )
    if pad_id != config.pad_token_id:
        raise CheckpointError(
            f"the vocabulary's [PAD] is id {pad_id}, the model's {config.pad_token_id} (pad_token_id)"
        )
