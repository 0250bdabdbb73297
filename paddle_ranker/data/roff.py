"""Plain text of manual pages in roff, with the macros of man, mdoc, pod2man and Tcl.

page = parse_page(source)
print(page.names, page.description, page.text)

What changes only how a page looks is left out: fonts, sizes, indents. Lines are joined, between Chinese characters
without a space. Macros that a page defines show their arguments.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

CJK = "\u3000-\u303f\u3400-\u9fff\uf900-\ufaff\uff00-\uffef"
_GLUE, _DASH = "\1", "\2"  # while a page is read: "the next line follows without a space", and the dash of mdoc's .Nd
_NAME = re.compile(r"^\W*(?:NAME|名称|名稱|名字|命令名)", re.I)
_DASHES = re.compile(rf"\s*{_DASH}\s*|\s+[-\u2010-\u2015\u2500－]+\s*|\s*[\u2013-\u2015]+\s*")
_ESCAPE = re.compile(
    r"""\\(?:\*(?:\[(?P<string>[^]]*)\]|\((?P<string2>..)|(?P<string1>.))
    | \[(?P<special>[^]]*)\] | \((?P<special2>..)
    | C'(?P<named>[^']*)' | N'(?P<code>\d+)'
    | [fFmMgknVY](?:\[[^]]*\]|\(..|[-+]?.)
    | s(?:\[[^]]*\]|[-+]\(?\d|\(\d\d|[1-3]\d|\d)
    | [hvwlLDSxXbBAHR]'[^']*' | [oZ]'(?P<over>[^']*)'
    | (?P<one>.)|$)""",
    re.X,
)
_WORD = re.compile(r"\S+")
_ONE = {**dict(zip("-e\\ ~0t'`.", "-\\\\   \t'`.")), "c": _GLUE}  # of \\-, \\e and so on
_SPECIAL = dict(
    pair.split(":", 1)
    for pair in _WORD.findall(
        """aq:' dq:" lq:“ rq:” oq:‘ cq:’ bu:• em:— en:– hy:- mi:- co:© rg:® tm:™ mu:× di:÷ +-:± ->:→ <-:← ua:↑
        da:↓ ha:^ ti:~ rs:\\ ul:_ ga:` aa:´ sc:§ de:° *m:μ ba:| or:| br:| sl:/ lB:[ rB:] lC:{ rC:} la:< ra:> if:∞
        *a:α *b:β *p:π pl:+ eq:= <=:≤ >=:≥ !=:≠ ==:≡ at:@ sh:# Do:$ Po:£ Eu:€ ss:ß 'e:é `e:è 'a:á 'o:ó /o:ø oa:å
        ,c:ç ~n:ñ fm:′ sd:″ Fo:« Fc:» sq:□ fi:fi fl:fl"""
    )
)
_STRINGS = dict(pair.split(":") for pair in _WORD.findall("lq:“ rq:” R:® Tm:™ Lq:“ Rq:” Le:<= Ge:>= Ne:!= Pm:±"))
_COMMENT = re.compile(r"""(?<!\\)\\["#].*$""")
_ARGUMENT = re.compile(r'"((?:[^"]|"")*)"?|((?:\\.|\S)+)')
_CONDITION = re.compile(r"""\s*(!?)\s*('[^']*'[^']*'|"[^"]*"[^"]*"|\S+?(?=\s|\\\{|$))\s*""")

_SPACED = _WORD.findall("B I R SB SM UL AP URL UR MT QW PQ")
_JOINED = _WORD.findall("BI BR IB IR RB RI")
_PARAGRAPH = _WORD.findall("PP LP P Pp HP sp Sp Bl El BS BE bp")
_BREAK = _WORD.findall("br RS RE TQ ti in D1")
_VERBATIM = dict.fromkeys(_WORD.findall("nf EX Vb CS DS Bd SO"), True)
_VERBATIM.update(dict.fromkeys(_WORD.findall("fi EE Ve CE DE Ed SE"), False))
_OWN = _WORD.findall("IX Sh Sp Vb Ve SO SE VS VE AS")  # have a meaning here, also where a page defines them
_QUOTES = dict(
    pair.split(":")
    for pair in _WORD.findall('Op:[] Oo:[] Bq:[] Pq:() Po:() Aq:<> Brq:{} Dq:“” Do:“” Ql:‘’ Sq:‘’ So:‘’ Qq:""')
)
_CLOSE = {"Oc": "]", "Pc": ")", "Dc": "”", "Sc": "’"}
_MDOC = {*_QUOTES, *_CLOSE}
_MDOC.update(
    _WORD.findall(
        "Nm Nd Fl Ar Xr Ns Ic Li Cm Ev Dv Va Pa Em Sy Tn Ad Fa Ft Fn Fd Vt Er An Ux Bx At St Xo Xc No Pf Sx Lk Mt"
    )
)


@dataclass(frozen=True)
class ManualPage:
    """A manual page.

    names: what it is about, as its section NAME has them; () if it has none
    description: what that section says of them, "" if nothing
    text: the other sections with their headings, paragraphs apart by empty lines
    source: the page that this one only refers to (`.so`), "" for a page of its own
    """

    names: tuple[str, ...]
    description: str
    text: str
    source: str = ""


def parse_page(source: str) -> ManualPage:
    """Return the text of a page."""
    link = re.match(r"""(?:['.]\\".*\n|\s*\n)*\.so\s+(\S+)""", source)
    if link:
        return ManualPage((), "", "", link[1])
    reader = _Reader(source)
    names: tuple[str, ...] = ()
    description, shown = "", []
    for heading, lines in reader.sections():
        text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n")
        if not names and _NAME.match(heading):
            first, *rest = _DASHES.split(re.sub(r"\s*\n\s*", " ", text), maxsplit=1)
            names = tuple(name for part in re.split(r"[,，、]", first) if (name := part.strip()))
            description = (rest[0] if rest else "").replace(_DASH, "-").strip()
        elif text:
            shown.append(f"{heading}\n{text}" if heading else text)
    return ManualPage(names, description, "\n\n".join(shown).replace(_DASH, "-"))


class _Reader:
    """Goes through the lines of a page; `_lines` is what the current section has so far, `_open` its last paragraph."""

    def __init__(self, source: str):
        self._input = iter(source.replace("\r\n", "\n").split("\n"))
        self._strings, self._name = dict(_STRINGS), ""
        self._defined: set[str] = set()  # names of macros
        self._sections: list[tuple[str, list[str]]] = [("", [])]
        self._open, self._verbatim = "", False
        self._waiting = ""  # what the next line of text is: the tag of .TP, the heading of .SH
        self._else = False

    def sections(self) -> list[tuple[str, list[str]]]:
        """Return the headings and the lines below each, "" for what stands before the first."""
        for line in self._input:
            self._line(line)
        self._end_line()
        return self._sections

    def _line(self, line: str) -> None:
        line = re.sub(r"\\}", "", _COMMENT.sub("", line))
        control = re.match(r"[.']\s*(?P<name>[^\s\\]{1,}|)(?P<rest>.*)$", line)
        if control and control["name"]:
            self._request(control["name"], control["rest"])
        elif not control:
            self._text(self._plain(line), line)

    def _request(self, name: str, rest: str) -> None:
        if name in ("if", "ie", "el"):
            self._conditional(name, rest)
        elif name in ("de", "am", "de1", "ig"):
            self._skip_definition(name, rest)
        elif name == "ds":
            key, _, value = rest.strip().partition(" ")
            self._strings[key] = self._plain(value.strip().removeprefix('"'))
        elif name == "TS":
            self._table()
        elif name in ("SH", "Sh", "SS", "Ss"):
            self._end_line()
            self._verbatim, heading = False, " ".join(self._arguments(rest)).strip()
            self._waiting = "" if heading else name
            if heading:
                self._heading(name, heading)
        elif name in _VERBATIM:
            self._end_line()
            self._verbatim = _VERBATIM[name]
        else:
            self._macro(name, self._arguments(rest))

    def _macro(self, name: str, arguments: Sequence[str]) -> None:
        if name in _SPACED or name in self._defined:
            self._text(" ".join(arguments), "")
        elif name in _JOINED:
            self._text("".join(arguments), "")
        elif name == "OP":
            self._text(f"[{' '.join(arguments)}]", "")
        elif name in ("TP", "IP", "It"):
            self._end_line()
            if name == "TP":
                self._waiting = name
            elif arguments:
                self._open = self._mdoc(arguments) if name == "It" else arguments[0]
                if len(self._open) > 1:  # not a bullet
                    self._end_line()
        elif name in _PARAGRAPH:
            self._end_line()
            self._lines.append("")
        elif name in _BREAK:
            self._end_line()
        elif name in ("Nm", "Nd") or name in _MDOC:
            if name == "Nm":
                self._name = self._name or " ".join(arguments)
            self._text(self._mdoc([name, *arguments]), "")

    @property
    def _lines(self) -> list[str]:
        return self._sections[-1][1]

    def _heading(self, name: str, heading: str) -> None:
        if name in ("SH", "Sh"):
            self._sections.append((heading, []))
        else:
            self._lines.extend(["", heading])

    def _text(self, text: str, line: str) -> None:
        """Add text; `line` is the line of input that it comes from, "" for a macro's."""
        if self._waiting and text.strip():
            waiting, self._waiting = self._waiting, ""
            if waiting != "TP":
                self._heading(waiting, text.strip())
                return
            self._open = text.strip()
            self._end_line()
        elif self._verbatim:
            self._lines.append(text.replace(_GLUE, "").rstrip())
        elif not text.strip():
            self._end_line()
            self._lines.append("")
        else:
            if line[:1].isspace():
                self._end_line()
            self._open = _join(self._open, text.strip())

    def _end_line(self) -> None:
        if self._open:
            self._lines.append(self._open.replace(_GLUE, ""))
        self._open = ""

    def _conditional(self, name: str, rest: str) -> None:
        if name == "el":
            holds = self._else
        else:
            found = _CONDITION.match(rest)
            condition, rest = (found, rest[found.end() :]) if found else (None, "")
            holds = condition is not None and (condition[2] == "n") != bool(condition[1])
            if name == "ie":
                self._else = not holds
        rest = rest.strip()
        if holds:
            self._line(rest.removeprefix("\\{").removeprefix("\\").lstrip())
            return
        depth = rest.count("\\{")
        while depth > 0:
            line = next(self._input, None)
            if line is None:
                return
            depth += line.count("\\{") - line.count("\\}")

    def _skip_definition(self, name: str, rest: str) -> None:
        words = rest.split()
        ends = f".{words[0]}" if name == "ig" and words else f".{words[1]}" if len(words) > 1 else ".."
        if name != "ig" and words:
            self._defined.add(words[0])
            self._defined.difference_update(_OWN)
        for line in self._input:
            if line.rstrip().replace(". ", ".") == ends:
                return

    def _table(self) -> None:
        """Add the cells of a table, a row a line; the lines that say how it looks are left out."""
        self._end_line()
        rows = list(iter(lambda: next(self._input, ".TE"), ".TE"))
        separator, is_text, block = "\t", False, ""
        for row in rows:
            if not is_text:
                given = re.search(r"tab\s*\((.)\)", row)
                separator = given[1] if given else separator
                is_text = row.rstrip().endswith(".")
            elif row.startswith(".T&"):
                is_text = False
            elif not re.match(r"[.']|[_=]$", row):
                block = _join(block, row) if "T{" in block else row
                if block.count("T{") == block.count("T}"):
                    cells = re.sub(r"T[{}]", "", block).split(separator)
                    self._lines.append("  ".join(self._plain(cell).strip() for cell in cells).strip())
                    block = ""
        self._lines.append("")

    def _arguments(self, rest: str) -> list[str]:
        return [self._plain((a or "").replace('""', '"') or b or "") for a, b in _ARGUMENT.findall(rest)]

    def _plain(self, text: str) -> str:
        return _ESCAPE.sub(self._escaped, text)

    def _escaped(self, found: re.Match[str]) -> str:
        groups = found.groupdict()
        string = groups["string"] or groups["string2"] or groups["string1"]
        special = groups["special"] or groups["special2"] or groups["named"]
        if string:
            return self._strings.get(string, "")
        if special:
            code = re.fullmatch(r"u([0-9A-F]{4,6})", special)
            return chr(int(code[1], 16)) if code and int(code[1], 16) < 0x110000 else _SPECIAL.get(special, "")
        if groups["code"]:
            return chr(min(int(groups["code"]), 0x10FFFF))
        return groups["over"] or _ONE.get(groups["one"] or "", "")

    def _mdoc(self, tokens: Sequence[str]) -> str:
        """Return the text of a line of mdoc, whose macros stand among their arguments."""
        shown, ends, glue, dash = "", "", True, False
        rest = list(tokens)
        while rest:
            token = rest.pop(0)
            if token in _QUOTES:
                shown, glue = shown + ("" if glue else " ") + _QUOTES[token][0], True
                ends = ("" if token in ("Oo", "Po", "Do", "So") else _QUOTES[token][1]) + ends
                continue
            if token == "Ns":
                glue = True
                continue
            if token == "Nd":
                shown, glue = f"{shown} {_DASH} ", True
                continue
            if token in _CLOSE:
                token, glue = _CLOSE[token], True
            elif token in _MDOC:
                dash = token == "Fl"
                if token == "Nm" and (not rest or rest[0] in _MDOC):
                    token = self._name
                elif token == "Xr" and len(rest) > 1:
                    token = f"{rest.pop(0)}({rest.pop(0)})"
                elif token == "Fn" and rest:
                    token = f"{rest.pop(0)}({', '.join(rest)})"
                    rest = []
                elif dash and not rest:
                    token = "-"
                else:
                    continue
            elif dash and token not in "|.,:;()[]":
                token = f"-{token}"
            shown += token if glue or token in tuple(".,:;)]?!") else f" {token}"
            glue = token in ("(", "[")
        return shown + ends


def _join(before: str, text: str) -> str:
    """Return two lines as one, with a space between them unless both are Chinese there."""
    if before.endswith(_GLUE):
        return before[:-1] + text
    apart = before and not (re.match(f"[{CJK}]", before[-1]) and re.match(f"[{CJK}]", text))
    return f"{before} {text}" if apart else before + text
