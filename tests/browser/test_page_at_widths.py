"""What the search page must show at once, at every width, light and dark, in both languages."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from tests.browser.conftest import DRAWN, ROW, OpenPage, drawn
from tests.browser.made_up import INDEX, answer
from tests.browser.site import Site

pytestmark = pytest.mark.browser
QUERY = "苹果手机价格"
# Each width in both schemes and both languages.
VIEWS = [
    (360, "light", "zh-CN"), (768, "dark", "zh-CN"), (1440, "dark", "en-GB"),
    (360, "dark", "en-GB"), (768, "light", "en-GB"), (1440, "light", "zh-CN"),
]  # fmt: skip
HEIGHTS = {360: 740, 768: 1024, 1440: 900}
# Pieces of an answer that the made-up search does not make itself.
READ = {
    "corrected": [{"from": "pinguo", "to": ["苹果"], "by": "sound"}],
    "synonyms": [{"from": "手机", "to": ["电话"]}],
    "phrases": ["价格"],
    "unfound": ["新旧"],
    "excluded": ["二手"],
    "did_you_mean": "深度学习",
}


class View:
    """A page at one of the widths, and how its language says things."""

    def __init__(self, open_page: OpenPage, site: Site, width: int, scheme: str, locale: str):
        self._open, self.site, self.width, self.is_zh = open_page, site, width, locale == "zh-CN"
        self.settings = {"width": width, "height": HEIGHTS[width], "color_scheme": scheme, "locale": locale}

    def open(self, address: str = "", **settings: Any) -> Any:
        page = self._open(f"{self.site.address}/{address or '?how=1'}", **self.settings, **settings)
        page.wait_for_selector(f"{DRAWN}, #nothing:not([hidden])", state="attached")
        return page

    def search(self, query: str = QUERY, more: str = "") -> Any:
        page = self.open(f"?how=1&q={quote(query)}{more}")
        page.wait_for_function("() => !document.querySelector('#to-judge').hidden")  # the index is known
        page.wait_for_selector(f"{DRAWN}, #nothing:not([hidden])", state="attached")
        return page

    def say(self, chinese: str, english: str) -> str:
        return chinese if self.is_zh else english


@pytest.fixture(params=VIEWS, ids=lambda view: "-".join(map(str, view)))
def view(request: pytest.FixtureRequest, open_page: OpenPage, site: Site) -> View:
    return View(open_page, site, *request.param)


def box(page: Any, selector: str, place: int = 0) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of an element."""
    found = page.locator(selector).nth(place).bounding_box()
    return found["x"], found["y"], found["x"] + found["width"], found["y"] + found["height"]


def size_of(page: Any, selector: str) -> float:
    return float(page.locator(selector).first.evaluate("node => parseFloat(getComputedStyle(node).fontSize)"))


def titled(content: dict[str, Any]) -> dict[str, Any]:
    """Give each hit a title; the first two look alike but for a field, the next two but for their ids."""
    for place, hit in enumerate(content["hits"]):
        hit["title"] = f"标题 {hit['id']}"
        if place < 4:
            hit.update(title=f"同样的标题 {place // 2}", text="同样的正文", highlights=[])
            hit["fields"] = {"kind": f"第 {place} 类"} if place < 2 else {"kind": "同类"}
    return content


@pytest.mark.thorough(keep=3)
def test_a_result_is_title_text_and_fields_and_none_looks_like_another(view: View) -> None:
    view.site.change = titled
    page = view.search()
    parts = (f"{ROW} .title", f"{ROW} p.text", f"{ROW} .fields")
    tops = [box(page, part, 5)[1] for part in parts]
    sizes = [size_of(page, part) for part in parts]
    assert tops == sorted(tops) and sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 3
    for place in range(3):  # Why, ✓ and ✗ are one line, at the edge
        row, acts = page.locator(ROW).nth(place), page.locator(f"{ROW} .acts").nth(place)
        buttons = [one.bounding_box() for one in acts.locator("button").all()]
        assert len(buttons) == 3 and max(one["y"] for one in buttons) - min(one["y"] for one in buttons) < 8
        right = row.bounding_box()["x"] + row.bounding_box()["width"]
        assert abs(buttons[-1]["x"] + buttons[-1]["width"] - right) < 12
        line = row.locator(":scope > :not(.body, .unseen)").evaluate_all("all => all.map(node => node.className)")
        assert line == ["place", "probability", "moved", "acts"]
    bodies = page.locator(f"{ROW} .body").all_inner_texts()
    assert len(set(bodies)) == len(bodies) == 10
    hits = view.site.change(answer({"query": QUERY, "rank_top": 50}, ""))["hits"]
    told = page.locator(f"{ROW} .fields b").all_inner_texts()
    assert told == ["第 0 类", "第 1 类", hits[2]["id"], hits[3]["id"]]
    if view.width == 1440:
        names = page.locator(".base li span").all_inner_texts()
        assert len(set(names)) == len(names) and f"标题 {hits[9]['id']}" in names


def test_searchers_feed_one_list_and_what_ranking_moved_out_stands_below(view: View) -> None:
    page = view.search()
    out = answer({"query": QUERY, "rank_top": 50, "explain": True}, "")["dropped"]
    ranks = [(one["stages"]["fused"]["rank"], one["rank"]) for one in out]
    told = [view.say(f"× 从 {was} 到 {now}", f"× from {was} to {now}") for was, now in ranks]
    assert ranks and page.locator("#out li .moved").all_inner_texts() == told
    assert box(page, "#out")[1] > box(page, f"{ROW}:last-child")[3] - 1
    titles = page.locator("#out .title")
    assert titles.first.evaluate("node => getComputedStyle(node).textDecorationLine") == "line-through"
    if view.width < 1440:
        assert page.locator("#lines:visible, .column:visible").count() == 0
        page.click("#tab-fused")
        assert {one["id"] for one in out} < set(page.eval_on_selector_all(ROW, "all => all.map(row => row.dataset.id)"))
        return
    feeds, base, list_ = box(page, ".feeds"), box(page, ".base"), box(page, "#answer")
    assert feeds[2] < base[0] < base[2] < list_[0]
    assert (
        box(page, ".feeds [data-stage=words]")[3] <= box(page, ".feeds [data-stage=vectors]")[1]
    )  # beside none, below each other
    left = box(page, "#board")[0]
    ends = page.eval_on_selector_all(
        "#lines path",
        "all => all.map(path => [path.classList[0], path.getPointAtLength(0).x,"
        " path.getPointAtLength(path.getTotalLength()).x])",
    )
    for kind, start, end in ends:
        assert (start + left >= feeds[2] and end + left <= base[0]) if kind == "feed" else (start + left >= base[2])
    assert {kind for kind, _, _ in ends} == {"feed", "up", "down", "same", "new", "out"}
    page = view.search(more="&use=words&rank_top=0")  # one list alone takes all the room
    assert page.locator(".column").count() == 0 and page.locator("#lines path").count() == 0
    assert abs(box(page, "#answer")[0] - left) < 1
    page = view.search(more="&use=words")
    assert page.locator(".column").evaluate_all("all => all.map(one => one.dataset.stage)") == ["words"]


@pytest.mark.thorough(keep=3)
def test_the_first_view_is_a_list_of_documents_to_look_through(view: View) -> None:
    page = view.open(own_context=True)
    drawn(page)
    (asked,) = view.site.asked
    facets = {"total": True, "facets": ["kind", "year"]}
    assert asked == {
        "query": "",
        "where": {},
        "snippet": 240,
        "field_size": 301,
        **facets,
    }  # of words and scores nothing
    assert page.input_value("#query") == "" and page.locator(ROW).count() == 10
    assert page.inner_text("#status").startswith(view.say("28 篇文档", "28 documents"))
    assert "q=" not in page.url and page.evaluate("history.length") == 2 and view.site.feedback == []
    assert page.locator(".verdict, #legend:visible, #lines path").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    tries = page.locator("#tries button").all_inner_texts()
    assert tries == [one for one in INDEX["examples"] if (one == "iPhone price") != view.is_zh]
    with page.expect_response("**/v1/search"):
        page.click("#facets [aria-label=kind] button >> nth=0")
    page.wait_for_selector("#facets [aria-label=kind] [aria-pressed=true]")
    assert view.site.asked[-1]["where"] == {"kind": "新闻"} and "q=" not in page.url
    chip = page.locator("#chips li button")
    assert chip.count() == 1 and page.locator("#tries button").count() == len(tries)
    chip.focus()
    with page.expect_response("**/v1/search"):
        page.keyboard.press("Delete")
    page.wait_for_function("() => document.activeElement.id === 'query'")
    assert view.site.asked[-1]["where"] == {} and page.locator("#chips li").count() == 0
    page.locator(".ask-why").first.click()
    page.wait_for_selector("#why:focus")
    assert page.inner_text("#why h2") == view.say("详情", "Details") and page.locator("#why .reasons").count() == 0
    page.keyboard.press("Escape")
    page.locator("#tries button").first.click()
    page.locator("#status", has_text=view.say("任一词", "any of these words")).wait_for()
    assert page.is_hidden("#welcome") and page.input_value("#query") == tries[0]
    page.go_back()
    page.wait_for_selector("#welcome:visible")


@pytest.mark.thorough(keep=3)
def test_why_opens_beside_the_list_and_moves_nothing(view: View) -> None:
    page = view.search()
    places = (
        "all => all.map(row => row.getBoundingClientRect())"
        ".map(({ x, y, right, height }) => [x, y + scrollY, right, height])"
    )
    before = page.eval_on_selector_all(ROW, places)
    opener = page.locator(".ask-why").nth(1)
    opener.click()
    page.wait_for_selector("#why:focus")
    assert page.eval_on_selector_all(ROW, places) == before and opener.get_attribute("aria-expanded") == "true"
    left, top, right, bottom = box(page, "#why")
    if view.width == 1440:
        assert right <= box(page, "#answer")[0] and top >= 0 and bottom <= HEIGHTS[1440]
        assert page.locator("#lines").evaluate("node => getComputedStyle(node).visibility") == "hidden"
    else:
        assert (left, right, bottom) == (0, view.width, HEIGHTS[view.width]) and top >= bottom / 2 - 1
        assert box(page, ROW, 1)[1] >= 0 and box(page, ROW, 1)[3] <= top + 1  # the row is seen above the sheet
    tops = [box(page, f"#why {part}")[1] for part in (".reasons", ".way", "dl", ".whole")]
    assert tops == sorted(tops)
    hit = answer({"query": QUERY, "rank_top": 50}, "")["hits"][1]
    sure = f"{100 * hit['probability']:.1f}%"
    first = page.locator("#why .reasons li").first.inner_text()
    assert first.startswith(view.say(f"排序模型认为它有 {sure} 的可能", f"The ranker is {sure} sure that it"))
    assert view.say("正文里有你的词：苹果手机价格。", "It has your word 苹果手机价格, in the text.") in page.inner_text(
        "#why"
    )
    page.keyboard.press("Escape")
    assert page.is_hidden("#why") and opener.evaluate("node => node === document.activeElement")
    assert view.site.feedback == [] and page.eval_on_selector_all(ROW, places) == before


def test_corrections_and_words_of_a_title_are_told_in_why(view: View) -> None:
    def change(content: dict[str, Any]) -> dict[str, Any]:
        hit = content["hits"][0]
        terms = [{"term": "手机", "added": 2.8}, {"term": "电话", "added": 1.0, "for": "手机"}]
        terms.append({"term": "苹果", "added": 0.5, "for": "pinguo"})
        hit.update(title="一部手机", highlights=[])
        hit["signals"] = {"words": {"value": 3.0, "added": 0.1, "to": "fused", "terms": terms}}
        return {**content, **READ}

    view.site.change = change
    page = view.search(more=f"&open={answer({'query': QUERY, 'rank_top': 50}, '')['hits'][0]['id']}")
    page.wait_for_selector("#why:visible")
    told = page.locator("#why .reasons li").first.locator("p").all_inner_texts()[:3]
    assert told == view.say(
        "标题里有你的词：手机。|它有 电话，是你的词“手机”的同义词。|它有 苹果，由你的词“pinguo”更正而来。",
        "It has your word 手机, in the title.|It has 电话, for your word “手机”: a synonym."
        "|It has 苹果, which your word “pinguo” was corrected to.",
    ).split("|")


@pytest.mark.thorough(keep=6)
@pytest.mark.parametrize("query", ["zzzz", "q"])
def test_nothing_found_is_said_once_with_the_nearest_word(view: View, query: str) -> None:
    view.site.change = lambda content: {**content, "hits": [], "dropped": [], "total": 0, "did_you_mean": "深度学习"}
    page = view.search(query, "&use=words")
    said = view.say(f"没有找到与“{query}”有关的文档。", f"Nothing found for “{query}”.")
    assert page.inner_text("body").count(said) == 1 and page.is_hidden("#board")
    assert page.locator("#nothing[role=status] button").all_inner_texts() == [
        "深度学习", view.say("按语义搜索", "Search by meaning"),
    ]  # fmt: skip
    view.site.change = lambda content: content
    page.click("#nothing button >> nth=0")
    drawn(page)
    assert view.site.asked[-1]["query"] == page.input_value("#query") == "深度学习"


def test_how_a_query_was_read_is_said_with_a_way_back(view: View) -> None:
    view.site.change = lambda content: {**content, **READ}
    page = view.search()
    said = page.inner_text("#notice")
    for part in view.say(
        "没有文档含“pinguo”，已搜索“苹果”。|“手机”也包括“电话”。|只要含有“价格”的。|含有“价格”的文档都没有“新旧”：结果可以不含它。"
        "|不含“二手”。|你要找的是 深度学习",
        "Nothing has “pinguo”: searched “苹果”.|“手机” includes “电话”.|Only with “价格”."
        "|Nothing with “价格” has “新旧”: results need not have it."
        "|Without “二手”."
        "|Did you mean 深度学习",
    ).split("|"):
        assert part in said
    view.site.change = lambda content: content
    plain = view.say("把符号当作普通字搜索", "Search for the signs as plain words")
    with page.expect_response("**/v1/search"):
        page.click(f"#notice button:has-text('{plain}')")
    assert view.site.asked[-1]["literal"] is True and "literal=1" in page.url
    page.locator("#notice", has_text=view.say("按原样搜索：没有更正。", "Searched as written, without")).wait_for()
    with page.expect_response("**/v1/search"):
        page.click("#notice button")
    assert "literal" not in view.site.asked[-1]


def test_facets_count_and_filter_and_the_total_is_of_matches(view: View) -> None:
    page = view.search()
    assert page.inner_text("#status").startswith(
        view.say("18 篇文档含有任一词", "18 documents have any of these words")
    )
    kinds, years = ([one.strip() for one in page.locator(f"#facets [aria-label={name}] button").all_inner_texts()]
                    for name in ("kind", "year"))  # fmt: skip
    assert kinds[:2] == ["新闻 7", "问答 5"] and years == ["2015 – 2019 2", "2020 – 2024 16"]
    for name, place, where in (("year", 1, {"year": {"gte": 2020, "lt": 2025}}), ("kind", 1, {"kind": "问答"})):
        with page.expect_response("**/v1/search"):
            page.click(f"#facets [aria-label={name}] button >> nth={place}")
        page.wait_for_selector(f"#facets [aria-label={name}] [aria-pressed=true]")
        assert where.items() <= view.site.asked[-1]["where"].items()
    drawn(page)
    assert page.inner_text("#status").startswith(view.say("5 篇", "5 documents"))
    assert page.locator("#chips li:visible").count() == 3  # both, and all of them
    for name in ("year", "kind"):
        with page.expect_response("**/v1/search"):
            page.click(f"#facets [aria-label={name}] [aria-pressed=true]")
        page.wait_for_selector(f"#facets [aria-label={name}] [aria-pressed=true]", state="detached")
    assert view.site.asked[-1]["where"] == {}
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.thorough(keep=3)
def test_results_are_plain_until_somebody_asks_how_they_were_found(view: View) -> None:
    page = view.open(f"?q={quote(QUERY)}")
    page.wait_for_selector(".verdict")
    parts = ["#settings", "#legend", "#lines path", ".column", ".place", ".moved", ".probability", "#cut", "#out"]
    shown = (
        "names => names.filter((name) => [...document.querySelectorAll(name)].some((node) => node.checkVisibility()))"
    )
    assert page.evaluate(shown, parts) == [] and page.evaluate(shown, [ROW, "#sort", "#facets"]) != []
    if view.width == 1440:  # facets, results and "Why" stand side by side
        page.locator(".ask-why").nth(1).click()
        page.wait_for_selector("#why:focus")
        assert box(page, "#side")[2] < box(page, "#answer")[0] and box(page, "#answer")[2] < box(page, "#why")[0]
        page.keyboard.press("Escape")
    page.check("#how input")
    page.locator(".place").first.wait_for()  # stages.js is loaded first
    assert {"#settings", ".place", ".probability"} <= {*page.evaluate(shown, parts)} and "how=1" in page.url
    page.goto(f"{view.site.address}/?q={quote(QUERY)}")
    page.wait_for_selector(".verdict")
    page.locator(".place").first.wait_for()
    assert page.is_checked("#how input")  # remembered
    page.uncheck("#how input")
    page.reload()
    page.wait_for_selector(".verdict")
    assert page.evaluate(shown, parts) == []


def test_a_percentage_is_shown_of_a_calibrated_ranker_alone(view: View) -> None:
    view.site.index = {**view.site.index, "unfamiliar": {"expected": 0.8, "seen": 0.21}}
    page = view.search(more="&min=0.75")
    assert "%" in page.locator(ROW).first.inner_text() and page.locator(f"{ROW}.is-below").count() > 0
    assert page.locator("footer").inner_text().count("0.21") == 1  # said once
    view.site.change = lambda content: {**content, "calibrated": False}
    page = view.search(more="&min=0.75")
    assert "%" not in page.inner_text("main") and page.locator(f"{ROW}.is-below").count() == 0
    widths = page.eval_on_selector_all(f"{ROW} .bar > span", "all => all.map(bar => parseFloat(bar.style.width))")
    assert widths[0] == 100 and widths == sorted(widths, reverse=True) and widths[-1] >= 10


def test_nothing_is_outside_its_margin(view: View) -> None:
    page = view.search()
    found = page.evaluate(
        """() => {
          const margin = parseFloat(getComputedStyle(document.querySelector('main')).paddingLeft) - 1;
          const walker = document.createTreeWalker(document.querySelector('main'), NodeFilter.SHOW_TEXT), out = [];
          while (walker.nextNode()) {
            const node = walker.currentNode.parentElement, range = document.createRange();
            if (!walker.currentNode.textContent.trim() || !node.checkVisibility() || node.closest('.unseen')) continue;
            range.selectNodeContents(walker.currentNode);
            const box = range.getBoundingClientRect();
            const clip = node.closest('.column button, .fields, #facets > div, #out h3')?.getBoundingClientRect();
            const right = Math.min(box.right, clip?.right ?? Infinity);
            if (box.left < margin || right > innerWidth - margin) out.push([node.className, box.left, right]);
          }
          return out;
        }"""
    )
    assert found == [] and page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    heads = page.eval_on_selector_all(".column .head", "all => all.map(one => [one.scrollWidth, one.clientWidth])")
    assert all(inner <= outer for inner, outer in heads)
