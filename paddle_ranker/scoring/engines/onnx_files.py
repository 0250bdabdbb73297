"""Find the ONNX file of a folder for a precision."""

from __future__ import annotations

from pathlib import Path

from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.exported import ExportedFolder
from paddle_ranker.scoring.engines.precisions import has_int8

QUANTIZE = "paddle-ranker quantize --model"


def onnx_file(folder: ExportedFolder, precision: str) -> Path:
    """Return the ONNX file for a precision; raises `CheckpointError` if the folder has none that works here."""
    if folder.outputs != folder.signature.output_names:
        raise CheckpointError(
            f"{folder.folder}: is made for Paddle Serving, and holds no ONNX file: type --engine inference, or give "
            "the folder that it was made from"
        )
    path = folder.int8 if precision == "int8" else folder.onnx
    if path is not None:
        facts = (folder.info.export or {}).get("int8") or {}
        if precision == "int8" and facts.get("weight_bits") == 8 and not has_int8():
            raise CheckpointError(
                f"{path}: its weights have 8 bits, which sums on this processor (no VNNI) do not hold: quantize it "
                f"again: {QUANTIZE} {folder.folder} --weight_bits 7 --calibration_file PAIRS --test LABELLED"
            )
        return path
    if precision == "int8":
        raise CheckpointError(
            f"{folder.folder}: there is no {folder.prefix}.int8.onnx in it; make it with: {QUANTIZE} {folder.folder} "
            "--calibration_file PAIRS --test LABELLED"
        )
    raise CheckpointError(
        f"{folder.folder}: there is no {folder.prefix}.onnx in it; make it with: paddle-ranker export "
        f"--onnx --model RANKER --output {folder.folder}"
    )
