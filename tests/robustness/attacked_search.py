"""Search beside attackers: `python -m tests.robustness.attacked_search` prints how long good searches take.

A server searches an index of synthetic documents, short and long. For each attack many connections send expensive
requests for some seconds, from another process on the same machine, while good searches are asked one after the other
and their answers compared with those of a quiet server. The exit status is 1 where one was lost or wrong, or where
their 99th percentile is above --most_seconds.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import multiprocessing
import socket
import sys
import tempfile
import threading
import time
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.report import format_table
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo
from paddle_ranker.retrieval.stored.schema import Field, Schema
from tests.extensions.own_content import RATE
from tests.started import started_server
from tests.tiny import write_ranker

CHARACTERS = (
    "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分"
    "对成会可主发年动同工也能下过子说产种面而方后多定行学法所民得经"
)
ENGLISH = "the of to and in a is that for it as was with be by on not he his but at are this have from or had an they"
_TIMEOUT = 60.0
SLOW_READERS = "slow readers of a file"
ASSISTANTS = "calls of assistants (MCP)"
HEADERS = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
_FILE_BYTES = 8_000_000


@dataclass(frozen=True)
class AttackOptions(Options):
    """Options of `python -m tests.robustness.attacked_search`."""

    documents: int = option(20_000, help="documents of the index", minimum=100)
    connections: int = option(24, help="connections of each attack", minimum=1)
    seconds: float = option(8.0, help="seconds of each attack", above=0)
    most_seconds: float = option(1.0, help="99th percentile of the good searches that is allowed", above=0)
    only: str = option("", help="part of the names of the attacks that are run (default: all)")


def attacks(documents: int) -> dict[str, dict[str, Any]]:
    """Return requests for `POST /v1/search` by name."""
    frequent, words = CHARACTERS * 16, f"{ENGLISH} " * 10
    names = ["year", "kind", "price", "title"]
    sorts = [f"{sign}{name}" for sign in ("", "-") for name in names] * 2
    return {
        "an unclosed quote": {"query": '"' + "a" * 100_000},
        "quotes and signs": {"query": '" -' * 30_000},
        "a phrase of 8,000 characters": {"query": f'"{CHARACTERS * 120}"'},
        "an exclusion of 8,000 characters": {"query": f"的 -{CHARACTERS * 120}"},
        "a phrase of 12,000 words": {"query": f'"{words * 60}"'},
        "phrases of frequent characters": {"query": " ".join(f'"{one}"' for one in CHARACTERS[:16])},
        "phrases of frequent words": {"query": " ".join(f'"{one}"' for one in ENGLISH.split()[:16])},
        "phrases of three characters": {"query": " ".join(f'"{CHARACTERS[n : n + 3]}"' for n in range(16))},
        "1,000 frequent characters": {"query": frequent[:1000], "top_k": 100},
        "1,000 frequent characters, explained": {"query": frequent[:1000], "top_k": 100, "explain": True},
        "1,000 mistyped words": {"query": " ".join(f"xqz{n:05}kwj" for n in range(90)).translate(LETTERS)},
        "sixteen sorts": {"query": frequent[:1000], "sort": sorts[:16], "top_k": 100},
        "groups of the same text": {"query": frequent[:100], "group_by": "content", "depth": 1000},
        "facets": {"query": frequent[:1000], "facets": names, "total": True},
        "long texts": {
            "query": CHARACTERS[:60],
            "top_k": 100,
            "depth": 1000,
            "explain": True,
            "where": {"kind": "long"},
        },
        "a filter of 900 values": {"query": CHARACTERS, "where": {"title": [f"value {n}" for n in range(900)]}},
        "a cursor of a megabyte": {"query": "的", "cursor": "A" * 1_000_000},
    }


def slow_readers(port: int, path: str, connections: int, seconds: float) -> None:
    """Ask for a file on many connections, and take little of it; runs in another process."""
    with contextlib.ExitStack() as ends:
        readers = []
        for _ in range(connections):
            reader = ends.enter_context(socket.socket())
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect(("127.0.0.1", port))
            reader.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            readers.append(reader)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for reader in readers:
                assert reader.recv(1024)
            time.sleep(0.1)


LETTERS = str.maketrans("0123456789", "abcdefghij")


def write_index(folder: Path, count: int) -> str:
    """Write an index whose documents are short, but for every fiftieth; return the address of a document's file."""
    draw, words = np.random.default_rng(0), ENGLISH.split()
    names = Field("title", "text", 2.0, title=True), Field("year", "number"), Field("price", "number")
    schema = Schema((*names, Field("sound", "sound")))
    with Collection.create(folder, IndexInfo(WordsInfo("standard"), None, schema=schema)) as collection:
        for start in range(0, count, 5000):
            made = []
            for n in range(start, min(count, start + 5000)):
                size = 20_000 if n % 50 == 0 else 200
                text = "".join(draw.choice([*CHARACTERS], size)) + " ".join(draw.choice(words, size // 8))
                fields = {
                    "title": f"title{n} rare{n}x",
                    "year": 1900 + n % 120,
                    "price": n / 7,
                    "kind": KINDS[n % 50 == 0],
                }
                made.append(Document(f"d{n}", text, fields))
            collection.writer.add(made)
        sound = io.BytesIO()
        with wave.open(sound, "wb") as stream:
            stream.setparams((1, 2, RATE, 0, "NONE", ""))
            stream.writeframes(bytes(_FILE_BYTES))
        collection.writer.add([Document("sound", "a sound", {"sound": sound.getvalue()})])
        return f"/v1/contents/{collection.snapshot().documents_of(['sound'])['sound'].fields['sound']}"


KINDS = ("short", "long")


def ask(connection: HTTPConnection, body: dict[str, Any], path: str = "/v1/search") -> tuple[int, Any]:
    """Ask the server; return the status and the parsed answer."""
    connection.request("POST", path, json.dumps(body), HEADERS)
    answer = connection.getresponse()
    found = answer.read()
    return answer.status, json.loads(found)


def attack(port: int, body: dict[str, Any], connections: int, seconds: float, path: str = "/v1/search") -> None:
    """Send a request again and again on many connections; runs in another process."""
    end = time.monotonic() + seconds

    def send() -> None:
        while time.monotonic() < end:
            connection = HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT)
            try:
                while time.monotonic() < end:
                    status, _ = ask(connection, body, path)
                    if status in (429, 503):
                        time.sleep(0.1)
            except (OSError, ValueError):
                time.sleep(0.1)
            finally:
                connection.close()

    threads = [threading.Thread(target=send, daemon=True) for _ in range(connections)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(max(0.0, end - time.monotonic()) + 0.5)


def assistants(port: int, body: dict[str, Any], connections: int, seconds: float) -> None:
    """Search by the Model Context Protocol on many connections; runs in another process."""
    connection = HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT)
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "search", "arguments": body}}
    status, answer = ask(connection, call, "/mcp")
    assert status == 200 and answer["result"]["structuredContent"]["results"], answer
    connection.close()
    attack(port, call, connections, seconds, "/mcp")


def good(count: int) -> Iterator[dict[str, Any]]:
    """Yield good searches: a rare word each, some with a filter or a phrase."""
    for n in itertools.count():
        number = n * 37 % count
        yield {"query": f"rare{number}x", "top_k": 3, "fields": ["title"]}
        yield {
            "query": f'"title{number}" {ENGLISH[:9]}',
            "top_k": 3,
            "fields": ["title"],
            "where": {"year": {"gte": 1900}},
        }


def measure(port: int, wanted: dict[str, Any], searches: Iterator[dict[str, Any]], seconds: float) -> dict[str, float]:
    """Ask good searches for some seconds; return their percentiles, and how many were wrong or lost."""
    took, wrong, lost, end = [0.0], 0, 0, time.monotonic() + seconds
    connection = HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT)
    for body in searches:
        if time.monotonic() >= end:
            break
        began, key = time.monotonic(), json.dumps(body)
        try:
            status, found = ask(connection, body)
        except (OSError, ValueError):
            connection.close()
            lost += 1
            continue
        took.append(time.monotonic() - began)
        ids = [hit["id"] for hit in found["hits"]] if status == 200 else None
        lost += status != 200
        wrong += status == 200 and wanted.setdefault(key, ids) != ids
        time.sleep(0.02)
    connection.close()
    return {"asked": len(took) - 1, "p50": float(np.percentile(took, 50)), "p99": float(np.percentile(took, 99)),
            "longest": max(took), "wrong": wrong, "lost": lost}  # fmt: skip


def run(options: AttackOptions) -> int:
    """Measure the good searches alone and beside each attack; print the table."""
    rows, failures, wanted = list[list[str]](), list[str](), dict[str, Any]()
    with tempfile.TemporaryDirectory() as base:
        index = Path(base) / "index"
        path = write_index(index, options.documents)
        plugins = {"PADDLE_RANKER_PLUGINS": "tests.extensions.own_content"}
        more = ["--index", str(index), "--log_requests", "false", "--mcp", "true"]
        with started_server(write_ranker(Path(base) / "ranker"), Path(base) / "run", *more, **plugins) as (_, ports):
            port, named = ports[0], attacks(options.documents)
            crowds: dict[str, tuple[Callable[..., None], object, int]] = {
                **{name: (attack, body, options.connections) for name, body in named.items()},
                SLOW_READERS: (slow_readers, path, 30),
                ASSISTANTS: (assistants, {"query": CHARACTERS}, options.connections),
            }
            searches = [*itertools.islice(good(options.documents), 100)]
            measure(port, wanted, iter(searches), 60.0)  # what a quiet server answers
            for name in ("nothing", *(one for one in crowds if options.only in one)):
                process = None
                if name != "nothing":
                    send, what, connections = crowds[name]
                    given = port, what, connections, options.seconds + 1.0
                    process = multiprocessing.get_context("spawn").Process(target=send, args=given)
                    process.start()
                    time.sleep(1.0)
                found = measure(port, wanted, itertools.cycle(searches), options.seconds)
                if process is not None:
                    process.join()
                    assert process.exitcode == 0
                    time.sleep(1.0)
                shown = [f"{1000 * found[one]:,.0f}" for one in ("p50", "p99", "longest")]
                rows.append([name, f"{found['asked']:.0f}", *shown, f"{found['wrong']:.0f}", f"{found['lost']:.0f}"])
                print(*rows[-1], sep="  ", flush=True)
                if found["wrong"] or found["lost"] or found["p99"] > options.most_seconds:
                    failures.append(name)
    print(format_table(["beside", "searches", "p50 ms", "p99 ms", "longest ms", "wrong", "lost"], rows))
    print(f"failures: {len(failures)}" + "".join(f"\n  {name}" for name in failures))
    return int(bool(failures))


main = main_of(run, AttackOptions, "Measure good searches beside attackers.")

if __name__ == "__main__":
    sys.exit(main())
