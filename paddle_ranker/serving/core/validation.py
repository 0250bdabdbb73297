"""Validate JSON by pydantic; errors name the place. Unknown fields of a request are refused, see `Body`."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Callable, ClassVar, Optional, Union

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from paddle_ranker.errors import brief, listed
from paddle_ranker.serving.core.faults import UNPROCESSABLE, Fault
from paddle_ranker.serving.core.json_text import JsonBounds, check_json, not_json
from paddle_ranker.storage.untrusted import Unchecked


def _describe_names(schema: dict[str, Unchecked], kind: type[Body]) -> None:
    """Describe in a request's JSON schema, in place, the names that are refused or ignored."""
    schema["additionalProperties"] = kind.ignores_unknown
    if kind.refused or kind.without_effect:
        without_effect, refused = (", ".join(sorted(names)) for names in (kind.without_effect, kind.refused))
        schema["description"] += f" Without effect: {without_effect}. Refused, if they ask for something: {refused}."


class Body(BaseModel):
    """The JSON object of a request; no field of it is ignored silently.

    A field of the class is honoured. Every other name is in one of these tables, or is refused.

    Attributes:
        without_effect: names of fields that change no answer here, whatever they say.
        refused: dict from names of fields that are not done here to the values that change nothing; null is another.
        ignores_unknown: whether names that no protocol knows are ignored, as the protocol's own server does.
    """

    model_config = ConfigDict(strict=True, extra="allow", protected_namespaces=(), json_schema_extra=_describe_names)
    without_effect: ClassVar[Collection[str]] = ()
    refused: ClassVar[Mapping[str, Collection[object]]] = {}
    ignores_unknown: ClassVar[bool] = False

    def check(self, path: str = "") -> None:
        """Raise `Fault`, which names the field, for an unknown name or a value that this server does not follow."""
        for name, value in (self.model_extra or {}).items():
            if name in self.without_effect:
                continue
            if name in self.refused:
                same = self.refused[name]
                if value is not None and value not in same:
                    choice = "".join(f", or say {json.dumps(one)}" for one in same)
                    shown = brief(json.dumps(value, ensure_ascii=False))
                    problem = f"is {shown}, which is not done here: leave it out{choice}"
                    raise Fault(UNPROCESSABLE, problem, field=path + name)
            elif not self.ignores_unknown:
                known = listed(sorted([*type(self).model_fields, *self.without_effect]))
                raise Fault(UNPROCESSABLE, f"is not permitted, there are {known}", field=path + brief(name))

    def said(self, *names: str) -> Unchecked:
        """Return a field that has several names; raises `Fault` if the request gives them different values."""
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        for name, value in given.items():
            if value != next(iter(given.values())):
                raise Fault(UNPROCESSABLE, f"says otherwise than {next(iter(given))}: leave one out", field=name)
        return next(iter(given.values()), None)


def refusal(error: ValidationError, union_tags: Collection[str] = (), number: Optional[int] = None) -> Fault:
    """Return the fault of a validation error; its field is a path, `documents[3].text`, or `body`.

    Args:
        number: of the errors that it consists of; default: the first, of a union's types the one that fits furthest.
        union_tags: names of a union's types, which pydantic adds to locations and the field omits.
    """
    errors = error.errors(include_url=False, include_input=False)
    if number is None:
        number = max(range(len(errors)), key=lambda one: len(errors[one]["loc"])) if union_tags else 0
    found = errors[number]
    if found["type"] == "json_invalid":
        return not_json(found["ctx"]["error"])
    problem = found["msg"].removeprefix("Value error, ")  # pydantic's, before words of our own
    return Fault(UNPROCESSABLE, problem, field=_path(found["loc"], union_tags) or "body")


def validated(
    adapter: TypeAdapter[Unchecked],
    body: bytes,
    bounds: JsonBounds,
    union_tags: Collection[str] = (),
    refuse: Callable[[ValidationError, Collection[str]], Fault] = refusal,
) -> Unchecked:
    """Parse and validate a JSON body; raises `Fault` beyond the bounds, and the fault that `refuse` returns."""
    check_json(body, bounds)
    try:
        asked = adapter.validate_json(body)
    except ValidationError as error:
        raise refuse(error, union_tags) from error
    if isinstance(asked, Body):
        asked.check()
    return asked


def _path(location: tuple[Union[int, str], ...], union_tags: Collection[str]) -> str:
    shown = ""
    for part in location:
        if isinstance(part, int):
            shown += f"[{part}]"
        elif part not in union_tags:
            shown += f".{part}" if shown else part
    return shown
