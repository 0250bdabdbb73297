"""The pipeline's service, for gRPC and its HTTP gateway.

A request has texts under keys; the answer has scores or vectors as a printed list.
"""

from __future__ import annotations

import re
import sys
from typing import Any, NamedTuple, Optional

import numpy as np

from paddle_ranker.array_types import Array
from paddle_ranker.errors import quoted
from paddle_ranker.paddle_serving.general_model import RankerTensors, TowerTensors, most_rows
from paddle_ranker.paddle_serving.messages import Bounds, Message, bounds_of, messages
from paddle_ranker.paddle_serving.served_models import Models
from paddle_ranker.serving.core import faults
from paddle_ranker.serving.core.byte_budget import Share
from paddle_ranker.serving.core.faults import INVALID, NOT_FOUND, TOO_LARGE, Fault, FaultKind
from paddle_ranker.serving.core.json_text import number_lists, parse_json
from paddle_ranker.serving.core.limits import Limits
from paddle_ranker.serving.core.threads import run_in_thread
from paddle_ranker.serving.slots.services import CountedRequest
from paddle_ranker.serving.slots.tower_options import TOWER_SLOT

_SPACE = re.compile(r"\s*")
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
_LONGEST_ESCAPE = 10  # characters of a printed character, \\U0001f600
_MOST_ENTRIES = 1000  # entries of a printed dict, of which two are used
_SIMPLE = {"\\": "\\", "'": "'", '"': '"', "n": "\n", "r": "\r", "t": "\t"}
_PROFILE_KEY = "pipeline.profile"  # the vendor's client asks for timings with this key, which is ignored: see /metrics
CLOSED, NO_SERVICE, BAD_INPUT, TIMEOUT, UNKNOWN = 3001, 3002, 5000, 6000, 10000
# The vendor's numbers (CustomExceptionCode of its pipeline); faults that may pass are "closed".
_NUMBERS = {
    faults.INVALID: BAD_INPUT,
    faults.UNPROCESSABLE: BAD_INPUT,
    faults.TOO_LARGE: BAD_INPUT,
    faults.OVERLOADED: CLOSED,
    faults.UNAVAILABLE: CLOSED,
    faults.TIMED_OUT: TIMEOUT,
    faults.NOT_FOUND: NO_SERVICE,
    faults.NO_METHOD: NO_SERVICE,
}


class PipelineNames(NamedTuple):
    """Names of the service and its method. The defaults are the tutorial's, `POST /ernie/prediction`."""

    service: str = "ernie"
    method: str = "prediction"


TUTORIAL_NAMES = PipelineNames()


def error_number(kind: FaultKind) -> int:
    """Return the pipeline's number for a kind of fault, its `err_no`."""
    return _NUMBERS.get(kind, UNKNOWN)


async def infer(
    request: Message,
    models: Models,
    names: PipelineNames = TUTORIAL_NAMES,
    *,
    deadline: Optional[float] = None,
    share: Optional[Share] = None,
    record: Optional[CountedRequest] = None,
) -> Message:
    """Return the answer to a pipeline Request.

    For a ranker, each value of the request is a JSON object `{"query": ..., "title": ...}`, a list of such objects, or
    such a dict as Python prints it. The answer has the key `predict`, or the export's alias of it, with the
    probabilities as the tutorial's server prints them: `[[0.85], [0.79]]`. For a tower, each value is a text. The
    answer has the key `output_embedding`, or the export's alias of it, with the vectors. If the request's keys are the
    numbers "0", "1", ..., they give the order of the pairs or texts.

    A request to the service `names.service` goes to the ranker, or to the tower if the server has no ranker. A request
    to the service `tower` goes to the tower.

    share, record: as in `general_model.infer`

    Raises `Fault`, which `refusal` turns into an answer.
    """
    tower = models.tower if request.name == TOWER_SLOT or not models.has_ranker else None
    if request.name not in ("", names.service) and not (tower is not None and request.name == TOWER_SLOT):
        problem = f"Failed to inference: Service name error. {quoted(request.name)} is not {quoted(names.service)}"
        raise Fault(NOT_FOUND, problem)
    size = request.ByteSize()
    if tower is not None:
        texts = await run_in_thread(size, read_texts, request, tower.limits, deadline=deadline)
        tensors = TowerTensors(tower)
        if record is not None:
            record.note(len(texts), texts=texts)
        if share is not None:
            share.reserve_answer(tensors.answer_bytes(len(texts)))
        computed = await tower.vectors(texts, deadline=deadline, field="value")
        _, key = next(iter(tensors.outputs.values()))
        value = await run_in_thread(computed.vectors.nbytes, _printed, computed.vectors)
        return messages().PipelineResponse(key=[key], value=[value])
    pairs = await run_in_thread(size, read_pairs, request, models.ranker.limits, deadline=deadline)
    queries, titles = [query for query, _ in pairs], [title for _, title in pairs]
    if record is not None:
        record.note(len(pairs), queries=queries, titles=titles)
    scores = await models.ranker.score_pairs(queries, titles, deadline=deadline)
    _, key = next(iter(RankerTensors(models.ranker).outputs.values()))
    printed = str(np.asarray(scores.probabilities, np.float32).reshape(-1, 1).tolist())
    return messages().PipelineResponse(key=[key], value=[printed])


def _printed(vectors: Array) -> str:
    return f"[{', '.join(row.decode() for row in number_lists(vectors))}]"


def refusal(fault: Fault) -> Message:
    """Return the answer to a refused request, with `err_no` and `err_msg`."""
    return messages().PipelineResponse(err_no=error_number(fault.kind), err_msg=str(fault))


def bounds(models: Models) -> Bounds:
    """Return the bounds of a pipeline Request's message: a key and a value for each row, and room for more fields."""
    rows = most_rows(models)
    return bounds_of(2 * rows + 1000, rows)


def read_pairs(request: Message, limits: Limits) -> list[tuple[str, str]]:
    """Return the pairs (query, title) of a pipeline Request.

    Raises `Fault(INVALID)`, which names the value, and `Fault(TOO_LARGE)` as soon as there are too many pairs.
    """
    pairs: list[tuple[str, str]] = []
    for value, field in _values(request, limits, "pair"):
        pairs += _pairs_of(value, field, limits)
        limits.check_most(len(pairs), "value")
    if not pairs:
        raise Fault(INVALID, "holds no pair", field="value")
    return pairs


def read_texts(request: Message, limits: Limits) -> list[str]:
    """Return the texts of a pipeline Request to a tower. Raises `Fault` as `read_pairs` does."""
    return [text for text, _ in _values(request, limits, "text")]


def _values(request: Message, limits: Limits, what: str) -> list[tuple[str, str]]:
    """Return each value of a Request, and the name of its field for faults.

    The values are in the order of the keys if these are "0", "1", ..., else in the order of the Request.

    what: name of a value in messages
    """
    if len(request.tensors):
        expected = '{"query": ..., "title": ...}' if what == "pair" else "a text"
        raise Fault(INVALID, f"is not taken: send {expected} as a value", field="tensors")
    if len(request.key) != len(request.value):
        raise Fault(INVALID, f"holds {len(request.value)} values for {len(request.key)} keys", field="value")
    limits.check_most(len(request.key) - list(request.key[: limits.pairs + 1]).count(_PROFILE_KEY), "value")
    values: dict[str, tuple[str, str]] = {}
    for place, (key, value) in enumerate(zip(request.key, request.value)):
        if key == _PROFILE_KEY:
            continue
        if key in values:
            raise Fault(INVALID, f"{quoted(key)} is there twice", field=f"key[{place}]")
        values[key] = value, f"value[{place}]"
    if not values:
        raise Fault(INVALID, f"is empty: send a key and a value for each {what}", field="key")
    ordered = [str(number) for number in range(len(values))]
    return [values[key] for key in (ordered if set(ordered) == set(values) else values)]


def _pairs_of(text: str, field: str, limits: Limits) -> list[tuple[str, str]]:
    try:
        content = parse_json(text.encode("utf-8"), limits.json_bounds)
    except Fault as fault:
        if fault.kind is TOO_LARGE:
            raise
        most = 2 * _LONGEST_ESCAPE * limits.characters + _MOST_ENTRIES
        try:
            content = read_printed_dict(text) if len(text) <= most else {}
        except ValueError:
            content = {}
        if not content:
            problem = f'{quoted(text)} is not JSON: send {{"query": ..., "title": ...}}, made with json.dumps'
            raise Fault(INVALID, problem, field=field) from None
    if not isinstance(content, list):
        return [_pair(content, field)]
    limits.check_most(len(content), field)
    return [_pair(item, f"{field}[{place}]") for place, item in enumerate(content)]


def _pair(item: Any, field: str) -> tuple[str, str]:
    if not isinstance(item, dict):
        raise Fault(INVALID, f'{quoted(item)} is not an object with "query" and "title"', field=field)
    for name in ("query", "title"):
        text = item.get(name)
        if not isinstance(text, str):
            problem = "is missing" if name not in item else f"is {quoted(text)}, expected text"
            raise Fault(INVALID, problem, field=f"{field}.{name}")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise Fault(INVALID, "holds half of a surrogate pair", field=f"{field}.{name}") from None
    return item["query"], item["title"]


def read_printed_dict(text: str) -> dict[str, str]:
    """Parse a dict of strings that Python's `str` has printed. Raises `ValueError` for any other text.

    This takes linear time, since no regular expression backtracks.
    """
    text = text.strip()
    if not (text.startswith("{") and text.endswith("}")):
        raise ValueError("not a dict")
    # Replaced from left to right, so that a quote after two backslashes remains, and ends a string.
    quotes = text.replace("\\\\", "\0\0").replace("\\'", "\0\0").replace('\\"', "\0\0")
    values: dict[str, str] = {}
    entries, place, end = 0, 1, len(text) - 1
    while place < end:
        entries += 1
        if entries > _MOST_ENTRIES:
            raise ValueError("too many entries")
        key, place = _string(text, quotes, place, ":")
        value, place = _string(text, quotes, place, ",}")
        values[key] = value
    if place != len(text):
        raise ValueError("ends too early")
    return values


def _string(text: str, quotes: str, place: int, ends: str) -> tuple[str, int]:
    """Return the value of the string literal at `place`, and the index after the character of `ends` that follows it.

    quotes: `text` with its escaped quotes replaced by other characters
    """
    begin = _after_space(text, place)
    quote = quotes[begin : begin + 1]
    close = quotes.find(quote, begin + 1) if quote in ("'", '"') else -1
    end = _after_space(text, close + 1)
    if close < 0 or text[end : end + 1] not in tuple(ends):
        raise ValueError(f"no string at character {place}")
    return _ESCAPE.sub(_unescaped, text[begin + 1 : close]), end + 1


def _after_space(text: str, place: int) -> int:
    match = _SPACE.match(text, place)
    return place if match is None else match.end()


def _unescaped(match: re.Match[str]) -> str:
    escape = match.group(1)
    if len(escape) > 1:
        number = int(escape[1:], 16)
        if number > sys.maxunicode:
            raise ValueError(f"no such character \\{escape}")
        return chr(number)
    if escape not in _SIMPLE:
        raise ValueError(f"unknown escape \\{escape}")
    return _SIMPLE[escape]
