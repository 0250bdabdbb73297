"""Write a cross-encoder as a static model, `inference.*`, for engines and servers.

paddle-ranker export --model checkpoint/best --output output --onnx
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from paddle_ranker.commands.export import ExportOptions, export
from paddle_ranker.options import run_command


def export_model(options: ExportOptions) -> None:
    """Write the static model and the tokenizer into the output folder, and print its scores' largest differences."""
    export(options, "cross_encoder")


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; return its exit status."""
    return run_command(export_model, ExportOptions, argv, description=__doc__ or "")


if __name__ == "__main__":
    raise SystemExit(main())
