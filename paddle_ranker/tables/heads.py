"""Convert the heads of transformers' TapasForQuestionAnswering to those of a ranker that names cells, and back."""

from __future__ import annotations

import numpy as np

from paddle_ranker.array_types import Array
from paddle_ranker.errors import CheckpointError, listed
from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.storage.foreign_config import ForeignConfig
from paddle_ranker.storage.untrusted import UncheckedObject

_VECTORS = {"output": "classifier", "column_output": "tapas.cells.column"}  # a weight and a bias each
TAPAS_ANSWERS = "TapasForQuestionAnswering"
_OPERATION = ("aggregation_classifier", "tapas.cells.operation")


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
    theirs = {name.replace(*_OPERATION[::-1]): array for name, array in arrays.items()}
    for vector, ours in _VECTORS.items():
        theirs[f"{vector}_weights"] = np.ascontiguousarray(theirs.pop(f"{ours}.weight").reshape(-1))
        theirs[f"{vector}_bias"] = theirs.pop(f"{ours}.bias").reshape(())
    names = {str(number): name for number, name in enumerate(getattr(config, "operations", ()))}
    return theirs, {"num_aggregation_labels": len(names), **({"aggregation_labels": names} if names else {})}
