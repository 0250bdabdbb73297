"""What the C library does with memory that is freed: keep it, or give it back to the system."""

from __future__ import annotations

import ctypes
import gc
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # from malloc.h
_NEVER, _TRIM_BYTES = -1, 128 * 1024  # the second is what glibc begins with
_KEEPS_MEMORY = threading.Event()  # what this process's allocator was told, which cannot be asked


def keep_freed_memory() -> None:
    """Give no freed memory back to the system, and take large pieces from what was kept; of glibc alone."""
    if _is_glibc():
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _NEVER)
        _KEEPS_MEMORY.set()


@contextmanager
def memory_given_back() -> Iterator[None]:
    """Give what is freed within the block back to the system, whatever `keep_freed_memory` has asked for.

    To be entered where a model takes another's place: memory that one thread's models leave free would be kept beside
    what the next ones take in other threads' parts of the heap.
    """
    libc = ctypes.CDLL(None) if _is_glibc() else None
    keeps = _KEEPS_MEMORY.is_set()
    # Else the end of such a part is kept: `malloc_trim` looks between what is in use there, and not behind it.
    if libc is not None and keeps:
        libc.mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)
    try:
        yield
    finally:
        gc.collect()
        if libc is not None:
            libc.malloc_trim(0)
            if keeps:
                libc.mallopt(_M_TRIM_THRESHOLD, _NEVER)


def _is_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"
