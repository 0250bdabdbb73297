"""The page's states, light and dark, by axe: rules of WCAG 2.2, levels A and AA."""

from __future__ import annotations

import pytest

from tests.browser.conftest import INSTALL, OpenPage
from tests.browser.screenshots import FAULT, READY, STATES, State
from tests.browser.site import Site

pytestmark = pytest.mark.browser
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"], "resultTypes": ["violations"]}


@pytest.mark.thorough(keep=6)
@pytest.mark.parametrize("state", [one for one in STATES if one.is_own], ids=lambda state: state.name)
def test_axe_finds_nothing(open_page: OpenPage, site: Site, state: State) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason=f"needs axe: {INSTALL}").Axe()
    if state.name == "failure":
        site.fault = FAULT
    page = open_page(site.address + state.address, width=state.width, height=state.height, **state.settings)
    page.wait_for_selector(READY, state="attached")
    state.act(page)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        found = axe.run(page, options=RULES)
        assert found.violations_count == 0, f"{scheme}: {found.generate_report()}"
