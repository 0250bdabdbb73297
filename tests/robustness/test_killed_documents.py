"""Changes of an index that are confirmed survive kill -9; others are there whole or not at all.

Documents have fields and passages. A server that adds, changes and removes them is killed right after a confirmation. A
process that builds such an index, adds, replaces, removes and merges is killed at any moment. Both are forked from a
process that has imported what they need, so that twenty of them take seconds.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import random
import re
import signal
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, Optional

import numpy as np
import pytest

from paddle_ranker.array_types import Vectors
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.index.towers import copy_tower
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import MANIFEST, IndexInfo, WordsInfo
from paddle_ranker.retrieval.stored.schema import Field, Schema
from paddle_ranker.retrieval.vectors.vector_settings import VectorsInfo
from tests.checkout import ONCE
from tests.conftest import THOROUGH
from tests.forks import context
from tests.started import SECONDS, until
from tests.tiny import write_tower

KILLS = 20 if THOROUGH else 8
SCHEMA = Schema((Field("title", "text", 2.0, title=True), Field("kind", "keyword")), passage_tokens=20)
SIZE = 8


def serve(index: str, output: str) -> None:
    """Run the command in this process, with what it writes in a file."""
    from paddle_ranker.__main__ import main

    with open(output, "wb", 0) as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    main(["search-serve", "--index", index, "--port", "0", "--writable", "true"])


class Said(NamedTuple):
    """What a document holds."""

    text: str
    title: str
    kind: str


def said_of(number: int, n: int) -> Said:
    """Return a document of several passages."""
    text = "".join(f"第{number}次的第{n}篇的第{part}段水稻病害诊断与防治。" for part in range(1 + n % 3))
    return Said(text, f"题{number}-{n}", "abc"[n % 3])


class Writer:
    """Changes an index over HTTP. Attributes: `live`, what was confirmed to be there by id; `removed`, ids."""

    def __init__(self, seed: int):
        self.draw, self.live, self.removed = random.Random(seed), dict[str, Said](), set[str]()
        self.unconfirmed: list[dict[str, Said]] = []  # documents of requests that nobody has answered
        self._number = 0

    def send(self, port: int, pid: Optional[int] = None) -> bool:
        """Send a change; kill `pid` once the answer's first line is here. Return whether it was confirmed."""
        self._number += 1
        method = self.draw.choices(("POST", "PATCH", "DELETE"), (4, 3, 3))[0] if self.live else "POST"
        given, gone, some = dict[str, Said](), list[str](), self._some(2)
        if method == "DELETE":
            gone = [*some]
            body: dict[str, object] = {"ids": gone}
        elif method == "PATCH":
            given = {id: said._replace(title=f"{said.title}，改") for id, said in some.items()}
            body = {"documents": [{"id": id, "title": said.title} for id, said in given.items()]}
        else:
            given = {f"n{self._number}-{n}": said_of(self._number, n) for n in range(self.draw.randint(1, 5))}
            given.update({id: said._replace(text=f"{said.text}改。") for id, said in some.items()})
            body = {"documents": [{"id": id, **said._asdict()} for id, said in given.items()]}
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=180)
        try:
            connection.request(method, "/v1/documents", json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
        except (OSError, http.client.HTTPException):
            self.unconfirmed.append(given)
            for id in gone:  # nobody knows
                self.live.pop(id, None)
            return False
        finally:
            connection.close()
        assert answer.status == 200
        if gone:
            self.removed.update(gone)
            for id in gone:
                del self.live[id]
        else:
            self.live.update(given)
        return True

    def _some(self, count: int) -> dict[str, Said]:
        return dict(self.draw.sample(sorted(self.live.items()), min(count, len(self.live))))


def check(folder: Path, writer: Writer, other: Writer) -> None:
    """Open the index as the next writer does, and hold what is in it against what was confirmed."""
    with Collection.open(folder, write=True) as collection:
        collection.snapshot().verify()
        there = {
            one.id: Said(one.text, str(one.fields["title"]), str(one.fields["kind"]))
            for one in collection.snapshot().documents()
        }
    for one in (writer, other):
        unknown = {id for given in one.unconfirmed for id in given}
        assert {id: there.get(id) for id in one.live if id not in unknown} == {
            id: said for id, said in one.live.items() if id not in unknown
        }
        assert not one.removed & there.keys()
        for given in one.unconfirmed:
            states = {there.get(id) == said for id, said in given.items()}
            assert len(states) < 2, "half of a request was applied"
            if states == {True}:
                one.live.update(given)
            one.live = {id: there[id] for id in one.live if id in there}
        one.unconfirmed.clear()


def port_of(server: Any, log: Path) -> int:
    """Return the port of a server, once it has said it."""
    until(lambda: not server.is_alive() or "serving " in log.read_text())
    found = re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text())
    assert found is not None, log.read_text()
    return int(found[1])


def send_on(writer: Writer, port: int) -> None:
    """Change the index until nobody answers."""
    while writer.send(port):
        pass


@ONCE
@pytest.mark.slow
def test_what_is_confirmed_survives_each_kill_9(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    tower = write_tower(tmp_path / "tower")
    copied = copy_tower(tower, folder)
    info = IndexInfo(WordsInfo("standard"), VectorsInfo("exact", copied.size), copied.copy, schema=SCHEMA)
    with Collection.create(folder, info) as collection:
        collection.writer.add([Document("first", "第一篇", {"title": "题", "kind": "a"})])
    writer, other = Writer(1), Writer(2)
    other._number = 1_000_000  # its ids are its own
    for number in range(KILLS):
        log = tmp_path / f"server-{number}.txt"
        log.touch()
        server = context().Process(target=serve, args=(str(folder), str(log)))
        server.start()
        try:
            port = port_of(server, log)
            beside = threading.Thread(target=send_on, args=(other, port))
            beside.start()
            for _ in range(writer.draw.randint(0, 3)):
                assert writer.send(port)
            assert writer.send(port, server.pid)  # confirmed, and killed
            beside.join()
        finally:
            with contextlib.suppress(ProcessLookupError):
                server.kill()
            server.join()
        assert server.exitcode == -signal.SIGKILL
        check(folder, writer, other)
    assert len(writer.live) + len(other.live) > KILLS and writer.removed


def vectors_of(texts: Sequence[str]) -> Vectors:
    rows = [np.random.default_rng([*text.encode()][-20:]).normal(size=SIZE) for text in texts]
    return np.array([row / np.linalg.norm(row) for row in rows], np.float32).reshape(-1, SIZE)


def document(number: int, times: int = 0) -> Document:
    text, title, kind = said_of(number, number % 7)
    return Document(f"d{number}", text, {"title": title + "改" * times, "kind": kind})


def change_until_killed(folder: str, start: int, confirmed: Connection) -> None:
    """Build the index or open it, add, replace, remove and merge; send each change before and after it is made."""
    confirmed.send((start - 1, {}, True))
    path, info = Path(folder), IndexInfo(WordsInfo("standard"), VectorsInfo("exact", SIZE), schema=SCHEMA)
    collection = Collection.open(path, write=True) if (path / MANIFEST).exists() else Collection.create(path, info)
    with collection:
        for number in itertools.count(start):
            added = [document(8 * number + n) for n in range(8)]
            changed = [document(8 * number - n, times=number) for n in range(1, 4)] if number else []
            gone = [f"d{8 * number - 5}"] if number else []
            for what, work in (
                (
                    {one.id: one for one in [*added, *changed]},
                    partial(collection.writer.add, [*added, *changed], vectors_of),
                ),
                (dict.fromkeys(gone), partial(collection.writer.remove, gone)),
            ):
                confirmed.send((number, what, False))
                work()
                confirmed.send((number, what, True))
            collection.writer.merge(None)


@ONCE
@pytest.mark.slow
def test_an_index_is_whole_wherever_its_builder_is_killed(tmp_path: Path) -> None:
    folder, draw = tmp_path / "index", random.Random(3)
    there: dict[str, Optional[Document]] = {}
    number, unknown = -1, dict[str, Optional[Document]]()
    for kills in itertools.count():
        if kills >= KILLS and number > KILLS:  # a slow machine changes less between two kills
            break
        receives, sends = context().Pipe(duplex=False)
        process = context().Process(target=change_until_killed, args=(str(folder), number + 1, sends))
        process.start()
        sends.close()
        assert receives.poll(SECONDS)
        until_killed = threading.Timer(draw.uniform(0.0, 0.4), process.kill)
        until_killed.start()
        with contextlib.suppress(EOFError):
            while True:
                number, what, is_done = receives.recv()
                there.update(what if is_done else {})
                unknown = {} if is_done else what
        process.join()
        assert process.exitcode == -signal.SIGKILL
        if not (folder / MANIFEST).exists():  # killed before anything was confirmed
            assert not there
            continue
        with Collection.open(folder, write=True) as collection:
            collection.snapshot().verify()
            found = {one.id: replace(one, version=1) for one in collection.snapshot().documents()}
            numbers = [int(id[1:]) for id in found]
            assert len(collection.snapshot().search("words", ["水稻"], len(found) + 1)[0].ids) == len(found)
            near = collection.snapshot().search("vectors", vectors_of(["水稻"]), len(found) + 1)[0]
            assert sorted(near.ids) == sorted(found) and len(numbers) == len({*numbers})
        applied = {found.get(id) == one for id, one in unknown.items()}
        assert len(applied) < 2, "half of a change was made"
        there.update(unknown if applied == {True} else {})
        unknown = {}
        assert found == {id: one for id, one in there.items() if one is not None}
