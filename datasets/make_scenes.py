"""Draw scenes of a few shapes, with texts of their count, colour and place that are right or wrong.

python datasets/make_scenes.py --output datasets/scenes

A line of `train.tsv`, `dev.tsv` and `test.tsv` has a text, the path of a picture, and 1 or 0. In `dev.tsv` and
`test.tsv` a text names all three facts, "two red left"; in `train.tsv` one to three of them, "red" or "two left", since
a network learns a single fact sooner. Each right text has a wrong one beside it, which differs in one fact. No picture
is in two files. docs/pictures.md has the commands that train on them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from paddle_ranker.options import Options, main_of, option
from paddle_ranker.storage.atomic import new_folder

SIDE = 48
COUNTS = ("one", "two", "three")
COLOURS = {"red": (210, 40, 40), "green": (40, 160, 60), "blue": (50, 70, 210), "yellow": (230, 200, 40)}
SHAPES = ("circles", "squares", "triangles")
PLACES = ("left", "right", "top", "bottom")
WORDS = (COUNTS, tuple(COLOURS), PLACES)
# The shapes on the left may all be at the top, too, so that a wrong place is always the opposite one.
OPPOSITE = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}


@dataclass(frozen=True)
class SceneOptions(Options):
    """Options of `datasets/make_scenes.py`."""

    output: str = option("datasets/scenes", help="folder to make")
    scenes: int = option(
        20_000, help="pictures to train with; a twentieth as many each for dev.tsv and test.tsv", minimum=20
    )
    seed: int = option(1, help="random seed", minimum=0)


def draw(words: tuple[str, ...], rng: random.Random) -> Image.Image:
    """Draw the scene that the words name, of a shape that they do not name."""
    count, colour, place = words
    shape = rng.choice(SHAPES)
    shade = rng.randint(215, 255)
    picture = Image.new("RGB", (SIDE, SIDE), (shade, shade, shade))
    pen, centres = ImageDraw.Draw(picture), list[tuple[int, int]]()
    radius = rng.randint(4, 5)
    while len(centres) < COUNTS.index(count) + 1:
        near, far = rng.randint(radius + 1, SIDE // 2 - radius - 1), rng.randint(radius + 1, SIDE - radius - 1)
        near = near if place in ("left", "top") else SIDE - 1 - near
        centre = (near, far) if place in ("left", "right") else (far, near)
        if all(max(abs(centre[0] - x), abs(centre[1] - y)) > 2 * radius + 1 for x, y in centres):
            centres.append(centre)
        elif rng.random() < 0.02:  # the others leave no room
            centres.clear()
    for x, y in centres:
        fill = tuple(min(255, max(0, value + rng.randint(-20, 20))) for value in COLOURS[colour])
        box = (x - radius, y - radius, x + radius, y + radius)
        if shape == "circles":
            pen.ellipse(box, fill)
        elif shape == "squares":
            pen.rectangle(box, fill)
        else:
            pen.polygon([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], fill)
    return picture


def texts(words: tuple[str, ...], named: list[int], rng: random.Random) -> tuple[str, str]:
    """Return a right text and one that is wrong in one fact; both name the facts of these indices, in order."""
    wrong, fact = list(words), rng.choice(named)
    others = [word for word in WORDS[fact] if word != words[fact]]
    wrong[fact] = OPPOSITE.get(words[fact]) or rng.choice(others)
    return " ".join(words[number] for number in named), " ".join(wrong[number] for number in named)


def run(options: SceneOptions) -> None:
    """Draw the scenes, and write the folder."""
    rng = random.Random(options.seed)
    facts, all_texts = range(len(WORDS)), set[str]()
    with new_folder(Path(options.output), replace=True) as folder:
        for name, count in (("train", options.scenes), ("dev", options.scenes // 20), ("test", options.scenes // 20)):
            (folder / name).mkdir()
            lines = []
            for number in range(count):
                words = tuple(rng.choice(kind) for kind in WORDS)
                path = f"{name}/{number:05}.png"
                draw(words, rng).save(folder / path)
                named = sorted(rng.sample(facts, rng.randint(1, len(facts)) if name == "train" else len(facts)))
                right, wrong = texts(words, named, rng)
                all_texts |= {right, wrong}
                lines += [f"{right}\t{path}\t1\n", f"{wrong}\t{path}\t0\n"]
            (folder / f"{name}.tsv").write_text("".join(lines), encoding="utf-8")
        (folder / "texts.txt").write_text("".join(f"{text}\n" for text in sorted(all_texts)), encoding="utf-8")
    few = options.scenes // 20
    print(f"{options.output}: {options.scenes:,} scenes to train with, {few:,} to choose by, {few:,} to test with")


main = main_of(run, SceneOptions, __doc__)

if __name__ == "__main__":
    raise SystemExit(main())
