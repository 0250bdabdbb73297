"""Read pickles that may be hostile: nothing is executed, only what a caller lists by name is built."""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Mapping

from paddle_ranker.storage.untrusted import Unchecked

# The slot of the unpickler's memory that an opcode fills; it makes room for all the slots below, too.
_MEMO_OPCODES = ("PUT", "BINPUT", "LONG_BINPUT")


class RefusedError(Exception):
    """The stream asks for more than it may; the message says what, as in "it asks for os.system"."""


class Sealed:
    """What a pickle may hold and call but not change: by default, it can set attributes of whatever it is given."""

    __slots__ = ()

    def __setstate__(self, state: Unchecked) -> None:
        raise RefusedError(f"it changes a {type(self).__name__.strip('_')}")


class SafeUnpickler(pickle.Unpickler):
    """An unpickler that knows the names in `allowed` and no others.

    `allowed` maps (module, name) to what stands for it; a stand-in written in Python is a `Sealed` instance.
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
    """Return where the pickle that begins at `start` ends, having read its opcodes without following them.

    Raises `RefusedError` where it would make the unpickler take memory out of proportion to its size, and `ValueError`
    where it is no whole pickle.
    """
    stream = io.BytesIO(data)
    stream.seek(start)
    for opcode, argument, position in pickletools.genops(stream):
        if opcode.name in _MEMO_OPCODES and argument is not None and argument > (position or 0) - start:
            raise RefusedError(f"it asks for a memory of {argument:,} objects")
    return stream.tell()
