"""Precisions: which there are, which this processor computes in, and which ONNX file of a folder holds one."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

from paddle_ranker.errors import CheckpointError, UsageError
from paddle_ranker.model.exported import ExportedFolder
from paddle_ranker.runtime import processor_fields, read_cpuinfo

PRECISIONS = ("fp32", "bf16", "fp16", "int8")
_BF16 = ("avx512_bf16", "amx_bf16")
_INT8 = ("avx512_vnni", "avx_vnni", "amx_int8")


def require_precision(
    engine: str, precision: str, offered: tuple[str, ...], *, device: str = "cpu", cpuinfo: Optional[str] = None
) -> None:
    """Raise `UsageError` for a precision that the engine does not offer, or this processor lacks.

    Args:
        offered: what the engine computes in on this device.
        cpuinfo: text in the form of `/proc/cpuinfo`; read from the system by default.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"--precision {precision}: choose from {', '.join(PRECISIONS)}")
    on_cpu = device == "cpu"
    lacks_bf16 = on_cpu and not has_bf16(cpuinfo)
    usable = [name for name in offered if not (name == "bf16" and lacks_bf16)]
    if precision in usable:
        return
    reason = f"the engine {engine} does not compute in it on {device}"
    if precision in offered:
        reason = f"this processor has neither {' nor '.join(_BF16)}"
    hint = ""
    if precision == "int8":
        hint = " (int8 is for the engines onnx and openvino)"
    elif precision == "fp16" and on_cpu:
        hint = " (fp16 needs --device gpu)"
    raise UsageError(f"--precision {precision}: {reason}; supported here: {', '.join(usable)}{hint}")


def has_bf16(cpuinfo: Optional[str] = None) -> bool:
    """Return whether the processor multiplies bfloat16 matrices by itself; elsewhere it would be slower than fp32."""
    flags = processor_fields(read_cpuinfo() if cpuinfo is None else cpuinfo).get("flags", "").split()
    return any(flag in flags for flag in _BF16)


def has_int8(cpuinfo: Optional[str] = None) -> bool:
    """Return whether the processor adds up products of bytes in 32 bits, so that weights may use all 8.

    x86 processors without such instructions add two products in 16 bits, where they saturate, unless weights have 7.
    """
    fields = processor_fields(read_cpuinfo() if cpuinfo is None else cpuinfo)
    return not fields or any(flag in fields.get("flags", "").split() for flag in _INT8)


QUANTIZE = "python -m paddle_ranker quantize --model_dir"


def onnx_file(folder: ExportedFolder, precision: str) -> Path:
    """Return the ONNX file for a precision; raises `CheckpointError` where the folder has none that fits here."""
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
                f"again: {QUANTIZE} {folder.folder} --weight_bits 7 --calibration_file PAIRS --eval_file LABELLED"
            )
        return path
    if precision == "int8":
        raise CheckpointError(
            f"{folder.folder}: there is no {folder.prefix}.int8.onnx in it; make it with: {QUANTIZE} {folder.folder} "
            "--calibration_file PAIRS --eval_file LABELLED"
        )
    raise CheckpointError(
        f"{folder.folder}: there is no {folder.prefix}.onnx in it; make it with: python -m paddle_ranker export "
        f"--onnx --params_path RANKER --output_path {folder.folder}"
    )
