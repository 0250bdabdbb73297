"""The search page on the real server: an index with words and vectors, a tower, a ranker and a log, all tiny."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.index.towers import copy_tower
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo
from paddle_ranker.retrieval.vectors.vector_settings import VectorsInfo
from paddle_ranker.serving.core.metrics import Metrics
from paddle_ranker.serving.core.search_log import FeedbackLine, LogReader, SearchLine
from paddle_ranker.serving.process.worker import make_app
from tests.browser.conftest import DRAWN, ROW, OpenPage, drawn, stand_still
from tests.browser.site import Site
from tests.live_service import SECONDS
from tests.serving_cases import close_slots, opened_slots
from tests.started import until
from tests.tiny import write_ranker, write_tower

pytestmark = pytest.mark.browser
QUERY = "水稻病害研究"
WORDS = ["深度学习", "水稻病害", "老年人护理", "语言文化", "经济增长", "教育法律"]
DOCUMENTS = [
    *(
        Document(f"d{n}", f"{one}在{other}中的研究", {"year": 2000 + n % 10, "lang": "en" if n % 3 else "zh"})
        for n, (one, other) in enumerate((one, other) for one in WORDS for other in WORDS)
    ),
    Document("more", "水稻病害的诊断", {"year": 2001, "lang": "zh", "url": "https://example.org"}),
]


class RealSite(Site):
    """The server's own application, with its models, in a thread of the test's process."""

    def __init__(self, **options: Any):
        self.config, self.slots = opened_slots(**options)
        super().__init__()

    def app(self) -> Any:
        return make_app(self.slots, self.config, Metrics())

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        close_slots(self.slots)

    def found(self, query: str = QUERY, **asked: Any) -> dict[str, Any]:
        """Return the answer of the API to what the page asks."""
        body = {"query": query, "top_k": 10, "rank_top": 50, "explain": True, "snippet": 240, **asked}
        request = urllib.request.Request(
            f"{self.address}/v1/search", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return dict(json.load(answer))

    def logged(self, kind: type[Any]) -> list[Any]:
        return [line for line in LogReader(self.config.search_log) if isinstance(line, kind)]


def made(base: Path) -> RealSite:
    tower, index = write_tower(base / "tower"), base / "titles"
    index.mkdir()
    copied = copy_tower(tower, index)
    info = IndexInfo(WordsInfo("bigram"), VectorsInfo("exact", copied.size), copied.copy)
    with Collection.create(index, info) as collection:
        collection.writer.add(DOCUMENTS)
    ranker = write_ranker(base / "ranker")
    return RealSite(
        index=index, model=ranker, search_log=base / "log", examples=(QUERY,), fusion="weighted", hits=50, depth=80
    )


@contextmanager
def running(base: Path) -> Iterator[RealSite]:
    with ThreadPoolExecutor(1) as elsewhere:  # in this thread Playwright's event loop runs, where nothing may tokenize
        real = elsewhere.submit(made, base).result()
    with real:
        yield real


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, browser: Any) -> Iterator[RealSite]:
    with running(tmp_path_factory.mktemp("real")) as real:
        yield real


@pytest.fixture
def new_site(tmp_path: Path, browser: Any) -> Iterator[RealSite]:
    """One whose log knows no other test's searches."""
    with running(tmp_path) as real:
        yield real


def rows(page: Any) -> list[str]:
    page.wait_for_selector(DRAWN, state="attached")
    found: list[str] = page.eval_on_selector_all(ROW, "rows => rows.map(row => row.dataset.id)")
    return found


def at(site: Site, query: str, settings: str = "") -> str:
    return f"{site.address}/?how=1&q={quote(query)}{settings}"


def test_every_number_of_the_page_is_in_the_answer(open_page: OpenPage, site: RealSite) -> None:
    page = open_page(f"{site.address}/?how=1")
    page.click(f"#tries button:has-text('{QUERY}')")
    drawn(page)
    answer = site.found()
    hits = answer["hits"]
    assert page.inner_text("#collection") == f"titles · {len(DOCUMENTS)} 篇文档" and rows(page) == [
        one["id"] for one in hits
    ]
    assert page.locator(".probability b").count() == 0  # the ranker is not calibrated: bars alone
    dropped = answer["dropped"]
    assert page.locator("#out li .moved").all_inner_texts() == [
        f"× 从 {one['stages']['fused']['rank']} 到 {one['stages']['ranked']['rank']}" for one in dropped
    ]
    for stage in ("words", "vectors", "fused"):
        ranks = sorted((one["stages"][stage]["rank"], one["id"]) for one in [*hits, *dropped] if stage in one["stages"])
        items = page.eval_on_selector_all(f"[data-stage={stage}] li", "all => all.map(li => [li.value, li.dataset.id])")
        assert [tuple(one) for one in items] == (ranks if stage == "fused" else ranks[:10])
    for row, one in zip(page.locator(ROW).all(), hits):
        was, now = one["stages"]["fused"]["rank"], one["rank"]
        told = f"从 {was} 到 {now}" if was != now else f"{now} 不变"
        assert told in row.locator(".moved").inner_text()
        marked = [one["snippet"]["text"][part["start"] : part["end"]] for part in one["snippet"]["highlights"]]
        assert "".join(row.locator(".text mark").all_text_contents()) == "".join(marked)
    page.wait_for_selector(".verdict")  # what GET /v1/index says is known
    assert page.locator("[name=fusion]").input_value() == "weighted"
    assert page.locator("[name=top_k] option").all_text_contents() == ["10", "20", "50"]
    kinds = set(page.eval_on_selector_all("#lines path", "all => all.map(path => path.classList[0])"))
    assert {"up", "down"} <= kinds


def test_why_tells_what_each_signal_added_and_a_click_is_logged(open_page: OpenPage, new_site: RealSite) -> None:
    page, site = open_page(at(new_site, QUERY)), new_site
    page.wait_for_selector(".verdict")
    page.locator(".ask-why").first.click()
    hit = site.found()["hits"][0]
    page.wait_for_selector("#why:visible")
    page.click("#why summary")
    told = page.locator("#why .worth").all_inner_texts()
    added = [one for one in hit["signals"].values() if one["to"] == "fused" and "added" in one]
    wanted = [f"{one['added']:+.3g}" for one in sorted(added, key=lambda one: -one["added"])]
    assert f"logit {hit['logit']:.3g}".replace("-", "-") in told[0]
    assert [one.split(" 加 ")[-1] for one in told if " 加 " in one][-len(wanted) :] == wanted
    term = hit["signals"]["words"]["terms"][0]
    assert term["term"] in page.inner_text("#why .terms") and f"+{term['added']:.3g}" in page.inner_text("#why .terms")
    page.keyboard.press("Escape")
    for part in (".fields", ".irrelevant"):
        with page.expect_response("**/v1/feedback"):
            page.locator(part).first.click()
    page.wait_for_selector(".irrelevant[aria-pressed=true]")
    search = next(line for line in site.logged(SearchLine) if line.search_id == site.logged(FeedbackLine)[-1].search_id)
    assert search.query == QUERY and search.shown[0].id == hit["id"]
    said = [(line.event, line.id, line.position, line.query) for line in site.logged(FeedbackLine)]
    assert said == [("click", hit["id"], 1, QUERY), ("irrelevant", hit["id"], 1, QUERY)]
    page.click("#to-judge")
    page.wait_for_function("() => document.querySelector('#asked').textContent !== ''")
    assert page.inner_text("#asked") == QUERY and page.inner_text("#status") == "已标注 1，还有 9"
    assert page.locator("#text mark").count() > 0
    with page.expect_response("**/v1/feedback"):
        page.keyboard.press("1")
    page.wait_for_function("() => document.querySelector('#status').textContent.startsWith('已标注 2')")


def test_filters_and_empty_results(open_page: OpenPage, site: RealSite) -> None:
    page = open_page(at(site, QUERY))
    page.wait_for_selector(".verdict")
    page.click("#facets button:has-text('zh')")
    page.wait_for_selector("#facets [aria-pressed=true]")
    page.click("#filters summary")
    page.fill("#filters [name='year.gte']", "2008")
    page.press("#filters [name='year.gte']", "Tab")
    wanted = [one.id for one in DOCUMENTS if one.fields["lang"] == "zh" and int(str(one.fields["year"])) >= 2008]
    page.wait_for_function("ids => document.querySelectorAll('#results > li').length === ids", arg=len(wanted))
    assert set(rows(page)) == set(wanted)
    assert page.locator("#chips li:visible").all_inner_texts() == ["lang = zh ×", "year ≥ 2008 ×", "全部去掉"]
    page.click("#facets [aria-pressed=true]")  # lang = zh
    page.wait_for_function("ids => document.querySelectorAll('#results > li').length > ids", arg=len(wanted))
    page.fill("#filters [name='year.gte']", "3000")
    page.press("#filters [name='year.gte']", "Tab")
    page.wait_for_selector("#nothing:visible")
    assert "筛选条件：year ≥ 3000。" in page.inner_text("#nothing") and page.is_hidden("#board")
    page.goto(at(site, QUERY, f"&filter={quote(json.dumps({'colour': 'red'}))}"))
    page.wait_for_selector("#failure p")
    assert "colour" in page.inner_text("#failure p") and "lang, url, year" in page.inner_text("#failure p")
    page.click("#chips button")
    drawn(page)
    assert page.inner_text("#failure") == ""


def test_letters_of_an_input_method_are_no_query(open_page: OpenPage, site: RealSite) -> None:
    page = open_page(site.address, own_context=True)
    stand_still(page)
    page.focus("#query")
    keyboard = page.context.new_cdp_session(page)
    for letters in ("l", "lao", "lao nian"):
        keyboard.send(
            "Input.imeSetComposition", {"text": letters, "selectionStart": len(letters), "selectionEnd": len(letters)}
        )
        page.clock.run_for(1000)
    page.evaluate(
        "document.querySelector('#query').dispatchEvent("
        "new KeyboardEvent('keydown', {key: 'Enter', isComposing: true, bubbles: true, cancelable: true}))"
    )
    page.evaluate("document.querySelector('#form').requestSubmit()")
    page.clock.run_for(1000)
    assert page.input_value("#query") == "lao nian"
    keyboard.send("Input.insertText", {"text": "老年人"})
    with page.expect_response("**/v1/search"):
        page.clock.run_for(300)
    page.clock.resume()
    drawn(page)
    until(lambda: any(line.query == "老年人" for line in site.logged(SearchLine)))  # lines are written soon
    queries = [line.query for line in site.logged(SearchLine)]
    assert queries.count("老年人") == 1 and not any("lao" in one for one in queries)
    assert rows(page) == [one["id"] for one in site.found("老年人", prefix=True)["hits"]]


def test_a_server_that_is_gone_and_comes_back(open_page: OpenPage, site: RealSite) -> None:
    page = open_page(at(site, QUERY))
    drawn(page)
    before = rows(page)
    site.leave()
    try:
        page.fill("#query", "经济增长")
        page.press("#query", "Enter")
        page.wait_for_selector("#failure p")
        assert page.inner_text("#failure p") == f"服务器没有回应。 下面仍是上一次“{QUERY}”的结果。"
        assert rows(page) == before and page.is_hidden("#nothing")
    finally:
        site.start_again()
    page.click("#failure button")
    page.wait_for_function("() => document.querySelector('#failure').textContent === ''")
    assert rows(page) == [one["id"] for one in site.found("经济增长")["hits"]]


def test_an_index_of_words_alone_is_searched_by_words(open_page: OpenPage, browser: Any, tmp_path: Path) -> None:
    with Collection.create(tmp_path / "index", IndexInfo(WordsInfo("bigram"), None)) as collection:
        collection.writer.add(DOCUMENTS)
    site = RealSite(index=tmp_path / "index")
    with site:
        page = open_page(at(site, QUERY))
        drawn(page)
        assert rows(page) == [one["id"] for one in site.found()["hits"]]
        page.wait_for_function("() => document.querySelector('#use').hidden")  # what GET /v1/index says is known
        page.fill("#query", "zzzz")
        page.press("#query", "Enter")
        page.wait_for_selector("#nothing:visible")
        assert page.locator(".column").count() == 0
        assert page.inner_text("#notice") == ""  # no order of nothing


def test_the_docs_describe_a_search_and_try_it(open_page: OpenPage, site: RealSite) -> None:
    page = open_page(f"{site.address}/docs")
    page.get_by_text("Search the index").nth(1).click()
    with page.expect_response(f"{site.address}/v1/search") as response:
        page.get_by_role("button", name="EXECUTE").first.click()
    assert response.value.status == 200 and response.value.json()["hits"]
    ground = "node => getComputedStyle(node).getPropertyValue('--bg').trim()"
    grounds = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        grounds.append(page.locator("openapi-explorer").evaluate(ground))
    assert grounds == ["#ffffff", "#101216"]
