"""Write a model as a static model that an engine or a server loads without its code.

paddle-ranker export --model checkpoint/best --output output --onnx
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from paddle_ranker import runtime
from paddle_ranker.commands.command_registry import main_for_kinds
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_kind import ModelInfo, RowEncoder, TrainedModel
from paddle_ranker.model.model_options import CheckpointOptions, HeadOptions
from paddle_ranker.options import ThreadOptions, main_of, note, option, redeclare
from paddle_ranker.options.declare import FETCHED_FOLDER


@dataclass(frozen=True)
class ExportOptions(CheckpointOptions, HeadOptions, ThreadOptions):
    """Options of the commands that export."""

    params_path: str = option(
        help="the model: a folder or a name, OWNER/MODEL, of the hub",
        name="model",
        leads=True,
        addresses=FETCHED_FOLDER,
    )
    output_path: str = option("./output", help="folder to write; an older export in it is replaced", name="output")
    max_seq_length: Optional[int] = redeclare(
        CheckpointOptions,
        "max_seq_length",
        help="maximum length of a pair or text in tokens, stored in the exported folder (default: the model's); the "
        "graph accepts any length",
    )
    onnx: bool = option(False, help="also write an ONNX file, for ONNX Runtime and OpenVINO")


def export(options: ExportOptions) -> None:
    """Load a model, write it as a static model, and print the files and how much the outputs of the two differ."""
    runtime.prepare_command(options.cpu_threads)
    from paddle_ranker.model.model_folder import TRAINED_MODEL, load_model

    runtime.select_device("cpu")  # A static model has no device; each engine chooses its device.
    model = load_model(options.params_path, TRAINED_MODEL, LoadOptions.of(options))
    write_export(model, Path(options.output_path), onnx=options.onnx)


def write_export(model: TrainedModel[ModelInfo, RowEncoder], output: Path, *, onnx: bool) -> None:
    """Write a model as a static model; print the files and how much the outputs of the two differ."""
    from paddle_ranker.export.static_graph import export_model
    from paddle_ranker.model.foreign.onnx_data import onnx_files

    exported, parities = export_model(model, output, onnx=onnx)
    for engine, parity in parities.items():
        if model.signature.is_rankers:
            what, rows = "the ranker", "pairs"
            differences = [f"{parity.differences['predict']:.1e} of a probability"]
            differences.append(f"{parity.differences['logit']:.1e} of a logit")
        else:
            what, rows = "the model", "rows"
            differences = [f"{value:.1e} of {name}" for name, value in parity.differences.items()]
        print(
            f"parity with {what}, {engine}: largest difference {', '.join(differences)} ({parity.pairs} {rows} in "
            f"{parity.batches} batches, and alone)"
        )
    files = [exported.program, exported.parameters, *(onnx_files(exported.onnx) if exported.onnx else [])]
    sizes = ", ".join(f"{path.name} ({path.stat().st_size / 1e6:.1f} MB)" for path in files)
    print(f"exported: {exported.folder}: {sizes}")
    if model.signature.is_rankers and any(config.names_cells for config in model.network.configs):
        note("exported, it ranks tables, but names no cells; the folder that it was exported from does")


main = main_for_kinds("export", main_of(export, ExportOptions, __doc__))
