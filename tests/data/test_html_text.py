"""HTML as browsers show it: charsets, lines, tables, and work that grows with a page's length."""

from __future__ import annotations

import time

import pytest
import webencodings

from paddle_ranker.data.files.html_text import HtmlPage, HtmlTable, decoded, page_of, text_of_html
from paddle_ranker.errors import DataError

pytestmark = pytest.mark.unit


def page(html: str) -> HtmlPage:
    return page_of(html.encode())


@pytest.mark.parametrize(
    ("html", "lines"),
    [
        ("Garden<br>chair", ["Garden", "chair"]),
        ("<p>one<p>two", ["one", "two"]),
        ("<ul><li>red<li>blue</ul>", ["red", "blue"]),
        ("<select><option>S<option>M</select>", ["S", "M"]),
        ("<dl><dt>a<dd>b</dl>", ["a", "b"]),
        ("gar<b>den</b><i>er</i> <a href=x>here</a>", ["gardener here"]),
        ("<div>a<div>b</div>c</div>d", ["a", "b", "c", "d"]),
        ("<button>a</button><button>b</button>", ["a", "b"]),
        ("a &amp; b &notit; &#x41;&nbsp;\n  c", ["a & b ¬it; A c"]),
        ("x<script>var a='<p>y</p>'</script><style>p{}</style><template><p>t</template>z", ["xz"]),
        ("<p hidden>a</p><p style='color:red; DISPLAY : none'>b</p><p>c</p><noscript>d</noscript>", ["c"]),
        ("<details><summary>More</summary>text</details>", ["More", "text"]),
        ("<!-- <p>no --><p>yes<!-- <!-- --> on", ["yes on"]),
        ("a<unknown>b</unknown>c <p", ["abc"]),
        ("<textarea>a <b> b</textarea>", ["a <b> b"]),
        ("<h2>a<i>b</i></h2>c<h3>d", ["ab", "c", "d"]),
    ],
)
def test_blocks_are_lines_and_what_is_not_shown_is_left_out(html: str, lines: list[str]) -> None:
    assert page(html) == HtmlPage("", lines, [], False)
    assert text_of_html(html) == "\n".join(lines)


@pytest.mark.parametrize(
    ("html", "rows"),
    [
        ("<tr><th>A<th>B<tr><td>1<td>2", [["A", "B"], ["1", "2"]]),
        ("<thead><tr><td>A</thead><tbody><tr><td>1</tbody>", [["A"], ["1"]]),
        ("<tr><td rowspan=2>a<td>b<tr><td>c", [["a", "b"], ["a", "c"]]),
        ("<tr><td colspan='2'>a<td>b<tr><td>c<td>d<td>e", [["a", "a", "b"], ["c", "d", "e"]]),
        ("<tr><td>a<td rowspan=3>b<tr><td>c<tr><td>d<td>e", [["a", "b"], ["c", "b"], ["d", "b", "e"]]),
        ("<tr><td colspan=x rowspan=-1>a<td colspan=0>b", [["a", "b"]]),
        ("<td>a<td>b<tr><td>c", [["a", "b"], ["c"]]),
        ("<tr><td>a<table><tr><td>x<td>y</table>b<td>c<tr><td>d<td>e", [["a x y b", "c"], ["d", "e"]]),
        ("<tr><td>a<ul><li>x<li>y</ul><td><p>b</p><p>c</p>", [["a x y", "b c"]]),
        ("<tr><td><td>b<tr><td><td><tr><td>c", [["", "b"], ["c"]]),
        ("<tr hidden><td>h<tr><td>a<td style='display:none'>n<td>b", [["a", "b"]]),
    ],
)
def test_a_table_has_the_cells_that_a_browser_shows(html: str, rows: list[list[str]]) -> None:
    assert page(f"<table>{html}</table>").tables[0].rows == rows


def test_headings_within_headings_lose_no_text() -> None:
    assert page("<h2>a<p>b</p>c<h3>d").lines == ["a b c", "d"]
    assert page("<h2>a<b>b<h3>c").lines == ["ab c"]
    nested = page("<h2>a<div>b<h3>c</h3></div>d</h2>e<h2>f<table><tr><td>g<h3>h</h3></table>i")
    assert nested.lines == ["e", "f i"] and nested.tables == [HtmlTable("a b c d", [["g h"]])]


def test_text_outside_of_tables_and_headings_that_are_their_titles() -> None:
    html = "<title> Shop\n1 </title><h1>Hello</h1><p>Open now.<h2>Prices</h2><table><tr><td>Tea</table><p>Bye"
    assert page(html) == HtmlPage("Shop 1", ["Hello", "Open now.", "Bye"], [HtmlTable("Prices", [["Tea"]])], False)
    captioned = page("<h2>x</h2><table><caption>Staff <b>of</b> May</caption><tr><td>Ada</table>")
    assert captioned.tables == [HtmlTable("Staff of May", [["Ada"]])]


def test_every_charset_label_of_the_web_is_honoured() -> None:
    """Labels and codecs of the Encoding Standard; a page that declares none is decoded as it is said to be."""
    signs, tried = "é€žШ日한şאع“①", 0
    for label in webencodings.LABELS:
        encoding = webencodings.lookup(label)
        if encoding.name in ("utf-16be", "utf-16le", "x-user-defined", "replacement"):
            continue
        for sign in signs:
            try:
                data = encoding.codec_info.encode(sign)[0]
            except UnicodeEncodeError:
                continue
            for declared in (
                f"<meta charset={label}>",
                f'<META content="text/html; charset={label}" HTTP-EQUIV=Content-Type>',
            ):
                assert decoded(declared.encode() + data).endswith(sign), (label, sign)
            tried += 1
    assert tried > 500


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ('<?xml version="1.0" encoding="iso-8859-2"?><p>ž'.encode("iso-8859-2"), "ž"),
        ("<!-- <meta charset=latin1> --><meta charset=koi8-r><p>Ж".encode("koi8-r"), "Ж"),
        ("<meta charset=nonsense><meta charset=koi8-r><p>Ж".encode("koi8-r"), "Ж"),
        (b"<meta charset=utf-16><p>" + "é".encode(), "é"),
        (b"\xef\xbb\xbf<meta charset=koi8-r><p>" + "é".encode(), "é"),
        ("\ufeff<p>é".encode("utf-16-le"), "é"),
        ("\ufeff<p>é".encode("utf-16-be"), "é"),
        (b"<meta charset=iso-8859-1><p>\x80", "€"),
        ("<meta charset=shift_jis><p>髙①".encode("cp932"), "髙①"),
        ("<meta charset=gb2312><p>朱镕基".encode("gbk"), "朱镕基"),
        ("<meta charset=ks_c_5601-1987><p>똠방".encode("cp949"), "똠방"),
        ("<p>é".encode(), "é"),
    ],
)
def test_marks_and_declarations_decide_the_encoding(data: bytes, text: str) -> None:
    assert page_of(data).lines == [text]


_MB = 1 << 20
BOMBS = {
    "end tags": "</" * (_MB // 2),
    "comments": "<!--" * (_MB // 4),
    "links that do not end": "<a " * (_MB // 3),
    "links": "<a>" * (_MB // 3),
    "blocks": "<div>" * (_MB // 5),
    "tables": "<table><tr><td>" * (_MB // 15),
    "attributes": f"<a {' '.join(f'a{number}=1' for number in range(100_000))}>",
    "attributes behind a sign": f"<a b='>' {' '.join(f'a{number}=1' for number in range(100_000))}>",
    "attributes of a body": "".join(f"<body a{number}=1>" for number in range(50_000)),
    "formats": "".join(f"<b c={number}>" for number in range(50_000)),
    "formats of paragraphs": ("<b>" * 100 + "</p>") * 3000,
    "formats closed outside": "<b></p>" * 100_000,
    "crossing elements": "<a><div>" * 20_000 + "</a>" * 20_000,
    "spans": "<table>" + ("<tr>" + "<td colspan=1000>x" * 20) * 5000,
    "spans of rows": "<table>" + "<tr><td rowspan=1000 colspan=1000>x" * 20_000,
    "one long row": "<table><tr>" + "<td>x" * 100_000 + "<tr><td>y" * 20_000,
    "entities": "&notit;" * (_MB // 7),
    "half an entity": "&#" * (_MB // 2),
    "brackets": "<" * _MB,
    "instructions": "<?" * (_MB // 2),
    "scripts": "<script><!--<script>" * (_MB // 20),
    "quotes": "<a b='" * (_MB // 6),
    "lists": "<ul><li>" * (_MB // 8),
    "drawings": "<svg>" * (_MB // 5),
    "NUL": "\0" * _MB,
}


@pytest.mark.parametrize("name", BOMBS)
def test_no_page_costs_more_than_its_length(name: str) -> None:
    """A page is read, or refused by what it holds, in seconds for a megabyte; a cell then stays as it is."""
    began = time.process_time()
    try:
        read = page(BOMBS[name])
        assert sum(len(row) for table in read.tables for row in table.rows) <= 4 * len(BOMBS[name])
    except DataError as error:
        assert "beyond what browsers show" in str(error)
        assert text_of_html(BOMBS[name]) == BOMBS[name]
    assert time.process_time() - began < 10


def test_ordinary_pages_are_no_bombs() -> None:
    """Unclosed tags of old pages, one in each cell, and a page of 100,000 paragraphs are read."""
    cells = "<tr><td><font color=red><b>a<td><font>b" * 30_000
    assert len(page(f"<table>{cells}</table>").tables[0].rows) == 30_000
    assert len(page("<p>a" * 100_000).lines) == 100_000
    assert len(page("<div><p>a <b>b</b></p></div>" * 50_000).lines) == 50_000


def test_spans_beyond_the_text_are_reported() -> None:
    assert page(BOMBS["spans"]).is_cut
    assert not page("<table><tr><td colspan=12>Prices of May</table>").is_cut
