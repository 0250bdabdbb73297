"""A request meets one lineup: the models and the index that the server had when it began, whatever is switched."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from paddle_ranker.serving.core.faults import Fault
from paddle_ranker.serving.core.logs import JsonLog
from paddle_ranker.serving.core.metrics import Metrics
from paddle_ranker.serving.slots import slots as slots_module
from paddle_ranker.serving.slots.reload import Reloader
from paddle_ranker.serving.slots.slot_kinds import fit_models
from paddle_ranker.serving.slots.slots import Slot
from tests.export_cases import write_case
from tests.serving_cases import OpenedSite, ask_app, close_slots
from tests.tiny import write_index, write_tower

pytestmark = pytest.mark.parity
TEXTS = ["水稻病害诊断研究", "老年人护理教育", "how search engines rank", "语言与文化差异", "茶叶与经济增长", "b"]
QUERIES = ["水稻", "护理教育", "search engine", "文化差异"]
SWITCHES, CLIENTS = 6, 4


class TwoVersions:
    """A server whose options name links, which are moved between two versions of the index, its tower and the ranker.

    Attributes:
        added: texts of confirmed additions, by id.
    """

    def __init__(self, root: Path):
        self.root, self.added = root, dict[str, str]()
        for version, seed in (("a", 1), ("b", 5)):
            (root / version).mkdir()
            tower = write_tower(root / version / "tower", seed=seed)
            write_index(root / version / "index", tower, [Document(f"d{n}", text) for n, text in enumerate(TEXTS)])
            write_case(root / version / "ranker", seed=seed)
        self.point_at("a")
        self.site = OpenedSite(index=root / "now" / "index", model=root / "now" / "ranker", writable=True)
        config = self.site.config
        fit = lambda models: fit_models(config, models)  # noqa: E731
        self.loader = Reloader(self.site.slots, Metrics(), JsonLog(), fit)

    def point_at(self, version: str) -> None:
        moved = self.root / "moved"
        moved.symlink_to(self.root / version)
        moved.rename(self.root / "now")

    async def ask(self, path: str, body: object, method: str = "POST") -> Any:
        answer = await ask_app(self.site.app, method, path, body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def answers(self) -> list[NDArray[np.float64]]:
        """Return the numbers in the answers to one request of each kind, in the order of the texts."""
        hits = (await self.ask("/v1/search", {"query": QUERIES[0], "top_k": 100, "depth": 1000}))["hits"]
        shown = {hit["id"]: [hit["stages"]["vectors"]["score"], hit["probability"]] for hit in hits}
        reranked = await self.ask("/rerank", {"query": QUERIES[1], "texts": TEXTS})
        scores = {score["index"]: score["score"] for score in reranked}
        vectors = await self.ask("/embed", {"inputs": QUERIES})
        parts = [shown[f"d{n}"] for n in range(len(TEXTS))], [scores[n] for n in range(len(TEXTS))], vectors
        return [np.array(part) for part in parts]

    async def add(self, number: int) -> None:
        id, text = f"n{number}", f"{TEXTS[number % 5]} {number}"
        self.added[id] = text
        await self.ask("/v1/documents", {"documents": [{"id": id, "text": text}]})


@pytest.fixture
def two(tmp_path: Path) -> Iterator[TwoVersions]:
    made = TwoVersions(tmp_path)
    yield made
    close_slots(made.site.slots)


def test_each_answer_and_each_stored_vector_is_of_one_version(two: TwoVersions) -> None:
    pure = dict[str, list[NDArray[np.float64]]]()

    async def run() -> int:
        for version in ("b", "a"):
            two.point_at(version)
            await two.loader.reload()
            pure[version] = await two.answers()
        assert all(np.abs(a - b).max() > 1e-3 for a, b in zip(pure["a"], pure["b"]))
        is_over, mixed, answered, numbers = False, list[object](), 0, iter(range(10_000))

        async def search() -> None:
            nonlocal answered
            while not is_over:
                for kind, answer in enumerate(await two.answers()):
                    answered += 1
                    if not any(np.allclose(answer, pure[version][kind], atol=1e-5) for version in pure):
                        mixed.append((kind, answer))

        async def write() -> None:
            while not is_over:
                await two.add(next(numbers))
                await asyncio.sleep(0.2)  # the ranker reads the first 50 documents

        clients = [asyncio.ensure_future(work()) for work in (search, write) for _ in range(CLIENTS)]
        for number in range(SWITCHES):
            await asyncio.sleep(0.3)
            two.point_at("ba"[number % 2])
            await two.loader.reload()
        is_over = True
        await asyncio.gather(*clients)
        assert not mixed
        return answered

    assert asyncio.run(run()) > 30 and len(two.added) > 10
    kept = set[str]()
    for version in ("a", "b"):
        folder = two.root / version / "index"
        tower = Tower.open(folder / "tower")
        with Collection.open(folder) as collection:
            collection.snapshot().verify()
            for document, vector in collection.snapshot().sample(10_000, 0):
                np.testing.assert_allclose(vector, tower.vectors([document.text])[0], atol=1e-5)
                kept.add(document.id)
    assert kept == {*two.added, *(f"d{n}" for n in range(len(TEXTS)))}  # each is in the index that it was sent to


def test_an_index_whose_files_have_changed_is_not_switched_to(two: TwoVersions) -> None:
    (documents,) = (two.root / "b" / "index").glob("segment-*/documents.jsonl")
    documents.write_bytes(bytes(documents.stat().st_size))

    async def run() -> None:
        before = await two.answers()
        two.point_at("b")
        with pytest.raises(Fault, match=r"old model goes on.*documents\.jsonl: not as it was written"):
            await two.loader.reload()
        for ours, theirs in zip(before, await two.answers()):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)

    asyncio.run(run())


def test_no_handler_reads_a_slot_without_a_lease(two: TwoVersions, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease reaches all coroutines and threads that work for a request, so a slot that is switched is not seen."""
    ready, unleased = Slot.ready, list[str]()

    def noted(slot: Slot[Any]) -> Any:
        if slots_module._LEASED.get() is None:
            unleased.append(slot.what)
        return ready(slot)

    monkeypatch.setattr(Slot, "ready", noted)

    async def run() -> None:
        await two.answers()
        await two.add(1)
        changed = {"documents": [{"id": "n1", "text": "茶叶"}]}
        await two.ask("/v1/documents", changed, "PATCH")
        await two.ask("/v1/documents", {"ids": ["n1"]}, "DELETE")
        for path in (
            "/v1/documents",
            "/v1/documents/d0",
            "/v1/index",
            "/v1/suggest?q=how",
            "/info",
            "/ready",
            "/models",
        ):
            assert (await ask_app(two.site.app, "GET", path)).status_code in (200, 404)

    asyncio.run(run())
    assert not unleased
