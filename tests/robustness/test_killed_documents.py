"""What POST and DELETE /v1/documents confirm survives kill -9 right after it; other requests are there whole or not.

The servers are forked from a process that has imported what they need, so that twenty of them take seconds.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import multiprocessing
import os
import random
import re
import signal
import threading
from pathlib import Path
from typing import Any, Optional

import pytest

from paddle_ranker.retrieval.collection import Collection
from paddle_ranker.retrieval.indexes import Document
from paddle_ranker.retrieval.manifest import IndexInfo, WordsInfo
from tests.started import until

KILLS = 20
PRELOADED = [
    "paddle_ranker.commands.search_serve",
    "paddle_ranker.lexical.highlights",
    "paddle_ranker.model.network",
    "paddle_ranker.retrieval.vectors",
    "paddle_ranker.serving.process.worker",
]


def serve(index: str, output: str) -> None:
    """Run the command in this process, with what it writes in a file."""
    from paddle_ranker.__main__ import main

    with open(output, "wb", 0) as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    main(["search-serve", "--index", index, "--port", "0", "--writable", "true"])


class Writer:
    """Changes an index over HTTP. Attributes: `live`, what was confirmed to be there, texts by id; `removed`, ids."""

    def __init__(self, seed: int):
        self.draw, self.live, self.removed = random.Random(seed), dict[str, str](), set[str]()
        self.unconfirmed: list[dict[str, str]] = []  # documents of requests that nobody has answered
        self._number = 0

    def send(self, port: int, pid: Optional[int] = None) -> bool:
        """Add, replace or remove some documents; kill `pid` once the answer's first line is here. True if confirmed."""
        self._number += 1
        given = {f"n{self._number}-{n}": f"第{self._number}次的第{n}篇" for n in range(self.draw.randint(1, 5))}
        given.update({id: f"{text}，改" for id, text in self._some(2)})
        gone = [] if self.draw.random() < 0.7 else [id for id, _ in self._some(2)]
        rows = [{"id": id, "text": text} for id, text in given.items()]
        body: dict[str, object] = {"ids": gone} if gone else {"documents": rows}
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=180)
        try:
            connection.request(
                "DELETE" if gone else "POST", "/v1/documents", json.dumps(body), {"Content-Type": "application/json"}
            )
            answer = connection.getresponse()
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
        except (OSError, http.client.HTTPException):
            self.unconfirmed.append({} if gone else given)
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

    def _some(self, count: int) -> list[tuple[str, str]]:
        return self.draw.sample(sorted(self.live.items()), min(count, len(self.live)))


def check(folder: Path, writer: Writer, other: Writer) -> None:
    """Open the index as the next writer does, and hold what is in it against what was confirmed."""
    with Collection.open(folder, write=True) as collection:
        collection.verify()
        there = {document.id: document.text for document in collection.documents()}
    for one in (writer, other):
        unknown = {id for given in one.unconfirmed for id in given}
        assert {id: there.get(id) for id in one.live if id not in unknown} == {
            id: text for id, text in one.live.items() if id not in unknown
        }
        assert not one.removed & there.keys()
        for given in one.unconfirmed:
            states = {there.get(id) == text for id, text in given.items()}
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


@pytest.mark.slow
def test_what_is_confirmed_survives_kill_9_twenty_times_of_twenty(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    with Collection.create(folder, IndexInfo(WordsInfo("gram"), None)) as collection:
        collection.add([Document("first", "第一篇")])
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    writer, other = Writer(1), Writer(2)
    other._number = 1_000_000  # its ids are its own
    for number in range(KILLS):
        log = tmp_path / f"server-{number}.txt"
        log.touch()
        server = context.Process(target=serve, args=(str(folder), str(log)))
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
