"""Settings in a JSON file of somebody else's model: every key is used, refused, without effect, or said to be unknown.

stated = Stated.read(folder / "config.json", without_effect=("use_cache",))
size = stated.get("hidden_size", 768)                                # used
stated.require("is_decoder", False, remedy="take an encoder")        # any other value is refused by name
stated.say_unknown()                                                 # all other keys, in one line
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from paddle_ranker.errors import CheckpointError, listed, quoted
from paddle_ranker.options import note_once
from paddle_ranker.storage.untrusted import Unchecked, UncheckedObject, read_json


class Stated:
    """JSON object of a file, consumed key by key.

    A key that is null counts as missing.

    Args:
        path: the file, for messages.
        values: the object.
        without_effect: keys that change no number of what is computed here, whatever their values.
        place: name of the object within the file, "normalizer." for example.
    """

    def __init__(self, path: Path, values: Unchecked, without_effect: Collection[str] = (), place: str = ""):
        if not isinstance(values, dict):
            where = f"{place.rstrip('.')} is" if place else "holds"
            raise CheckpointError(f"{path}: {where} a {type(values).__name__}, expected an object; copy it again")
        self.path, self.place = path, place
        self._values: UncheckedObject = values
        self._without_effect, self._used = without_effect, set[str]()
        self._inner: dict[str, Stated] = {}

    @classmethod
    def read(cls, path: Path, without_effect: Collection[str] = ()) -> Stated:
        """Read a file; a missing file states nothing. Raises `CheckpointError` for anything but a JSON object."""
        try:
            return cls(path, read_json(path), without_effect)
        except FileNotFoundError:
            return cls(path, {}, without_effect)
        except ValueError as error:
            raise CheckpointError(f"{path}: damaged ({error}); copy it again") from error

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def get(self, name: str, default: Unchecked = None) -> Unchecked:
        """Use a key: return its value, or `default` if it is missing."""
        self._used.add(name)
        value = self._values.get(name)
        return default if value is None else value

    def __getitem__(self, name: str) -> Unchecked:
        self._used.add(name)
        return self._values[name]

    def ignore(self, names: Iterable[str]) -> None:
        """Say of keys that they are without effect."""
        self._used.update(names)

    def inner(self, name: str, without_effect: Collection[str] = ()) -> Stated:
        """Use a key whose value is an object; a missing one states nothing. Its unknown keys are this file's."""
        if name not in self._inner:
            self._inner[name] = Stated(self.path, self.get(name, {}), without_effect, f"{self.place}{name}.")
        return self._inner[name]

    def require(self, name: str, *done: object, remedy: str) -> None:
        """Use a key that may only have one of the values `done`; raises `CheckpointError` for any other value."""
        value = self.get(name)
        if value is not None and value not in done:
            only = f"; only {' or '.join(map(quoted, done))} is done here" if done else ", which is not done here"
            raise self.error(f"{self.place}{name} is {quoted(value)}{only}: {remedy}")

    def error(self, problem: str) -> CheckpointError:
        """Return the error about a problem of this file."""
        return CheckpointError(f"{self.path}: {problem}")

    @property
    def unknown(self) -> list[str]:
        """Names of the keys that nobody has used and that are not known to be without effect."""
        known = self._used.union(self._without_effect)
        own = [self.place + name for name, value in self._values.items() if name not in known and value is not None]
        return own + [name for inner in self._inner.values() for name in inner.unknown]

    def say_unknown(self) -> None:
        """Note the unknown keys in one line, once in a process."""
        if self.unknown:
            note_once(f"note: {self.path}: unknown here and not used: {listed(self.unknown)}")
