"""Settings in a JSON file of a foreign model: each key is used, refused, known to have no effect, or logged.

settings = ForeignConfig.read(folder / "config.json", without_effect=("use_cache",))
size = settings.get("hidden_size", 768)                              # used
settings.require("is_decoder", False, remedy="take an encoder")      # any other value is refused by name
settings.log_unknown()                                               # log all other keys
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from paddle_ranker.errors import CheckpointError, listed, quoted
from paddle_ranker.notes import note_once
from paddle_ranker.storage.untrusted import Unchecked, UncheckedObject, read_json

PREPROCESSOR_FILE, PROCESSOR_FILE = "preprocessor_config.json", "processor_config.json"


def read_preprocessor(folder: Path, part: str, purpose: str, without_effect: Collection[str] = ()) -> ForeignConfig:
    """Read the object `part` of a folder's `processor_config.json`, or else its `preprocessor_config.json`.

    purpose: content of the settings, such as "how pictures are scaled", for the error if both files are missing
    """
    whole = ForeignConfig.read(folder / PROCESSOR_FILE)
    if part not in whole and (folder / PREPROCESSOR_FILE).is_file():
        return ForeignConfig.read(folder / PREPROCESSOR_FILE, without_effect)
    if part not in whole:
        raise whole.error(f"is missing, and {PREPROCESSOR_FILE}, which say {purpose}; copy it again")
    return whole.inner(part, without_effect)


class ForeignConfig:
    """JSON object of a file, consumed key by key. A null value counts as missing.

    path: the file, for messages
    values: the JSON object
    without_effect: keys that never change results
    place: name of the object within the file, for example "normalizer."; "" if it is the whole file
    """

    def __init__(self, path: Path, values: Unchecked, without_effect: Collection[str] = (), place: str = ""):
        if not isinstance(values, dict):
            where = f"{place.rstrip('.')} is" if place else "holds"
            raise CheckpointError(f"{path}: {where} a {type(values).__name__}, expected an object; copy it again")
        self.path, self.place = path, place
        self._values: UncheckedObject = values
        self._without_effect, self._used = without_effect, set[str]()
        self._inner: dict[str, ForeignConfig] = {}

    @classmethod
    def read(cls, path: Path, without_effect: Collection[str] = ()) -> ForeignConfig:
        """Read a file, which counts as empty if missing. Raises `CheckpointError` for anything but a JSON object."""
        try:
            return cls(path, read_json(path), without_effect)
        except FileNotFoundError:
            return cls(path, {}, without_effect)
        except ValueError as error:
            raise CheckpointError(f"{path}: damaged ({error}); copy it again") from error

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def get(self, name: str, default: Unchecked = None) -> Unchecked:
        """Return the value of a key, or `default` if it is missing; the key then counts as used."""
        self._used.add(name)
        value = self._values.get(name)
        return default if value is None else value

    def states_null(self, name: str) -> bool:
        """Return whether a key is there with the value null, which in some classes is no missing key."""
        return name in self._values and self._values[name] is None

    def flag(self, name: str, default: bool) -> bool:
        """Return a boolean setting of a class in which null is false; the key then counts as used."""
        return bool(self.get(name, default and not self.states_null(name)))

    def __getitem__(self, name: str) -> Unchecked:
        self._used.add(name)
        return self._values[name]

    def ignore(self, names: Iterable[str]) -> None:
        """Mark keys as known to have no effect."""
        self._used.update(names)

    def inner(self, name: str, without_effect: Collection[str] = ()) -> ForeignConfig:
        """Return the JSON object at a key (empty if missing); `self.unknown` includes its unknown keys."""
        if name not in self._inner:
            self._inner[name] = ForeignConfig(self.path, self.get(name, {}), without_effect, f"{self.place}{name}.")
        return self._inner[name]

    def require(self, name: str, *done: object, remedy: str) -> None:
        """Raise `CheckpointError` unless a key is missing or its value is one of `done`.

        done: the values that this toolkit supports
        remedy: advice at the end of the error
        """
        value = self.get(name)
        if value is not None and value not in done:
            only = f"; only {' or '.join(map(quoted, done))} is done here" if done else ", which is not done here"
            raise self.error(f"{self.place}{name} is {quoted(value)}{only}: {remedy}")

    def error(self, problem: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: {problem}")

    @property
    def unknown(self) -> list[str]:
        """Names of keys that were not used and are not known to have no effect."""
        used = self._used.union(self._without_effect)
        keys = [self.place + name for name, value in self._values.items() if name not in used and value is not None]
        return keys + [name for inner in self._inner.values() for name in inner.unknown]

    def log_unknown(self) -> None:
        """Log the unknown keys, once per process."""
        if self.unknown:
            note_once(f"note: {self.path}: unknown here and not used: {listed(self.unknown)}")
