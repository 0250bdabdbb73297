"""Read pickles that may be hostile: build only the objects that the caller allows by name, and execute nothing."""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Mapping

from paddle_ranker.storage.untrusted import Unchecked

# These opcodes store an object at an index of the unpickler's memo, which also takes memory for all lower indices.
_MEMO_OPCODES = ("PUT", "BINPUT", "LONG_BINPUT")


class RefusedError(Exception):
    """Refusal of a pickle; the message names the reason, as in "it asks for os.system"."""


class Sealed:
    """Base of objects that a pickle may hold and call, but whose attributes it cannot set."""

    __slots__ = ()

    def __setstate__(self, state: Unchecked) -> None:
        raise RefusedError(f"it changes a {type(self).__name__.strip('_')}")


class SafeUnpickler(pickle.Unpickler):
    """Unpickler that refuses all names but those in `allowed`.

    `allowed` maps (module, name) to the object to use; stand-ins written in Python are `Sealed`.
    """

    def __init__(self, data: bytes, allowed: Mapping[tuple[str, str], Unchecked], encoding: str = "ASCII"):
        super().__init__(io.BytesIO(data), encoding=encoding)
        self._allowed = allowed

    def find_class(self, module: str, name: str) -> Unchecked:
        if (module, name) not in self._allowed:
            raise RefusedError(f"it asks for {module}.{name}")
        return self._allowed[module, name]

    def persistent_load(self, pid: Unchecked) -> Unchecked:
        raise RefusedError("it refers to objects outside the file")


def end_of_pickle(data: bytes, start: int = 0) -> int:
    """Return the end of the pickle that begins at `start`; reads its opcodes without executing them.

    Raises `RefusedError` if unpickling would take memory out of proportion to its size, `ValueError` if the pickle is
    incomplete.
    """
    stream = io.BytesIO(data)
    stream.seek(start)
    for opcode, argument, position in pickletools.genops(stream):
        if opcode.name in _MEMO_OPCODES and argument is not None and argument > (position or 0) - start:
            raise RefusedError(f"it asks for a memory of {argument:,} objects")
    return stream.tell()
