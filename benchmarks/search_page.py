"""Measure the time that the search page adds to a search, in Chromium; and take its picture.

    bash scripts/search_demo.sh                                  # or paddle-ranker search-serve, in another terminal
    python -m benchmarks.search_page --queries datasets/recall/dev.csv
    python -m benchmarks.search_page --picture docs/search_page.webp

A query is typed and Enter pressed; the time ends when the results are drawn, by the page's performance mark. The
server's time, from the request's first byte to the answer's last (Resource Timing), is subtracted. The rest is sending
the request, reading the answer, drawing it, and the wait for the screen's next frame. On a busy machine all of it takes
longer. `bash scripts/setup.sh browser` installs Chromium.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Optional
from urllib.parse import quote

import numpy as np

from benchmarks.harness.report import Goal, format_table
from paddle_ranker.errors import DependencyError
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.options.declare import ANY_TEXT
from paddle_ranker.storage.atomic import new_file

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
GOAL_MS, TRIES = 30.0, 10
WIDTH, HEIGHT, SCALE = 1440, 850, 1.25  # size of the picture
_LISTEN = (
    "addEventListener('keydown', (event) => { if (event.key === 'Enter') window.entered = event.timeStamp; }, true)"
)
_IS_DRAWN = "() => performance.getEntriesByName('drawn').some((mark) => mark.startTime > (window.entered ?? 0))"
_TIMES = """() => {
  const asked = performance.getEntriesByType('resource').filter((one) => one.name.endsWith('/v1/search')).at(-1);
  const drawn = performance.getEntriesByName('drawn')[0].startTime;
  performance.clearResourceTimings();
  const results = document.querySelectorAll('#results > li').length;
  return [asked.responseEnd - asked.requestStart, drawn - window.entered, results];
}"""


@dataclass(frozen=True)
class SearchPageOptions(Options):
    address: str = option("http://127.0.0.1:8600", help="of the server", addresses=ANY_TEXT)
    queries: str = option("datasets/recall/dev.csv", help="file of queries, each at the beginning of a line")
    count: int = option(40, help="how many of them", minimum=1)
    top_k: int = option(100, help="results to draw", minimum=1, maximum=100)
    picture: Optional[str] = option(None, help="measure nothing, but write a picture of the page: .webp or .png")
    query: str = option("有哪些关于旱作向日葵的文章", help="query of the picture")
    language: str = option("zh", help="language of the page in the picture", choices=("zh", "en"))


def find_chromium() -> Optional[str]:
    """Return the browser's path; None if there is none."""
    return os.environ.get("PADDLE_RANKER_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)


def measure(browser: Any, options: SearchPageOptions) -> None:
    """Print the server's milliseconds, and those that the page adds."""
    lines = Path(options.queries).read_text(encoding="utf-8").splitlines()
    queries = list(dict.fromkeys(line.split("\t")[0] for line in lines if line.strip()))[: options.count + 1]
    page = browser.new_page(viewport={"width": 1440, "height": 900}, locale="zh-CN")
    page.add_init_script(_LISTEN)
    page.goto(f"{options.address}/?top_k={options.top_k}&rank_top={options.top_k}")
    found = []
    for query in queries:
        page.fill("#query", query)
        page.press("#query", "Enter")
        page.wait_for_function(_IS_DRAWN, polling=50)
        found.append(page.evaluate(_TIMES))
    server, total, drawn = np.array(found[1:]).T  # the first search loads the fonts
    added = total - server
    rows = [
        [what, *(f"{value:.1f}" for value in np.percentile(times, (50, 95)))]
        for what, times in (("server, ms", server), ("added by the page, ms", added), ("together, ms", total))
    ]
    print(f"{len(added)} searches, {drawn.mean():.0f} results each")
    print(format_table(["", "p50", "p95"], rows))
    print(Goal("added by the page, ms", statistics.median(added), GOAL_MS, at_most=True))


def take_picture(browser: Any, options: SearchPageOptions, path: str) -> None:
    """Write a picture of the page: the fastest of several searches, since the first ones warm the server up."""
    from PIL import Image

    page = browser.new_page(
        viewport={"width": WIDTH, "height": HEIGHT}, locale="zh-CN", device_scale_factor=SCALE, reduced_motion="reduce"
    )
    taken: list[tuple[float, bytes]] = []
    for _ in range(TRIES):
        with page.expect_response("**/v1/search") as answer:
            page.goto(f"{options.address}/?q={quote(options.query)}&lang={options.language}")
        page.wait_for_function("() => performance.getEntriesByName('drawn').length > 0", polling=50)
        page.evaluate("document.activeElement.blur()")
        taken.append((answer.value.json()["took_ms"]["total"], page.screenshot()))
    milliseconds, png = min(taken)
    image = Image.open(BytesIO(png)).convert("RGB")
    with new_file(Path(path), "wb") as stream:
        image.save(stream, format=Path(path).suffix[1:].upper(), quality=85, method=6)
    print(f"{path}: {image.width} x {image.height}, {Path(path).stat().st_size / 1000:.0f} kB; {milliseconds:.1f} ms")


def run(options: SearchPageOptions) -> None:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise DependencyError("needs Playwright: bash scripts/setup.sh browser installs it") from error
    found = find_chromium()
    if found is None:
        raise DependencyError("there is no Chromium: bash scripts/setup.sh browser installs it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        if options.picture:
            take_picture(browser, options, options.picture)
        else:
            measure(browser, options)
        browser.close()


main = main_of(run, SearchPageOptions, __doc__)


if __name__ == "__main__":
    sys.exit(main())
