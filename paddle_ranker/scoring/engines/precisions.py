"""Precisions of matrix products: which of them this processor supports, and which ONNX file each uses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Optional

from paddle_ranker.errors import CheckpointError, UsageError
from paddle_ranker.runtime import processor_fields, read_cpuinfo
from paddle_ranker.scoring.engines.engine_registry import ENGINES, engines_with

if TYPE_CHECKING:
    from paddle_ranker.model.exported import ExportedFolder

PRECISIONS = ("fp32", "bf16", "fp16", "int8")
_BF16 = ("avx512_bf16", "amx_bf16")
_INT8 = ("avx512_vnni", "avx_vnni", "amx_int8")


def require_offered(engine: str, device: str, precision: str, *, cpuinfo: Optional[str] = None) -> None:
    """Raise `UsageError` for a device or a precision that the engine does not offer, or that this processor lacks.

    engine: a name in `ENGINES`. For an engine without `precisions` (auto, dygraph), only the precision's name is
        checked
    device: cpu, gpu and so on, with or without a number
    cpuinfo: text in the form of `/proc/cpuinfo`; read from the system by default
    """
    if precision not in PRECISIONS:
        raise UsageError(f"--precision {precision}: choose from {', '.join(PRECISIONS)}")
    by_device, kind = ENGINES[engine].precisions, device.partition(":")[0]
    if not by_device:
        return
    if kind not in by_device:
        devices = list(by_device)
        raise UsageError(
            f"--device {device}: the engine {engine} runs on {', '.join(devices)}; type --device {devices[0]}"
        )
    lacks_bf16 = kind == "cpu" and not has_bf16(cpuinfo)
    usable = [name for name in by_device[kind] if not (name == "bf16" and lacks_bf16)]
    if precision in usable:
        return
    reason, hint = f"the engine {engine} does not compute in it on {kind}", ""
    others = [name for name, offered in by_device.items() if precision in offered]
    if precision in by_device[kind]:
        reason = f"this processor has neither {' nor '.join(_BF16)}"
    elif others:
        hint = f" ({precision} needs --device {' or '.join(others)})"
    elif engines_with(precision):
        hint = f" ({precision} needs --engine {' or '.join(engines_with(precision))})"
    raise UsageError(f"--precision {precision}: {reason}; supported here: {', '.join(usable)}{hint}")


def has_bf16(cpuinfo: Optional[str] = None) -> bool:
    """Return whether the processor has bfloat16 instructions; without them bf16 would be slower than fp32."""
    flags = processor_fields(read_cpuinfo() if cpuinfo is None else cpuinfo).get("flags", "").split()
    return any(flag in flags for flag in _BF16)


def has_int8(cpuinfo: Optional[str] = None) -> bool:
    """Return whether the processor sums products of bytes in 32 bits, so that int8 weights may use all 8 bits.

    x86 processors without the instructions of `_INT8` sum two products in 16 bits, which overflows unless weights use
    only 7 bits.
    """
    fields = processor_fields(read_cpuinfo() if cpuinfo is None else cpuinfo)
    return not fields or any(flag in fields.get("flags", "").split() for flag in _INT8)


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
