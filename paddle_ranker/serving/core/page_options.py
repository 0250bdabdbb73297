"""Options of the search page: its title, logo, colour and language, and what of other sites it works with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from paddle_ranker.errors import UsageError, quoted
from paddle_ranker.options import option
from paddle_ranker.options.declare import ANY_TEXT, Options

PAGE_OPTIONS = ("page_title", "page_logo", "accent", "page_language", "picture_hosts", "cors_origin")
LANGUAGES = ("zh", "en", "de", "fr", "es")  # of the page, each with a table of words
ANY_HOST = "*"
_HOST = re.compile(
    r"(?:https?://)?(?:\*\.)?(?:[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:]+\])(?::[0-9]{1,5})?", re.IGNORECASE
)
_ORIGIN = re.compile(r"https?://(?:[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:]+\])(?::[0-9]{1,5})?")
_COLOUR = re.compile(r"#([0-9a-fA-F]{3}|[0-9a-fA-F]{6})")


@dataclass(frozen=True)
class PageOptions(Options):
    """Options of the search page."""

    page_title: str = option("", help="title of the search page (default: the page's word for a search)")
    page_logo: Optional[Path] = option(None, help="logo of the search page: a file in PNG, JPEG, WebP, GIF or SVG")  # noqa: RUF009
    accent: str = option(
        "", help="colour of links and buttons, #2359c4; where it is hard to read, its shade is changed until it is not"
    )
    page_language: str = option(
        "",
        help="language of the search page until a visitor chooses another (default: the browser's)",
        choices=("", *LANGUAGES),
    )

    picture_hosts: tuple[str, ...] = option(
        (),
        several=True,
        help="hosts whose pictures the search page shows for fields of type picture-url: cdn.example.com, "
        "*.example.com, http://10.0.0.5:8080, * for all by https (default: this server's own address alone)",
        addresses=ANY_TEXT,
    )

    cors_origin: tuple[str, ...] = option(
        (),
        several=True,
        help="sites whose pages may search here, https://www.example.com, * for all: what embed.js needs on a site",
        addresses=ANY_TEXT,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for host in self.picture_hosts:
            if host != ANY_HOST and _HOST.fullmatch(host) is None:
                raise UsageError(f"--picture_hosts {quoted(host)}: expected a host such as cdn.example.com, or *")
        for origin in self.cors_origin:
            if origin != ANY_HOST and _ORIGIN.fullmatch(origin) is None:
                raise UsageError(
                    f"--cors_origin {quoted(origin)}: expected what browsers send, such as https://www.example.com: no "
                    "path and no slash at the end; or *"
                )
        if self.accent and _COLOUR.fullmatch(self.accent) is None:
            raise UsageError(f"--accent {quoted(self.accent)}: expected a colour such as #2359c4 or #25c")
