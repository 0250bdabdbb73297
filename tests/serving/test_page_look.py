"""The look of the search page that options of the server give it: title, language, colours, logo."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest

from paddle_ranker.errors import UsageError
from paddle_ranker.serving.core.page_options import PAGE_OPTIONS, PageOptions
from paddle_ranker.serving.http import page
from paddle_ranker.serving.http.page_look import LOGO_BYTES, PageLook, accent_styles, contrast, read_logo, rgb
from paddle_ranker.serving.slots.index_options import IndexSlotOptions
from tests.conftest import REPOSITORY
from tests.serving.test_page import get

pytestmark = pytest.mark.unit
STYLES = (REPOSITORY / "paddle_ranker" / "serving" / "page" / "page.css").read_text("utf-8")
SVG = b'<?xml version="1.0"?>\n<!-- ours -->\n<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


def app(**options: Any) -> Any:
    from starlette.routing import Router

    return Router(page.routes(PageLook.of(PageOptions(**options))))


def colours_of(styles: str) -> list[dict[str, str]]:
    """Return the colours that a style sheet gives `:root`, in the light and in the dark scheme."""
    return [dict(re.findall(r"(--[\w-]+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", styles, re.S)]


def test_title_and_language_are_in_the_html_before_a_script_runs() -> None:
    title = 'Möbel <b>"&\n Co</b> \\1'
    html = get("/", app=app(page_title=title, page_language="de")).text
    written = "Möbel &lt;b&gt;&quot;&amp; Co&lt;/b&gt; \\1"
    assert f"<title>{written}</title>" in html and f'id="title" dir="auto">{written}</a></h1>' in html
    assert '<html lang="de" data-language="de">' in html and "<b>" not in html
    plain = get("/", app=app()).content
    assert plain == page.sent("search.html", (REPOSITORY / "paddle_ranker/serving/page/search.html").read_bytes())
    assert get("/judge", app=app(page_language="fr")).text.count('data-language="fr"') == 1


def test_every_accent_is_readable_on_everything_that_it_stands_on_in_both_schemes() -> None:
    grounds = [(one["--ground"], one["--quiet"], one["--ink"]) for one in colours_of(STYLES)[:2]]
    parts = ("00", "33", "66", "99", "cc", "ff")
    for accent in ("#2359c4", "#fc0", *("#" + "".join(three) for three in itertools.product(parts, repeat=3))):
        schemes = colours_of(accent_styles(accent))
        assert len(schemes) == len(grounds) == 2
        for shades, (ground, quiet, ink) in zip(schemes, grounds):
            tints = [shades[name] for name in ("--glow", "--mark-1", "--mark-2", "--mark-3")]
            pairs = [(text, tint) for text in (shades["--accent"], quiet, ink) for tint in tints]
            pairs += [(shades["--accent"], ground), (shades["--on-accent"], shades["--accent"])]
            assert min(contrast(rgb(one), rgb(other)) for one, other in pairs) >= 4.5, accent
    assert contrast(rgb("#000"), rgb("#ffffff")) == pytest.approx(21)
    assert contrast(rgb("#777777"), rgb("#fff")) == pytest.approx(4.478, abs=1e-3)  # WebAIM's checker: 4.48
    assert colours_of(accent_styles("#2359c4"))[0]["--accent"] == "#2359c4"  # readable as it is


def test_colours_are_a_style_sheet_that_the_page_loads_after_its_own() -> None:
    shown = app(accent="#c00")
    html, theme = get("/", app=shown).text, get("/page/theme.css", app=shown)
    assert (
        html.index("page/page.css") < html.index("page/theme.css") and "page/theme.css" in get("/judge", app=shown).text
    )
    assert theme.headers["content-type"] == "text/css; charset=utf-8" and "--accent: #cc0000" in theme.text
    assert get("/page/theme.css", app=app()).status_code == get("/page/logo", app=app()).status_code == 404


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (PNG, "image/png"), (b"\xff\xd8\xff\xe0", "image/jpeg"), (b"RIFF1234WEBPVP8 ", "image/webp"),
        (b"GIF89a", "image/gif"), (SVG, "image/svg+xml"), (b"\xef\xbb\xbf<svg viewBox='0 0 1 1'/>", "image/svg+xml"),
    ],
)  # fmt: skip
def test_a_logo_is_served_by_this_server_and_runs_nothing(tmp_path: Path, content: bytes, kind: str) -> None:
    (tmp_path / "logo").write_bytes(content)
    shown = app(page_logo=tmp_path / "logo")
    answer, html = get("/page/logo", app=shown), get("/", app=shown).text
    assert (answer.content, answer.headers["content-type"]) == (content, kind)
    assert answer.headers["content-security-policy"] == "default-src 'none'; style-src 'unsafe-inline'; sandbox"
    assert (
        '<img id="logo" src="page/logo" alt="">' in html and f'<link rel="icon" type="{kind}" href="page/logo">' in html
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html><svg></html>", r"begins with '<html><svg><', expected a PNG, JPEG, WebP, GIF or SVG"),
        (b"", "begins with ''"),
        (PNG + bytes(LOGO_BYTES), "more than 256 KiB"),
    ],
)
def test_what_is_no_logo_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "logo").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_logo(tmp_path / "logo")
    with pytest.raises(UsageError, match=r"--page_logo .*nothing.png: is no file"):
        read_logo(tmp_path / "nothing.png")
    with pytest.raises(UsageError, match=r"--page_logo .*is no file"):
        read_logo(tmp_path)


def test_wrong_values_are_refused_by_name(tmp_path: Path) -> None:
    for wrong in ("blue", "#12", "#1234567", "rgb(0,0,0)", "#fff;}"):
        with pytest.raises(UsageError, match=r"--accent .*expected a colour such as #2359c4"):
            PageOptions(accent=wrong)
    with pytest.raises(UsageError, match="page_language"):
        PageOptions(page_language="it")
    for wrong in ("a b", "x;y", "https://x/path", "'unsafe-inline'", "ftp://x", "*.", "data:", ""):
        with pytest.raises(UsageError, match=r"--picture_hosts .*expected a host such as cdn.example.com"):
            PageOptions(picture_hosts=(wrong,))
    values: dict[str, Any] = {"page_title": "T", "page_logo": tmp_path, "accent": "#fff", "page_language": "de"}
    values |= {"picture_hosts": ("*",), "cors_origin": ("*",)}
    assert values.keys() == {*PAGE_OPTIONS}
    for name, value in values.items():
        with pytest.raises(UsageError, match=f"--{name} is about an index"):
            IndexSlotOptions(**{name: value})


def test_pictures_come_from_hosts_that_are_named_alone() -> None:
    plain = get("/", app=app()).headers["content-security-policy"]
    assert "img-src" not in plain and plain == page.HEADERS["content-security-policy"]
    hosts = ("CDN.example.com", "*.example.org", "http://10.0.0.5:8080", "*")
    answer = get("/", app=app(picture_hosts=hosts, page_language="de"))
    sources = "https://cdn.example.com https://*.example.org http://10.0.0.5:8080 https:"
    assert answer.headers["content-security-policy"] == f"{plain}; img-src 'self' {sources}"
    assert f'<html data-pictures="{sources}" lang="de" data-language="de">' in answer.text
