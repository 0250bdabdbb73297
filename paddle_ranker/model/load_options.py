"""Options for opening a model, created once from the command line and passed on."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, Optional

from paddle_ranker.errors import UsageError, quoted
from paddle_ranker.libraries import AUTO_DEVICE

if TYPE_CHECKING:
    from paddle_ranker.options import Options

_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "str": ((str, os.PathLike), "text"), "int": ((Integral,), "a whole number"), "bool": ((bool,), "true or false")
}  # fmt: skip

# The pooler's output, the first token's state, the mean of all states, their maximum per dimension, the last token's.
POOLINGS = ("pooler", "first", "mean", "max", "last")


@dataclass(frozen=True)
class LoadOptions:
    """Options for opening a model.

    engine: a name in `scoring.engines.ENGINES`; None: dygraph for a trained model, inference for an exported model
    device: cpu, gpu, xpu or npu, with or without a number; auto: a GPU if the engine can use one, else the CPU
    precision: precision of matrix products: fp32; exported models also take bf16, int8 or fp16, if the engine and the
        device support it
    threads: CPU threads of an exported model's engine; 0: one per core. `runtime.prepare` sets the threads of dygraph
    tensorrt: whether Paddle Inference compiles the graph with TensorRT, on a GPU
    model_name: name of the model whose configuration belongs to a bare parameter file, or whose tokenizer to a static
        model of another program
    max_seq_length: maximum length of a row in tokens; None: as trained
    pooling: pooling (a name in `POOLINGS`) of an encoder that is opened as a tower, if its folder states
        none; None: a default, which is logged
    normalize: whether a tower's vectors are scaled to length 1; None: as its folder states
    positive_label: name or number of the class whose probability is the score, for transformers classifiers of two
        classes; None: chosen by the classes' names
    """

    engine: Optional[str] = None
    device: str = AUTO_DEVICE
    precision: str = "fp32"
    threads: int = 0
    tensorrt: bool = False
    model_name: Optional[str] = None
    max_seq_length: Optional[int] = None
    pooling: Optional[str] = None
    normalize: Optional[bool] = None
    positive_label: Optional[str] = None

    @classmethod
    def of(cls, options: Options, **changes: Any) -> LoadOptions:  # type: ignore[explicit-any]  # as of `Ranker.load`
        """Create the options from those of a command.

        options: the command's options, whose fields are read by name (see `_NAMES`)
        changes: values that replace the values of the command's options
        """
        fields = dataclasses.fields(cls)
        values = {field.name: getattr(options, _NAMES.get(field.name, field.name), field.default) for field in fields}
        return cls(**{**values, **changes})

    def __post_init__(self) -> None:
        """Raise `UsageError`, which names the field, for a value of the wrong type, such as `threads="2"`."""
        for field in dataclasses.fields(self):
            value, annotation = getattr(self, field.name), str(field.type)
            kind = annotation.removeprefix("Optional[").removesuffix("]")
            types, words = _TYPES[kind]
            fits = isinstance(value, types) and isinstance(value, bool) == (kind == "bool")
            if not fits and (value is not None or kind == annotation):
                raise UsageError(f"{field.name} {quoted(value)}: expected {words}")


_NAMES = {"threads": "cpu_threads", "model_name": "model_name_or_path"}  # fields that commands' options name otherwise
DEFAULT_OPTIONS, ON_CPU = LoadOptions(), LoadOptions(device="cpu")
