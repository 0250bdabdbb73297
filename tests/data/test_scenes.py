"""Scenes: the pictures show their facts, and a wrong text differs from the right one in one fact that is false."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from tests.conftest import load_script

pytestmark = pytest.mark.unit
scenes = load_script("datasets/make_scenes.py")
FACT_OF = {word: number for number, kind in enumerate(scenes.WORDS) for word in kind}


def seen(pixels: NDArray[np.uint8]) -> tuple[str, str, set[str]]:
    """Return what a picture shows: count, colour, and the halves that have all shapes."""
    drawn = np.ptp(pixels.astype(int), axis=2) > 0  # the background is grey
    count = ndimage.label(drawn, np.ones((3, 3)))[1]
    colour = pixels[drawn].mean(axis=0)
    nearest = min(scenes.COLOURS, key=lambda name: float(np.abs(colour - scenes.COLOURS[name]).sum()))
    rows, columns = drawn.any(axis=1), drawn.any(axis=0)
    half = scenes.SIDE // 2
    sides = {"left": columns[half:], "right": columns[:half], "top": rows[half:], "bottom": rows[:half]}
    return scenes.COUNTS[count - 1], nearest, {name for name, other in sides.items() if not other.any()}


def is_true(text: str, picture: tuple[str, str, set[str]]) -> bool:
    """Return True if the picture shows each fact that the text names."""
    count, colour, halves = picture
    return all(word in {count, colour, *halves} for word in text.split())


def test_pictures_show_their_facts_and_texts_are_what_their_labels_say(tmp_path: Path) -> None:
    assert scenes.main(["--output", str(tmp_path / "scenes"), "--scenes", "300"]) == 0
    named, changed, pictures = set(), set(), set[str]()
    for name, count in (("train", 300), ("dev", 15), ("test", 15)):
        lines = [line.split("\t") for line in (tmp_path / f"scenes/{name}.tsv").read_text().splitlines()]
        assert len(lines) == 2 * count
        for (right, path, label), (wrong, other, no) in zip(lines[::2], lines[1::2]):
            assert (path, label, no) == (other, "1", "0") and path not in pictures
            pictures.add(path)
            picture = seen(np.asarray(Image.open(tmp_path / "scenes" / path)))
            assert is_true(right, picture) and not is_true(wrong, picture), (right, wrong, picture)
            (difference,) = ((a, b) for a, b in zip(right.split(), wrong.split()) if a != b)
            assert FACT_OF[difference[0]] == FACT_OF[difference[1]] and len(right.split()) == len(wrong.split())
            changed.add(difference)
            named.add((name, tuple(FACT_OF[word] for word in right.split())))
    assert {facts for name, facts in named if name != "train"} == {(0, 1, 2)}
    assert len({facts for name, facts in named if name == "train"}) == 7  # all choices among three facts
    opposites = {(place, scenes.OPPOSITE[place]) for place in scenes.PLACES}
    assert changed == opposites | {
        pair for kind in scenes.WORDS[:2] for pair in product(kind, kind) if len({*pair}) > 1
    }
