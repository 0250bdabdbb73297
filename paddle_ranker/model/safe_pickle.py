"""Read pickles that may be hostile: only the objects that the caller allows by name are built, nothing is executed."""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Mapping

from paddle_ranker.storage.untrusted import Unchecked

# These opcodes store an object at an index of the unpickler's memo, which takes memory for all lower indices, too.
_MEMO_OPCODES = ("PUT", "BINPUT", "LONG_BINPUT")


class RefusedError(Exception):
    """The pickle asks for something that is not allowed; the message names it, as in "it asks for os.system"."""


class Sealed:
    """An object that a pickle may hold and call but not change; of other objects a pickle can set the attributes."""

    __slots__ = ()

    def __setstate__(self, state: Unchecked) -> None:
        raise RefusedError(f"it changes a {type(self).__name__.strip('_')}")


class SafeUnpickler(pickle.Unpickler):
    """An unpickler that knows the names in `allowed` and no others.

    `allowed` maps (module, name) to the object to use for it; a stand-in written in Python is a `Sealed` instance.
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
    """Return where the pickle that begins at `start` ends; its opcodes are read but not executed.

    Raises `RefusedError` if it would make the unpickler take memory out of proportion to its size, and `ValueError` if
    it is not a complete pickle.
    """
    stream = io.BytesIO(data)
    stream.seek(start)
    for opcode, argument, position in pickletools.genops(stream):
        if opcode.name in _MEMO_OPCODES and argument is not None and argument > (position or 0) - start:
            raise RefusedError(f"it asks for a memory of {argument:,} objects")
    return stream.tell()
