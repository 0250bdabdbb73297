"""The page's state machine and its modules: transitions walked as a table, views, imports that form no circle."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.browser.conftest import OpenPage
from tests.browser.site import Site
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.browser
FOLDER = REPOSITORY / "paddle_ranker" / "serving" / "page"
REFUSED: dict[str, Any] = {"type": "refuse", "error": {"kind": "busy"}, "keeps": True}
LOCKED: dict[str, Any] = {"type": "refuse", "error": {"kind": "needs_key"}, "keeps": True}
ASK: dict[str, Any] = {"type": "ask"}
FOUND: dict[str, Any] = {"type": "answer", "rows": 3, "isFirst": False}
OPENED: list[dict[str, Any]] = [ASK, FOUND, {"type": "whole"}, {"type": "open", "id": "d1"}]
# Events in order, the state's name after them, and what is seen of the page.
TABLE: list[tuple[list[dict[str, Any]], str, set[str]]] = [
    ([], "idle", {"isEmpty"}),
    ([{"type": "welcome", "isDone": True}], "idle", {"isEmpty", "welcome"}),
    ([ASK], "asking", {"isEmpty", "isBusy"}),
    ([ASK, {"type": "welcome"}], "asking", {"isEmpty", "isBusy", "welcome"}),
    ([ASK, {"type": "slow", "turn": 1}], "asking", {"isEmpty", "isBusy", "isWorking"}),
    ([ASK, ASK, {"type": "slow", "turn": 1}], "asking", {"isEmpty", "isBusy"}),  # of an earlier turn
    ([ASK, FOUND, {"type": "slow", "turn": 1}], "shown", {"board", "isBusy"}),  # too late
    ([ASK, FOUND], "shown", {"board", "isBusy"}),  # rows are still to be drawn
    ([ASK, FOUND, {"type": "whole"}], "shown", {"board"}),
    ([ASK, {**FOUND, "rows": 0}], "shown", {"nothing"}),
    ([ASK, {**FOUND, "isFirst": True}, {"type": "whole"}], "shown", {"board", "welcome"}),
    ([ASK, ASK, {**FOUND, "turn": 1}], "asking", {"isEmpty", "isBusy"}),
    ([ASK, FOUND, {"type": "whole"}, ASK], "asking", {"board", "isBusy"}),  # earlier results stay
    ([ASK, REFUSED], "refused", {"isEmpty", "failure"}),
    ([ASK, FOUND, {"type": "whole"}, ASK, REFUSED], "refused", {"board", "failure"}),
    ([ASK, FOUND, ASK, {**REFUSED, "keeps": False}], "refused", {"isEmpty", "failure"}),
    ([ASK, REFUSED, ASK], "asking", {"isEmpty", "isBusy", "failure"}),  # until there is an answer
    ([ASK, REFUSED, ASK, FOUND, {"type": "whole"}], "shown", {"board"}),
    ([ASK, LOCKED], "locked", {"isEmpty", "failure"}),
    ([ASK, LOCKED, ASK, FOUND, {"type": "whole"}], "shown", {"board"}),
    (OPENED, "shown", {"board", "why"}),
    ([*OPENED, {"type": "close"}], "shown", {"board"}),
    ([*OPENED, ASK, FOUND, {"type": "whole"}], "shown", {"board"}),
    ([*OPENED, REFUSED], "refused", {"board", "why", "failure"}),
    ([*OPENED, REFUSED, {"type": "open", "id": "d2"}], "shown", {"board", "why"}),  # which takes the notice away
    ([{"type": "open", "id": "d1"}], "idle", {"isEmpty"}),  # there is no answer
    ([{"type": "suggest", "count": 2}], "idle", {"isEmpty", "suggestions"}),
    ([{"type": "suggest", "count": 2}, {"type": "dismiss"}], "idle", {"isEmpty"}),
    ([{"type": "suggest", "count": 2}, ASK], "asking", {"isEmpty", "isBusy"}),
    ([ASK, {"type": "suggest", "count": 2, "turn": 0}], "asking", {"isEmpty", "isBusy"}),  # over results: never
]


def test_states_follow_the_table(open_page: OpenPage, site: Site) -> None:
    page = open_page(f"{site.address}/judge")
    walked = page.evaluate(
        """async (table) => {
          const { START, next, viewOf } = await import("/page/machine.js");
          return table.map((events) => {
            const state = events.reduce(next, START), view = viewOf(state);
            return [state.name, Object.keys(view).filter((part) => view[part]).sort()];
          });
        }""",
        [events for events, _, _ in TABLE],
    )
    for (events, name, seen), found in zip(TABLE, walked):
        assert found == [name, sorted(seen)], events
    assert {name for _, name, _ in TABLE} == {"idle", "asking", "shown", "refused", "locked"}


def test_the_page_s_modules_form_no_circle_and_are_all_preloaded() -> None:
    imports = {
        path.name: set(re.findall(r"""(?:from |import\()["'`]\./([\w.]+)["'`]""", path.read_text(encoding="utf-8")))
        for path in FOLDER.glob("*.js")
        if path.name != "openapi-explorer.js"
    }
    left = dict(imports)
    while free := [name for name, needed in left.items() if not needed & left.keys()]:
        for name in free:
            del left[name]
    assert left == {}
    for page in ("search", "judge"):
        static, waiting = set[str](), [f"{page}.js"]
        while waiting:
            text = (FOLDER / waiting.pop()).read_text(encoding="utf-8")
            new = set(re.findall(r'^import .* from "\./([\w.]+)";', text, re.MULTILINE)) - static
            static |= new
            waiting += new
        html = (FOLDER / f"{page}.html").read_text(encoding="utf-8")
        assert set(re.findall(r'modulepreload" href="page/([\w.]+)"', html)) == static  # one round, whatever the depth
