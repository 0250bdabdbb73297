"""Read HTML as browsers do: its charset, its text in lines, and its tables, in time that grows with its length.

page = page_of(Path("prices.html").read_bytes())
page.title, page.lines, page.tables[0].rows    # "Shop", ["Opening hours: 9 to 5"], [["Item", "Price"], ["Tea", "2 €"]]
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, Optional, Union

import webencodings
from selectolax.lexbor import LexborHTMLParser

from paddle_ranker.errors import DataError

if TYPE_CHECKING:
    from selectolax.lexbor import LexborNode

_HEAD = 4096  # bytes in which a page declares its charset
_DECLARED = re.compile(r"""charset\s*=\s*["']?\s*([^\s"';>]+)""", re.IGNORECASE)
_XML = re.compile(rb"""<\?xml[^>]*?encoding\s*=\s*["']([\w.:-]+)["']""")
# Charsets that the web means more broadly than Python's codecs of their names do
_BROADER = {"shift_jis": "cp932", "euc-kr": "cp949", "gbk": "gb18030"}
# Elements that no reader sees, or whose text a browser shows only in place of something else
_HIDDEN = frozenset(
    ("script", "style", "template", "noscript", "head", "iframe", "noframes", "noembed", "object", "audio", "video",
     "canvas", "datalist", "rp", "#comment")
)  # fmt: skip
_NOT_SHOWN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
# Elements with a line of their own, or whose text stands apart from the words around it
_APART = frozenset(
    ("address", "article", "aside", "blockquote", "body", "br", "button", "caption", "center", "dd", "details",
     "dialog", "dir", "div", "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3",
     "h4", "h5", "h6", "header", "hgroup", "hr", "input", "legend", "li", "main", "menu", "nav", "ol", "optgroup",
     "option", "p", "pre", "rt", "section", "select", "summary", "table", "tbody", "td", "textarea", "tfoot", "th",
     "thead", "tr", "ul")
)  # fmt: skip
_HEADINGS = frozenset(("h1", "h2", "h3", "h4"))
_MOST_SPANNED, _MOST_COLUMNS = 1000, 1 << 14  # rows or columns of a cell, as browsers bound them; columns of a table
_SPREAD = 2  # cells that spans repeat, for each character of the page, at most
_DEEPEST = 3  # how many tables within each other also count as text of the cell around them

# Comments, elements whose content has no tags, and names of tags. Of an attribute: its name and value, or what is
# between two. No two alternatives begin alike and the last of each always fits, so that a scan is linear.
_TAG = re.compile(
    r"<!--.*?(?:-->|\Z)|<(?P<raw>script|style|textarea|title|xmp)\b.*?(?:</(?P=raw)\b|\Z)"
    r"|<(?P<end>/?)(?P<name>[a-z][^\s/>]*)",
    re.IGNORECASE | re.DOTALL,
)
_ATTRIBUTE = re.compile(r"""[\s/]+|[^\s/>][^\s/>=]*(?:\s*=\s*(?:"[^"]*(?:"|\Z)|'[^']*(?:'|\Z)|[^\s"'>][^\s>]*)?)?""")
_CHECKED = 1 << 14  # a shorter text costs little, whatever it holds
_MOST_STEPS, _MOST_TAGS = 300_000_000, 4_000_000  # of the parser, about a second; a tag takes 200 bytes
_CLOSED_BY_OTHERS = frozenset(("p", "li", "dt", "dd", "option", "optgroup", "thead", "tbody", "tfoot", "br", "img",
                               "hr", "input", "meta", "link", "wbr", "area", "base", "col", "embed", "source", "track",
                               "param"))  # fmt: skip
_CELLS = frozenset(("td", "th", "tr", "caption"))


class HtmlTable(NamedTuple):
    """A table of a page.

    title: its caption, else the heading above it
    rows: texts of the cells; a cell that spans rows or columns is repeated in each
    """

    title: str
    rows: list[list[str]]


class HtmlPage(NamedTuple):
    """What a page shows.

    title: the page's title
    lines: its lines of text outside of tables, without the headings that are titles of tables
    tables: its tables that have cells, in the order in which they begin; a table in a cell is a further table
    is_cut: whether cells span less than the page says, since their spans are far more than its text
    """

    title: str
    lines: list[str]
    tables: list[HtmlTable]
    is_cut: bool


def page_of(data: bytes, encoding: str = "") -> HtmlPage:
    """Return what a page shows.

    encoding: encoding of a page that does not declare one; "": UTF-8

    Raises `DataError` for a page that would take a parser far longer than its length allows.
    """
    text = decoded(data, encoding)
    reader = _PageReader(_SPREAD * len(text))
    for event in _events(_parsed(text)):
        reader.take(event)
    return reader.page()


def decoded(data: bytes, encoding: str = "") -> str:
    """Decode a page by its byte-order mark, else by the charset that it declares, else by `encoding` or UTF-8."""
    declared = None if _is_utf_16(data) else declared_encoding(data)
    if declared is not None and declared.name in _BROADER:
        return data.decode(_BROADER[declared.name], "replace")
    return webencodings.decode(data, declared or encoding or "utf-8", "replace")[0]


def is_declared(data: bytes) -> bool:
    """Return whether a page says in which charset it is."""
    return _is_utf_16(data) or declared_encoding(data) is not None


def declared_encoding(data: bytes) -> Optional[webencodings.Encoding]:
    """Return the charset that a page declares, in `<meta>` or as XML; None if it declares none that is known."""
    head = data[:_HEAD]
    if head.startswith(b"\xef\xbb\xbf"):
        return webencodings.UTF8
    found = _XML.match(head.lstrip())
    labels = [found[1].decode("ascii")] if found is not None else []
    # The parser tells declarations from comments and scripts; bytes beyond ASCII do not matter here.
    for meta in LexborHTMLParser(head.decode("latin-1")).css("meta"):
        attributes = {name: value or "" for name, value in meta.attributes.items()}
        in_content = _DECLARED.search(attributes.get("content", ""))
        if "charset" in attributes:
            labels.append(attributes["charset"])
        elif attributes.get("http-equiv", "").strip().lower() == "content-type" and in_content is not None:
            labels.append(in_content[1])
    known = [encoding for label in labels if (encoding := webencodings.lookup(label)) is not None]
    # A declaration that can be read as ASCII is not in UTF-16, whatever it says.
    return next((webencodings.UTF8 if "utf-16" in one.name else one for one in known), None)


def text_of_html(cell: str) -> str:
    r"""Return the text of HTML, one line for each block. A space replaces WooCommerce's two characters `\n`.

    A text that would take a parser far longer than its length allows is returned as it is.
    """
    try:
        tree = _parsed(cell.replace("\\n", "\n"))
    except DataError:
        return cell
    lines = _Lines()
    for event in _events(tree):
        lines.take(event)
    return "\n".join(lines.all())


def _is_utf_16(data: bytes) -> bool:
    return data[:2] in (b"\xff\xfe", b"\xfe\xff")


def _parsed(text: str) -> LexborNode:
    """Parse HTML; raises `DataError` if tags stand in one another so deeply that parsing would not be linear."""
    if len(text) >= _CHECKED:
        _require_shallow(text)
    root = LexborHTMLParser(text.replace("\0", "")).root
    assert root is not None
    return root


def _require_shallow(text: str) -> None:
    """Raise `DataError` if a parser, which looks through the open elements at many tags, would take long.

    The open elements are estimated from above: those that the next cell of a table closes, or the end of the table,
    count no longer; elements that another one of their kind closes never count.
    """
    open_in, depth, steps, tags = [0], 0, 0, 0  # open elements of each table that is open; of all
    at = 0
    while (match := _TAG.search(text, at)) is not None:
        at, attributes = match.end(), 0
        if match["name"] is None:
            continue
        while (attribute := _ATTRIBUTE.match(text, at)) is not None:
            at, attributes = attribute.end(), attributes + 1
        name = match["name"].lower()
        if name in _CELLS:
            depth, open_in[-1] = depth - open_in[-1] + 3, 3
        elif match["end"]:
            if name == "table" and len(open_in) > 1:
                depth -= open_in.pop()
            elif name not in _CLOSED_BY_OTHERS and open_in[-1] > 0:
                depth, open_in[-1] = depth - 1, open_in[-1] - 1
        elif name == "table":
            depth += 3
            open_in.append(3)
        elif name not in _CLOSED_BY_OTHERS:
            depth, open_in[-1] = depth + 1, open_in[-1] + 1
        tags += not match["end"]
        steps += depth + attributes**2
        if steps > _MOST_STEPS or tags > _MOST_TAGS:
            what = f"more than {_MOST_TAGS:,} tags" if tags > _MOST_TAGS else "too many elements open in one another"
            raise DataError(f"HTML with {what}, beyond what browsers show; save the page again")


class _Start(NamedTuple):
    """Beginning of an element."""

    tag: str
    node: LexborNode


class _End(NamedTuple):
    """End of an element."""

    tag: str


_Event = Union[_Start, _End, str]


def _events(root: LexborNode) -> Iterator[_Event]:
    """Yield the beginnings, ends and texts of what a page shows, in order, and the title from its head."""
    node: Optional[LexborNode] = root
    open_tags = list[str]()
    while node is not None:
        inside = None
        if node.is_text_node:
            yield node.text_content or ""
        elif node.is_element_node and (node.tag == "head" or _is_shown(node)):
            tag = node.tag or ""
            if tag == "head":
                title = next((one for one in node.iter() if one.tag == "title"), None)
                if title is not None:
                    yield from (_Start("title", title), title.text() or "", _End("title"))
            else:
                yield _Start(tag, node)
                inside = node.child
                if inside is None:
                    yield _End(tag)
                else:
                    open_tags.append(tag)
        if inside is not None:
            node = inside
            continue
        while node is not None and node.next is None:
            node = node.parent if open_tags else None
            if node is not None:
                yield _End(open_tags.pop())
        node = None if node is None else node.next


def _is_shown(node: LexborNode) -> bool:
    if node.tag in _HIDDEN:
        return False
    attributes = node.attributes
    return not attributes or not (
        "hidden" in attributes
        or (node.tag == "input" and (attributes.get("type") or "").lower() == "hidden")
        or _NOT_SHOWN.search(attributes.get("style") or "")
    )


class _Lines:
    """Text of a page, a line for each block."""

    def __init__(self) -> None:
        self._lines = list[list[str]]([[]])

    def take(self, event: _Event) -> None:
        """Add a text, or begin a line if an element begins or ends one."""
        if isinstance(event, str):
            self._lines[-1].append(event)
        elif event.tag in _APART and self._lines[-1]:
            self._lines.append([])

    def all(self) -> list[str]:
        """Return the lines that have text, without surplus spaces."""
        return [*filter(None, (" ".join("".join(parts).split()) for parts in self._lines))]

    @property
    def text(self) -> str:
        """All lines, as one."""
        return " ".join(self.all())


class _Spread:
    """Count of the cells that spans may still repeat."""

    def __init__(self, most: int) -> None:
        self.left, self.is_over = most, False

    def take(self, count: int) -> int:
        """Return how many of `count` cells may be repeated."""
        taken = min(count, self.left)
        self.left, self.is_over = self.left - taken, self.is_over or taken < count
        return taken


class _OpenTable:
    """Table of a page that is being read."""

    def __init__(self, heading: str, spread: _Spread) -> None:
        self._spread = spread
        self.heading, self.caption, self.rows = heading, "", list[list[str]]()
        self.row: Optional[list[str]] = None
        self.cell: Optional[_Lines] = None
        self.spans = 1, 1
        self._spanned = dict[int, tuple[int, str]]()  # by column: how many further rows a cell has, and its text

    def end_cell(self) -> None:
        """Append the open cell to the row, in each column that it spans."""
        if self.cell is None:
            return
        text, self.cell = self.cell.text, None
        self.row = [] if self.row is None else self.row
        self._fill()
        columns, rows = self.spans
        columns = min(columns, max(1, _MOST_COLUMNS - len(self.row)))
        for _ in range(1 + self._spread.take(columns - 1)):
            if rows > 1:
                self._spanned[len(self.row)] = rows - 1, text
            self.row.append(text)

    def _fill(self) -> None:
        """Append to the open row those cells of rows above that span it, up to the first free column."""
        assert self.row is not None
        while len(self.row) in self._spanned:
            left, text = self._spanned.pop(len(self.row))
            if not self._spread.take(1):
                self._spanned.clear()
                return
            if left > 1:
                self._spanned[len(self.row)] = left - 1, text
            self.row.append(text)

    def end_row(self) -> None:
        """Append the open row to the table."""
        self.end_cell()
        if self.row is not None:
            self._fill()
            if any(self.row):
                self.rows.append(self.row)
            self.row = None


class _PageReader:
    """Reader of a page's events: its title, its lines outside of tables, and its tables."""

    def __init__(self, most: int) -> None:
        """most: how many cells spans may fill."""
        self._title, self._outside, self._spread = _Lines(), _Lines(), _Spread(most)
        self._tables, self._open = list[_OpenTable](), list[_OpenTable]()
        self._heading: Optional[_Lines] = None
        self._open_headings, self._last_heading, self._in_title = 0, "", False

    def take(self, event: _Event) -> None:
        """Read the next event."""
        if isinstance(event, _Start):
            self._begin(event)
        elif isinstance(event, _End):
            self._end(event.tag)
        self._lines(event)

    def _lines(self, event: _Event) -> None:
        if self._in_title:
            self._title.take(event)
        elif not self._open:
            (self._heading or self._outside).take(event)
        else:
            for table in self._open[-_DEEPEST:]:
                if table.cell is not None:
                    table.cell.take(event)

    def _begin(self, event: _Start) -> None:
        tag, table = event.tag, self._open[-1] if self._open else None
        if tag == "title":
            self._in_title = True
        elif tag == "table":
            self._open.append(_OpenTable(self._last_heading, self._spread))
            self._tables.append(self._open[-1])
        elif tag in ("td", "th") and table is not None:
            table.end_cell()
            attributes = event.node.attributes
            table.spans = _span(attributes.get("colspan")), _span(attributes.get("rowspan"))
            table.cell = _Lines()
        elif tag in ("tr", "caption") and table is not None:
            table.end_row()
            if tag == "caption":
                table.cell = _Lines()
        elif tag in _HEADINGS and table is None:
            self._outside.take(event)
            self._heading = self._heading or _Lines()
            self._open_headings += 1

    def _end(self, tag: str) -> None:
        table = self._open[-1] if self._open else None
        if tag == "title":
            self._in_title = False
        elif tag == "table" and table is not None:
            table.end_row()
            self._open.pop()
        elif tag == "caption" and table is not None and table.cell is not None:
            table.caption, table.cell = table.cell.text, None
        elif tag in ("td", "th") and table is not None:
            table.end_cell()
        elif tag == "tr" and table is not None:
            table.end_row()
        elif tag in _HEADINGS and self._heading is not None and table is None:
            self._open_headings -= 1
            if not self._open_headings:
                self._last_heading, self._heading = self._heading.text, None
                self._outside.take(_End("p"))
                self._outside.take(self._last_heading)

    def page(self) -> HtmlPage:
        """Return what was read."""
        tables = [HtmlTable(table.caption or table.heading, table.rows) for table in self._tables if table.rows]
        titles = {table.title for table in tables}
        return HtmlPage(
            self._title.text, [line for line in self._outside.all() if line not in titles], tables, self._spread.is_over
        )


def _span(value: Optional[str]) -> int:
    text = (value or "").strip()
    return max(1, min(_MOST_SPANNED, int(text))) if text.isascii() and text.isdigit() and len(text) < 10 else 1
