"""Prepare the process for Paddle: set the math library's code path and threads, log levels, the device and the seed.

Paddle reads environment variables when it is loaded, so commands call `prepare` first and import Paddle after it.
Importing this module imports neither Paddle nor PaddleNLP.
"""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import random
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Optional

from paddle_ranker.errors import RankerError, UsageError
from paddle_ranker.interrupts import take_back_signals
from paddle_ranker.libraries import AUTO_DEVICE, switch_off_telemetry
from paddle_ranker.notes import note_once

MATH_VARIABLE = "MKL_DEBUG_CPU_TYPE"  # read by the MKL of 2019 that Paddle bundles
MATH_CHOICE = "PADDLE_RANKER_MATH"
PROCESS_VARIABLE = "PADDLE_RANKER_PROCESS"  # number of this process among several that share a model's work
TF32_VARIABLE = "NVIDIA_TF32_OVERRIDE"  # read by cuBLAS and cuDNN: 0 turns TF32 off, 1 on
DEVICES = ("cpu", "gpu", "xpu", "npu")

# Processor flags that each MKL code path needs; without them the path ends in an illegal instruction.
_AVX2 = frozenset({"avx2", "fma"})
_AVX512 = frozenset({"avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512cd"}) | _AVX2
_PATHS = {"avx512": ("7", _AVX512), "avx2": ("5", _AVX2)}  # best first
# MKL picks a good path on Intel's own processors; on processors of these vendors it picks the slowest.
_SLOWED_VENDORS = frozenset({"AuthenticAMD", "HygonGenuine"})


@dataclass(frozen=True)
class MathPath:
    """The code path of the math library.

    value: the path's name; None: the library itself chooses
    reason: why the path was chosen
    """

    value: Optional[str]
    reason: str


def decide_math_path(cpuinfo: str, choice: str = "auto") -> MathPath:
    """Decide which code path the math library should take on the processor that `cpuinfo` describes.

    cpuinfo: text in the form of Linux's `/proc/cpuinfo`; "" if the system has no such file
    choice: `auto`, `off`, `avx2` or `avx512` (the values of PADDLE_RANKER_MATH)

    Raises `UsageError` if `choice` is unknown, or needs instructions that the processor does not report.
    """
    if choice == "off":
        return MathPath(None, f"switched off by {MATH_CHOICE}=off")
    if choice not in ("auto", *_PATHS):
        raise UsageError(f"{MATH_CHOICE}={choice}: choose from auto, avx2, avx512, off")
    fields = processor_fields(cpuinfo)
    flags = frozenset(fields.get("flags", "").split())
    if choice in _PATHS:
        value, needed = _PATHS[choice]
        if not needed <= flags:
            raise UsageError(
                f"{MATH_CHOICE}={choice}: this processor does not report {', '.join(sorted(needed - flags))}; "
                f"unset {MATH_CHOICE} to let the path be chosen"
            )
        return MathPath(value, f"asked for by {MATH_CHOICE}={choice}")
    vendor = fields.get("vendor_id", "")
    if vendor not in _SLOWED_VENDORS:
        return MathPath(None, f"the math library chooses by itself ({vendor or 'a processor of unknown vendor'})")
    for name, (value, needed) in _PATHS.items():
        if needed <= flags:
            return MathPath(value, f"{name} on {vendor}, where the math library by itself takes a slow path")
    return MathPath(None, f"{vendor} without AVX2: the math library chooses by itself")


def processor_fields(cpuinfo: str) -> dict[str, str]:
    """Return the fields of the first processor in a text in the form of `/proc/cpuinfo`."""
    fields = {}
    for line in cpuinfo.partition("\n\n")[0].splitlines():
        name, _, value = line.partition(":")
        fields[name.strip()] = value.strip()
    return fields


def read_cpuinfo() -> str:
    """Return the text of `/proc/cpuinfo` on x86-64 Linux; "" on other systems, or if the file cannot be read."""
    if platform.system() != "Linux" or platform.machine() not in ("x86_64", "AMD64"):
        return ""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def choose_math_path(
    environment: Optional[MutableMapping[str, str]] = None,
    *,
    cpuinfo: Optional[str] = None,
    loaded: Optional[Mapping[str, object]] = None,
) -> MathPath:
    """Choose the code path of Paddle's math library, set it in the environment, and return the choice.

    By default the bundled MKL runs single-precision products several times slower than necessary on AMD processors. If
    MKL's environment variable is set already, it is kept. If Paddle is loaded already, nothing is set, because MKL has
    read the variable by then.

    environment: variables to read and set; the process's own by default
    cpuinfo: text of `/proc/cpuinfo`; read from the system by default
    loaded: modules by name, among which Paddle is looked for; `sys.modules` by default

    Raises `UsageError` if MKL's variable is not set, and PADDLE_RANKER_MATH is unknown or names instructions that the
    processor does not report.
    """
    environment = os.environ if environment is None else environment
    if environment.get(MATH_VARIABLE):
        value = environment[MATH_VARIABLE]
        return MathPath(value, f"{MATH_VARIABLE}={value} is set in the environment")
    path = decide_math_path(read_cpuinfo() if cpuinfo is None else cpuinfo, environment.get(MATH_CHOICE) or "auto")
    if path.value is None:
        return path
    if "paddle" in (sys.modules if loaded is None else loaded):
        return MathPath(None, f"too late: paddle was imported before {MATH_VARIABLE}={path.value} could be set")
    environment[MATH_VARIABLE] = path.value
    return path


def prepare(threads: Optional[int] = None) -> MathPath:
    """Prepare this process for Paddle, and return the math library's code path; call this before importing Paddle.

    threads: number of threads that a matrix product may use. 0: MKL_NUM_THREADS; if this is not set, the number of
        cores that this process may use, divided by the number of processes that the launcher started. None: Paddle's
        default, which is 1 unless MKL_NUM_THREADS or OMP_NUM_THREADS is set

    Raises `UsageError` if `threads` is negative, and as `choose_math_path` does.
    """
    switch_off_telemetry()
    path = choose_math_path()
    # Paddle's C++ side logs each step of start-up; errors still show.
    os.environ.setdefault("GLOG_minloglevel", "2")
    os.environ.setdefault("GLOG_v", "0")
    _turn_off_tf32()
    warnings.filterwarnings("ignore", message="(No ccache found|Setuptools is replacing distutils)")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(paddle|paddlenlp|huggingface_hub|datasets)\b")
    if threads is not None:
        if threads < 0:
            raise UsageError(f"{threads} threads: give 1 or more, or 0 for one per core")
        # OMP_NUM_THREADS is no alternative: Paddle sets it to 1 itself, and prints a warning for any other value.
        if threads:
            os.environ["MKL_NUM_THREADS"] = str(threads)
        else:
            processes = int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))
            os.environ.setdefault("MKL_NUM_THREADS", str(max(1, usable_cores() // processes)))
    # Without strided tensors, a transpose copies its data. That is several times as fast as Paddle's strided transpose.
    os.environ.setdefault("FLAGS_use_stride_kernel", "0")
    return path


def prepare_command(threads: int) -> None:
    """Prepare a process that runs one command and ends: call `prepare`, and keep freed memory for reuse.

    By default glibc maps new memory for each large activation and returns the memory to the system afterwards. So every
    batch causes page faults, which take a fifth of the time of a small model's training step. A process that keeps
    freed memory stays at its maximum size. This suits a command, which soon ends, but not any program that imports the
    toolkit.
    """
    prepare(threads)
    keep_freed_memory()


def usable_cores() -> int:
    """Return how many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def thread_count(threads: int) -> int:
    """Return how many threads an engine uses.

    If `threads` is 0, this is MKL_NUM_THREADS, which `prepare` may have set; without it, one thread per core. Raises
    `UsageError` if `threads` is negative.
    """
    if threads < 0:
        raise UsageError(f"{threads} threads: give 1 or more, or 0 for one per core")
    decided = os.environ.get("MKL_NUM_THREADS", "")
    return threads or (int(decided) if decided.isdigit() and int(decided) else usable_cores())


def cuda_devices() -> int:
    """Return how many NVIDIA GPUs a child process would see; count device files and variables, without CUDA."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([*takewhile(lambda device: device not in ("", "-1", "NoDevFiles"), visible.split(","))])
    # /dev/dxg is a GPU under Windows.
    return len([*Path("/dev").glob("nvidia[0-9]*")]) or int(Path("/dev/dxg").exists())


def own_gpu(device: str) -> str:
    """Return `gpu:N`, this process's GPU, if `device` is `gpu` and several processes share a model's work.

    Processes of `paddle.distributed.launch` get the GPUs that it assigns; worker processes get the GPUs in turn. In all
    other cases, return `device`.
    """
    launched = os.environ.get("FLAGS_selected_gpus", "").partition(",")[0]  # noqa: SIM112  # Paddle's name
    if device == "gpu" and launched.isdigit():
        return f"gpu:{launched}"
    number = os.environ.get(PROCESS_VARIABLE)
    if device != "gpu" or number is None or cuda_devices() < 2:
        return device
    return f"gpu:{int(number) % cuda_devices()}"


def own_environment() -> dict[str, str]:
    """Return this process's environment variables, with a PYTHONPATH by which a child can import this package."""
    path = os.pathsep.join(filter(None, [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}


def finds_gpu() -> bool:
    """Return whether Paddle finds a GPU.

    A child process looks for it, because CUDA in this process would not survive a later fork.
    """
    code = "from paddle_ranker.runtime import available_devices; raise SystemExit('gpu' not in available_devices())"
    line = [sys.executable, "-W", "ignore", "-c", code]
    return cuda_devices() > 0 and subprocess.run(line, env=own_environment(), capture_output=True).returncode == 0


def _turn_off_tf32() -> None:
    """Turn off TF32 unless the user asks for it; by default Paddle uses it from Ampere on, with errors near 1e-3."""
    os.environ.setdefault(TF32_VARIABLE, "0")


def uses_tf32() -> bool:
    """Return whether the user asks for TF32 in place of fp32 on GPUs that have TF32."""
    return os.environ.get(TF32_VARIABLE) == "1"


def available_devices() -> list[str]:
    """Return the kinds of device that the installed Paddle can use here, `cpu` first."""
    import paddle

    kinds = ["cpu"]
    if paddle.device.is_compiled_with_cuda() and paddle.device.cuda.device_count() > 0:
        kinds.append("gpu")
    if paddle.device.is_compiled_with_xpu():
        kinds.append("xpu")
    # A Paddle plug-in for another kind of device registers that kind under its own name.
    kinds += [kind for kind in paddle.device.get_all_custom_device_type() if kind not in kinds]
    return kinds


@dataclass(frozen=True)
class FoundDevice:
    """The device that `--device auto` chose.

    name: `cpu` or `gpu`
    reason: why the device was chosen, for a note
    """

    name: str
    reason: str

    def report(self) -> None:
        """Print device and reason as a note, once per process; only the first of several processes prints."""
        note_once(f"device: {self.name} ({self.reason})")


def find_device() -> FoundDevice:
    """Return the device that `--device auto` means: a GPU if Paddle finds one, else the CPU."""
    import paddle

    if "gpu" in available_devices():
        return FoundDevice("gpu", "the first that Paddle finds; --device names another")
    if paddle.device.is_compiled_with_cuda():
        return FoundDevice("cpu", "Paddle finds no GPU here")
    return FoundDevice("cpu", "this Paddle is the CPU build")


def select_device(name: str) -> str:
    """Set Paddle's current device, and return its name in Paddle's form (`cpu`, `gpu:0`, ...).

    name: `cpu`; `gpu`, `xpu` or `npu`, with or without an index (`gpu:1`); or `auto`: choose a device and print it

    Raises `UsageError` for any other name, and `RankerError` if the device is not available or Paddle cannot use it.
    """
    import paddle

    take_back_signals()
    _turn_off_tf32()  # a program may import Paddle without `prepare`, and has computed no product yet
    if name == AUTO_DEVICE:
        chosen = find_device()
        chosen.report()
        name = chosen.name
    name = own_gpu(name)
    kind, colon, number = name.partition(":")
    if kind not in DEVICES or (colon and not number.isdigit()) or (kind == "cpu" and colon):
        names = ", ".join((*DEVICES, AUTO_DEVICE))
        raise UsageError(f"--device {name}: choose from {names}, or one with its number, as in gpu:0")
    if kind == "cpu":  # GPUs are not counted: CUDA would start, and not survive a fork of this process
        paddle.device.set_device(kind)
        return kind
    here = available_devices()
    remedy = f"available here: {', '.join(here)}; type --device {here[-1]}"
    if kind not in here:
        reason = "this Paddle has no support for it or finds none"
        if kind == "gpu" and not paddle.device.is_compiled_with_cuda():
            reason = "this Paddle is the CPU build"
        raise RankerError(f"--device {name}: no {kind} here ({reason}); {remedy}")
    if kind == "gpu" and number and int(number) >= paddle.device.cuda.device_count():
        count = paddle.device.cuda.device_count()
        raise RankerError(f"--device {name}: there are {count} GPUs here, gpu:0 to gpu:{count - 1}; {remedy}")
    try:
        paddle.device.set_device(name)
    except (ValueError, RuntimeError, OSError) as error:
        raise RankerError(f"--device {name}: Paddle cannot use it ({str(error).splitlines()[0]}); {remedy}") from error
    return str(paddle.device.get_device())


def set_seed(seed: int) -> None:
    """Seed the random generators of Python, NumPy and Paddle.

    Raises `UsageError` for a seed outside of 0 to 2**32 - 1, the range that all three accept.
    """
    if not 0 <= seed < 2**32:
        raise UsageError(f"--seed {seed}: give a number from 0 to {2**32 - 1}")
    import numpy
    import paddle

    random.seed(seed)
    numpy.random.seed(seed)
    paddle.seed(seed)


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # from malloc.h
_NEVER, _TRIM_BYTES = -1, 128 * 1024  # the second is glibc's default
_KEEPS_MEMORY = threading.Event()  # set by `keep_freed_memory`: glibc has no call that returns the setting


def keep_freed_memory() -> None:
    """Keep freed memory in the process and reuse it for large allocations; glibc only."""
    if _is_glibc():
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _NEVER)
        _KEEPS_MEMORY.set()


@contextmanager
def memory_given_back() -> Iterator[None]:
    """When the block ends, return the memory that it freed to the system, even after `keep_freed_memory`.

    Use this where one model replaces another. Otherwise memory that one thread has freed stays in this thread's arena
    of the heap, and the next model, loaded in another thread, needs more memory in another arena.
    """
    libc = ctypes.CDLL(None) if _is_glibc() else None
    keeps = _KEEPS_MEMORY.is_set()
    # Otherwise the free end of an arena would stay: `malloc_trim` releases only the gaps between allocated blocks.
    if libc is not None and keeps:
        libc.mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)
    try:
        yield
    finally:
        gc.collect()
        trim_memory()
        if libc is not None and keeps:
            libc.mallopt(_M_TRIM_THRESHOLD, _NEVER)


def trim_memory() -> None:
    """Return freed memory to the system, as far as `keep_freed_memory` allows; glibc only."""
    if _is_glibc():
        ctypes.CDLL(None).malloc_trim(0)


def _is_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"
