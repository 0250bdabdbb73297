"""Write a model as a static model that predict.py and the server run without its code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from multimodal_entailment.options import ExportEntailmentOptions
from paddle_ranker import runtime
from paddle_ranker.options import run_command


def export(options: ExportEntailmentOptions) -> None:
    """Load the model, write its static model, and print what was written and how exactly it predicts."""
    runtime.prepare_command(options.cpu_threads)
    from multimodal_entailment.folder import load_entailment
    from multimodal_entailment.static import export_entailment

    runtime.select_device("cpu")  # a static model is of no device
    files, parity = export_entailment(load_entailment(Path(options.model)), Path(options.output_dir))
    print(
        f"parity with the model: largest difference {parity.probabilities:.1e} of a probability, {parity.logits:.1e} "
        f"of a logit ({parity.pairs} pairs, in batches and alone)"
    )
    sizes = ", ".join(f"{path.name} ({path.stat().st_size / 1e6:.1f} MB)" for path in files)
    print(f"exported: {Path(options.output_dir).resolve()}: {sizes}")


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; return its exit status."""
    return run_command(export, ExportEntailmentOptions, argv, description=__doc__ or "")


if __name__ == "__main__":
    raise SystemExit(main())
