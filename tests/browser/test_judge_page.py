"""The page /judge in a real browser."""

from __future__ import annotations

from typing import Any

import pytest

from paddle_ranker.serving.core.faults import INTERNAL, Fault
from tests.browser.conftest import OpenPage
from tests.browser.made_up import TEXTS
from tests.browser.site import Site

pytestmark = pytest.mark.browser
QUERY = "苹果手机价格"


def shows(page: Any, number: int) -> None:
    """Wait until this document is shown."""
    page.wait_for_function("text => document.querySelector('#text').textContent === text", arg=TEXTS[number].text)


def press(page: Any, key: str) -> None:
    with page.expect_response("**/v1/feedback"):
        page.keyboard.press(key)


def test_a_key_for_each_grade_and_undo(open_page: OpenPage, site: Site) -> None:
    page = open_page(f"{site.address}/judge")
    shows(page, 0)
    assert page.inner_text("#asked") == QUERY and page.inner_text("#status") == "已标注 0，还有 6"
    assert page.locator("#text mark").all_inner_texts() == ["苹果手机", "价", "价格"]
    assert "召回第 8 位，排序第 1 位" in page.inner_text("#facts")
    press(page, "3")
    shows(page, 1)
    press(page, "0")
    shows(page, 2)
    assert page.inner_text("#status") == "已标注 2，还有 4"
    press(page, "u")
    shows(page, 1)
    page.locator("#status", has_text="已标注 1，还有 5").wait_for()  # comes with the server's answer
    page.get_by_role("button", name="等级 1").click()
    shows(page, 2)
    told = [(one["id"], one["event"], one.get("label")) for one in site.feedback]
    assert told == [("doc-0", "judged", 3), ("doc-1", "judged", 0), ("doc-1", "unjudged", None), ("doc-1", "judged", 1)]
    assert {**site.feedback[0], "label": 0} == {
        "search_id": "search-1", "query": QUERY, "id": "doc-0", "position": 1, "event": "judged", "label": 0
    }  # fmt: skip


def test_two_labels_are_relevant_and_irrelevant(open_page: OpenPage, site: Site) -> None:
    site.labels = [0, 1]
    page = open_page(f"{site.address}/judge?lang=en")
    shows(page, 0)
    assert page.locator("#labels button").all_inner_texts() == ["Not relevant 0", "Relevant 1"]
    page.keyboard.press("2")  # no label of these data
    press(page, "1")
    shows(page, 1)
    press(page, "0")
    shows(page, 2)
    assert [(one["event"], "label" in one) for one in site.feedback] == [("relevant", False), ("irrelevant", False)]


def test_pairs_can_be_skipped_to_the_end(open_page: OpenPage, site: Site) -> None:
    page = open_page(f"{site.address}/judge")
    for number in range(5):
        shows(page, number)
        if number == 2:
            press(page, "2")
        else:
            page.keyboard.press("s")
    shows(page, 5)
    press(page, "1")
    page.wait_for_selector("#pair", state="hidden")
    assert page.inner_text("#status") == "没有待标注的内容了。 已标注 2，还有 4"
    assert [one["id"] for one in site.feedback] == ["doc-2", "doc-5"]
    press(page, "u")
    shows(page, 5)


def test_a_pair_whose_label_is_on_its_way_is_not_skipped(open_page: OpenPage, site: Site) -> None:
    page = open_page(f"{site.address}/judge")
    shows(page, 0)
    site.hold("/v1/feedback")
    with page.expect_request("**/v1/feedback"):
        page.keyboard.press("3")
    page.keyboard.press("s")
    with page.expect_response("**/v1/feedback"):
        site.release("/v1/feedback")
    page.wait_for_function("() => document.querySelector('#status').textContent === '已标注 1，还有 5'")
    shows(page, 1)


def test_what_is_not_in_the_log_is_not_judged(open_page: OpenPage, site: Site) -> None:
    page = open_page(f"{site.address}/judge")
    shows(page, 0)
    site.fault = Fault(INTERNAL, "the disk is full")
    press(page, "3")
    page.wait_for_selector("#failure p")
    assert "the disk is full" in page.inner_text("#failure p")
    shows(page, 0)
    site.fault = None
    press(page, "3")
    shows(page, 1)
    assert page.inner_text("#failure") == "" and len(site.feedback) == 1


def test_judging_is_off_without_a_log(open_page: OpenPage, site: Site) -> None:
    site.index["logging"] = False
    page = open_page(f"{site.address}/judge")
    page.wait_for_function(
        "() => document.querySelector('#status').textContent === '标注没有打开：服务器启动时没有记录日志。'"
    )
    assert page.is_hidden("#pair")


@pytest.mark.parametrize("width", [360, 768, 1440])
def test_a_long_text_is_read_with_the_buttons_in_sight(open_page: OpenPage, site: Site, width: int) -> None:
    site.change_pair = lambda pair: {**pair, "title": "文章的标题", "text": pair["text"] + "。很长的正文。" * 400}
    page = open_page(f"{site.address}/judge", width=width, height=740)
    page.wait_for_selector("#pair:visible")
    assert page.inner_text("#name") == "文章的标题" and page.title() == "标注 · 0 / 6"
    sizes = [
        page.eval_on_selector(one, "node => parseFloat(getComputedStyle(node).fontSize)") for one in ("#name", "#text")
    ]
    assert sizes[0] > sizes[1] and sizes[1] <= 18
    for place in (0, 900, 100_000):
        page.evaluate("place => scrollTo(0, place)", place)
        box = page.locator("#labels").bounding_box()
        assert box["y"] > 0 and box["y"] + box["height"] <= 740
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    press(page, "1")
    page.wait_for_function("() => document.title === '标注 · 1 / 6'")
