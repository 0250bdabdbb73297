"""BERT-style encoder with PaddleNLP's parameter names, and its variants ERNIE-M, ELECTRA, DistilBERT and MPNet.

`Encoder` computes what PaddleNLP's ErnieModel, ErnieGramModel and BertModel compute, so their checkpoints load
unchanged. It adds an extra input embedding (match levels), pre-LayerNorm, and an exact shortcut: a ranker reads only
the first token's output, so the last layer computes queries, projections and feed-forward for that token only. Outside
training, the last layer also avoids computing keys and values (`Attention.for_one`).

An encoder can be split (`Encoder.split`) into lower and upper layers. In the lower layers, each text of a pair attends
only to itself, so that titles' states can be stored (PreTTR: MacAvaney et al., 2020).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, ClassVar, Optional

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from paddle_ranker.array_types import Array
from paddle_ranker.errors import CheckpointError, quoted
from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.networks.attention import MASKED, attend
from paddle_ranker.model.networks.dropout import Dropout, Masks
from paddle_ranker.model.networks.lora import weight_of

if TYPE_CHECKING:
    from paddle_ranker.encoding.columns import FileEncoder

_NEVER_LARGEST = 1e4  # subtracted from the states of padding


def activation_named(name: str) -> Callable[[Tensor], Tensor]:
    """Return an activation function: one of Paddle's, or `gelu_new` (an approximation of `gelu`), or `quick_gelu`.

    Raises `CheckpointError` for an unknown name.
    """
    function: Optional[Callable[[Tensor], Tensor]] = _ACTIVATIONS.get(name) or getattr(F, str(name), None)
    if function is None:
        raise CheckpointError(
            f"the activation {quoted(str(name))} is not done here; known are gelu, gelu_new, quick_gelu, relu, silu"
        )
    return function


def _gelu_new(x: Tensor) -> Tensor:
    # ONNX export would turn F.gelu(approximate=True) into the exact function.
    return 0.5 * x * (1.0 + paddle.tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))  # sqrt(2 / pi)


def _quick_gelu(x: Tensor) -> Tensor:
    return x * F.sigmoid(1.702 * x)


_ACTIVATIONS = {"gelu_new": _gelu_new, "quick_gelu": _quick_gelu}


def pool_states(states: Tensor, is_token: Tensor, pooling: str) -> Tensor:
    """Pool token states into one vector per text, `[batch, hidden]`.

    states: `[batch, length, hidden]`
    is_token: `[batch, length]` bool, False at padding
    pooling: "first" or "last" (the state of that token), "mean" or "max" (per dimension, over the tokens)
    """
    if pooling == "first":
        return states[:, 0]
    if pooling == "last":
        places = paddle.cumsum(is_token.astype("int64"), axis=1)
        is_last = is_token & (places == places[:, -1:])
        return paddle.matmul(is_last.astype(states.dtype).unsqueeze(1), states)[:, 0]
    mask = is_token.astype(states.dtype).unsqueeze(-1)
    if pooling == "max":
        return (states + (mask - 1.0) * _NEVER_LARGEST).max(axis=1)
    return (states * mask).sum(axis=1) / mask.sum(axis=1)


def types_of(token_type_ids: Tensor) -> Tensor:
    """Return the tokens' types, `[batch, length]`.

    token_type_ids: `[batch, length]` types; or `[batch, length, 1 + n]`: each token's type, then the n numbers of its
        place (such as its box on a page)
    """
    return token_type_ids[:, :, 0] if token_type_ids.ndim == 3 else token_type_ids


def places_of(token_type_ids: Tensor, size: int) -> Tensor:
    """Return the tokens' places, `[batch, length, size]` int64; zeros if `token_type_ids` has types alone."""
    if token_type_ids.ndim == 3:
        return token_type_ids[:, :, 1:]
    return paddle.zeros_like(token_type_ids).unsqueeze(-1).tile([1, 1, size])


class Embeddings(nn.Layer):
    """Embeddings of tokens: sum of word, position, type (and task) embeddings, then LayerNorm and dropout.

    size: width of the embeddings; 0: `hidden_size`
    """

    def __init__(self, config: EncoderConfig, masks: Masks, size: int = 0):
        super().__init__()
        size = size or config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, size)
        if config.type_vocab_size > 0:
            self.token_type_embeddings = nn.Embedding(config.type_vocab_size, size)
        if config.use_task_id:
            self.task_type_embeddings = nn.Embedding(config.task_type_vocab_size, size)
        self.layer_norm = nn.LayerNorm(size, epsilon=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob, masks)
        self.config = config
        self.each_alone = False  # whether a title's positions restart, as in a single text

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, extra: Optional[Tensor]) -> Tensor:
        hidden = self.word_embeddings(input_ids) + self.position_embeddings(self._positions(input_ids, token_type_ids))
        if self.config.type_vocab_size == 1:  # in RoBERTa, both texts have the same type
            hidden = hidden + self.token_type_embeddings.weight[0]
        elif self.config.type_vocab_size > 1:
            hidden = hidden + self.token_type_embeddings(token_type_ids)
        if self.config.use_task_id:
            hidden = hidden + self.task_type_embeddings.weight[self.config.task_id]
        if extra is not None:
            hidden = hidden + extra
        return self.dropout(self.layer_norm(hidden))

    def _positions(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        # cumsum, unlike arange(length), exports with a dynamic length. The constants are integer tensors, since ONNX
        # would compute with a Python number in floats, which bf16 rounds.
        before_first = paddle.full([1], 1 - self.config.first_position, "int64")
        if not self.each_alone:
            return paddle.cumsum(paddle.ones_like(input_ids), axis=1) - before_first
        # A title begins at the second position, as if [CLS] were before it.
        first = paddle.full([1], self.config.first_position, "int64")
        in_query = paddle.ones_like(token_type_ids) - token_type_ids
        of_title = token_type_ids * (paddle.cumsum(token_type_ids, axis=1) + first)
        return of_title + in_query * (paddle.cumsum(in_query, axis=1) - before_first)


class Attention(nn.Layer):
    """Multi-head attention under the parameter names of Paddle's `MultiHeadAttention` (Vaswani et al., 2017).

    size: width of the hidden states, a multiple of `heads`
    dropout: probability that an attention weight is dropped in training
    """

    def __init__(self, size: int, heads: int, dropout: float, masks: Masks):
        super().__init__()
        self.heads, self.head_size = heads, size // heads
        self.q_proj = nn.Linear(size, size)
        self.k_proj = nn.Linear(size, size)
        self.v_proj = nn.Linear(size, size)
        self.out_proj = nn.Linear(size, size)
        self.dropout = Dropout(dropout, masks)

    def forward(self, query: Tensor, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return the attended values, `[batch, queries, size]`.

        query: `[batch, queries, size]`
        hidden: `[batch, length, size]`, the input of keys and values
        mask: added to the products of queries and keys, `[batch, 1 or heads, 1 or queries, length]`
        """
        q, k, v = self.q_proj(query), self.k_proj(hidden), self.v_proj(hidden)
        return self.out_proj(attend(q, k, v, mask, self.heads, self.dropout))

    def for_one(self, query: Tensor, hidden: Tensor, mask: Tensor) -> Tensor:
        """Compute `forward` for one query per sequence, `[batch, 1, size]`, without dropout; see `attend_once`."""
        return self.out_proj(attend_once(query, hidden, mask, self.heads, self.q_proj, self.k_proj, self.v_proj))


def attend_once(
    query: Tensor, hidden: Tensor, mask: Tensor, heads: int, q_proj: nn.Linear, k_proj: nn.Linear, v_proj: nn.Linear
) -> Tensor:
    """Compute attention for a single query per sequence, without keys and values; return `[batch, 1, size]`.

    query: `[batch, 1, size]`
    hidden, mask: as in `Attention.forward`
    q_proj, k_proj, v_proj: projections of queries, keys and values

    K and b are weight and bias of `k_proj`; V and c are those of `v_proj`. q . (K h + b) = (q K) . h + q . b, and
    softmax cancels q . b, which is equal for all tokens h. The sum of a_i (V h_i + c) is V (sum of a_i h_i) + c, since
    the attention weights a_i sum to 1. DeepSeek-V2 (2024, section 2.1.2) calls this absorption. The attention weights
    get no dropout.
    """
    size = hidden.shape[-1]
    shape = [heads, size // heads]
    q = (q_proj(query) * (size // heads) ** -0.5).reshape([-1, *shape]).transpose([1, 0, 2])
    keys = weight_of(k_proj).reshape([size, *shape]).transpose([1, 2, 0])
    values = weight_of(v_proj).reshape([size, *shape]).transpose([1, 0, 2])
    products = paddle.matmul(paddle.matmul(q, keys).transpose([1, 0, 2]), hidden, transpose_y=True)
    weights = F.softmax(products + mask.squeeze(2).astype(products.dtype))
    summed = paddle.matmul(weights, hidden).transpose([1, 0, 2])
    # Add the bias before joining the heads: after that, oneDNN's bf16 passes add it to the wrong shape.
    attended = paddle.matmul(summed, values).transpose([1, 0, 2]) + v_proj.bias.reshape(shape)
    return attended.reshape([-1, 1, size])


class EncoderLayer(nn.Layer):
    """Transformer layer with LayerNorm after each part (BERT) or before it (`normalize_before`).

    Paddle's own layer is not used, since importing PaddleNLP replaces the methods of that layer.
    """

    def __init__(self, config: EncoderConfig, masks: Masks):
        super().__init__()
        size, dropout = config.hidden_size, config.hidden_dropout_prob
        self.normalize_before = config.normalize_before
        self.self_attn = Attention(size, config.num_attention_heads, config.attention_probs_dropout_prob, masks)
        self.linear1 = nn.Linear(size, config.intermediate_size)
        self.linear2 = nn.Linear(config.intermediate_size, size)
        self.norm1 = nn.LayerNorm(size, epsilon=config.layer_norm_eps)
        self.norm2 = nn.LayerNorm(size, epsilon=config.layer_norm_eps)
        self.dropout1, self.dropout2 = Dropout(dropout, masks), Dropout(dropout, masks)
        self.activation = activation_named(config.hidden_act)

    def forward(
        self, hidden: Tensor, mask: Tensor, first_token_only: bool = False, indices: Optional[Tensor] = None
    ) -> Tensor:
        """Return the layer's output, `[batch, length, size]`.

        With `first_token_only`, compute only the first token's output, `[batch, 1, size]`; with `indices`, only the
        output of the chosen tokens, `[batch, chosen, size]` (see `_at`).
        """
        inner = self.norm1(hidden) if self.normalize_before else hidden
        query, residual = (inner[:, :1], hidden[:, :1]) if first_token_only else (inner, hidden)
        if indices is not None:
            query, residual = _at(inner, indices), _at(hidden, indices)
        # `for_one` needs weights that sum to 1, and dropout in training changes their sum.
        attention = self.self_attn.for_one if first_token_only and not self.training else self.self_attn
        attended = residual + self.dropout1(attention(query, inner, mask))
        if not self.normalize_before:
            attended = self.norm1(attended)
        inner = self.norm2(attended) if self.normalize_before else attended
        output = attended + self.dropout2(self.linear2(self.activation(self.linear1(inner))))
        return output if self.normalize_before else self.norm2(output)


def _at(hidden: Tensor, indices: Tensor) -> Tensor:
    """Return the states of the chosen tokens, `[batch, chosen, size]`.

    hidden: `[batch, length, size]`
    indices: `[batch, chosen]` indices into the batch's flattened tokens
    """
    size = hidden.shape[-1]
    return paddle.gather(hidden.reshape([-1, size]), indices.reshape([-1])).reshape([*indices.shape, size])


def _apart(queries: Tensor, keys: Tensor) -> Tensor:
    """Return the additive mask, `[batch, 1, m, n]`, that hides keys from the queries of other documents.

    queries, keys: `[batch, m]` and `[batch, n]`, the index of each query's and each key's document
    """
    return (queries.unsqueeze(2) != keys.unsqueeze(1)).astype("float32").unsqueeze(1) * MASKED


class _Layers(nn.Layer):
    """Container of the layers, which PaddleNLP's checkpoints call `encoder.layers.<i>`."""

    def __init__(self, config: EncoderConfig, masks: Masks, layer: type[EncoderLayer]):
        super().__init__()
        self.layers = nn.LayerList([layer(config, masks) for _ in range(config.num_hidden_layers)])
        if config.normalize_before:
            self.norm = nn.LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps)


class Pooler(nn.Layer):
    """Linear layer and activation over the first token's state."""

    def __init__(self, size: int, activation: str = "tanh"):
        super().__init__()
        self.dense = nn.Linear(size, size)
        self.activation = activation_named(activation)

    def forward(self, first: Tensor) -> Tensor:
        return self.activation(self.dense(first))


class _Seeded:
    """Wrapper of a layer that sets the random generator to the same seed before each call."""

    def __init__(self, layer: nn.Layer, seed: int, masks: Masks):
        self.layer, self.seed, self.masks = layer, seed, masks

    def __call__(self, hidden: Tensor, *context: object) -> Tensor:
        paddle.seed(self.seed)
        self.masks.restart()
        return self.layer(hidden, *context)


class Encoder(nn.Layer):
    """Encoder of token ids into hidden states, or into one pooled vector per sequence.

    Subclasses for other families set other classes of parts, or override the methods that create the parts, or override
    `_embed`, `forward` and `pooled`.

    Attributes:
        embeddings_class: class of `embeddings`, called with the configuration and the masks of dropout.
        layer_class: class of the layers.
    """

    embeddings_class: ClassVar[type[nn.Layer]] = Embeddings
    layer_class: ClassVar[type[EncoderLayer]] = EncoderLayer

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.config = config
        self.masks = Masks()
        self.embeddings = self._make_embeddings()
        self.encoder = self._make_layers()
        self.pooler = self._make_pooler()
        self.gradient_checkpointing = False  # recompute activations in the backward pass instead of keeping them
        self.longest = config.longest_pair  # maximum length in tokens, by which a graph chooses its attention
        self.lower = 0  # number of layers that see each text of a pair alone
        self._initialise()

    def normalise_as(self, rows: FileEncoder) -> None:
        """Take over how the encoder of the inputs, which are files, says that a network normalises them."""

    def _make_embeddings(self) -> nn.Layer:
        return self.embeddings_class(self.config, self.masks)

    def _make_layers(self) -> nn.Layer:
        return _Layers(self.config, self.masks, self.layer_class)

    def _make_pooler(self) -> nn.Layer:
        return Pooler(self.config.hidden_size)

    def _initialise(self) -> None:
        """Initialise matrices from N(0, initializer_range) truncated at two standard deviations, as BERT does."""
        draw = nn.initializer.TruncatedNormal(mean=0.0, std=self.config.initializer_range)
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                draw(parameter)
            elif name.endswith("bias"):
                nn.initializer.Constant(0.0)(parameter)

    def _embed(self, input_ids: Tensor, token_type_ids: Tensor, extra: Optional[Tensor]) -> tuple[Tensor, Tensor]:
        if self.training:
            self.masks.restart()
        if self.config.type_vocab_size < 2:
            # Every ranker's graph has both inputs, and Paddle drops an input that nothing depends on when it exports.
            input_ids = input_ids + 0 * types_of(token_type_ids)
        return self.embeddings(input_ids, token_type_ids, extra), self._mask(input_ids)

    def _mask(self, input_ids: Tensor) -> Tensor:
        """Return the additive attention mask of padding, `[batch, 1, 1, length]`."""
        mask = (input_ids == self.config.pad_token_id).astype(self.pooler.dense.weight.dtype) * MASKED
        return mask.unsqueeze([1, 2])

    def _through(self, layers: Iterable[nn.Layer], hidden: Tensor, *context: object) -> Tensor:
        """Run `layers` on `hidden`; each layer also receives `context` (for example a mask)."""
        if not (self.gradient_checkpointing and self.training):
            for layer in layers:
                hidden = layer(hidden, *context)
            return hidden
        from paddle.distributed.fleet.utils import recompute

        # Paddle restores the random state of dropout on some devices only. A layer that seeds itself draws the same
        # masks in both passes on every device.
        seed = self.masks.draw()
        for number, layer in enumerate(layers):
            seeded = _Seeded(layer, seed + number, self.masks)
            hidden = recompute(seeded, hidden, *context, preserve_rng_state=False)
        paddle.seed(seed + len(self.encoder.layers))
        self.masks.restart()
        return hidden

    def split(self, layers: int) -> None:
        """Let each text of a pair attend only to itself in the first `layers` layers, called the lower layers.

        Raises `CheckpointError` if the encoder does not have more than `layers` layers, or if its family cannot be
        split: its attention is not BERT's, or its tokens have places.
        """
        methods = ("_embed", "forward", "pooled")
        is_other = any(getattr(type(self), name) is not getattr(Encoder, name) for name in methods)
        if layers and (is_other or self.config.place_limits):
            raise CheckpointError(
                f"--stored_titles is not done for encoders of the family {self.config.model_type}; choose one with "
                "absolute positions, such as BERT or ERNIE"
            )
        most = self.config.num_hidden_layers - 1
        if layers > most:
            raise CheckpointError(
                f"--stored_titles {layers}: the encoder has {most + 1} layers, and the last sees both texts; choose "
                f"{f'1 to {most}' if most else 'an encoder with more'}"
            )
        self.lower = layers
        self.embeddings.each_alone = layers > 0

    def apart(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """Return the states after the lower layers of a split encoder, `[batch, length, hidden]`.

        A token's state depends only on the tokens of its text, so a row may also be a single text: a query with type 0,
        or a title with type 1.
        """
        hidden, mask = self._embed(input_ids, token_type_ids, None)
        mask = mask + _apart(token_type_ids, token_type_ids).astype(mask.dtype)
        return self._through(self.encoder.layers[: self.lower], hidden, mask)

    def above(
        self, states: Tensor, input_ids: Tensor, token_type_ids: Tensor, extra: Optional[Tensor], *, pools: bool
    ) -> Tensor:
        """Compute the upper layers from the states that `apart` returns; return the result of `pooled` or `forward`.

        states: `[batch, length, hidden]`
        input_ids, token_type_ids: as in `forward`
        extra: `[batch, length, hidden]`, added to the states, or None
        pools: True for the result of `pooled`, False for that of `forward`
        """
        hidden, mask = states if extra is None else states + extra, self._mask(input_ids + 0 * token_type_ids)
        layers = self.encoder.layers[self.lower :]
        return self._pooled_after(layers, hidden, mask) if pools else self._after(layers, hidden, mask)

    def _after(self, layers: nn.LayerList, hidden: Tensor, mask: Tensor) -> Tensor:
        hidden = self._through(layers, hidden, mask)
        return self.encoder.norm(hidden) if self.config.normalize_before else hidden

    def _pooled_after(self, layers: nn.LayerList, hidden: Tensor, mask: Tensor) -> Tensor:
        hidden = self._through(layers[:-1], hidden, mask)
        first = layers[-1](hidden, mask, first_token_only=True)[:, 0]
        return self.pooler(self.encoder.norm(first) if self.config.normalize_before else first)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, extra: Optional[Tensor] = None) -> Tensor:
        """Return the hidden states of all tokens, `[batch, length, hidden]`.

        input_ids, token_type_ids: `[batch, length]` int64; positions that hold `pad_token_id` are masked. Where
            tokens have places (boxes, cells, patches), `token_type_ids` may be `[batch, length, 1 + n]`: the type, then
            the n numbers of the token's place
        extra: `[batch, length, hidden]`, added to the input embeddings; a split encoder adds it to the states after its
            lower layers instead
        """
        if self.lower:
            states = self.apart(input_ids, token_type_ids)
            return self.above(states, input_ids, token_type_ids, extra, pools=False)
        return self._after(self.encoder.layers, *self._embed(input_ids, token_type_ids, extra))

    def states(self, input_ids: Tensor, token_type_ids: Tensor) -> list[Tensor]:
        """Return the hidden states before the first layer and after each layer, `[batch, length, hidden]` each."""
        hidden, mask = self._embed(input_ids, token_type_ids, None)
        return self._states_of(self.encoder.layers, hidden, mask)

    def _states_of(self, layers: Iterable[nn.Layer], hidden: Tensor, *context: object) -> list[Tensor]:
        states = [hidden]
        for layer in layers:
            hidden = layer(hidden, *context)
            states.append(hidden)
        if self.config.normalize_before:
            states[-1] = self.encoder.norm(hidden)
        return states

    def at(
        self, input_ids: Tensor, token_type_ids: Tensor, indices: Tensor, documents: Optional[Tensor] = None
    ) -> Tensor:
        """Return the hidden states of the chosen tokens of each sequence, `[batch, chosen, hidden]`.

        Without `documents`, the states equal those of `forward`. The last layer computes keys and values for all
        tokens, and everything else for the chosen tokens only.

        input_ids, token_type_ids: as in `forward`
        indices: `[batch, chosen]` int64 indices into the flattened `input_ids`; row i chooses tokens of sequence i
        documents: `[batch, length]` int64, index of each token's document; a token attends only to the tokens of its
            document. None: tokens attend to the whole sequence
        """
        hidden, mask = self._embed(input_ids, token_type_ids, None)
        last_mask = mask
        if documents is not None:
            chosen = paddle.gather(documents.reshape([-1]), indices.reshape([-1])).reshape(indices.shape)
            mask, last_mask = mask + _apart(documents, documents), mask + _apart(chosen, documents)
        hidden = self._through(self.encoder.layers[:-1], hidden, mask)
        hidden = self.encoder.layers[-1](hidden, last_mask, indices=indices)
        return self.encoder.norm(hidden) if self.config.normalize_before else hidden

    def pool(self, states: Tensor, input_ids: Tensor) -> Tensor:
        """Return the pooled output, `[batch, hidden]`, from the states that `forward` returned."""
        return self.pooler(states[:, 0])

    def pooled(self, input_ids: Tensor, token_type_ids: Tensor, extra: Optional[Tensor] = None) -> Tensor:
        """Return the pooled output, `[batch, hidden]`; arguments as in `forward`.

        BERT pools the first token's state.
        """
        if self.lower:
            states = self.apart(input_ids, token_type_ids)
            return self.above(states, input_ids, token_type_ids, extra, pools=True)
        return self._pooled_after(self.encoder.layers, *self._embed(input_ids, token_type_ids, extra))


class ErnieMEncoder(Encoder):
    """ERNIE-M: BERT without token types, whose tokens attend to no token with the id 0 (Ouyang et al., 2021).

    In its vocabulary, [CLS] has the id 0, and [PAD] 1. PaddleNLP's ErnieMModel hides 0 if it gets no mask, and its
    tokenizer makes none. So the published parameters are trained with a hidden [CLS].
    """

    def _mask(self, input_ids: Tensor) -> Tensor:
        mask = Encoder._mask(self, input_ids)
        if self.config.pad_token_id == 0:
            return mask
        return mask + ((input_ids == 0).astype(mask.dtype) * MASKED).unsqueeze([1, 2])


class DistilBertEncoder(Encoder):
    """DistilBERT: BERT without token types; its pooler applies relu (Sanh et al., 2019)."""

    def _make_pooler(self) -> nn.Layer:
        return Pooler(self.config.hidden_size, "relu")


BUCKETS, _FARTHEST = 32, 128  # constants of MPNet in transformers


class MPNetEncoder(Encoder):
    """MPNet: all layers share attention biases by relative position (Song et al., 2020)."""

    def __init__(self, config: EncoderConfig):
        super().__init__(config)
        self._buckets = relative_buckets(config.max_position_embeddings)

    def _make_layers(self) -> nn.Layer:
        layers = super()._make_layers()
        layers.relative_attention_bias = nn.Embedding(BUCKETS, self.config.num_attention_heads)
        return layers

    def _embed(self, input_ids: Tensor, token_type_ids: Tensor, extra: Optional[Tensor]) -> tuple[Tensor, Tensor]:
        # Not super(), which Paddle 2.6 does not find in a network that it makes static.
        hidden, mask = Encoder._embed(self, input_ids, token_type_ids, extra)
        # All constants are integer tensors, see `Embeddings._positions`.
        places = paddle.cumsum(paddle.ones_like(input_ids[0]), axis=0)
        apart = places.unsqueeze(1) - places.unsqueeze(0)
        middle = paddle.full([1], len(self._buckets) // 2, "int64")
        buckets = paddle.gather(paddle.to_tensor(self._buckets), apart.reshape([-1]) + middle)
        biases = self.encoder.relative_attention_bias(buckets.reshape(paddle.shape(apart)))
        return hidden, mask + biases.transpose([2, 0, 1]).unsqueeze(0)

    def pooled(self, input_ids: Tensor, token_type_ids: Tensor, extra: Optional[Tensor] = None) -> Tensor:
        hidden, mask = self._embed(input_ids, token_type_ids, extra)
        hidden = self._through(self.encoder.layers[:-1], hidden, mask)
        return self.pooler(self.encoder.layers[-1](hidden, mask[:, :, :1], first_token_only=True)[:, 0])


def relative_buckets(positions: int) -> Array:
    """Return MPNet's bucket of each relative position, `[2 positions - 1]` int64.

    A relative position is the query's position minus the key's; the first is 1 - `positions`. Half of the buckets are
    for keys after the query. Near positions have a bucket each, farther positions share buckets on a logarithmic scale.
    """
    apart = np.arange(1 - positions, positions)  # place of the query minus place of the key
    distance, half = np.abs(apart), BUCKETS // 2
    near = half // 2
    shares = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(near))
    far = near + (shares / np.float32(math.log(_FARTHEST / near)) * np.float32(half - near)).astype(np.int64)
    buckets = np.where(distance < near, distance, np.minimum(far, half - 1))
    return np.asarray(buckets + half * (apart < 0), np.int64)
