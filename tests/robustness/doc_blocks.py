"""Find the commands, the code and the sample output that the pages show."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Optional

FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
INDENTED = re.compile(r"(?:\A|(?<=\n\n))(?: {4}.*\n(?:\n(?= {4}))?)+", re.M)
SHELL = re.compile(r"(?:python|bash|sh|curl|pip|paddle-ranker|source|\S*/python) ")
PYTHON = re.compile(r"(?:from|import) \w")
NUMBER = re.compile(r"-?\d(?:[\d,]*\d)?(?:\.\d+)?(?:e-?\d+)?")
LEFT_OUT = re.compile(r"…|\.\.\.")


class Block(NamedTuple):
    """What a page shows in one place: `kind` is shell, python or output; `line` counts from 1."""

    page: str
    line: int
    kind: str
    text: str


def blocks(page: Path, name: str) -> list[Block]:
    """Return a page's blocks in their order; code copied from a file of the tests is none, it runs there."""
    text = page.read_text(encoding="utf-8")
    copied = [found.end() for found in re.finditer(r"^<!-- (?:file|part of): \S+ -->\n", text, re.M)]
    found: list[tuple[int, str, str]] = [
        (fence.start(), {"bash": "shell"}.get(fence[1], fence[1]) or _kind(fence[2]), fence[2])
        for fence in FENCED.finditer(text)
        if fence.start() not in copied
    ]
    # Fences are blanked out, not cut out: places stay what they are.
    rest = FENCED.sub(lambda fence: re.sub(r"[^\n]", "-", fence[0]), text)
    for indented in INDENTED.finditer(rest):
        code = re.sub(r"^ {4}", "", indented[0], flags=re.M).strip("\n") + "\n"
        found.append((indented.start(), _kind(code), code))
    return [
        Block(name, text.count("\n", 0, place) + 1, kind, code)
        for place, kind, code in sorted(found)
        if kind in ("shell", "python", "output")
    ]


def _kind(code: str) -> str:
    """Return what an indented block is by how it begins."""
    if SHELL.match(code):
        return "shell"
    return "python" if PYTHON.match(code) else "output"


def commands(block: Block) -> Iterator[tuple[int, str, bool]]:
    """Yield each command of a shell block: its line, its text, and whether an error is shown as its answer."""
    line, pending, begun = block.line + 1, "", 0
    command: Optional[tuple[int, str, bool]] = None
    for text in block.text.splitlines():
        if not pending and command is not None and text.startswith(("{", "# {", " ")):  # a sample of its output
            command = (*command[:2], command[2] or '"error"' in text)
        elif text.strip() and (pending or not text.startswith("#")):
            begun = begun if pending else line
            pending += text + "\n"
            if not text.rstrip().endswith("\\"):
                if command is not None:
                    yield command
                command, pending = (begun, pending.rstrip("\n"), False), ""
        line += 1
    if command is not None:
        yield command


def is_like(sample: str, printed: str, *, within: Optional[float] = None) -> bool:
    """Return whether a line was printed as a sample shows it, whatever stands for `…` and whatever the numbers are.

    With `within`, numbers of three digits or more after the point, which are measures and probabilities, may be off by
    so much at most.
    """
    parts = [NUMBER.split(part) for part in LEFT_OUT.split(sample.rstrip())]
    pattern = ".*".join(f"({NUMBER.pattern})".join(map(re.escape, part)) for part in parts)
    found = re.fullmatch(pattern, printed.rstrip())
    if found is None or within is None:
        return found is not None
    shown = [number for part in LEFT_OUT.split(sample) for number in NUMBER.findall(part)]
    return all(
        abs(float(one.replace(",", "")) - float(other.replace(",", ""))) <= within
        for one, other in zip(shown, found.groups())
        if re.search(r"\.\d{3,}$", one)
    )


def missing(sample: str, printed: str, *, within: Optional[float] = None) -> list[str]:
    """Return a sample's lines that were not printed, as `is_like` compares them; lines of dots count for nothing."""
    lines: Sequence[str] = printed.splitlines()
    return [
        line
        for line in sample.splitlines()
        if line.strip() not in ("", "...", "…") and not any(is_like(line, one, within=within) for one in lines)
    ]
