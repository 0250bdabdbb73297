"""Validate JSON by pydantic's types; errors name the place in it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Union

from pydantic import TypeAdapter, ValidationError

from paddle_ranker.serving.core.faults import INVALID, UNPROCESSABLE, Fault
from paddle_ranker.serving.core.json_text import JsonBounds, check_json
from paddle_ranker.storage.untrusted import Unchecked


def validated(
    adapter: TypeAdapter[Unchecked], body: bytes, bounds: JsonBounds, union_tags: Collection[str] = ()
) -> Unchecked:
    """Return what a body of JSON says; raises `Fault` for one beyond the bounds, and as `refusal` says."""
    check_json(body, bounds)
    try:
        return adapter.validate_json(body)
    except ValidationError as error:
        raise refusal(error, union_tags) from error


def refusal(error: ValidationError, union_tags: Collection[str] = (), number: int = 0) -> Fault:
    """Return the fault of a validation error; its field is a path, `documents[3].text`, or `body`.

    Args:
        number: of the errors that it consists of.
        union_tags: names of a union's types, which pydantic adds to locations and the field omits.
    """
    found = error.errors(include_url=False, include_input=False)[number]
    if found["type"] == "json_invalid":
        return Fault(INVALID, f"is not JSON ({found['ctx']['error']})", field="body")
    problem = found["msg"].removeprefix("Value error, ")  # pydantic's, before words of our own
    return Fault(UNPROCESSABLE, problem, field=_path(found["loc"], union_tags) or "body")


def _path(location: tuple[Union[int, str], ...], union_tags: Collection[str]) -> str:
    shown = ""
    for part in location:
        if isinstance(part, int):
            shown += f"[{part}]"
        elif part not in union_tags:
            shown += f".{part}" if shown else part
    return shown
