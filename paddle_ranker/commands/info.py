"""Say what a folder is: the kind of its model, what it takes and returns, how it was trained, exported and quantized.

paddle-ranker info checkpoint/best
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from paddle_ranker.options import Options, option, run_command


@dataclass(frozen=True)
class InfoOptions(Options):
    """Options of `info`."""

    model: Path = option(help="a folder, or a parameter file", leads=True)  # noqa: RUF009


def run(options: InfoOptions) -> None:
    """Print what a folder is; neither Paddle nor the model is loaded."""
    from paddle_ranker.model.kinds import KINDS, stated_kind
    from paddle_ranker.model.recognised import recognise

    folder = options.model.parent if options.model.is_file() else options.model
    found = recognise(folder)
    print(f"{options.model}: {found.what}; {found.use}")
    kind = KINDS[name] if (name := stated_kind(options.model)) is not None else None
    info = kind.read_info(folder) if kind is not None else None
    if kind is None or info is None:
        return
    print(f"kind: {info.kind}")
    for title, arrays in (("takes", kind.signature(info).inputs), ("returns", kind.signature(info).outputs)):
        shown = (f"{array.name} {array.dtype} [{', '.join(map(_size, array.shape))}]" for array in arrays)
        print(f"{title}: {', '.join(shown)}")
    for config in kind.configs(folder, info):
        print(
            f"encoder: {config.model_type}, {config.num_hidden_layers} layers, {config.hidden_size} wide, "
            f"{config.vocab_size:,} word pieces"
        )
    for line in _facts(info):
        print(line)


def _size(size: Optional[int]) -> str:
    return "any" if size is None else str(size)


def _facts(info: object) -> Iterator[str]:
    """Yield a line for each fact that the folder's info states beside its kind."""
    for name in ("max_seq_length", "calibration", "blend", "results", "training", "versions"):
        value = getattr(info, name, None)
        if isinstance(value, dict):
            value = ", ".join(f"{key} {json.dumps(one, ensure_ascii=False)}" for key, one in value.items())
        if value is not None and value != "":
            yield f"{name}: {value}"
    export = getattr(info, "export", None)
    if export is not None:
        sizes = ", ".join(f"{name} ({size / 1e6:.1f} MB)" for name, size in export["files"].items())
        yield f"exported with Paddle {export['paddle']}: {sizes}"
        for engine, parity in export["parity"].items():
            yield f"parity, {engine}: {', '.join(f'{name} {value:.2g}' for name, value in parity.items())}"
        if export.get("int8"):
            for row in export["int8"]["quality"]:
                yield f"int8, {row['engine']}: {row['measure']} {row['before']:.4f} before, {row['after']:.4f} after"


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; return its exit status."""
    return run_command(run, InfoOptions, argv, description=__doc__ or "")
