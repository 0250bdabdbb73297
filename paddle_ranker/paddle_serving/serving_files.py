"""Write the files that describe a model's inputs and outputs to Paddle Serving's servers and clients.

A `GeneralModelConfig` (`protos/general_model_config.proto`) is written as text (`serving_server_conf.prototxt`) and in
binary (`serving_server_conf.stream.prototxt`); the client's files (`serving_client_conf`) have the same contents.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from paddle_ranker.errors import UsageError, quoted
from paddle_ranker.model.exported import INPUTS, OUTPUTS
from paddle_ranker.model.model_kind import Signature
from paddle_ranker.model.tower import VECTOR
from paddle_ranker.paddle_serving.protos import serving_message
from paddle_ranker.protos import Message

SERVING_VARIABLE = "sigmoid_2.tmp_0"  # the output's name for clients of the published pairwise ranker
EMBEDDING = "output_embedding"  # the output's name for clients of a tower
# Names by a model's first output: the variable in the graph for Paddle Serving, and the alias for clients.
_SERVED = {OUTPUTS[0]: (SERVING_VARIABLE, OUTPUTS[0]), VECTOR: (VECTOR, EMBEDDING)}
INT64, FLOAT32 = 0, 1  # values of feed_type and fetch_type
_NAME = re.compile(r"[A-Za-z0-9_@./-]+")  # characters that need no escape in a prototxt


@dataclass(frozen=True)
class Variable:
    """Input or output of a serving model.

    name: the name in the graph
    alias: the name for clients
    type: `INT64` or `FLOAT32`
    shape: the fixed dimensions, in order, without batch and length

    Raises `UsageError` if the alias has characters other than letters, digits and _ @ . / -.
    """

    name: str
    alias: str
    type: int
    shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.alias):
            raise UsageError(f"alias {quoted(self.alias)}: give letters, digits and _ @ . / - only")


def fetched_alias(signature: Signature) -> str:
    """Return the default name of a serving model's output for clients."""
    name = signature.output_names[0]
    return _SERVED.get(name, (name, name))[1]


def variables_of(
    signature: Signature, feeds: Sequence[str], fetches: Sequence[str]
) -> tuple[list[Variable], list[Variable]]:
    """Return the inputs and the output of a serving model, which has only the first of the signature's outputs.

    feeds, fetches: aliases of the inputs and of the output
    """
    inputs = [Variable(name, alias, INT64) for name, alias in zip(INPUTS, feeds)]
    output = signature.outputs[0]
    name, _ = _SERVED.get(output.name, (output.name, output.name))
    shape = tuple(size for size in output.shape if size is not None)
    return inputs, [Variable(name, fetches[0], FLOAT32, shape)]


def conf_names(side: str) -> tuple[str, str]:
    """Return the names of the configuration's text file and binary file for a side, "server" or "client"."""
    return f"serving_{side}_conf.prototxt", f"serving_{side}_conf.stream.prototxt"


def write_configs(folder: Path, side: str, feeds: Sequence[Variable], fetches: Sequence[Variable]) -> None:
    """Write the text file and the binary file of the configuration of a side, "server" or "client", into `folder`."""
    from google.protobuf import text_format

    config = _model_config(feeds, fetches)
    text, binary = (folder / name for name in conf_names(side))
    text.write_text(text_format.MessageToString(config), encoding="ascii")
    binary.write_bytes(config.SerializeToString())


def _model_config(feeds: Sequence[Variable], fetches: Sequence[Variable]) -> Message:
    config = serving_message("baidu.paddle_serving.configure.GeneralModelConfig")()
    for kind, added, variables in (("feed", config.feed_var, feeds), ("fetch", config.fetch_var, fetches)):
        for variable in variables:
            type_of = {f"{kind}_type": variable.type}
            # Fields that are false or 0 are set explicitly, so that they are written as well.
            added.add(
                name=variable.name, alias_name=variable.alias, is_lod_tensor=False, shape=variable.shape, **type_of
            )
    return config
