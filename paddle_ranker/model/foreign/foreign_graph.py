"""Graph of another program as its operations: what it takes, what it returns, and the last operation before that."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Optional

from paddle_ranker.array_types import Arrays

Key = tuple[object, int]  # identifies a value of a graph: its operation or name, and the number of its result
# Operations behind which an output is still the same numbers
_THROUGH = {
    "scale", "assign", "reshape", "squeeze", "unsqueeze", "flatten", "cast", "share_data", "fetch", "identity",
}  # fmt: skip


class Node(NamedTuple):
    """Operation of a graph. `type` is the name that Paddle 2 and Paddle 3 share, without Paddle 2's version.

    ONNX's operations have Paddle's names where this toolkit looks for them.
    """

    type: str
    inputs: tuple[Key, ...]
    outputs: tuple[Key, ...]


class ScoringOutput(NamedTuple):
    """Output of a graph that scores a pair, or is a text's vector.

    what: the output in words
    value, before: keys of the output, and of the numbers before its sigmoid or softmax, or None for a vector
    pooling, normalize: how the vector is made of the tokens' states ("" if the output is the vector)
    place: index of the class that means "relevant", of two
    """

    what: str
    value: Key
    before: Optional[Key]
    pooling: str = ""
    normalize: bool = False
    place: int = 1

    @property
    def classes(self) -> int:
        """Number of classes; 0 for a vector."""
        return 0 if self.before is None else 2 if self.what.startswith("two") else 1


@dataclass
class ForeignGraph:
    """Graph of another program.

    feeds: keys of the inputs, by name
    fetches: keys of the outputs
    nodes: operations, in the order in which they compute
    shapes: sizes of values, by key; -1 for a variable one
    parameters: names of the parameters, by key
    arrays: the parameters, by name; empty for ONNX
    """

    file: Path
    feeds: dict[str, Key] = field(default_factory=dict)
    fetches: list[Key] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    shapes: dict[Key, tuple[int, ...]] = field(default_factory=dict)
    parameters: dict[Key, str] = field(default_factory=dict)
    arrays: Arrays = field(default_factory=dict)

    def producer(self, key: Key) -> Optional[Node]:
        """Return the operation that computes a value; None for inputs and parameters."""
        return next((node for node in self.nodes if key in node.outputs), None)

    def behind(self, key: Key) -> tuple[Key, Optional[Node]]:
        """Return the value whose numbers a value only passes on, and the operation that computes it."""
        node = self.producer(key)
        while node is not None and node.type in _THROUGH:
            key = node.inputs[0]
            node = self.producer(key)
        return key, node
