"""Find the commands, the code and the sample output that the pages show, and compare samples with what was printed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
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


def commands(block: Block) -> Iterator[tuple[int, str, list[str]]]:
    """Yield line, command and sample output, in comments or as JSON after it, for each command of a shell block."""
    line, pending, begun = block.line + 1, "", 0
    command: Optional[tuple[int, str, list[str]]] = None
    for text in block.text.splitlines():
        if not pending and command is not None and text.startswith("# {"):
            command[2].append(text[2:])
        elif not pending and command is not None and text.startswith("{"):
            command[2].append(text)
        elif not pending and command is not None and command[2] and text.startswith(" "):
            command[2][-1] += text
        elif text.strip() and (pending or not text.startswith("#")):
            begun = begun if pending else line
            pending += text + "\n"
            if not text.rstrip().endswith("\\"):
                if command is not None:
                    yield command
                command, pending = (begun, pending.rstrip("\n"), []), ""
        line += 1
    if command is not None:
        yield command


def is_same_shape(sample: object, found: object) -> bool:
    """Return whether JSON has the same names, in lists as many items, and the same texts but for identifiers."""
    if isinstance(sample, dict) and isinstance(found, dict):
        return sample.keys() == found.keys() and all(
            name == "request_id" or name == "id" or is_same_shape(value, found[name]) for name, value in sample.items()
        )
    if isinstance(sample, list) and isinstance(found, list):
        return len(sample) == len(found) and all(map(is_same_shape, sample, found))
    if isinstance(sample, str):
        return sample == found
    return isinstance(found, type(sample)) or (isinstance(sample, (int, float)) and isinstance(found, (int, float)))


def is_like(sample: str, printed: str, *, within: Optional[float] = None) -> bool:
    """Return whether a line was printed as a sample shows it, whatever stands for `…` and whatever the numbers are.

    JSON is as a sample shows it where it is of the same shape.
    With `within`, numbers of three digits or more after the point, which are measures and probabilities, may be off by
    so much at most.
    """
    if sample.startswith('{"') and printed.startswith('{"'):
        with suppress(ValueError):
            return is_same_shape(json.loads(sample), json.loads(printed))
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
