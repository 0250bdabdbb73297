"""Vectors of an index folder in Milvus: as every kind of search, and after failures of Milvus."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import pytest

from paddle_ranker.commands.index import main
from paddle_ranker.errors import RankerError, UsageError
from paddle_ranker.milvus.store import MilvusHits, MilvusRows, MilvusSearch
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.index.towers import copy_tower
from paddle_ranker.retrieval.stored.candidate_indexes import INDEXES
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo
from paddle_ranker.retrieval.vectors.vector_settings import VectorsInfo
from tests.retrieval import test_candidate_indexes as candidate_indexes
from tests.retrieval import test_conformance as conformance
from tests.retrieval.test_candidate_indexes import tower
from tests.retrieval.test_conformance import check, documents_of, new_index, vectors_of
from tests.serving.test_search import DOCUMENTS, Site
from tests.started import free_ports
from tests.tiny import write_tower

pytestmark = pytest.mark.unit
__all__ = ["tower"]
needs_milvus = pytest.mark.skipif(
    importlib.util.find_spec("pymilvus") is None, reason="Milvus's client is on the modern stack alone"
)
MILVUS = "PADDLE_RANKER_MILVUS"  # names the address of a real Milvus
needs_real_milvus = pytest.mark.skipif(MILVUS not in os.environ, reason=f"{MILVUS} names no Milvus: docs/setup.md")


def rows_of(collection: Collection) -> MilvusRows:
    """Return the vectors of an index in Milvus."""
    store = collection.snapshot().store
    assert isinstance(store, MilvusSearch)
    return store._rows


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start `milvus-lite server`, and yield its address."""
    [port] = free_ports(1)
    command = [str(Path(sys.executable).parent / "milvus-lite"), "server", "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen([*command, "--data-dir", str(tmp_path_factory.mktemp("milvus"))], stderr=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL) as process:  # fmt: skip
        while process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
        process.terminate()


@pytest.fixture(params=["file", "served", pytest.param("real", marks=needs_real_milvus)])
def kind(request: pytest.FixtureRequest) -> tuple[str, Optional[str]]:
    """Return the method, and the address of Milvus: in a file, on a server of Milvus Lite, on a real server."""
    addresses = {"served": lambda: request.getfixturevalue("server"), "real": lambda: os.environ[MILVUS]}
    return "milvus", addresses.get(request.param, lambda: "milvus.db")()


# The cases of every kind of search, with the fixture `kind` of this file.
test_milvus_adds_replaces_removes_filters_and_opens_again = needs_milvus(
    conformance.test_every_kind_adds_replaces_removes_filters_and_opens_again
)


@needs_milvus
def test_milvus_answers_with_ids_and_refuses_two_of_one(tower: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    candidate_indexes.test_every_index_answers_with_ids_and_refuses_two_of_one("milvus", tower, monkeypatch)


def test_an_unknown_index_is_answered_with_milvus_as_well() -> None:
    with pytest.raises(UsageError, match=r"--method bm26: choose from .*faiss, milvus"):
        INDEXES["bm26"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shards", "2", "--method", "milvus"], "--shards 2 and --method milvus: shards have their vectors inside"),
        (["--passage_tokens", "9", "--method", "milvus"], "add --tower, and --method exact or faiss"),
        (["--milvus_uri", "http://a:1"], "--milvus_uri http://a:1: is about --method milvus; add that"),
        (["--milvus_uri", "../a.db", "--method", "milvus"], "expected an address, or a file's name without a folder"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", "--corpus", "x", "--output", str(tmp_path / "a"), "--tower", "x", *arguments]) == 2
    assert message in capsys.readouterr().err


@needs_milvus
def test_a_file_of_milvus_is_searched_by_the_next_process(tmp_path: Path) -> None:
    """Milvus Lite forgets with its process which collections are loaded."""
    code = (
        "import sys, numpy as np\n"
        "from paddle_ranker.milvus.store import MilvusRows\n"
        "rows, vectors = MilvusRows(sys.argv[1], 'texts', 4, texts=True), np.eye(4, dtype=np.float32)\n"
        "if sys.argv[2] == 'put':\n"
        "    rows.put(np.arange(4), vectors, list('abcd'))\n"
        "    rows.finish()\n"
        "print(rows.nearest(vectors[2:3], 1)[0].texts)\n"
        "rows.close()\n"
    )
    for step in ("put", "search"):
        command = [sys.executable, "-c", code, str(tmp_path / "milvus.db"), step]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "['c']\n"


@needs_milvus
def test_a_server_of_milvus_that_started_again_is_searched_by_who_was_connected(tmp_path: Path, server: str) -> None:
    """Milvus Lite's server then holds the rows, and says that they are not loaded."""
    documents = documents_of(range(30))
    with new_index(tmp_path / "index", ("milvus", server)) as collection:
        collection.writer.add(documents[:20], vectors_of)
        for _ in range(2):
            rows = rows_of(collection)
            rows._client.release_collection(rows._name)
            check(collection, documents[: len(collection)], ["水稻"], None)
            rows._client.release_collection(rows._name)
            collection.writer.add(documents[20:], vectors_of)


@needs_milvus
@pytest.mark.parametrize("step", ["drop", "finish"])
def test_a_writer_goes_on_from_a_change_that_milvus_failed_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*given: object) -> None:
        raise RankerError("Milvus failed")

    with new_index(tmp_path / "index", ("milvus", "milvus.db")) as collection:
        collection.writer.add(documents_of(range(10)), vectors_of)
        with monkeypatch.context() as patched, pytest.raises(RankerError, match="Milvus failed"):
            patched.setattr(MilvusRows, step, fail)
            collection.writer.remove(["d3"])
        collection.writer.add(documents_of(range(10, 20)), vectors_of)
        kept = [one for one in documents_of(range(20)) if one.id != "d3"]
        assert [one.id for one in collection.snapshot().documents()] == [one.id for one in kept]
        check(collection, kept, ["水稻", "iPhone 15"], None)
        assert rows_of(collection).count() == len(kept)  # the row of the removed one is gone as well


def test_milvus_is_connected_to_beside_the_event_loop_and_by_searches_of_vectors_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected: list[threading.Thread] = []

    class Rows:
        """Holds keys in place of the server, and says in which thread it was connected to."""

        keys = dict[int, None]()

        def __init__(self, uri: str, name: str, size: int):
            connected.append(threading.current_thread())

        def put(self, keys: Any, vectors: Any) -> None:
            self.keys.update(dict.fromkeys(keys.tolist()))

        def drop(self, keys: Any) -> None:
            """Nothing is dropped."""

        def finish(self) -> None:
            """Nothing waits."""

        def nearest(self, queries: Any, k: int) -> list[MilvusHits]:
            return [MilvusHits([*self.keys], [0.0] * len(self.keys), []) for _ in queries]

        def close(self) -> None:
            """There is nothing to close."""

    monkeypatch.setattr("paddle_ranker.milvus.store.MilvusRows", Rows)
    copied = copy_tower(write_tower(tmp_path / "tower"), tmp_path / "index")
    info = VectorsInfo("milvus", copied.size, uri="http://127.0.0.1:1", collection="a")
    with Collection.create(tmp_path / "index", IndexInfo(WordsInfo("bigram"), info, copied.copy)) as collection:
        collection.writer.add(DOCUMENTS[:5])
    connected.clear()
    site = Site(index=tmp_path / "index", milvus_uri=info.uri)
    assert len(site.search("研究", by=["words"], where={"lang": "en"})["hits"]) == 3
    assert site.ask("GET", "/v1/index").json()["documents"] == 5 and site.ask("GET", "/v1/documents/d1").json()
    assert not connected
    assert all(len(site.search("研究")["hits"]) == 5 for _ in range(2))
    (thread,) = connected
    assert thread is not threading.current_thread()

    def fail(*_: object) -> Any:
        raise RankerError("http://127.0.0.1:1: Milvus failed")

    monkeypatch.setattr(Rows, "nearest", fail)
    failed = site.ask("POST", "/v1/search", {"query": "研究"})
    assert (failed.status_code, failed.headers["retry-after"]) == (503, "1")
    assert "the index cannot be searched now" in failed.text and "127.0.0.1" not in failed.text
    assert len(site.search("研究", by=["words"])["hits"]) == 5
    site.close()
