"""Draw scenes of a few shapes, with texts of their count, colour and place that are right or wrong.

python datasets/make_scenes.py --output datasets/scenes
paddle-ranker starter --corpus datasets/scenes/texts.txt --picture_size 48 --patch_size 8 ...
paddle-ranker train-ce --train datasets/scenes/train.tsv --test datasets/scenes/dev.tsv --model START ...

A line of `train.tsv`, `dev.tsv` and `test.tsv` has a text, "two red circles left", the path of a picture, and 1 or 0.
In `dev.tsv` and `test.tsv` a wrong text differs from the right one in one word. No picture is in two files.
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
WORDS = (COUNTS, tuple(COLOURS), SHAPES, PLACES)


@dataclass(frozen=True)
class SceneOptions(Options):
    """Options of `datasets/make_scenes.py`."""

    output: str = option("datasets/scenes", help="folder to make")
    scenes: int = option(6000, help="pictures to train with; a tenth as many each for dev.tsv and test.tsv", minimum=10)
    seed: int = option(1, help="random seed", minimum=0)


def draw(words: tuple[str, ...], rng: random.Random) -> Image.Image:
    """Draw the scene that the words name."""
    count, colour, shape, place = words
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


def wrong(words: tuple[str, ...], rng: random.Random, most: int) -> tuple[str, ...]:
    """Return the words with others in the places of some of them, at most `most`."""
    changed = rng.sample(range(len(words)), rng.randint(1, most))
    return tuple(
        rng.choice([other for other in kinds if other != word]) if place in changed else word
        for place, (word, kinds) in enumerate(zip(words, WORDS))
    )


def run(options: SceneOptions) -> None:
    """Draw the scenes, and write the folder."""
    rng = random.Random(options.seed)
    texts = set[str]()
    with new_folder(Path(options.output), replace=True) as folder:
        for name, count in (("train", options.scenes), ("dev", options.scenes // 10), ("test", options.scenes // 10)):
            (folder / name).mkdir()
            lines = []
            # Texts that are wrong in several words are learned first; the hardest, wrong in one, are measured.
            most = len(WORDS) if name == "train" else 1
            for number in range(count):
                words = tuple(rng.choice(kinds) for kinds in WORDS)
                path = f"{name}/{number:05}.png"
                draw(words, rng).save(folder / path)
                for label, own in ((1, words), (0, wrong(words, rng, most))):
                    texts.add(" ".join(own))
                    lines.append(f"{' '.join(own)}\t{path}\t{label}\n")
            (folder / f"{name}.tsv").write_text("".join(lines), encoding="utf-8")
        (folder / "texts.txt").write_text("".join(f"{text}\n" for text in sorted(texts)), encoding="utf-8")
    few = options.scenes // 10
    print(f"{options.output}: {options.scenes:,} scenes to train with, {few:,} to choose by, {few:,} to test with")


main = main_of(run, SceneOptions, __doc__)

if __name__ == "__main__":
    raise SystemExit(main())
