"""The options for opening a model: one object, made once from the command line and passed on."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from numbers import Integral
from typing import Optional

from paddle_ranker.errors import UsageError, quoted
from paddle_ranker.options import AUTO_DEVICE, Options, option

_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "str": ((str, os.PathLike), "text"), "int": ((Integral,), "a whole number"), "bool": ((bool,), "true or false")
}  # fmt: skip


@dataclass(frozen=True)
class HeadOptions(Options):
    """Options of every command that opens rankers of transformers."""

    positive_label: Optional[str] = option(
        None,
        help="class whose probability is the score, by its name or number, for a transformers classifier of two "
        "classes (default: the class whose name means relevant)",
        shared=True,
    )


@dataclass(frozen=True)
class LoadOptions:
    """How a model is opened.

    engine: a name in `scoring.engines.ENGINES`; None: dygraph for a trained model, inference for an exported one
    device: cpu, gpu, xpu or npu, with or without a number; auto: a GPU if the engine finds one, else the CPU
    precision: of the matrix products: fp32; for an exported model also bf16, int8 or fp16, if the engine and the
        device support it
    threads: number of threads of an exported model's engine on a CPU; 0: one a core. `runtime.prepare` sets dygraph's
    tensorrt: let Paddle Inference compile the graph with TensorRT, on a GPU
    model_name: the model whose configuration is used for a bare parameter file; a folder has its own
    max_seq_length: tokens; None: the length that the model was trained with
    tokenizer: a `PairEncoder` backend
    expected_kind: refuse a model that states another kind; None: accept any kind
    pooling: of an encoder that is opened as a tower, if its folder does not say how its vectors are made; a name in
        `model.tower.POOLINGS`, None: the default that is noted
    normalize: whether a tower's vectors get length 1; None: as its folder says
    positive_label: of a transformers classifier of two classes, the one whose probability is the score, by its name or
        number; None: as the names say
    """

    engine: Optional[str] = None
    device: str = AUTO_DEVICE
    precision: str = "fp32"
    threads: int = 0
    tensorrt: bool = False
    model_name: Optional[str] = None
    max_seq_length: Optional[int] = None
    tokenizer: str = "auto"
    expected_kind: Optional[str] = None
    pooling: Optional[str] = None
    normalize: Optional[bool] = None
    positive_label: Optional[str] = None

    def __post_init__(self) -> None:
        """Raise `UsageError` for a value of the wrong type, such as `threads="2"`, and name the field."""
        for field in dataclasses.fields(self):
            value, stated = getattr(self, field.name), str(field.type)
            kind = stated.removeprefix("Optional[").removesuffix("]")
            known, words = _TYPES[kind]
            fits = isinstance(value, known) and isinstance(value, bool) == (kind == "bool")
            if not fits and (value is not None or kind == stated):
                raise UsageError(f"{field.name} {quoted(value)}: expected {words}")
