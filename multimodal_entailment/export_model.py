"""Export a model as a static model, which predict.py and the server run without its code.

paddle-ranker export --model checkpoint/best --output output_entailment
"""

from __future__ import annotations

from pathlib import Path

from multimodal_entailment.options import ExportEntailmentOptions
from paddle_ranker import runtime
from paddle_ranker.options import main_of


def export(options: ExportEntailmentOptions) -> None:
    """Load the model, write its static model, and print the files and the difference of the predictions."""
    runtime.prepare_command(options.cpu_threads)
    from multimodal_entailment.info import ENTAILMENT
    from paddle_ranker.export.static_graph import export_model
    from paddle_ranker.model.model_folder import load_model

    runtime.select_device("cpu")  # a static model is not bound to a device
    exported, parities = export_model(
        load_model(options.model, ENTAILMENT), Path(options.output_dir), onnx=options.onnx
    )
    for engine, parity in parities.items():
        print(
            f"parity with the model{'' if engine == 'paddle_inference' else f', {engine}'}: largest difference "
            f"{parity.differences['probabilities']:.1e} of a probability, {parity.differences['logits']:.1e} "
            f"of a logit ({parity.pairs} pairs, in batches and alone)"
        )
    files = [path for path in (exported.program, exported.parameters, exported.onnx) if path is not None]
    sizes = ", ".join(f"{path.name} ({path.stat().st_size / 1e6:.1f} MB)" for path in files)
    print(f"exported: {Path(options.output_dir).resolve()}: {sizes}")


main = main_of(export, ExportEntailmentOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
