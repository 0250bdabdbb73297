"""Look of the search page as its options have it: the HTML files with title and language, a style sheet, a logo."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

from paddle_ranker.errors import UsageError, quoted
from paddle_ranker.serving.core.page_options import ANY_HOST, PageOptions

Colour = tuple[float, float, float]  # red, green and blue, 0 to 1
READABLE = 4.5  # contrast of text with what is behind it, level AA of WCAG 2
LOGO_BYTES = 256 * 1024  # of a logo: each first visit loads it
# Backgrounds of the page, and its quiet text, by scheme: those of page.css.
_SCHEMES = {
    "": ("#ffffff", "#5a6372"),
    "@media screen and (prefers-color-scheme: dark) ": ("#101216", "#9ba4b3"),
}
# Shares of the accent colour in the grounds of what is hovered or chosen, and of marked words by their level.
_TINTS = {"--glow": 0.09, "--mark-1": 0.03, "--mark-2": 0.06, "--mark-3": 0.09}
_BEGINNINGS = (
    (rb"\x89PNG\r\n\x1a\n", "image/png"),
    (rb"\xff\xd8\xff", "image/jpeg"),
    (rb"RIFF.{4}WEBP", "image/webp"),
    (rb"GIF8[79]a", "image/gif"),
    (rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>|<!--.*?-->|<!DOCTYPE svg[^>\[]*>|\s)*<svg[\s>]", "image/svg+xml"),
)


@dataclass(frozen=True)
class PageLook:
    """Look of the search page and of `/judge`.

    title: title of the search page; "": the page's own word
    language: language until a visitor chooses another; "": the browser's
    styles: style sheet with the colours of an accent; "": those of page.css
    logo: bytes of the logo; b"": none
    logo_type: media type of the logo
    pictures: sources of pictures beside this server, as content policies name them: `https://cdn.example.com`
    """

    title: str = ""
    language: str = ""
    styles: str = ""
    logo: bytes = b""
    logo_type: str = ""
    pictures: tuple[str, ...] = ()

    @classmethod
    def of(cls, options: PageOptions) -> PageLook:
        """Return the look that the options describe. Raises `UsageError` for a logo that is no picture."""
        logo, kind = (b"", "") if options.page_logo is None else read_logo(options.page_logo)
        styles = accent_styles(options.accent) if options.accent else ""
        pictures = tuple(map(_source_of, options.picture_hosts))
        return cls(" ".join(options.page_title.split()), options.page_language, styles, logo, kind, pictures)

    def policy(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Return the header fields of a page with the sources of pictures in their content policy."""
        if not self.pictures:
            return headers
        name = "content-security-policy"
        return {**headers, name: f"{headers[name]}; img-src 'self' {' '.join(self.pictures)}"}

    def html(self, content: str) -> str:
        """Return an HTML file of the page with this look. All that the options say is escaped."""
        if self.title:
            content = re.sub("<title>.*?</title>", lambda _: f"<title>{escape(self.title)}</title>", content).replace(
                'data-say="search">搜索</a></h1>', f'id="title" dir="auto">{escape(self.title)}</a></h1>'
            )
        if self.language:
            content = content.replace(
                '<html lang="zh"', f'<html lang="{self.language}" data-language="{self.language}"'
            )
        if self.pictures:
            content = content.replace("<html", f'<html data-pictures="{escape(" ".join(self.pictures))}"')
        if self.language:
            words = f'<link rel="modulepreload" href="page/words_{self.language}.js">'
            content = content.replace("</head>", f"{words}\n</head>")
        if self.logo:
            icon = f'<link rel="icon" type="{self.logo_type}" href="page/logo">'
            content = content.replace('<link rel="icon" type="image/svg+xml" href="page/icon.svg">', icon)
            content = content.replace("<header>", '<header>\n  <img id="logo" src="page/logo" alt="">')
        if self.styles:
            content = content.replace("</head>", '<link rel="stylesheet" href="page/theme.css">\n</head>')
        return content


def _source_of(host: str) -> str:
    """Return a host of `--picture_hosts` as content policies name it."""
    return "https:" if host == ANY_HOST else host.lower() if "://" in host else f"https://{host.lower()}"


def read_logo(path: Path) -> tuple[bytes, str]:
    """Read a logo; return its bytes and its media type. Raises `UsageError` for what is no picture, or too large.

    An SVG is only shown as a picture, where browsers run no scripts and load nothing. Opened by its address, it is
    under a policy that forbids both.
    """
    if not path.is_file():  # a pipe could be read by one worker alone
        raise UsageError(f"--page_logo {path}: is no file")
    try:
        with path.open("rb") as file:
            data = file.read(LOGO_BYTES + 1)
    except OSError as error:
        raise UsageError(f"--page_logo {path}: {error.strerror or error}") from error
    if len(data) > LOGO_BYTES:
        raise UsageError(f"--page_logo {path}: has more than {LOGO_BYTES // 1024} KiB, which each visitor would load")
    for beginning, kind in _BEGINNINGS:
        if re.match(beginning, data, re.S):
            return data, kind
    raise UsageError(
        f"--page_logo {path}: begins with {quoted(data[:12].decode('latin-1'))}, expected a PNG, JPEG, WebP, GIF or SVG"
    )


def accent_styles(accent: str) -> str:
    """Return a style sheet that gives the page an accent colour in its light and in its dark scheme."""
    return (
        "\n".join(f"{scheme}{_block(scheme, _shades(accent, *colours))}" for scheme, colours in _SCHEMES.items()) + "\n"
    )


def _block(scheme: str, shades: dict[str, str]) -> str:
    block = f":root {{ {' '.join(f'{name}: {colour};' for name, colour in shades.items())} }}"
    return f"{{ {block} }}" if scheme else block


def _shades(accent: str, ground: str, quiet: str) -> dict[str, str]:
    """Return the page's colours by their names in page.css, for an accent colour on a ground.

    The accent is made darker on a light ground, lighter on a dark one, in steps of 2 %, until it is readable on the
    ground and on the tints that are made of it. The tints are made weaker until the quiet text is readable on them.
    """
    back, black_or_white = rgb(ground), _further(rgb(ground))
    for step in range(51):
        colour = rounded(mixed(rgb(accent), black_or_white, step / 50))
        tints = {
            name: rounded(mixed(back, colour, _readable_share(share, back, colour, rgb(quiet))))
            for name, share in _TINTS.items()
        }
        if all(contrast(colour, behind) >= READABLE for behind in (back, *tints.values())):
            break
    on_accent = max(((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), key=lambda text: contrast(text, colour))
    colours = {"--accent": colour, "--on-accent": on_accent, "--new": colour, **tints}
    return {name: spelled(one) for name, one in colours.items()}


def _readable_share(share: float, ground: Colour, colour: Colour, text: Colour) -> float:
    """Return the share of a colour in a tint, at most `share`, with which a text is readable on the tint."""
    while contrast(text, rounded(mixed(ground, colour, share))) < READABLE:
        share -= 0.005
    return share


def rgb(text: str) -> Colour:
    """Return a colour that is written as #rgb or #rrggbb."""
    digits = text[1:] if len(text) == 7 else "".join(digit * 2 for digit in text[1:])
    red, green, blue = (int(digits[start : start + 2], 16) / 255 for start in (0, 2, 4))
    return red, green, blue


def rounded(colour: Colour) -> Colour:
    """Return the colour that browsers get, in steps of 1 / 255."""
    return rgb(spelled(colour))


def spelled(colour: Colour) -> str:
    """Write a colour as #rrggbb."""
    return "#" + "".join(f"{round(255 * part):02x}" for part in colour)


def mixed(one: Colour, other: Colour, share: float) -> Colour:
    """Return two colours mixed; `share` is that of the second."""
    red, green, blue = ((1 - share) * a + share * b for a, b in zip(one, other))
    return red, green, blue


def contrast(one: Colour, other: Colour) -> float:
    """Return the contrast of two colours, 1 to 21, by https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio."""
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: Colour) -> float:
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _further(ground: Colour) -> Colour:
    """Return black or white, whichever is further from a ground."""
    return (0.0, 0.0, 0.0) if _luminance(ground) > 0.5 else (1.0, 1.0, 1.0)
