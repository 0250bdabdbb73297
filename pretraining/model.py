"""The masked language model: an encoder with BERT's head, under PaddleNLP's parameter names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np
import paddle
from paddle import Tensor, nn

from paddle_ranker.encoding.tokenizers.interface import ModelTokenizer
from paddle_ranker.encoding.tokenizers.tokenizer_folder import TokenizerFiles
from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.encoder_loading import Checkpoint, encoder_of, read_checkpoint
from paddle_ranker.model.masked_lm import HEAD, masked_lm_head
from paddle_ranker.model.model_folder import MASKED_LM, identify
from paddle_ranker.model.model_kind import TRAINED
from paddle_ranker.model.networks.bert import Encoder, activation_named
from paddle_ranker.model.parameters import set_parameters

MODEL_TYPES = ("ernie", "bert")
_POOLER = "pooler."


class _Predictions(nn.Layer):
    """Layer from hidden states to word pieces' logits: dense, activation, LayerNorm, product with word embeddings."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        size = config.hidden_size
        draw = paddle.ParamAttr(initializer=nn.initializer.TruncatedNormal(0.0, config.initializer_range))
        self.transform = nn.Linear(size, size, weight_attr=draw)
        self.activation = activation_named(config.hidden_act)
        self.layer_norm = nn.LayerNorm(size, epsilon=config.layer_norm_eps)
        self.decoder_bias = self.create_parameter([config.vocab_size], is_bias=True)

    def forward(self, hidden: Tensor, word_embeddings: Tensor) -> Tensor:
        inner = self.layer_norm(self.activation(self.transform(hidden)))
        return paddle.matmul(inner, word_embeddings, transpose_y=True) + self.decoder_bias


class _Head(nn.Layer):
    """Holder of the head, under the head's name in PaddleNLP's checkpoints: `cls.predictions`."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.predictions = _Predictions(config)


class MaskedLanguageModel(nn.Layer):
    """Network that predicts masked tokens.

    Its parameters have the names of PaddleNLP's ErnieForMaskedLM and BertForMaskedLM: `ernie.*` or `bert.*`, and
    `cls.predictions.*`. The pooler is not used, so it is not trained. Without `has_pooler`, it is random and is not
    saved; a ranker adds a new one.
    """

    def __init__(self, config: EncoderConfig, has_pooler: bool = False, encoder: Optional[Encoder] = None):
        super().__init__()
        if config.model_type not in MODEL_TYPES:
            raise CheckpointError(
                f"masked language models of the type {config.model_type} are not supported; "
                f"known: {', '.join(MODEL_TYPES)}"
            )
        self.config, self.has_pooler = config, has_pooler
        setattr(self, config.model_type, Encoder(config) if encoder is None else encoder)
        self.cls = _Head(config)
        self.separator: Optional[int] = None  # the id of [SEP], if attention stays within documents
        for parameter in self.encoder.pooler.parameters():
            parameter.stop_gradient = True

    @property
    def encoder(self) -> Encoder:
        """Return the encoder; its attribute has the name of the model type."""
        encoder: Encoder = getattr(self, self.config.model_type)
        return encoder

    def forward(self, input_ids: np.ndarray, indices: np.ndarray) -> Tensor:
        """Return the logits of the tokens at `indices`, `[m, vocab]` float32.

        Args:
            input_ids: `[batch, length]` int64; padding is masked, and all tokens are of type 0.
            indices: `[m]` int64, ascending indices of the flattened `input_ids`. Only these tokens go through most of
                the last layer, and through the head's product with all word embeddings.
        """
        grid, slots = _by_row(input_ids.shape, indices)
        ids = paddle.to_tensor(input_ids)
        documents = None
        if self.separator is not None:
            ends = input_ids == self.separator
            documents = paddle.to_tensor(np.cumsum(ends, axis=1) - ends)
        hidden = self.encoder.at(ids, paddle.zeros_like(ids), paddle.to_tensor(grid), documents)
        chosen = paddle.gather(hidden.reshape([-1, self.config.hidden_size]), paddle.to_tensor(slots))
        return self.cls.predictions(chosen, self.encoder.embeddings.word_embeddings.weight).astype("float32")

    def state_dict(self, *arguments: Any, **keywords: Any) -> dict[str, Tensor]:
        """Return the parameters for a checkpoint: all but those of an untrained pooler."""
        state = super().state_dict(*arguments, **keywords)
        pooler = f"{self.config.model_type}.{_POOLER}"
        return type(state)((n, t) for n, t in state.items() if self.has_pooler or not n.startswith(pooler))


def _by_row(shape: tuple[int, ...], indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Arrange token indices in rows, `[batch, longest]`; also return the position of each in the flattened rows.

    shape: `(batch, length)`, the shape of the ids
    indices: ascending indices into the flattened ids, `[m]`; rows are padded with the index of the row's first token
    """
    batch, length = shape
    rows = indices // length
    counts = np.bincount(rows, minlength=batch)
    columns = np.arange(len(indices)) - (np.cumsum(counts) - counts)[rows]
    grid = np.repeat(np.arange(batch) * length, counts.max()).reshape(batch, -1)
    grid[rows, columns] = indices
    return grid, rows * grid.shape[1] + columns


@dataclass(frozen=True)
class MaskedLm:
    """A masked language model in memory.

    new_parts: the parts that the checkpoint lacks (the head, or none)
    """

    network: MaskedLanguageModel
    tokenizer: TokenizerFiles
    new_parts: list[str]


def load_masked_lm(folder: Path, *, need_head: bool) -> MaskedLm:
    """Load the encoder of a folder, and the head of a masked language model if there is one; see `masked_lm_of`."""
    model_type = identify(folder)
    if need_head and model_type.form != TRAINED:
        raise model_type.refusal(MASKED_LM.wanted)
    checkpoint = read_checkpoint(folder)
    return masked_lm_of(checkpoint, folder, need_head=need_head)


def masked_lm_of(
    checkpoint: Checkpoint, folder: Path, *, model_config: Optional[EncoderConfig] = None, need_head: bool
) -> MaskedLm:
    """Make the masked language model of a checkpoint that was read from a folder.

    Args:
        model_config: replaces the folder's configuration: the same shape, perhaps with another dropout.
        need_head: refuse a folder without the head of a masked language model.

    Raises `CheckpointError` if a file is missing or damaged, or the parameters do not fit the configuration.
    """
    try:
        head = masked_lm_head(checkpoint.unnamed)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.file}: {error}") from error
    if need_head and not head:
        raise CheckpointError(
            f"{folder}: has no head of a masked language model ({HEAD}.*), only an encoder: train one from it with "
            "paddle-ranker pretrain --model"
        )
    encoder, new_parts = encoder_of(checkpoint, model_config)
    network = MaskedLanguageModel(encoder.config, not new_parts, encoder)
    encoder_name = f"{encoder.config.model_type}."
    try:
        set_parameters(network, head, may_lack=(encoder_name,) if head else (encoder_name, f"{HEAD}."))
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}; is config.json this model's?") from error
    return MaskedLm(network, wordpiece(checkpoint.tokenizer(), folder), [] if head else ["cls"])


def wordpiece(tokenizer: ModelTokenizer, folder: Path) -> TokenizerFiles:
    """Return the tokenizer if it is WordPiece; raises `CheckpointError` for any other."""
    if not isinstance(tokenizer, TokenizerFiles):
        raise CheckpointError(f"{folder}: masked language models are trained with WordPiece alone; it has no vocab.txt")
    return tokenizer
