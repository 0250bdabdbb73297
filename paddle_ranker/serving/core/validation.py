"""Validate JSON with pydantic; faults name the field. Unknown fields of a request are refused, see `Body`."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Callable, ClassVar, Optional, Union

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from paddle_ranker.errors import ParameterError, brief, listed, spelling_hint
from paddle_ranker.serving.core.faults import TOO_LARGE, UNPROCESSABLE, Fault
from paddle_ranker.serving.core.json_text import JsonBounds, check_json, not_json
from paddle_ranker.storage.untrusted import Unchecked


def _describe_names(schema: dict[str, Unchecked], kind: type[Body]) -> None:
    """Add the fields of `Body.without_effect` to the description in a request's JSON schema, in place."""
    schema["additionalProperties"] = False
    if kind.without_effect:
        names = (f"{name} {listed(map(json.dumps, idle))}".rstrip() for name, idle in kind.without_effect.items())
        schema["description"] += f" Without effect: {', '.join(names)}."


class Body(BaseModel):
    """JSON object of a request. An unknown field is refused, unless its value is null or `without_effect` permits it.

    without_effect: by the name of an unknown field, the values that are accepted and ignored; an empty collection
        permits any value
    """

    model_config = ConfigDict(strict=True, extra="allow", protected_namespaces=(), json_schema_extra=_describe_names)
    without_effect: ClassVar[Mapping[str, Collection[object]]] = {}

    def check(self, path: str = "") -> None:
        """Raise `Fault`, which names the field, for an unknown field or a value that this server does not support."""
        for name, value in (self.model_extra or {}).items():
            idle = self.without_effect.get(name)
            if value is None or (idle is not None and (not idle or value in idle)):
                continue
            if idle is None:
                names = sorted([*type(self).model_fields, *self.without_effect])
                problem = f"is not permitted{spelling_hint(name, names)}, there are {listed(names)}"
            else:
                shown = brief(json.dumps(value, ensure_ascii=False))
                problem = f"is {shown}, which is not done here: leave it out, or say {listed(map(json.dumps, idle))}"
            raise Fault(UNPROCESSABLE, problem, field=path + brief(name))

    def value_of(self, *names: str) -> Unchecked:
        """Return the value of a field that has several names, or None if the request has none of the names.

        Raises `Fault` if the request gives different values under two names.
        """
        values = {name: value for name in names if (value := getattr(self, name)) is not None}
        for name, value in values.items():
            if value != next(iter(values.values())):
                raise Fault(UNPROCESSABLE, f"says otherwise than {next(iter(values))}: leave one out", field=name)
        return next(iter(values.values()), None)


def refusal(error: ValidationError, union_tags: Collection[str] = (), number: Optional[int] = None) -> Fault:
    """Return the fault for a validation error. Its field is a path, `documents[3].text`, or `body`.

    union_tags: names of a union's types, which pydantic puts into locations and the fault's field omits
    number: index of the error to report; default: the first; of a union, the error deepest in the request
    """
    errors = error.errors(include_url=False, include_input=False)
    if number is None:
        number = max(range(len(errors)), key=lambda index: len(errors[index]["loc"])) if union_tags else 0
    chosen = errors[number]
    if chosen["type"] == "json_invalid":
        return not_json(chosen["ctx"]["error"])
    problem = chosen["msg"].removeprefix("Value error, ")  # pydantic's prefix of messages of our own
    return Fault(UNPROCESSABLE, problem, field=_path(chosen["loc"], union_tags) or "body")


@contextmanager
def refusing_parameters() -> Iterator[None]:
    """Raise a `Fault` in place of a `ParameterError` of the block."""
    try:
        yield
    except ParameterError as error:
        raise Fault(TOO_LARGE if error.is_too_large else UNPROCESSABLE, error.problem, field=error.parameter) from error


def validated(
    adapter: TypeAdapter[Unchecked],
    body: bytes,
    bounds: JsonBounds,
    union_tags: Collection[str] = (),
    refuse: Callable[[ValidationError, Collection[str]], Fault] = refusal,
) -> Unchecked:
    """Parse and validate a JSON body. Return the object.

    Raises `Fault` if the body exceeds `bounds`. For an invalid body, raises the result of `refuse(error, union_tags)`.
    """
    check_json(body, bounds)
    try:
        request = adapter.validate_json(body)
    except ValidationError as error:
        raise refuse(error, union_tags) from error
    if isinstance(request, Body):
        request.check()
    return request


def _path(location: tuple[Union[int, str], ...], union_tags: Collection[str]) -> str:
    shown = ""
    for part in location:
        if isinstance(part, int):
            shown += f"[{part}]"
        elif part not in union_tags:
            shown += f".{part}" if shown else part
    return shown
