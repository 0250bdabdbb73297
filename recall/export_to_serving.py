"""Write a tower's exported model as the two folders of Paddle Serving, for its servers and its clients.

paddle-ranker export-serving --model output_recall
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from paddle_ranker.commands.export_serving import ExportServingOptions, export_serving
from paddle_ranker.model.tower import KIND
from paddle_ranker.options import run_command


def export_to_serving(options: ExportServingOptions) -> None:
    """Write both folders, the model with its vector as output; print the largest difference."""
    export_serving(options, KIND)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; return its exit status."""
    return run_command(export_to_serving, ExportServingOptions, argv, description=__doc__ or "")


if __name__ == "__main__":
    raise SystemExit(main())
