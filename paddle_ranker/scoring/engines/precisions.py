"""The precisions of matrix products, and which of them this processor supports."""

from __future__ import annotations

from typing import Optional

from paddle_ranker.errors import UsageError
from paddle_ranker.runtime import processor_fields, read_cpuinfo
from paddle_ranker.scoring.engines.registry import int8_engines

PRECISIONS = ("fp32", "bf16", "fp16", "int8")
_BF16 = ("avx512_bf16", "amx_bf16")
_INT8 = ("avx512_vnni", "avx_vnni", "amx_int8")


def require_precision(
    engine: str, precision: str, offered: tuple[str, ...], *, device: str = "cpu", cpuinfo: Optional[str] = None
) -> None:
    """Raise `UsageError` for a precision that the engine does not offer, or this processor lacks.

    Args:
        offered: the precisions that the engine offers on this device.
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
        hint = f" (int8 is for the engines {' and '.join(int8_engines())})"
    elif precision == "fp16" and on_cpu:
        hint = " (fp16 needs --device gpu)"
    raise UsageError(f"--precision {precision}: {reason}; supported here: {', '.join(usable)}{hint}")


def has_bf16(cpuinfo: Optional[str] = None) -> bool:
    """Return whether the processor has bfloat16 instructions; without them bf16 would be slower than fp32."""
    flags = processor_fields(read_cpuinfo() if cpuinfo is None else cpuinfo).get("flags", "").split()
    return any(flag in flags for flag in _BF16)


def has_int8(cpuinfo: Optional[str] = None) -> bool:
    """Return whether the processor sums products of bytes in 32 bits, so that weights may use all 8 bits.

    x86 processors without such instructions sum two products in 16 bits, which saturates unless weights use 7 bits.
    """
    fields = processor_fields(read_cpuinfo() if cpuinfo is None else cpuinfo)
    return not fields or any(flag in fields.get("flags", "").split() for flag in _INT8)
