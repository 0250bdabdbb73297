"""A BERT-style encoder with PaddleNLP's parameter names, so that PaddleNLP's checkpoints load as they are.

It is PaddleNLP's ErnieModel, ErnieGramModel and BertModel in one, with three additions: an extra input embedding
(match levels), pre-LayerNorm, and an exact shortcut. A ranker reads only the first token's output, so the last layer
computes the query, the projections and the feed-forward for the first token alone; outside training it computes no keys
and values either (`Attention.for_one`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Optional

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from paddle_ranker.errors import CheckpointError, quoted
from paddle_ranker.model.attention import Attention
from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.dropout import Dropout, Masks

_NEVER_LARGEST = 1e4  # taken off the states of padding
MASKED = -1e4  # as PaddleNLP; exp(-1e4) is exactly 0 in float32, so padding changes no score


def activation_named(name: str) -> Callable[[Tensor], Tensor]:
    """Return an activation: one of Paddle's, or `gelu_new`, which approximates `gelu` by tanh.

    Raises `CheckpointError` if there is none of that name.
    """
    found: Optional[Callable[[Tensor], Tensor]] = _gelu_new if name == "gelu_new" else getattr(F, str(name), None)
    if found is None:
        raise CheckpointError(
            f"the activation {quoted(str(name))} is not done here; known are gelu, gelu_new, relu, silu"
        )
    return found


def _gelu_new(x: Tensor) -> Tensor:
    # Not F.gelu(approximate=True), which becomes the exact one in ONNX.
    return 0.5 * x * (1.0 + paddle.tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))  # sqrt(2 / pi)


def pool_states(states: Tensor, is_token: Tensor, pooling: str) -> Tensor:
    """Return one vector a text, `[batch, hidden]`: the first token's state, the mean, or the largest numbers.

    Args:
        states: `[batch, length, hidden]`.
        is_token: `[batch, length]` bool, False at padding.
        pooling: "first", "mean" or "max".
    """
    if pooling == "first":
        return states[:, 0]
    mask = is_token.astype(states.dtype).unsqueeze(-1)
    if pooling == "max":
        return (states + (mask - 1.0) * _NEVER_LARGEST).max(axis=1)
    return (states * mask).sum(axis=1) / mask.sum(axis=1)


class Embeddings(nn.Layer):
    """Sum the word, position, type (and task) embeddings, then LayerNorm and dropout."""

    def __init__(self, config: EncoderConfig, masks: Masks, size: int):
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, size)
        if config.type_vocab_size > 0:
            self.token_type_embeddings = nn.Embedding(config.type_vocab_size, size)
        if config.use_task_id:
            self.task_type_embeddings = nn.Embedding(config.task_type_vocab_size, size)
        self.layer_norm = nn.LayerNorm(size, epsilon=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob, masks)
        self.config = config

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, extra: Optional[Tensor]) -> Tensor:
        # cumsum rather than arange(length): it exports with a length that stays free.
        # A tensor of integers: with a number of Python's, an ONNX file computes in floats, which bf16 rounds.
        before_first = paddle.full([1], 1 - self.config.first_position, "int64")
        positions = paddle.cumsum(paddle.ones_like(input_ids), axis=1) - before_first
        hidden = self.word_embeddings(input_ids) + self.position_embeddings(positions)
        if self.config.type_vocab_size == 1:  # RoBERTa's, which both texts have
            hidden = hidden + self.token_type_embeddings.weight[0]
        elif self.config.type_vocab_size > 1:
            hidden = hidden + self.token_type_embeddings(token_type_ids)
        if self.config.use_task_id:
            hidden = hidden + self.task_type_embeddings.weight[self.config.task_id]
        if extra is not None:
            hidden = hidden + extra
        return self.dropout(self.layer_norm(hidden))


class EncoderLayer(nn.Layer):
    """One transformer layer, with LayerNorm after each part (BERT) or before it (`normalize_before`).

    Paddle's own layer is not used, since PaddleNLP replaces its methods on import.
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
        self, hidden: Tensor, mask: Tensor, first_token_only: bool = False, places: Optional[Tensor] = None
    ) -> Tensor:
        """Return the layer's output, `[batch, length, size]`.

        With `first_token_only`, only the first token's output is computed, `[batch, 1, size]`; with `places`, only the
        output of the tokens at those places, `[batch, chosen, size]` (see `Encoder.at`).
        """
        inner = self.norm1(hidden) if self.normalize_before else hidden
        query, residual = (inner[:, :1], hidden[:, :1]) if first_token_only else (inner, hidden)
        if places is not None:
            query, residual = _at(inner, places), _at(hidden, places)
        # Training drops attention weights, which then no longer sum to 1.
        attention = self.self_attn.for_one if first_token_only and not self.training else self.self_attn
        attended = residual + self.dropout1(attention(query, inner, mask))
        if not self.normalize_before:
            attended = self.norm1(attended)
        inner = self.norm2(attended) if self.normalize_before else attended
        output = attended + self.dropout2(self.linear2(self.activation(self.linear1(inner))))
        return output if self.normalize_before else self.norm2(output)


def _at(hidden: Tensor, places: Tensor) -> Tensor:
    """Return `[batch, chosen, size]`: the states at `places`, `[batch, chosen]` indices of the flattened tokens."""
    size = hidden.shape[-1]
    return paddle.gather(hidden.reshape([-1, size]), places.reshape([-1])).reshape([*places.shape, size])


def _apart(queries: Tensor, keys: Tensor) -> Tensor:
    """Return the additive mask, `[batch, 1, m, n]`, between queries and keys of different documents.

    `queries` `[batch, m]` and `keys` `[batch, n]` hold document numbers.
    """
    return (queries.unsqueeze(2) != keys.unsqueeze(1)).astype("float32").unsqueeze(1) * MASKED


class _Layers(nn.Layer):
    """Holds the layers under the name they have in PaddleNLP's checkpoints: `encoder.layers.<i>`."""

    def __init__(self, config: EncoderConfig, masks: Masks):
        super().__init__()
        self.layers = nn.LayerList([EncoderLayer(config, masks) for _ in range(config.num_hidden_layers)])
        if config.normalize_before:
            self.norm = nn.LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps)


class Pooler(nn.Layer):
    """A linear layer and an activation over the first token's state."""

    def __init__(self, size: int, activation: str = "tanh"):
        super().__init__()
        self.dense = nn.Linear(size, size)
        self.activation = activation_named(activation)

    def forward(self, first: Tensor) -> Tensor:
        return self.activation(self.dense(first))


class _Seeded:
    """A layer that seeds the random generator before it computes."""

    def __init__(self, layer: nn.Layer, seed: int, masks: Masks):
        self.layer, self.seed, self.masks = layer, seed, masks

    def __call__(self, hidden: Tensor, *context: Tensor) -> Tensor:
        paddle.seed(self.seed)
        self.masks.restart()
        return self.layer(hidden, *context)


class Encoder(nn.Layer):
    """Encode token ids into hidden states, or into one pooled vector a sequence.

    The encoder of another family overrides how its parts are made, or `_embed` and what is computed of it.
    """

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.config = config
        self.masks = Masks()
        self.embeddings = self._make_embeddings()
        self.encoder = self._make_layers()
        self.pooler = self._make_pooler()
        self.gradient_checkpointing = False  # compute a layer's activations again on the way back, and keep none
        self._initialise()

    def _make_embeddings(self) -> nn.Layer:
        return Embeddings(self.config, self.masks, self.config.hidden_size)

    def _make_layers(self) -> nn.Layer:
        return _Layers(self.config, self.masks)

    def _make_pooler(self) -> nn.Layer:
        return Pooler(self.config.hidden_size)

    def _initialise(self) -> None:
        """Draw every matrix from N(0, initializer_range) truncated at two standard deviations, as BERT does."""
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
            # Paddle exports no graph with an input that nothing depends on, and every ranker's graph has both.
            input_ids = input_ids + 0 * token_type_ids
        return self.embeddings(input_ids, token_type_ids, extra), self._mask(input_ids)

    def _mask(self, input_ids: Tensor) -> Tensor:
        """Return what is added to the products of queries and keys, `[batch, 1, 1, length]`."""
        mask = (input_ids == self.config.pad_token_id).astype(self.pooler.dense.weight.dtype) * MASKED
        return mask.unsqueeze([1, 2])

    def _through(self, layers: Iterable[nn.Layer], hidden: Tensor, *context: Tensor) -> Tensor:
        """Return what the layers make of `hidden`; `context` is what each of them is given with it, such as a mask."""
        if not (self.gradient_checkpointing and self.training):
            for layer in layers:
                hidden = layer(hidden, *context)
            return hidden
        from paddle.distributed.fleet.utils import recompute

        # Paddle restores dropout's random state on some devices only; a layer that seeds itself draws the same masks
        # in both passes on every device.
        seed = int(paddle.randint(0, 2**30, [1]))
        for number, layer in enumerate(layers):
            seeded = _Seeded(layer, seed + number, self.masks)
            hidden = recompute(seeded, hidden, *context, preserve_rng_state=False)
        paddle.seed(seed + len(self.encoder.layers))
        self.masks.restart()
        return hidden

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, extra: Optional[Tensor] = None) -> Tensor:
        """Return the hidden states of all tokens, `[batch, length, hidden]`.

        Args:
            input_ids, token_type_ids: `[batch, length]` int64; positions that hold `pad_token_id` are masked.
            extra: `[batch, length, hidden]`, added to the input embeddings.
        """
        hidden, mask = self._embed(input_ids, token_type_ids, extra)
        hidden = self._through(self.encoder.layers, hidden, mask)
        return self.encoder.norm(hidden) if self.config.normalize_before else hidden

    def at(
        self, input_ids: Tensor, token_type_ids: Tensor, places: Tensor, documents: Optional[Tensor] = None
    ) -> Tensor:
        """Return the hidden states of some tokens of each sequence, `[batch, chosen, hidden]`.

        They equal those of `forward`. The last layer computes keys and values for all tokens, and everything else for
        the chosen tokens alone.

        Args:
            input_ids, token_type_ids: as in `forward`.
            places: `[batch, chosen]` int64 indices of the flattened `input_ids`; each row's tokens are of its sequence.
            documents: `[batch, length]` int64, each token's document number; a token attends only to tokens of its own
                document. None: to all tokens.
        """
        hidden, mask = self._embed(input_ids, token_type_ids, None)
        last_mask = mask
        if documents is not None:
            chosen = paddle.gather(documents.reshape([-1]), places.reshape([-1])).reshape(places.shape)
            mask, last_mask = mask + _apart(documents, documents), mask + _apart(chosen, documents)
        hidden = self._through(self.encoder.layers[:-1], hidden, mask)
        hidden = self.encoder.layers[-1](hidden, last_mask, places=places)
        return self.encoder.norm(hidden) if self.config.normalize_before else hidden

    def pool(self, states: Tensor, input_ids: Tensor) -> Tensor:
        """Return the pooled output, `[batch, hidden]`, of what `forward` returns."""
        return self.pooler(states[:, 0])

    def pooled(self, input_ids: Tensor, token_type_ids: Tensor, extra: Optional[Tensor] = None) -> Tensor:
        """Return the pooled output of the first token, `[batch, hidden]`; arguments as in `forward`."""
        hidden, mask = self._embed(input_ids, token_type_ids, extra)
        hidden = self._through(self.encoder.layers[:-1], hidden, mask)
        first = self.encoder.layers[-1](hidden, mask, first_token_only=True)[:, 0]
        return self.pooler(self.encoder.norm(first) if self.config.normalize_before else first)
