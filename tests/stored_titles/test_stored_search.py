"""Searches on a server by an index's stored states: scores, metering, limits, reloads and added documents."""

from __future__ import annotations

import asyncio
import shutil
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest

from paddle_ranker.export.static_graph import export_model
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import RANKER, load_model
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo
from paddle_ranker.serving.core.logs import JsonLog
from paddle_ranker.serving.slots.ranker_slot import RankerSlot
from paddle_ranker.serving.slots.reload import Reloader
from paddle_ranker.serving.slots.slot_kinds import fit_models
from paddle_ranker.stored_titles.document_states import copy_ranker
from tests.export_cases import WRITES_ONNX
from tests.serving.test_search import Site
from tests.serving_cases import SECONDS, ask_app
from tests.started import until_in_loop
from tests.stored_titles.test_title_states import split_ranker

pytestmark = pytest.mark.parity
TEXTS = ["水稻病害诊断研究", "水稻", "农业水稻病害", "病害 a b c", "水稻病害", "水稻病害" * 20, "水稻经济 " * 4]
LONG = "d5"  # the ranker reads a part of it
DOCUMENTS = [Document(f"d{number}", text) for number, text in enumerate(TEXTS)]
QUERY = "水稻病害"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    split_ranker(folder / "split", hidden_dropout_prob=0.5)
    split_ranker(folder / "other", seed=2)
    export_model(load_model(folder / "split", RANKER), folder / "exported", onnx=WRITES_ONNX)
    return folder


def write(folder: Path, ranker: Optional[Path]) -> Path:
    states = None if ranker is None else copy_ranker(ranker, folder, "float32")
    with Collection.create(folder, IndexInfo(WordsInfo("bigram"), None, states=states)) as collection:
        collection.writer.add(DOCUMENTS)
    return folder


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Open servers of a ranker and an index with the states of a ranker, which are closed with the test."""
    sites: list[Site] = []

    def open_site(model: Path, states: Optional[Path], **options: Any) -> Site:
        index = tmp_path / f"index-{len(sites)}"
        sites.append(Site(model=model, index=write(index, states), **options))
        return sites[-1]

    yield open_site
    for site in sites:
        site.close()


def logits(answer: dict[str, Any]) -> dict[str, float]:
    return {hit["id"]: hit["logit"] for hit in answer["hits"]}


def reloader(site: Site) -> Reloader:
    return Reloader(site.slots, site.metrics, JsonLog(), partial(fit_models, site.config))


def pairs_of(site: Site) -> float:
    lines = site.ask("GET", "/metrics").text.splitlines()
    return float(next(line.split()[-1] for line in lines if line.startswith("ranker_pairs_total")))


class Read:
    """The texts that a server's ranker has read, in place of states, since the last look."""

    def __init__(self, site: Site, monkeypatch: pytest.MonkeyPatch):
        self._texts, score = list[str](), RankerSlot.score_pairs

        async def noted(slot: RankerSlot, queries: Any, titles: Any, **more: Any) -> Any:
            self._texts += titles if slot is site.slots["ranker"] else ()
            return await score(slot, queries, titles, **more)

        monkeypatch.setattr(RankerSlot, "score_pairs", noted)

    def texts(self) -> list[str]:
        found, self._texts = self._texts, []
        return found


@pytest.mark.parametrize("engine", ["dygraph", "inference", "onnx", "openvino"])
def test_scores_by_states_are_those_by_texts(
    models: Path, opened: Callable[..., Site], engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine in ("onnx", "openvino") and not WRITES_ONNX:
        pytest.skip("needs an ONNX file, which the modern stack makes")
    model = models / ("split" if engine == "dygraph" else "exported")
    site, plain = (opened(model, states, engine=engine) for states in (models / "split", None))
    read = Read(site, monkeypatch)
    for query, most in ((QUERY, 1), (QUERY * 9, len(TEXTS))):  # every pair of the long query is cut
        found, expected = logits(site.search(query)), logits(plain.search(query))
        assert found.keys() == expected.keys() and len(found) == len(TEXTS)
        np.testing.assert_allclose([found[id] for id in expected], [*expected.values()], atol=2e-4)
        assert len(read.texts()) == most
    assert site.ask("GET", "/v1/index").json()["states"] == {"used": True}
    assert "states" not in plain.ask("GET", "/v1/index").json()


def test_a_reload_takes_up_another_ranker_and_new_states(
    models: Path, opened: Callable[..., Site], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    model = tmp_path / "model"
    shutil.copytree(models / "split", model)
    site, reason = opened(model, None), "the index had none when the models were loaded; reload the models"
    read, loader, by_text = Read(site, monkeypatch), reloader(site), logits(site.search(QUERY))

    def told() -> list[str]:
        found = [one.getMessage() for one in caplog.records if "stored states" in one.getMessage()]
        caplog.clear()
        return found

    def state(ranker: Optional[str] = None) -> object:
        if ranker is not None:
            shutil.rmtree(model)
            shutil.copytree(models / ranker, model)
        previous = weakref.ref(site.slots.of("ranker", RankerSlot).ready())
        site.loop.run_until_complete(loader.reload())
        site.loop.run_until_complete(until_in_loop(lambda: previous() is None))  # nothing holds the old model
        return site.ask("GET", "/v1/index").json().get("states")

    assert read.texts() and state() is None and not told()
    with Collection.open(site.config.index, write=True) as collection:
        collection.writer.store_states(copy_ranker(model, site.config.index, "float32"), LoadOptions(), 32)
    assert logits(site.search(QUERY)) == by_text and len(read.texts()) == len(site.search(QUERY)["hits"])
    assert site.ask("GET", "/v1/index").json()["states"] == {"used": False, "reason": reason}
    assert told() == ["the index has stored states now: reload the models to use them"]
    read.texts()
    assert state() == {"used": True} and not told()
    assert logits(site.search(QUERY)) == pytest.approx(by_text, abs=1e-4) and len(read.texts()) == 1
    assert state("other") == {"used": False, "reason": told()[0].partition("instead: ")[2]}
    assert logits(site.search(QUERY)) != pytest.approx(by_text, abs=1e-2) and len(read.texts()) == len(TEXTS)
    assert state("split") == {"used": True} and not told()
    before = pairs_of(site)
    site.search(QUERY)
    assert len(read.texts()) == 1 and pairs_of(site) == before + len(TEXTS)


def test_added_documents_get_states_by_the_served_ranker(
    models: Path, opened: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = opened(models / "exported", models / "split", engine="inference", writable=True)
    read = Read(site, monkeypatch)
    site.loop.run_until_complete(reloader(site).reload())
    monkeypatch.delattr("paddle_ranker.stored_titles.stored_ranker.SplitRanker.open")  # no second one is opened
    added = site.ask("POST", "/v1/documents", {"documents": [{"id": "new", "text": "水稻病害教育"}]})
    assert added.status_code == 200, added.text
    assert "new" in logits(site.search(QUERY)) and len(read.texts()) == 1


def test_searches_by_states_share_batches_and_leave_a_full_queue(
    models: Path, opened: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = opened(models / "split", models / "split", pairs=12, queue_pairs=12)
    served = site.slots.of("ranker", RankerSlot).ready()
    batcher, (compute,) = served.batcher, served.scorer.others.values()
    batches, gate = list[int](), threading.Event()

    def held(pairs: Any, rows: Any) -> Any:
        batches.append(len(rows))
        assert gate.wait(SECONDS)
        return compute(pairs, rows)

    monkeypatch.setattr(served.scorer, "others", dict.fromkeys(served.scorer.others, held))
    with Collection.open(site.config.index, write=True) as collection:
        collection.writer.remove([LONG])

    async def run() -> tuple[Any, list[Any]]:
        def ask() -> asyncio.Task[Any]:
            return asyncio.ensure_future(ask_app(site.app, "POST", "/v1/search", {"query": QUERY}))

        searches = [ask()]
        await until_in_loop(lambda: batches)
        searches.append(ask())
        leaving = ask()
        await until_in_loop(lambda: batcher.queued_rows == 12)
        refused = await ask()
        leaving.cancel()
        with suppress(asyncio.CancelledError):
            await leaving
        await until_in_loop(lambda: batcher.queued_rows == 6)
        searches.append(ask())
        await until_in_loop(lambda: sum(one.count for one in list(batcher._pieces) if not one.job.dropped) == 12)
        gate.set()
        return refused.json(), [one.json() for one in await asyncio.gather(*searches)]

    refused, answers = site.loop.run_until_complete(run())
    assert (refused["degraded"], refused["ranked"], len(refused["hits"])) == (["rank"], False, 6)
    assert batches == [6, 12]  # the rows of the one that left are computed by nobody
    assert len(logits(answers[0])) == 6
    assert all(logits(one) == pytest.approx(logits(answers[0]), abs=1e-5) for one in answers)
