"""The options of a training that are searched: `--learning_rate 1e-5:1e-4:log --batch_size 16,32`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from paddle_ranker.errors import UsageError, brief, quoted
from paddle_ranker.options.declare import REFUSED, annotations_of, fields_of, names_of, shown_name, value_type

if TYPE_CHECKING:
    from optuna.trial import Trial

    from paddle_ranker.training.training_options import TrainingOptions

_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_LOG = "log"
# Options that say what is measured, and by which chance: a search over them would choose luck.
_FIXED = frozenset({"metric", "seed"})


@dataclass(frozen=True)
class SearchedOption:
    """An option that is searched.

    name: name of the field
    values: the values to choose from; or both ends of a range, included
    is_range: whether `values` are the ends of a range
    log: whether a range is searched by the values' logarithms
    """

    name: str
    values: tuple[Any, ...]
    is_range: bool = False
    log: bool = False

    def suggest(self, trial: Trial) -> Any:
        """Return the value for a trial, which Optuna draws and stores; the stored one if there is one."""
        if not self.is_range:
            return trial.suggest_categorical(self.name, self.values)
        suggest = trial.suggest_int if isinstance(self.values[0], int) else trial.suggest_float
        return suggest(self.name, *self.values, log=self.log)

    def holds(self, value: Any) -> bool:
        """Return whether a value, such as the option's default, is one of those that are searched."""
        if value is None or not self.is_range:
            return value in self.values
        return bool(self.values[0] <= value <= self.values[1])


def take_searched(training: type[TrainingOptions], arguments: Sequence[str]) -> tuple[list[str], list[SearchedOption]]:
    """Return the arguments without those of searched options, and the searched options.

    Raises `UsageError` for a range or values that cannot be read, and for those of an option that is not searched.
    """
    annotations = annotations_of(training)
    fields = {name: field for field in fields_of(training) for name in names_of(field)}
    kept, searched, skip = list[str](), dict[str, SearchedOption](), False
    for word, next_word in zip(arguments, [*arguments[1:], ""]):
        if skip:
            skip = False
            continue
        name, equals, text = word.partition("=")
        field, text = fields.get(name), text if equals else next_word
        if field is None or not _is_search(training, field, value_type(annotations[field.name]), text):
            kept.append(word)
            continue
        searched[field.name] = _parse(field, value_type(annotations[field.name]), text)
        skip = not equals
    return kept, list(searched.values())


def _is_search(training: type[TrainingOptions], field: dataclasses.Field[Any], kind: Any, text: str) -> bool:
    """Return whether a text is a range or several values, of an option whose values can be searched."""
    of = field.metadata
    is_plain_text = kind is str and of["addresses"] == REFUSED and not (of["files"] or of["several"] or of["joins"])
    if not (kind in (int, float, bool) or is_plain_text) or not ("," in text or (":" in text and kind in (int, float))):
        return False
    if not (of["shared"] or field.name in training.MAY_CHANGE | _FIXED):
        return True
    if kind is str and not of["choices"] and field.name not in _FIXED:  # a name with a comma, or the comma itself
        return False
    raise UsageError(f"{shown_name(field)} {brief(text)}: tune does not search this option; give it one value")


def _parse(field: dataclasses.Field[Any], kind: Any, text: str) -> SearchedOption:
    problem = f"{shown_name(field)} {brief(text)}: "

    def value(word: str) -> Any:
        word = word.strip()
        if kind is bool and word.lower() in ("true", "false"):
            return word.lower() == "true"
        try:
            made = None if kind is bool or not word else kind(word)
        except ValueError:
            made = None
        if made is None or (kind is float and not math.isfinite(made)):
            raise UsageError(f"{problem}{quoted(word)} is not {_KINDS[kind]}")
        return made

    if kind not in (int, float) or ":" not in text:
        values = tuple(map(value, text.split(",")))
        if len(set(values)) < len(values):
            raise UsageError(f"{problem}expected different values")
        return SearchedOption(field.name, values)
    low, high, *rest = text.split(":")
    if rest not in ([], [_LOG]):
        raise UsageError(f"{problem}expected LOW:HIGH, LOW:HIGH:{_LOG}, or values with commas between them")
    ends = value(low), value(high)
    if not ends[0] < ends[1]:
        raise UsageError(f"{problem}the first end of a range is below the second; turn them round")
    if rest and ends[0] <= 0:
        raise UsageError(f"{problem}{_LOG} needs a range above 0; begin above it, or leave :{_LOG} out")
    return SearchedOption(field.name, ends, is_range=True, log=bool(rest))
