"""Configurations of encoders, as `config.json` states them."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Optional

from paddle_ranker.encoding.pair_encoder import INSTRUCTION
from paddle_ranker.errors import CheckpointError, listed, quoted
from paddle_ranker.storage.declared import LONGEST, MOST, Between, Count, Length, OneOf, Positive, require_declared
from paddle_ranker.storage.untrusted import UncheckedObject

ACTIVATIONS = (
    "gelu", "gelu_new", "relu", "silu", "tanh", "relu6", "swish", "mish", "elu", "selu", "celu", "sigmoid", "hardswish",
    "hardsigmoid", "leaky_relu", "softplus", "softsign", "quick_gelu",
)  # fmt: skip
Activation = Annotated[str, OneOf(*ACTIVATIONS)]
Share = Annotated[float, Between(0, 1)]
_Offset = Annotated[int, Between(-1, LONGEST)]  # -1: not stated
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
    tokenizer_class: transformers' class with which its users make the model's inputs
    """

    has_tanh_pooler: ClassVar[bool] = True
    heads_share_width: ClassVar[bool] = True
    shares_queries: ClassVar[bool] = False
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
        """Whether a ranker's head answers questions by selecting cells of a table, see `TapasConfig`."""
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


@dataclass(frozen=True)
class ErnieMConfig(EncoderConfig):
    """Configuration of ERNIE-M: no token types, and positions that start at 2.

    As PaddleNLP's network does, it takes four times `hidden_size` and an epsilon of 1e-5, whatever the file says.
    """

    type_vocab_size: Count = 0
    max_position_embeddings: Positive = 514
    layer_norm_eps: float = 1e-5
    pad_token_id: Count = 1
    model_type: str = "ernie_m"

    @property
    def first_position(self) -> int:
        return 2

    @classmethod
    def from_dict(cls, values: UncheckedObject) -> EncoderConfig:
        """Create a configuration as the base class does; values without effect in PaddleNLP's network have none."""
        size = values.get("hidden_size", cls.hidden_size)
        fixed = {"type_vocab_size": 0, "use_task_id": False, "layer_norm_eps": cls.layer_norm_eps}
        inner = 4 * size if type(size) is int else cls.intermediate_size
        return super().from_dict({"vocab_size": 250002, **values, **fixed, "intermediate_size": inner})


@dataclass(frozen=True)
class ElectraConfig(EncoderConfig):
    """Configuration of ELECTRA; if embeddings are narrower than the layers, a projection follows the embeddings."""

    embedding_size: Positive = 128
    has_tanh_pooler: ClassVar[bool] = False


@dataclass(frozen=True)
class MPNetConfig(EncoderConfig):
    """Configuration of MPNet: no token types, and attention biases by relative position, shared by all layers."""

    type_vocab_size: Count = 0
    pad_token_id: Count = 1


@dataclass(frozen=True)
class DistilBertConfig(EncoderConfig):
    """Configuration of DistilBERT: no token types; its pooler, which only classifiers have, applies relu."""

    type_vocab_size: Count = 0
    has_tanh_pooler: ClassVar[bool] = False


@dataclass(frozen=True)
class ModernBertConfig(EncoderConfig):
    """Configuration of ModernBERT: rotary positions, local attention in most layers, gated feed-forward layers.

    The first and every `global_attn_every_n_layers`-th layer after it attend to all tokens. The other layers attend to
    a window of `local_attention` tokens.
    """

    type_vocab_size: Count = 0
    hidden_act: Activation = "gelu"
    max_position_embeddings: Positive = 8192
    layer_norm_eps: float = 1e-5
    global_attn_every_n_layers: Positive = 3
    local_attention: Positive = 128
    global_rope_theta: Annotated[float, Between(1, 1e12)] = 160000.0
    local_rope_theta: Annotated[float, Between(1, 1e12)] = 10000.0
    norm_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    classifier_bias: bool = False
    classifier_activation: Activation = "gelu"
    classifier_pooling: str = "cls"
    has_tanh_pooler: ClassVar[bool] = False

    @property
    def estimated_parameters(self) -> int:
        layer = 4 * self.hidden_size + 3 * self.intermediate_size
        tables = 2 * self.max_position_embeddings * (self.hidden_size // self.num_attention_heads)
        return self.hidden_size * (self.vocab_size + self.num_hidden_layers * layer) + tables


@dataclass(frozen=True)
class Qwen3Config(EncoderConfig):
    """Configuration of Qwen3, a causal decoder: rotary positions, norms of queries and keys, gated feed-forward layers.

    num_key_value_heads: number of heads of keys and values; each serves an equal number of query heads
    head_dim: size of a head, independent of the width of the states
    attention_bias: whether the projections of the attention have a bias
    instruction: instruction of the chat of Qwen3-Reranker into which pairs are put; "": a title follows its query
        without a chat
    """

    type_vocab_size: Count = 0
    hidden_act: Activation = "silu"
    hidden_dropout_prob: Share = 0.0
    attention_probs_dropout_prob: Share = 0.0
    max_position_embeddings: Positive = 32768
    layer_norm_eps: float = 1e-6
    num_key_value_heads: Positive = 32
    head_dim: Positive = 128
    rope_theta: Annotated[float, Between(1, 1e12)] = 10000.0
    attention_bias: bool = False
    instruction: str = INSTRUCTION
    has_tanh_pooler: ClassVar[bool] = False
    heads_share_width: ClassVar[bool] = False
    shares_queries: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        heads, shared = self.num_attention_heads, self.num_key_value_heads
        if heads % shared or self.head_dim % 2:
            raise CheckpointError(
                f"num_attention_heads {heads}, num_key_value_heads {shared}, head_dim {self.head_dim}: expected a "
                "multiple of num_key_value_heads, and an even head_dim"
            )

    @property
    def estimated_parameters(self) -> int:
        attention = 2 * (self.num_attention_heads + self.num_key_value_heads) * self.head_dim
        layer = attention + 3 * self.intermediate_size
        table = self.max_position_embeddings * self.head_dim
        return self.hidden_size * (self.vocab_size + self.num_hidden_layers * layer) + table


@dataclass(frozen=True)
class LongformerConfig(EncoderConfig):
    """Configuration of Longformer, whose tokens attend to `attention_window` / 2 tokens on either side."""

    attention_window: Positive = 512


@dataclass(frozen=True)
class LayoutLMConfig(EncoderConfig):
    """Configuration of LayoutLM, whose tokens have boxes with coordinates from 0 to 1,000."""

    max_2d_position_embeddings: Annotated[int, Between(1001, MOST)] = 1024

    @property
    def place_limits(self) -> tuple[int, ...]:
        """Exclusive upper limits of a box's left, top, right and bottom."""
        return (self.max_2d_position_embeddings,) * 4


@dataclass(frozen=True)
class LiltConfig(LayoutLMConfig):
    """Configuration of LiLT, whose tokens have a second, narrower state, the layout, for their boxes.

    channel_shrink_ratio: width of a token's state divided by that of its layout
    """

    channel_shrink_ratio: Positive = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden_size % 6 or (self.hidden_size // self.num_attention_heads) % self.channel_shrink_ratio:
            raise CheckpointError(
                f"hidden_size {self.hidden_size}, num_attention_heads {self.num_attention_heads}, "
                f"channel_shrink_ratio {self.channel_shrink_ratio}: expected a multiple of 6, and heads whose width is "
                "a multiple of channel_shrink_ratio"
            )

    @property
    def layout_size(self) -> int:
        """Size of the vector that a LiLT computes of a token's box, in each layer."""
        return self.hidden_size // self.channel_shrink_ratio


@dataclass(frozen=True)
class TapasConfig(EncoderConfig):
    """Configuration of TAPAS, whose tokens have a column, a row and more, see `TablePairEncoder`.

    type_vocab_sizes: sizes of the embedding tables: of token types, then of each number of a token's place except the
        last one, the position
    reset_position_index_per_cell: whether positions restart in each cell
    names_cells: whether the head answers a question by selecting cells, see `networks.cell_heads`; the attributes
        below matter only then
    operations: names of operations on the selected cells, such as SUM; (): the model chooses no operation
    select_one_column: whether all cells of an answer are in one column
    allow_empty_column_selection: whether an answer may select no column
    average_logits_per_cell: whether each token gets the mean logit of its cell's tokens; if `select_one_column` is
        true, it always does
    max_num_rows, max_num_columns: maximum number of a table's rows (columns); all further rows (columns) count as part
        of the last one
    max_row_id, max_column_id: numbers below which those of a table's rows and columns are, the rest is not read; 0: as
        many as have embeddings
    """

    reads_markers: ClassVar[bool] = True
    tokenizer_class: ClassVar[str] = "TapasTokenizer"
    max_position_embeddings: Positive = 1024
    type_vocab_size: Count = 3
    type_vocab_sizes: Annotated[tuple[Positive, ...], Between(7, 7)] = (3, 256, 256, 2, 256, 256, 10)
    reset_position_index_per_cell: bool = True
    names_cells: bool = False
    operations: tuple[str, ...] = ()
    select_one_column: bool = True
    allow_empty_column_selection: bool = False
    average_logits_per_cell: bool = False
    max_num_rows: Positive = 64
    max_num_columns: Positive = 32
    max_row_id: Count = 0
    max_column_id: Count = 0

    @property
    def table_limits(self) -> tuple[int, int, int, int]:
        """Maximum number of columns, rows below the header, ranks and inverse ranks, as in `TableLimits`."""
        _, columns, rows, _, rank, inverse, _ = self.type_vocab_sizes
        columns, rows = min(columns, self.max_column_id or columns), min(rows, self.max_row_id or rows)
        return columns - 1, rows - 1, rank - 1, inverse - 1

    @property
    def tokenizer_settings(self) -> UncheckedObject:
        """Return the limits of rows and columns, which transformers else takes from the maximum length."""
        columns, rows, *_ = self.table_limits
        return {"max_row_id": rows + 1, "max_column_id": columns + 1}

    @property
    def place_limits(self) -> tuple[int, ...]:
        """Exclusive upper limit of each number in a token's place; the last is the position."""
        return (*self.type_vocab_sizes[1:], self.max_position_embeddings)

    def __post_init__(self) -> None:
        super().__post_init__()
        least = (2, 2, 2, 1, 2, 2, 8)
        if any(size < needed for size, needed in zip(self.type_vocab_sizes, least)):
            sizes = listed(self.type_vocab_sizes)
            raise CheckpointError(f"type_vocab_sizes are {sizes}, expected at least {listed(least)}")


@dataclass(frozen=True)
class BigBirdConfig(EncoderConfig):
    """Configuration of BigBird, in which tokens attend to blocks of `block_size` tokens.

    A token attends to its block, both blocks beside it, the first and the last block. In evaluation, transformers takes
    the first block in place of each of the `num_random_blocks` random blocks. This toolkit does so in training, too.

    attention_type: "block_sparse", or "original_full" for attention to all tokens
    """

    hidden_act: Activation = "gelu_new"
    max_position_embeddings: Positive = 4096
    attention_type: Annotated[str, OneOf("block_sparse", "original_full")] = "block_sparse"
    block_size: Positive = 64
    num_random_blocks: Count = 3
    has_tanh_pooler: ClassVar[bool] = False

    @property
    def longest_full(self) -> int:
        """Maximum length, in tokens, of a text in which each token attends to all tokens."""
        is_sparse = self.attention_type == "block_sparse"
        return (5 + 2 * self.num_random_blocks) * self.block_size if is_sparse else self.max_position_embeddings


@dataclass(frozen=True)
class DebertaConfig(EncoderConfig):
    """Configuration of DeBERTa-v2 and -v3: attention by content and by relative position, in logarithmic buckets.

    pos_att_type: "c2p" (content to position), "p2c" (position to content), or both
    share_att_key: whether the content's query and key projections also project the positions
    norm_rel_ebd: "layer_norm" or "none", for the embeddings of relative positions
    position_biased_input: whether the input also has embeddings of absolute positions
    conv_kernel_size: kernel size of the convolution beside the first layer; 0: no convolution
    """

    type_vocab_size: Count = 0
    layer_norm_eps: float = 1e-7
    relative_attention: bool = False
    max_relative_positions: _Offset = -1
    position_buckets: _Offset = -1
    norm_rel_ebd: str = "none"
    share_att_key: bool = False
    position_biased_input: bool = True
    pos_att_type: tuple[Annotated[str, OneOf("c2p", "p2c")], ...] = ()
    conv_kernel_size: Count = 0
    conv_act: Activation = "tanh"
    conv_groups: Positive = 1
    embedding_size: Count = 0
    pooler_hidden_act: Activation = "gelu"
    has_tanh_pooler: ClassVar[bool] = False

    @classmethod
    def from_dict(cls, values: UncheckedObject) -> EncoderConfig:
        """Create a configuration as the base class does; `pos_att_type` may also be a string, "p2c|c2p"."""
        kinds = values.get("pos_att_type")
        kinds = [kind.strip() for kind in kinds.lower().split("|")] if isinstance(kinds, str) else kinds
        return super().from_dict({**values, "pos_att_type": kinds})

    @property
    def has_rel_norm(self) -> bool:
        """Whether embeddings of relative positions pass through LayerNorm."""
        return self.relative_attention and self.norm_rel_ebd == "layer_norm"

    @property
    def unused(self) -> tuple[str, ...]:
        """Endings of names of parameters that this network does not use, though transformers' files may have them."""
        parameters = {
            "embeddings.position_embeddings": self.position_biased_input,
            "encoder.rel_embeddings": self.relative_attention,
            "encoder.rel_norm": self.has_rel_norm,
        }
        return tuple(name for name, is_used in parameters.items() if not is_used)

    @property
    def span(self) -> int:
        """Maximum distance of relative positions, to the left and to the right."""
        if self.position_buckets > 0:
            return self.position_buckets
        return self.max_relative_positions if self.max_relative_positions > 0 else self.max_position_embeddings


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


@dataclass(frozen=True)
class ViltConfig(EncoderConfig):
    """Configuration of ViLT, which reads a text and the patches of a picture.

    image_size: side in pixels of the square picture whose patches have learned positions
    patch_size: side of a patch in pixels
    shortest_edge: shorter side in pixels to which pictures are scaled
    size_divisor: number of pixels, a multiple of `patch_size`, of which the sides of scaled pictures are multiples
    resample: Pillow's number of the filter that scales pictures
    """

    max_position_embeddings: Positive = 40
    normalize_before: bool = True
    image_size: Length = 384
    patch_size: Annotated[int, Between(1, 64)] = 32
    modality_type_vocab_size: Annotated[int, Between(2, 16)] = 2
    shortest_edge: Length = 384
    size_divisor: Length = 32
    resample: Annotated[int, Between(0, 5)] = 3

    @property
    def place_limits(self) -> tuple[int, ...]:
        """Exclusive upper limits: of a patch's row and column, a picture's number of rows and columns, and pixels."""
        most = 2 * self.shortest_edge // self.patch_size + 1
        return (most,) * 4 + (256,) * (3 * self.patch_size**2)

    @property
    def longest_pair(self) -> int:
        """Maximum length of a pair in tokens: of the text, of the whole picture (one token), and of its patches."""
        shorter, longer = self.shortest_edge, int(1333 / 800 * self.shortest_edge)
        return self.max_position_embeddings + 1 + (shorter // self.patch_size) * (longer // self.patch_size)

    def files(self) -> dict[str, UncheckedObject]:
        """Return `preprocessor_config.json`, by which transformers scales pictures."""
        moments = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 1 / 255}
        return {"preprocessor_config.json": {
            "image_processor_type": "ViltImageProcessor", "do_resize": True, "do_rescale": True, "do_normalize": True,
            "do_pad": True, "size": {"shortest_edge": self.shortest_edge}, "size_divisor": self.size_divisor,
            "resample": self.resample, **moments,
        }}  # fmt: skip


@dataclass(frozen=True)
class PictureTextConfig(EncoderConfig):
    """Configuration of CLIP's and SigLIP's encoders of texts.

    causal: True in CLIP: a token attends to itself and earlier tokens, and the vector is the state of the first
        `eos_token_id`. False in SigLIP: texts are padded to `max_position_embeddings`, and the vector is the state of
        the last position
    """

    type_vocab_size: Count = 0
    hidden_act: Activation = "quick_gelu"
    hidden_dropout_prob: Share = 0.0
    attention_probs_dropout_prob: Share = 0.0
    max_position_embeddings: Positive = 77
    layer_norm_eps: float = 1e-5
    normalize_before: bool = True
    causal: bool = True
    eos_token_id: Count = 49407


@dataclass(frozen=True)
class PictureConfig(EncoderConfig):
    """Configuration of a transformer over the patches of a picture: ViT, CLIP, SigLIP.

    image_size, patch_size: sides of pictures and of patches in pixels
    class_token: whether a learned token precedes the patches; its state is then the vector
    patch_bias: whether the projection of the patches has a bias
    norm_before_layers: whether a norm precedes the first layer
    attention_head: whether the vector is computed by a learned query that attends to the patches
    """

    vocab_size: Count = 0
    type_vocab_size: Count = 0
    hidden_dropout_prob: Share = 0.0
    attention_probs_dropout_prob: Share = 0.0
    layer_norm_eps: float = 1e-5
    normalize_before: bool = True
    image_size: Length = 224
    patch_size: Length = 32
    class_token: bool = True
    patch_bias: bool = False
    norm_before_layers: bool = False
    attention_head: bool = False
    has_tanh_pooler: ClassVar[bool] = False

    @property
    def positions(self) -> int:
        """Number of tokens of a picture."""
        return (self.image_size // self.patch_size) ** 2 + int(self.class_token)


@dataclass(frozen=True)
class ConvolutionsConfig(PictureConfig):
    """Configuration of a network of four convolutions; the last has `hidden_size` channels."""

    model_type: str = "convolutions"
    hidden_size: Positive = 384
    num_hidden_layers: Positive = 4
    num_attention_heads: Positive = 1
    image_size: Length = 64

    @property
    def estimated_parameters(self) -> int:
        return 5 * self.hidden_size**2


_Sizes = Annotated[tuple[Positive, ...], Between(1, 64)]


@dataclass(frozen=True)
class SoundConfig(EncoderConfig):
    """Configuration of wav2vec 2.0 and HuBERT: convolutions over samples, then a transformer over their frames.

    conv_dim: output channels of each convolution
    conv_kernel: width of each convolution, in samples or in frames of the convolution before
    conv_stride: step of each convolution
    conv_bias: whether the convolutions have a bias
    conv_act: the activation after each convolution
    feat_extract_norm: "group": the first convolution's channels are normalised over time; "layer": each convolution's
        frames are normalised over channels
    feat_proj_layer_norm: whether a norm precedes the linear layer between convolutions and transformer
    num_conv_pos_embeddings, num_conv_pos_embedding_groups: width and groups of the convolution that adds positions
    conv_pos_batch_norm: whether frames are scaled and shifted before the convolution that adds positions
    """

    vocab_size: Count = 0
    type_vocab_size: Count = 0
    hidden_dropout_prob: Share = 0.1
    layer_norm_eps: float = 1e-5
    conv_dim: _Sizes = (512,) * 7
    conv_kernel: _Sizes = (10, 3, 3, 3, 3, 2, 2)
    conv_stride: _Sizes = (5, 2, 2, 2, 2, 2, 2)
    conv_bias: bool = False
    conv_act: Activation = "gelu"
    feat_extract_norm: Annotated[str, OneOf("group", "layer")] = "group"
    feat_proj_layer_norm: bool = True
    num_conv_pos_embeddings: Length = 128
    num_conv_pos_embedding_groups: Length = 16
    conv_pos_batch_norm: bool = False
    has_tanh_pooler: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not len(self.conv_dim) == len(self.conv_kernel) == len(self.conv_stride):
            raise CheckpointError(
                f"conv_dim, conv_kernel and conv_stride are of {len(self.conv_dim)}, {len(self.conv_kernel)} and "
                f"{len(self.conv_stride)} convolutions; they must be of as many"
            )
        if self.hidden_size % self.num_conv_pos_embedding_groups:
            raise CheckpointError(
                f"hidden_size {self.hidden_size} is not a multiple of num_conv_pos_embedding_groups "
                f"{self.num_conv_pos_embedding_groups}"
            )

    @property
    def estimated_parameters(self) -> int:
        inputs = (1, *self.conv_dim)
        convolutions = sum(a * b * size for a, b, size in zip(inputs, self.conv_dim, self.conv_kernel))
        layer = 4 * self.hidden_size + 2 * self.intermediate_size
        positions = self.hidden_size * self.num_conv_pos_embeddings // self.num_conv_pos_embedding_groups
        return convolutions + self.hidden_size * (self.conv_dim[-1] + positions + self.num_hidden_layers * layer)
