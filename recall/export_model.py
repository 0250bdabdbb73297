"""Export a tower as a static model, `inference.get_pooled_embedding.*`, for engines and servers.

paddle-ranker export --model checkpoint/tower/best --output output --onnx
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from paddle_ranker import runtime
from paddle_ranker.commands.export import ExportOptions, write_export
from paddle_ranker.errors import UsageError
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import ANY_TOWER, identify
from paddle_ranker.model.pretrained import resolve_model
from paddle_ranker.model.tower import QUERY_FOLDER, TextEncoder
from paddle_ranker.options import main_of
from paddle_ranker.scoring.scoring_options import PoolingOptions


@dataclass(frozen=True)
class ExportTowerOptions(PoolingOptions, ExportOptions):
    """Options of `export` for a tower."""


def export_model(options: ExportTowerOptions) -> None:
    """Write the static model and the tokenizer; a separate tower of queries goes into the folder `query`."""
    runtime.prepare_command(options.cpu_threads)
    from paddle_ranker.model.tower_network import load_tower, query_tower_of

    runtime.select_device("cpu")  # a static model is not bound to a device; each engine chooses one
    how, source, output = LoadOptions.of(options), resolve_model(options.params_path), Path(options.output_path)
    identify(source).require_parameters(ANY_TOWER)
    model, queries = load_tower(source, how), query_tower_of(source, how)
    if options.max_seq_length is not None and not any(
        isinstance(tower.row_encoder, TextEncoder) for tower in (model, queries or model)
    ):
        raise UsageError(
            f"--max_seq_length {options.max_seq_length}: {options.params_path} reads pictures alone; leave it out"
        )
    write_export(model, output, onnx=options.onnx)
    if queries is not None:
        write_export(queries, output / QUERY_FOLDER, onnx=options.onnx)


main = main_of(export_model, ExportTowerOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
