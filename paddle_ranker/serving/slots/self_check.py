"""Warm-up and checks of a model that a slot has loaded, and of rows that arrive as tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import numpy as np

from paddle_ranker.array_types import Array, Arrays
from paddle_ranker.encoding.batching import rows_within
from paddle_ranker.encoding.columns import Columns
from paddle_ranker.errors import CheckpointError, DataError, InputError
from paddle_ranker.runtime import uses_tf32
from paddle_ranker.scoring.engines.inputs import InputLimits
from paddle_ranker.scoring.scorer import BatchRunner
from paddle_ranker.serving.core.faults import INVALID, Fault

# Allowed differences in a probability or a vector's component: between a row alone and the same row in a batch; in fp32
# also from the value recorded at export. Lower precisions round in sums whose order depends on a batch's shape.
_TOLERANCES = {"fp32": 1e-5, "bf16": 2e-2, "fp16": 2e-3, "int8": 5e-2}
_TF32 = 2e-3  # TF32 has as many bits as fp16


def tolerance_of(precision: str) -> float:
    """Return the allowed difference of outputs in a precision. In fp32, it is larger if matrix products use TF32."""
    return _TF32 if precision == "fp32" and uses_tf32() else _TOLERANCES[precision]


def check_rows(
    runner: BatchRunner,
    rows: Columns,
    read: Callable[[Arrays], Array],
    folder: Path,
    value: str,
    tolerance: float,
) -> None:
    """Compute rows one by one and in one batch, and compare the outputs.

    Raises `CheckpointError` if an output is not finite, or if a row's outputs alone differ from those in a batch.

    read: called with the engine's outputs; returns the values to compare, `[n, ...]`
    folder: the model's folder, for messages
    value: name of a row's values in messages: "pair's probability"
    tolerance: the allowed difference
    """
    runs = [runner.run(rows), *(runner.run(rows.take([row])) for row in range(len(rows)))]
    if not all(np.isfinite(array).all() for outputs in runs for array in outputs.values()):
        raise CheckpointError(f"{folder}: the model gives values that are not numbers; export it again")
    together, alone = read(runs[0]), np.concatenate([read(outputs) for outputs in runs[1:]])
    gap = float((np.abs(together - alone) / np.maximum(1.0, np.abs(alone))).max())
    if gap > tolerance:
        raise CheckpointError(
            f"{folder}: a {value} differs by {gap:.2g} between it alone and in a batch (allowed: {tolerance:g}); run "
            "paddle-ranker doctor"
        )


def warm_up(runner: BatchRunner, longest: Columns, short: Columns) -> None:
    """Compute full batches of long rows and of short rows, so that memory is allocated and kernels are built now.

    longest, short: columns with one row each, which fills a batch by repetition
    """
    for row in (longest, short):
        rows = rows_within(int(row.lengths[0]), runner.max_tokens, runner.max_rows)
        runner.run(row.take([0] * rows))


def token_rows(
    limits: InputLimits, columns_of: Callable[[Array, Array], Columns], input_ids: Array, token_type_ids: Array
) -> Columns:
    """Convert token arrays, `[n, length]`, to encoded rows. Raises `Fault(INVALID)` if they are not valid rows.

    limits: limits of the engine's inputs
    columns_of: called with the checked arrays; returns columns, or raises `InputError` for rows that no text has
    """
    arrays = {"input_ids": input_ids, "token_type_ids": token_type_ids}
    for name, values in arrays.items():
        if values.ndim != 2 or values.dtype.kind not in "iu":
            problem = f"is {values.dtype} {list(values.shape)}, expected integers of [rows, tokens]"
            raise Fault(INVALID, problem, field=name)
    try:
        checked = limits.check(arrays)
        return columns_of(checked["input_ids"], checked["token_type_ids"])
    except InputError as error:
        raise Fault(INVALID, error.problem, field=error.field) from error
    except DataError as error:
        raise Fault(INVALID, str(error)) from error
