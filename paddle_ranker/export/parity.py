"""Check that an exported model and the network compute equal results."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Callable, Optional

import numpy as np
import paddle
from paddle import nn

from paddle_ranker.array_types import Arrays
from paddle_ranker.errors import RankerError
from paddle_ranker.model.model_kind import Check, Signature
from paddle_ranker.scoring.engines.inputs import InputLimits

CHECKS = 4  # number of pairs whose probabilities are stored in an exported folder
# Factor of the network's own rounding error. The graph rounds in other places, and the two are compared with each
# other, not with the exact result.
_ROUNDINGS = 4
_OF_FLOAT64 = (nn.Linear, nn.Embedding, nn.LayerNorm, nn.Conv1D)


@dataclass(frozen=True)
class Parity:
    """Agreement of an exported model with the network.

    pairs, batches: numbers of rows and of batches that were compared
    differences: largest absolute difference of each output from the network's, by the output's name
    """

    pairs: int
    batches: int
    differences: dict[str, float]

    def to_dict(self) -> dict[str, float]:
        """Return the counts and the differences, JSON-ready."""
        return {"pairs": self.pairs, "batches": self.batches, **self.differences}


def network_outputs(network: nn.Layer, batches: Sequence[Arrays], signature: Signature) -> list[Arrays]:
    """Return, for every batch, the network's outputs by name."""
    network.eval()
    with paddle.no_grad():
        results = [network(*(paddle.to_tensor(batch[name]) for name in signature.input_names)) for batch in batches]
    outputs = [arrays if isinstance(arrays, (tuple, list)) else (arrays,) for arrays in results]
    return [{name: array.numpy() for name, array in zip(signature.output_names, arrays)} for arrays in outputs]


def rounding_of(
    network: nn.Layer, batches: Sequence[Arrays], expected: Sequence[Arrays], signature: Signature
) -> dict[str, float]:
    """Return the largest distance of each output from its value in float64, by the output's name.

    The distances are 0 if Paddle cannot run the network in float64.

    expected: the network's outputs in float32
    """
    try:
        exact = network_outputs(_in_float64(network), batches, signature)
    except Exception:  # Some of Paddle's layers compute in float32 alone.
        return dict.fromkeys(signature.output_names, 0.0)
    return {
        name: max(float(np.abs(ours[name] - theirs[name]).max()) for ours, theirs in zip(expected, exact))
        for name in signature.output_names
    }


def _in_float64(network: nn.Layer) -> nn.Layer:
    """Return a copy of a network whose layers compute in float64."""
    twin = copy.deepcopy(network)
    for layer in twin.sublayers(include_self=True):
        vars(layer).pop("forward", None)  # it holds the traced graph of a network that was made static
        if isinstance(layer, _OF_FLOAT64):
            for held in (layer._parameters, layer._buffers):
                held.update({name: value.astype("float64") for name, value in held.items() if value is not None})
    return twin


def checks_of(batches: Sequence[Arrays], expected: Sequence[Arrays], pad_id: int) -> list[Check]:
    """Return the `CHECKS` shortest pairs and their probabilities, for a later check of the exported folder."""
    checks: list[Check] = []
    for batch, outputs in zip(batches, expected):
        for row, ids in enumerate(batch["input_ids"]):
            length = int(np.flatnonzero(ids != pad_id)[-1]) + 1
            checks.append(
                {
                    "input_ids": ids[:length].tolist(),
                    "token_type_ids": batch["token_type_ids"][row, :length].reshape(-1).tolist(),
                    "probability": float(outputs["predict"][row, 0]),
                }
            )
    return sorted(checks, key=lambda check: len(check["input_ids"]))[:CHECKS]


def compare(
    expected: Sequence[Arrays],
    batches: Sequence[Arrays],
    run: Callable[[Arrays], Arrays],
    signature: Signature,
    name: str,
    rounding: Optional[Callable[[], dict[str, float]]] = None,
) -> Parity:
    """Call `run` on each batch, and on its first row alone; return how far the outputs are from `expected`.

    run: called with the arrays of a batch; returns the exported model's outputs by name
    name: the word for the exported model in the error
    rounding: called without arguments if a tolerance is exceeded; returns the result of `rounding_of`

    Raises `RankerError` if an output differs by more than its tolerance, has another shape or is not finite.
    """
    specs = {spec.name: spec for spec in signature.outputs}
    differences = dict.fromkeys(expected[0], 0.0) if expected else {}
    for batch, wanted in zip(batches, expected):
        rows = InputLimits.rows(batch)
        for inputs, count in ((batch, rows), ({key: array[:1] for key, array in batch.items()}, 1)):
            exported = run(inputs)
            for output, all_ours in wanted.items():
                ours, theirs, spec = all_ours[:count], exported[output], specs[output]
                gap = np.abs(ours.astype(np.float64) - theirs)
                allowed = spec.tolerance * np.maximum(1.0, np.abs(ours))
                if rounding is not None and spec.may_round and (gap > allowed).any():
                    allowed = np.maximum(allowed, _ROUNDINGS * rounding()[output])
                differences[output] = max(differences[output], float(gap.max()))
                if theirs.shape != ours.shape or not (gap <= allowed).all():
                    length = next(iter(inputs.values())).shape[1]
                    error = 0.0 if rounding is None else rounding()[output]
                    truth = f"; float32 itself moves the network's {error:.2g} off the exact value" if error else ""
                    raise RankerError(
                        f"{name} does not score as the ranker does: {output} differs by {gap.max():.2g} in a batch of "
                        f"{count} pairs of {length} tokens (allowed: {allowed.min():.2g}{truth}); nothing "
                        "was written. Run paddle-ranker doctor, and report it with its output"
                    )
    return Parity(sum(map(InputLimits.rows, batches)), len(batches), differences)
