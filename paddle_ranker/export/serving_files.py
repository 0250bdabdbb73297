"""The files beside a model of Paddle Serving that say what it takes and returns, to its servers and clients.

Each is a `GeneralModelConfig`, a protobuf message of Paddle Serving's (general_model_config.proto), once as text
(`serving_server_conf.prototxt`) and once in binary (`serving_server_conf.stream.prototxt`), alike for server and
client.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from paddle_ranker.errors import UsageError
from paddle_ranker.model.exported import INPUTS

SERVING_VARIABLE = "sigmoid_2.tmp_0"  # what clients of the published pairwise ranker ask for
INT64, FLOAT32 = 0, 1  # of feed_type and fetch_type
_NAME = re.compile(r"[A-Za-z0-9_@./-]+")  # what stands in a prototxt without escapes
_VARINT, _BYTES = 0, 2  # wire types of protobuf


@dataclass(frozen=True)
class Variable:
    """An input or an output of a serving model.

    name: in the graph
    alias: what clients call it
    type: `INT64` or `FLOAT32`
    shape: its dimensions of fixed size, in their order; the batch and the length are not among them

    Raises `UsageError` for an alias that is no plain name.
    """

    name: str
    alias: str
    type: int
    shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.alias):
            raise UsageError(f"alias {self.alias!r}: give letters, digits and _ @ . / - only")


def variables_of(feeds: Sequence[str], fetches: Sequence[str]) -> tuple[list[Variable], list[Variable]]:
    """Return the inputs and outputs of a ranker's serving model, by the aliases of `INPUTS` and of the probability."""
    inputs = [Variable(name, alias, INT64) for name, alias in zip(INPUTS, feeds)]
    return inputs, [Variable(SERVING_VARIABLE, fetches[0], FLOAT32, (1,))]


def conf_names(side: str) -> tuple[str, str]:
    """Return the names of the text file and of the binary one of a side, server or client."""
    return f"serving_{side}_conf.prototxt", f"serving_{side}_conf.stream.prototxt"


def write_configs(folder: Path, side: str, feeds: Sequence[Variable], fetches: Sequence[Variable]) -> None:
    """Write the two files of one side into `folder`."""
    text, binary = (folder / name for name in conf_names(side))
    text.write_text(config_text(feeds, fetches), encoding="ascii")
    binary.write_bytes(config_bytes(feeds, fetches))


def config_text(feeds: Sequence[Variable], fetches: Sequence[Variable]) -> str:
    """Return the message in protobuf's text format."""
    return "".join([*_blocks("feed", feeds), *_blocks("fetch", fetches)])


def _blocks(kind: str, variables: Sequence[Variable]) -> Iterator[str]:
    for variable in variables:
        lines = [
            f'name: "{variable.name}"',
            f'alias_name: "{variable.alias}"',
            "is_lod_tensor: false",
            f"{kind}_type: {variable.type}",
            *(f"shape: {size}" for size in variable.shape),
        ]
        yield "".join([f"{kind}_var {{\n", *(f"  {line}\n" for line in lines), "}\n"])


def config_bytes(feeds: Sequence[Variable], fetches: Sequence[Variable]) -> bytes:
    """Return the message in protobuf's binary format: fields 1 feed_var and 2 fetch_var."""
    variables = [(1, variable) for variable in feeds] + [(2, variable) for variable in fetches]
    return b"".join(_field(number, _BYTES, _message(variable)) for number, variable in variables)


def _message(variable: Variable) -> bytes:
    """Return a FeedVar or a FetchVar: 1 name, 2 alias_name, 3 is_lod_tensor, 4 the type, 5 shape (not packed)."""
    return b"".join(
        [
            _field(1, _BYTES, variable.name.encode("ascii")),
            _field(2, _BYTES, variable.alias.encode("ascii")),
            _field(3, _VARINT, _varint(False)),
            _field(4, _VARINT, _varint(variable.type)),
            *(_field(5, _VARINT, _varint(size)) for size in variable.shape),
        ]
    )


def _field(number: int, wire_type: int, value: bytes) -> bytes:
    length = _varint(len(value)) if wire_type == _BYTES else b""
    return _varint(number << 3 | wire_type) + length + value


def _varint(value: int) -> bytes:
    """Return a number, 0 or more, seven bits a byte, the lowest first."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
