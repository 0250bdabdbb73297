"""Encoder of TAPAS, and its heads that select the cells and the operation of an answer (Herzig et al., 2020)."""

from __future__ import annotations

from typing import Optional

import paddle
from paddle import Tensor, nn

from paddle_ranker.model.network import CellLogits
from paddle_ranker.model.networks.attention import MASKED
from paddle_ranker.model.networks.bert import Embeddings, Encoder, places_of, types_of
from paddle_ranker.model.networks.dropout import Masks
from paddle_ranker.tables.kind import TapasConfig

_COLUMN, _ROW = 1, 2  # numbers of a token's types
_LEAST = 1e-10  # added to a count that may be 0, as in transformers


class CellHeads(nn.Layer):
    """Heads that select a column and an operation; the ranker's head selects cells."""

    def __init__(self, config: TapasConfig):
        super().__init__()
        self.config = config
        self.column = nn.Linear(config.hidden_size, 1)
        self.operation = nn.Linear(config.hidden_size, len(config.operations)) if config.operations else None

    def select(self, states: Tensor, logits: Tensor, input_ids: Tensor, token_type_ids: Tensor) -> CellLogits:
        """Return the logits of tokens and cells; a table's logits do not depend on other tables of the batch.

        states: `[batch, length, hidden]`
        logits: logit of each token by the head that selects cells, `[batch, length]`
        """
        # Rows, columns and masks are floats, so that products join masks.
        config, logits = self.config, logits.astype("float32")
        rows, columns = (token_type_ids[:, :, number].astype("float32") for number in (_ROW, _COLUMN))
        is_token = (input_ids != config.pad_token_id).astype("float32")
        in_any_column = is_token * (columns > 0).astype("float32")
        is_cell = in_any_column * (rows > 0).astype("float32")
        rows = paddle.clip(rows, max=float(config.max_num_rows - 1))
        columns = paddle.clip(columns, max=float(config.max_num_columns - 1))
        in_column = _equal(columns) * is_token.unsqueeze(1)
        in_cell = in_column * _equal(rows)
        size = in_cell.sum(axis=-1) + _LEAST
        means = _sums(in_cell, logits) / size
        if not config.select_one_column:
            tokens = means if config.average_logits_per_cell else logits
            return CellLogits(tokens, means + (1 - is_cell) * MASKED)
        # A column's logit is the mean of its cells' logits, a cell's the mean of its tokens' logits.
        weights = paddle.ones_like(size) / size  # paddle2onnx does not translate 1 / size
        column_logits = self.column(states).squeeze(-1).astype("float32")
        column_logits = _sums(in_column, weights * (_sums(in_cell, column_logits) / size))
        column_logits = column_logits / (_sums(in_column, weights) + _LEAST)
        is_allowed = is_token if config.allow_empty_column_selection else in_any_column
        column_logits = column_logits + (1 - is_allowed) * MASKED
        is_best = (column_logits >= column_logits.max(axis=-1, keepdim=True)).astype("float32")
        best = (columns + (1 - is_best) * config.max_num_columns).min(axis=-1, keepdim=True)
        is_selected = in_any_column * (columns == best).astype("float32")
        tokens = means + (1 - is_selected) * MASKED
        return CellLogits(tokens, tokens + (1 - is_cell) * MASKED)


def _equal(numbers: Tensor) -> Tensor:
    """Return 1 for each pair of tokens with equal numbers, else 0: `[batch, length, length]` float32."""
    return (numbers.unsqueeze(2) == numbers.unsqueeze(1)).astype("float32")


def _sums(weights: Tensor, values: Tensor) -> Tensor:
    return paddle.matmul(weights, values.unsqueeze(-1)).squeeze(-1)


class TapasEmbeddings(Embeddings):
    """BERT's embeddings plus those of a token's column, row, ranks and relation.

    The last number of a token's place is its position, which may start anew in each cell.
    """

    config: TapasConfig

    def __init__(self, config: TapasConfig, masks: Masks):
        super().__init__(config, masks)
        for number, size in enumerate(config.type_vocab_sizes[1:], 1):
            setattr(self, f"token_type_embeddings_{number}", nn.Embedding(size, config.hidden_size))

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, extra: Optional[Tensor]) -> Tensor:
        types, places = types_of(token_type_ids), places_of(token_type_ids, len(self.config.place_limits))
        positions = places[:, :, -1] if token_type_ids.ndim == 3 else self._positions(input_ids, types)
        hidden = self.word_embeddings(input_ids) + self.position_embeddings(positions)
        hidden = hidden + self.token_type_embeddings(types)
        for number in range(1, len(self.config.place_limits)):
            hidden = hidden + getattr(self, f"token_type_embeddings_{number}")(places[:, :, number - 1])
        return self.dropout(self.layer_norm(hidden if extra is None else hidden + extra))


class TapasEncoder(Encoder):
    """Encoder of TAPAS: a BERT whose tokens also have the cells of a table as places."""

    config: TapasConfig
    embeddings_class = TapasEmbeddings

    def __init__(self, config: TapasConfig):
        super().__init__(config)
        self.cells = CellHeads(config) if config.names_cells else None
