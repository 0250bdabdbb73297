"""Which ONNX file of a folder holds a precision."""

from __future__ import annotations

from pathlib import Path

from paddle_ranker.errors import CheckpointError
from paddle_ranker.exported_folder import ExportedFolder


def onnx_file(folder: ExportedFolder, precision: str) -> Path:
    """Return the ONNX file for a precision; raises `CheckpointError` where the folder has none."""
    path = folder.int8 if precision == "int8" else folder.onnx
    if path is not None:
        return path
    if precision == "int8":
        raise CheckpointError(
            f"{folder.folder}: there is no {folder.prefix}.int8.onnx in it; make it with: python -m paddle_ranker "
            "quantize"
        )
    raise CheckpointError(
        f"{folder.folder}: there is no {folder.prefix}.onnx in it; make it with: python -m paddle_ranker export "
        f"--onnx --params_path RANKER --output_path {folder.folder}"
    )
