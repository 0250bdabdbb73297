"""TAPAS, whose tokens have cells of a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from paddle_ranker.array_types import Array
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.encoding.tokenizers.interface import ModelTokenizer
from paddle_ranker.errors import CheckpointError, listed, quoted
from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.encoders.family import (
    BERT_FIELDS,
    BERT_LINEAR,
    NORMS,
    POOLER,
    TABLES,
    add_family,
    added_fields,
    network_of,
)
from paddle_ranker.model.hugging_face.architectures import Architecture, CellHeadNames, Names, Values
from paddle_ranker.storage.declared import Between, Count, Positive
from paddle_ranker.storage.foreign_config import ForeignConfig
from paddle_ranker.storage.untrusted import UncheckedObject

_VECTORS = {"output": "classifier", "column_output": "tapas.cells.column"}  # a weight and a bias each
TAPAS_ANSWERS = "TapasForQuestionAnswering"
_OPERATION = ("aggregation_classifier", "tapas.cells.operation")
CELL_HEADS = ("cells.column", "cells.operation")  # our names, without the encoder's prefix


@dataclass(frozen=True)
class TapasConfig(EncoderConfig):
    """Configuration of TAPAS, whose tokens have a column, a row and more, see `TablePairEncoder`.

    type_vocab_sizes: sizes of the embedding tables: of token types, then of each number of a token's place except the
        last one, the position
    reset_position_index_per_cell: whether positions restart in each cell
    names_cells: whether the head answers a question by selecting cells, see `CellHeads`; the attributes
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
    needs_types: ClassVar[bool] = True
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


def with_cell_heads(arrays: dict[str, Array], config: ForeignConfig) -> dict[str, Array]:
    """Return the parameters with all heads as linear layers; the head of cells is divided by the temperature.

    Raises `CheckpointError` for a head that is missing or has another shape, and for an unusable temperature.
    """
    temperature = config.get("temperature", 1.0)
    if type(temperature) not in (int, float) or not 0 < temperature < np.inf:
        raise config.error(f"temperature is {temperature}, expected a number above 0; copy it again")
    lacking = [name for vector in _VECTORS for name in (f"{vector}_weights", f"{vector}_bias") if name not in arrays]
    if lacking:
        raise CheckpointError(f"has no {listed(lacking)}, which {TAPAS_ANSWERS} needs: copy it again")
    converted = {name.replace(*_OPERATION): array for name, array in arrays.items()}
    for vector, ours in _VECTORS.items():
        weight, bias = converted.pop(f"{vector}_weights"), converted.pop(f"{vector}_bias")
        if weight.ndim != 1 or bias.size != 1:
            raise CheckpointError(f"{vector}_weights has shape {list(weight.shape)}, expected one number per state")
        divisor = np.float32(temperature if ours == "classifier" else 1)
        converted[f"{ours}.weight"] = weight.astype(np.float32)[None] / divisor
        converted[f"{ours}.bias"] = bias.astype(np.float32).reshape(1) / divisor
    return converted


def without_cell_heads(arrays: dict[str, Array], config: EncoderConfig) -> tuple[dict[str, Array], UncheckedObject]:
    """Return the parameters with heads as in transformers' files, and the entries of `config.json` for operations."""
    assert isinstance(config, TapasConfig)
    theirs = {name.replace(*_OPERATION[::-1]): array for name, array in arrays.items()}
    for vector, ours in _VECTORS.items():
        theirs[f"{vector}_weights"] = np.ascontiguousarray(theirs.pop(f"{ours}.weight").reshape(-1))
        theirs[f"{vector}_bias"] = theirs.pop(f"{ours}.bias").reshape(())
    names = {str(number): name for number, name in enumerate(config.operations)}
    return theirs, {"num_aggregation_labels": len(names), **({"aggregation_labels": names} if names else {})}


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
    from paddle_ranker.tables.table_pairs import TableLimits, TablePairEncoder

    assert isinstance(config, TapasConfig)
    restarts, limits = config.reset_position_index_per_cell, TableLimits(*config.table_limits)
    return TablePairEncoder(files, max_seq_length, restarts, config.operations, limits)


_PLACES_OF_CELLS = {
    f"embeddings.token_type_embeddings_{number}": f"embeddings.token_type_embeddings_{number}" for number in range(1, 7)
}


add_family(
    "tapas",
    "Tapas",
    Architecture(
        Names(
            {
                **TABLES,
                **NORMS,
                "embeddings.token_type_embeddings_0": "embeddings.token_type_embeddings",
                **_PLACES_OF_CELLS,
            },
            {**BERT_LINEAR, **POOLER, **{name: name for name in CELL_HEADS}},
            "tapas",
        ),
        {
            **{name: default for name, default in BERT_FIELDS.items() if name != "type_vocab_size"},
            "max_position_embeddings": 1024,
            **{name: default for name, default in added_fields(TapasConfig).items() if name not in _NAMED_OTHERWISE},
        },
        _check_tapas,
        without_effect=frozenset(_OF_ANSWERS_LOSS.split()),
        heads=CellHeadNames(TAPAS_ANSWERS, with_cell_heads, without_cell_heads),
    ),
    network_of("paddle_ranker.tables.networks", "TapasEncoder"),
    TapasConfig,
    _of_tables,
)
