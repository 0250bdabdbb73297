"""Refuse inputs with which the runtime of an exported graph would crash without a message, or read foreign memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import numpy as np

from paddle_ranker.array_types import Array, Arrays
from paddle_ranker.errors import CheckpointError, DataError
from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.model_kind import ArraySpec, Signature

_TYPES = 2  # token types of a ranker; a blend's second member has the next two, and so on
_IDS, _TYPE_IDS = "input_ids", "token_type_ids"


class InputLimits:
    """Limits of a model's inputs: the arrays' names, types and shapes, the token ids and the lengths.

    Args:
        signature: names, types and shapes of the inputs.
        configs: the configuration of the encoder, or of each member of a blend; empty for a model without texts.

    Attributes:
        shares_queries: whether the model computes a query once for all pairs of a batch.
    """

    def __init__(self, signature: Signature, configs: Sequence[EncoderConfig]):
        self.signature = signature
        self.shares_queries = any(config.shares_queries for config in configs)
        self._place_limits = configs[0].place_limits if len(configs) == 1 else ()
        self._vocabulary = np.array([config.vocab_size for config in configs], np.int64)
        self._longest = signature.texts * sum(config.longest_pair for config in configs)

    def smallest(self) -> Arrays:
        """Return a small batch that any graph with these inputs accepts; for a blend, with tokens of each member."""
        types = [_TYPES * member + side for member in range(len(self._vocabulary)) for side in (0, 0, 0, 1, 1)]
        arrays: Arrays = {}
        for spec in self.signature.inputs:
            shape = [2, *(max(len(types), spec.least) if size is None else size for size in spec.shape[1:])]
            arrays[spec.name] = np.full(shape, spec.least, spec.dtype)
        if _TYPE_IDS in arrays:
            placed = arrays[_TYPE_IDS].reshape(2, len(types), -1)
            placed[:, :, 0] = types
        return arrays

    @staticmethod
    def rows(arrays: Arrays) -> int:
        """Return the number of rows of a batch."""
        return len(next(iter(arrays.values())))

    def empty(self) -> Arrays:
        """Return the outputs for a batch without rows, which runtimes do not accept."""
        return {
            spec.name: np.zeros((0, *(size or 0 for size in spec.shape[1:])), spec.dtype)
            for spec in self.signature.outputs
        }

    def typed(self, outputs: Arrays) -> Arrays:
        """Convert `outputs` to the types that the model's signature declares; some engines return other types."""
        types = {spec.name: spec.dtype for spec in self.signature.outputs}
        return {name: np.asarray(array, types[name]) for name, array in outputs.items()}

    def check(self, arrays: Arrays) -> Arrays:
        """Return the inputs, C-contiguous and of the signature's types; raise `DataError` for invalid ones."""
        try:
            checked = {spec.name: np.ascontiguousarray(arrays[spec.name], spec.dtype) for spec in self.signature.inputs}
        except KeyError as error:
            names = ", ".join(self.signature.input_names)
            raise DataError(f"there is no {error.args[0]}: the model takes {names}") from error
        if _IDS in checked:
            types = checked.get(_TYPE_IDS)
            if types is not None and self._place_limits:
                spec = next(spec for spec in self.signature.inputs if spec.name == _TYPE_IDS)
                _check_shape(spec, types, self.rows(checked))
                self._check_places(types[:, :, 1:])
                types = types[:, :, 0]
            self._check_tokens(checked[_IDS], types)
        rows = self.rows(checked)
        for spec in self.signature.inputs:
            _check_shape(spec, checked[spec.name], rows)
        return checked

    def _check_places(self, places: Array) -> None:
        is_wrong = (places < 0) | (places >= np.array(self._place_limits))
        if is_wrong.any():
            row, token, number = np.argwhere(is_wrong)[0].tolist()
            raise DataError(
                f"token_type_ids[{row}, {token}, {1 + number}] is {places[row, token, number]}: that number of a place "
                f"is 0 to {self._place_limits[number] - 1}"
            )

    def _check_tokens(self, ids: Array, types: Optional[Array]) -> None:
        shapes = f"input_ids {list(ids.shape)}"
        alike = "must be [batch, length]"
        if types is not None:
            shapes, alike = (
                f"{shapes} and token_type_ids {list(types.shape)}",
                "both must be [batch, length], and alike",
            )
        if ids.ndim != 2 or (types is not None and ids.shape != types.shape) or not ids.shape[1]:
            raise DataError(f"{shapes}: {alike}")
        if ids.shape[1] > self._longest:
            raise DataError(f"pairs of {ids.shape[1]} tokens: the ranker has {self._longest} positions")
        if not ids.size:
            return
        if types is not None and (types.min() < 0 or types.max() >= _TYPES * len(self._vocabulary)):
            raise DataError(f"token_type_ids from {types.min()} to {types.max()}: 0 to {_TYPES - 1} are there")
        if types is None or len(self._vocabulary) == 1:
            vocabulary = self._vocabulary[0]
        else:
            vocabulary = self._vocabulary[types // _TYPES]
        is_wrong = (ids < 0) | (ids >= vocabulary)
        if is_wrong.any():
            row, column = np.argwhere(is_wrong)[0].tolist()
            most = int(np.broadcast_to(vocabulary, ids.shape)[row, column]) - 1
            raise DataError(f"input_ids[{row}, {column}] is {ids[row, column]}: the vocabulary's ids are 0 to {most}")


def _check_shape(spec: ArraySpec, array: Array, rows: int) -> None:
    fits = array.ndim == len(spec.shape) and len(array) == rows
    if not fits or any(size not in (None, length) for size, length in zip(spec.shape[1:], array.shape[1:])):
        expected = [rows, *("any" if size is None else size for size in spec.shape[1:])]
        raise DataError(f"{spec.name} {list(array.shape)}: must be [{', '.join(map(str, expected))}]")


def check_names(source: object, inputs: Sequence[str], outputs: int, signature: Signature, expected: int) -> None:
    """Raise `CheckpointError` unless a graph has the signature's inputs and `expected` outputs.

    source: the graph's file, for messages
    inputs: names of the graph's inputs
    outputs: number of the graph's outputs
    """
    if tuple(inputs) != signature.input_names:
        raise CheckpointError(
            f"{source}: takes {', '.join(inputs)}, expected {', '.join(signature.input_names)}: it is not a graph of "
            "this toolkit; export the ranker again"
        )
    if outputs != expected:
        raise CheckpointError(
            f"{source}: has {outputs} output{'s' * (outputs != 1)}, expected "
            f"{', '.join(signature.output_names[:expected])}: it is not the graph that its ranker.json describes; "
            "export the ranker again"
        )
