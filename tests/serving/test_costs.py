"""What a request costs: in proportion to its bytes, counted before it is read, and beside the event loop.

`python -m tests.robustness.costs` sends such requests to a server and prints what they cost it.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
import threading
import time
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import Any, Callable

import numpy as np
import pytest
import requests
from pydantic import TypeAdapter, ValidationError

from paddle_ranker.data.files.placed_text import PlacedText
from paddle_ranker.errors import DataError, UsageError
from paddle_ranker.paddle_serving.messages import Bounds, bounds_of, messages, parse
from paddle_ranker.paddle_serving.pipeline import read_pairs, read_printed_dict
from paddle_ranker.serving.core import threads
from paddle_ranker.serving.core.byte_budget import ByteBudget, texts_size
from paddle_ranker.serving.core.faults import INVALID, TIMED_OUT, TOO_LARGE, UNAVAILABLE, Fault
from paddle_ranker.serving.core.json_text import check_json, json_bounds, parse_json
from paddle_ranker.serving.core.limits import Limits, unpack
from paddle_ranker.serving.http.rerank import RerankRequest, _validated
from paddle_ranker.tables import cell_values
from paddle_ranker.tables.cell_values import relations, values_in
from paddle_ranker.tables.table_pairs import _read
from tests.live_service import SECONDS, LiveService
from tests.robustness.costly_inputs import http_bodies

pytestmark = pytest.mark.unit
SIZE = 600_000
LARGE = Bounds(10**9, 10**9, 10**9)
BOUNDS = json_bounds(1000)
LIMITS = Limits()


def quietly(work: Callable[[], Any]) -> None:
    with suppress(Fault, ValueError):
        work()


def seconds(work: Callable[[], Any]) -> float:
    """Return the least processor time of two calls."""
    taken = []
    for _ in range(2):
        began = time.thread_time()
        quietly(work)
        taken.append(time.thread_time() - began)
    return min(taken)


def printed(part: str, size: int) -> str:
    return "{'query': '" + part * (size // len(part)) + "', 'title': 'b'}"


def pipeline_request(count: int) -> Any:
    pair = '{"query":"a","title":"b"}'
    return messages().PipelineRequest(key=[str(number) for number in range(count)], value=[pair] * count)


def chance(size: int) -> bytes:
    return gzip.compress(np.random.default_rng(0).bytes(size))


MANY = Limits(pairs=10**6, queue_pairs=10**6)


# What is read, made for a size in bytes, and what reads it.
def read_request(data: bytes) -> Any:
    return parse(messages().Request, data, LARGE)


def packed(payload: bytes, field: int = 0) -> bytes:
    """Return a Request with one tensor; `field`: 0, or the number of the tensor's field that has the payload."""
    for number in filter(None, (field, 1)):
        size, written = len(payload), b""
        while size > 127:
            size, written = size >> 7, written + bytes((size & 127 | 128,))
        payload = bytes((number << 3 | 2,)) + written + bytes((size,)) + payload
    return payload


WORKS: dict[str, tuple[Callable[[int], Any], Callable[[Any], Any]]] = {
    "printed escapes": (lambda size: printed("\\\\", size), read_printed_dict),
    "printed quotes": (lambda size: printed("\\'", size), read_printed_dict),
    "printed without an end": (lambda size: "{'a': '" + "\\'" * (size // 2) + "}", read_printed_dict),
    "printed spaces": (lambda size: "{'a'" + " " * size + "'}", read_printed_dict),
    "printed entries": (lambda size: "{" + "'a': 'b'," * (size // 9) + "}", read_printed_dict),
    "long numbers": (lambda size: b"[" + (b"1" * 399 + b",") * (size // 400) + b"1]", parse_json),
    "one number": (lambda size: b"1" * size, parse_json),
    "escaped quotes": (lambda size: b'"' + b'\\"' * (size // 2) + b'"', lambda data: parse_json(data, BOUNDS)),
    "open strings": (lambda size: b'["' * (size // 2), lambda data: parse_json(data, BOUNDS)),
    "gzip of nothing": (lambda size: gzip.compress(bytes(8 * size)), lambda data: unpack(data, "gzip", 10**8)),
    "gzip of chance": (lambda size: chance(2 * size), lambda data: unpack(data, "gzip", 10**8)),
    "keys": (lambda size: pipeline_request(size // 40), lambda request: read_pairs(request, MANY)),
    "fields": (lambda size: b"\x0a\x00" * (size // 2), read_request),
    "nested fields": (lambda size: packed(b"\x08\x01" * (size // 2)), read_request),
    "packed numbers": (lambda size: packed(b"\1" * size, 1), read_request),
}


@pytest.mark.parametrize("name", WORKS)
def test_twice_the_bytes_take_twice_the_time(name: str) -> None:
    make, read = WORKS[name]
    once, twice = (seconds(partial(read, make(size))) for size in (SIZE // 4, SIZE // 2))
    assert twice < 4 * once + 0.05, (once, twice)


@pytest.mark.parametrize("part", ["1 ", "may ", "may 1, 2001 ", "2001-05-06 "])
def test_values_of_long_cells_take_little_time_and_are_not_kept(part: str) -> None:
    text = part * (90_000 // len(part))
    kept = cell_values._kept_values.cache_info().currsize
    assert seconds(lambda: [values_in(f"{text}{number}") for number in range(20)]) < 1  # 4 to 20 s before
    assert values_in(text)[:3] == values_in(part * 5)[:3] and values_in("x" * 9_000 + " 7") == ()
    assert cell_values._kept_values.cache_info().currsize <= kept + 1


def test_cells_that_all_span_one_long_text_are_refused() -> None:
    places = [(0, 90_000, number // 30, number % 30) for number in range(6_000)]  # 540 million characters
    with pytest.raises(DataError, match="its places are 6,000 cells of 540,000,000 characters"):
        _read(PlacedText("7 " * 45_000, places))


def test_values_of_a_question_are_compared_once_with_a_column() -> None:
    numbers = [float(number) for number in range(6_000)]
    assert seconds(lambda: relations(numbers, dict(enumerate(numbers)))) < 1  # 5 s when each was compared with each


@pytest.mark.parametrize("part", ["\\\\", "a"])
def test_a_printed_dictionary_is_read_in_a_few_times_its_memory(part: str) -> None:
    text = printed(part, 200_000)
    tracemalloc.start()
    try:
        quietly(partial(read_printed_dict, text))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 60 * len(text), peak / len(text)


@pytest.mark.parametrize(
    ("begin", "part", "end", "what"),
    [
        ('{"a":[', "[],", "0]}", "arrays, objects and names"),
        ('{"a":[', "{},", "0]}", "arrays, objects and names"),
        ("{", '"":0,', '"a":0}', "arrays, objects and names"),
        ("[", "1,", "1]", "values"),
        ("[", '"\\"",', "1]", "values"),
    ],
)
def test_what_json_holds_is_counted_before_it_is_read(begin: str, part: str, end: str, what: str) -> None:
    bounds = json_bounds(1)
    most = dict(zip(("arrays, objects and names", "values"), bounds))[what]
    within, beyond = ((begin + part * count + end).encode() for count in (most - 8, most + 8))
    check_json(within, bounds)
    with pytest.raises(Fault, match=f"holds more than the {most:,} {what}") as caught:
        check_json(beyond, bounds)
    assert caught.value.kind is TOO_LARGE
    texts = ('{"query": "' + part.replace('"', "'") * 100_000 + '"}').encode()
    check_json(texts, bounds)  # of texts there may be any
    for text in (b"[" * 100_000, b"9" * 5000):
        with pytest.raises(Fault, match="is not JSON") as caught:
            parse_json(text)
        assert caught.value.kind is INVALID


def test_of_wrong_documents_the_first_is_told() -> None:
    body = http_bodies(400_000)["wrong documents"][2]
    adapter = TypeAdapter(RerankRequest)
    with pytest.raises(ValidationError) as caught:
        adapter.validate_json(body)
    assert caught.value.error_count() <= 2  # neither a text nor an object
    with pytest.raises(Fault) as fault:
        _validated(adapter, http_bodies(100_000)["wrong documents"][2], LIMITS)
    assert fault.value.field == "documents[0]"
    for many, what in ((b'"a",' * 128_001, "values"), (b'{"text":"a"},' * 32_001, "arrays")):
        with pytest.raises(Fault, match=f"body: holds more than the [0-9,]+ {what}"):  # before anything is made of them
            _validated(adapter, b'{"query":"a","documents":[' + many + b'"a"]}', LIMITS)
    with pytest.raises(Fault, match="documents: holds 1,001, at most 1,000") as fault:
        _validated(adapter, ('{"query":"a","documents":[' + '"a",' * 1000 + '"a"]}').encode(), LIMITS)
    assert fault.value.kind is TOO_LARGE


def test_a_message_has_only_so_many_pairs_and_fields() -> None:
    with pytest.raises(Fault, match="value: holds 1,001, at most 1,000 are allowed"):
        read_pairs(pipeline_request(1001), LIMITS)
    request = messages().Request(fetch_var_names=["x" * 30] * 5000)
    data = request.SerializeToString()
    assert len(data) > 64 * 1024 and parse(messages().Request, data, bounds_of(5000, 1)) == request
    with pytest.raises(Fault, match="holds more than the 4,999 fields"):
        parse(messages().Request, data, bounds_of(4999, 1))
    for broken in (b"\xff" * 100_000, b"\x0a\xff\xff\xff\xff\x0f" * 20_000, b"\x0b" * 100_000, data[:-1]):
        with pytest.raises(Fault):
            parse(messages().Request, broken, LARGE)


def test_numbers_in_a_message_are_counted_before_it_is_read() -> None:
    """A number of one byte takes eight when it is read: their memory is of the budget, and there is a most of them."""
    count = 200_000
    tensor = messages().Tensor(int64_data=[1] * (count - 2) + [300, -1], shape=[count], data=["ab"], float_data=[0.5])
    data = messages().Request(tensor=[tensor]).SerializeToString()
    numbers, budget = count + 2, ByteBudget(4_000_000)  # the shape and the float are numbers, too
    with budget.share() as share:
        share.reserve(1000)
        assert parse(messages().Request, data, Bounds(1, 4, numbers), share).tensor[0] == tensor
        assert budget.held == 1000 + 8 * numbers
    with pytest.raises(Fault, match="bytes that they may have together"):
        parse(messages().Request, data, LARGE, ByteBudget(8 * count).share())
    with pytest.raises(Fault, match="holds more than the 200,001 numbers of a request"):
        parse(messages().Request, data, Bounds(1, 4, numbers - 1))
    with pytest.raises(Fault, match="holds more than the 3 fields of tensors of a request"):
        parse(messages().Request, data, Bounds(1, 3, numbers))
    one_by_one = packed(b"\x08\x01" * count)  # the same field again and again
    with pytest.raises(Fault, match="fields of tensors"):
        parse(messages().Request, one_by_one, bounds_of(1, 100))


def test_the_smallest_work_is_done_first_and_large_work_leaves_half_of_the_time_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, rests, order = [0.0], list[float](), list[int]()
    faked = SimpleNamespace(monotonic=time.monotonic, thread_time=lambda: clock[0], sleep=rests.append)
    monkeypatch.setattr(threads, "time", faked)
    queue, begun, gate = threads.SmallestFirst(1, "test", rests=True), threading.Event(), threading.Event()

    def work(number: int) -> None:
        begun.set()
        assert gate.wait(SECONDS)
        clock[0] += number
        order.append(number)

    asked = [queue.submit(9, partial(work, 9))]
    assert begun.wait(SECONDS)
    asked += [queue.submit(size, partial(work, size)) for size in (7, 3, 8, 1)]
    asked[3].cancel()  # the one of 8
    gate.set()
    for running in (asked[0], *asked[1:3], asked[4]):
        running.result(SECONDS)
    queue.submit(0, lambda: None).result(SECONDS)  # the last one has rested
    assert order == [9, 1, 3, 7] and rests[:4] == order


def test_small_requests_have_readers_of_their_own_and_nobody_waits_beyond_his_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate, begun = threading.Event(), threading.Event()
    monkeypatch.setattr(threads, "_LARGE_READERS", threads.SmallestFirst(1, "test"))

    def wait() -> str:
        begun.set()
        assert gate.wait(SECONDS)
        return threading.current_thread().name

    async def ask() -> None:
        large = asyncio.ensure_future(threads.run_in_thread(15_000_000, wait))
        await asyncio.get_running_loop().run_in_executor(None, begun.wait, SECONDS)
        name = await threads.run_in_thread(threads.MUCH_BYTES + 1, lambda: threading.current_thread().name)
        assert name.startswith("reader_")
        with pytest.raises(Fault) as fault:
            await threads.run_in_thread(15_000_000, wait, deadline=time.monotonic() + 0.01)
        assert fault.value.kind is TIMED_OUT
        gate.set()
        assert (await large).startswith("test")

    asyncio.run(ask())


def test_unpacking_takes_from_the_budget_as_it_goes() -> None:
    budget = ByteBudget(10_000_000)
    data = gzip.compress(bytes(9_000_000))
    with budget.share() as share:
        share.reserve(len(data))
        with pytest.raises(Fault) as caught:
            unpack(data, "gzip", 10**8, share)
        assert caught.value.kind is UNAVAILABLE and budget.held <= 7_500_000
    assert budget.held == 0
    for method, packed in (("gzip", data), ("zlib", zlib.compress(bytes(9_000_000)))):
        with ByteBudget(40_000_000).share() as share:
            assert unpack(packed, method, 9_000_000, share) == bytes(9_000_000) and share.held == 9_000_000
        with pytest.raises(Fault, match="unpacks to more than the 8,999,999 bytes"):
            unpack(packed, method, 8_999_999)
        with pytest.raises(Fault, match="goes on for 200,003 bytes"):
            unpack(packed + b"abc" + bytes(200_000), method, 9_000_000)
        with pytest.raises(Fault, match="ends in the middle"):
            unpack(packed[:-9], method, 9_000_000)
    with pytest.raises(Fault, match="goes on for 20 bytes"):
        unpack(zlib.compress(b"a") + gzip.compress(b""), "zlib", 9_000_000)


@pytest.mark.parametrize("sizes", [(5, 7), (0, 0, 3), (70_000, 0, 2_000_000), (1,) * 4096])
def test_gzip_of_several_members_is_read_whole(sizes: tuple[int, ...]) -> None:
    contents = [np.random.default_rng(0).bytes(size) for size in sizes]
    body = b"".join(map(gzip.compress, contents))
    assert unpack(body, "gzip", sum(sizes)) == b"".join(contents) == gzip.decompress(body)
    with pytest.raises(Fault, match="unpacks to more than"):
        unpack(body, "gzip", sum(sizes) - 1)
    with pytest.raises(Fault, match="ends in the middle"):
        unpack(body[:-1], "gzip", sum(sizes))


def test_members_of_gzip_are_counted() -> None:
    taken = seconds(lambda: quietly(lambda: unpack(gzip.compress(b"") * 500_000, "gzip", 10**8)))
    assert taken < 2
    with pytest.raises(Fault, match="goes on for 20 bytes"):
        unpack(gzip.compress(b"") * 4097, "gzip", 10**8)


def test_a_budget_is_shared_and_small_requests_have_the_last_of_it() -> None:
    budget = ByteBudget(1_000_000)
    with budget.share() as large, budget.share() as small:
        assert large.set(750_000) and not large.set(750_001) and large.held == 750_000
        with pytest.raises(Fault, match="have the 1,000,000 bytes") as caught:
            small.reserve(70_000)
        assert caught.value.retry_after
        small.reserve(60_000)
        assert budget.held == 810_000
        large.set(1)
        small.reserve(70_000)
    assert budget.held == 0 and not small.set(1)  # a thread that still reads it finds no room
    assert Limits().buffered == 256 * 1024 * 1024 == Limits().values()["buffered_bytes"]
    assert Limits(request_bytes=10**9).buffered == 4 * 10**9
    with pytest.raises(UsageError, match=r"--buffered_bytes 29: .*give 30 or more"):
        Limits(request_bytes=10, buffered_bytes=29)


TEXTS = {
    "ascii": "a" * 1000,
    "latin": "é" * 1000,
    "chinese": "深度" * 500,
    "one emoji": "a" * 999 + "😀",
    "emojis": "😀" * 1000,
    "mixed": "a深" * 499 + "\\\n",
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_are_counted_as_python_holds_them(name: str) -> None:
    """One wide character makes all of its text wide: 16 MB of ASCII become 64 MB."""
    texts = [TEXTS[name]] * 50
    held = sum(sys.getsizeof(text) - 80 for text in texts)
    value = json.dumps({"query": "a", "title": TEXTS[name]})
    bodies = {
        "utf-8": json.dumps({"documents": texts}, ensure_ascii=False).encode(),
        "ascii": json.dumps({"documents": texts}).encode(),
        "pipeline": json.dumps({"value": [value] * 50}).encode(),
        "printed": json.dumps({"value": [str({"title": TEXTS[name]})] * 50}).encode(),
        "code": json.dumps({"value": [ascii({"title": TEXTS[name]})] * 50}).encode(),
        "message": messages().Request(tensor=[messages().Tensor(data=texts)]).SerializeToString(),
    }
    for way, body in bodies.items():
        assert held <= texts_size(body) <= 4 * len(body), way
        if way in ("utf-8", "ascii", "message") and name != "mixed":
            assert texts_size(body) <= 2.1 * held, way


def test_a_request_that_can_never_be_held_is_not_told_to_try_again() -> None:
    budget = ByteBudget(1_000_000)
    with budget.share() as share:
        share.reserve_read(b"a" * 300_000)
        assert budget.held == 600_000
        with pytest.raises(Fault, match=r"takes 1,000,0\d\d bytes of memory") as caught:
            share.reserve_read(b"a" * 200_000 + b"\\ud83d\\ude00"[1:])
        assert caught.value.kind is TOO_LARGE
        with pytest.raises(Fault) as caught, budget.share() as other:
            other.reserve_read(b"a" * 300_000)
        assert caught.value.kind is UNAVAILABLE


def test_what_is_large_is_read_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each costly request of the ports is read in a thread of the readers, and others are answered meanwhile."""
    readers: set[str] = set()
    entered, leave = threading.Event(), threading.Event()
    real = parse_json

    def slow(data: bytes, *bounds: Any) -> Any:
        if len(data) > threads.MUCH_BYTES:
            readers.add(threading.current_thread().name)
            entered.set()
            assert leave.wait(SECONDS)
        return real(data, *bounds)

    monkeypatch.setattr("paddle_ranker.paddle_serving.json_messages.parse_json", slow)
    with LiveService() as live, ThreadPoolExecutor(1) as elsewhere:
        url = f"http://127.0.0.1:{live.http}/ernie/prediction"
        large = {"key": ["0"], "value": [" " * 100_000]}
        asking = elsewhere.submit(requests.post, url, json=large, timeout=SECONDS)
        try:
            assert entered.wait(SECONDS)
            assert requests.post(url, json={"key": ["0"], "value": ["?"]}, timeout=SECONDS).status_code == 200
        finally:
            leave.set()
        asking.result(SECONDS)
    assert all(name.startswith("reader") for name in readers)
