"""Draw the demo's pictures: several objects of the same kind and colour in a place."""

from __future__ import annotations

from typing import Callable

from PIL import Image, ImageDraw

from paddle_ranker.data.rows.dice import Dice

Colour = tuple[int, int, int]
Draw = ImageDraw.ImageDraw

# All colours stand out from all places.
COLOURS: dict[str, Colour] = {
    "red": (205, 30, 35),
    "yellow": (245, 215, 30),
    "blue": (30, 60, 190),
    "purple": (130, 40, 150),
    "black": (25, 25, 25),
    "white": (252, 252, 252),
}
# Sky and ground.
PLACES: dict[str, tuple[Colour, Colour]] = {
    "harbour": ((190, 215, 230), (110, 160, 185)),
    "meadow": ((200, 225, 235), (140, 185, 120)),
    "market": ((215, 210, 205), (180, 165, 150)),
    "beach": ((185, 220, 230), (225, 205, 165)),
    "station": ((195, 195, 200), (150, 150, 155)),
    "park": ((210, 225, 215), (120, 165, 130)),
    "lake": ((205, 215, 220), (135, 175, 175)),
    "square": ((220, 215, 200), (195, 175, 165)),
}
_OUTLINE: Colour = (60, 60, 60)
_SIZES = ((160, 120), (120, 160), (144, 144))


def _box(draw: Draw, x: int, y: int, r: int, fill: Colour) -> None:
    draw.rectangle((x - r, y - r, x + r, y + r), fill, _OUTLINE)


def _balloon(draw: Draw, x: int, y: int, r: int, fill: Colour) -> None:
    draw.line((x, y, x, y + r + 5), _OUTLINE)
    draw.ellipse((x - r, y - r, x + r, y + r), fill, _OUTLINE)


def _tent(draw: Draw, x: int, y: int, r: int, fill: Colour) -> None:
    draw.polygon(((x, y - r), (x + r, y + r), (x - r, y + r)), fill, _OUTLINE)


def _kite(draw: Draw, x: int, y: int, r: int, fill: Colour) -> None:
    draw.polygon(((x, y - r), (x + r, y), (x, y + r), (x - r, y)), fill, _OUTLINE)


def _umbrella(draw: Draw, x: int, y: int, r: int, fill: Colour) -> None:
    draw.line((x, y, x, y + r), _OUTLINE)
    draw.pieslice((x - r, y - r, x + r, y + r), 180, 360, fill, _OUTLINE)


def _flag(draw: Draw, x: int, y: int, r: int, fill: Colour) -> None:
    draw.line((x - r, y - r, x - r, y + r), _OUTLINE)
    draw.rectangle((x - r, y - r, x + r, y + r // 4), fill, _OUTLINE)


def _boat(draw: Draw, x: int, y: int, r: int, fill: Colour) -> None:
    draw.polygon(((x - r, y), (x + r, y), (x + r // 2, y + r), (x - r // 2, y + r)), fill, _OUTLINE)
    draw.polygon(((x, y - r), (x, y), (x + r, y)), fill, _OUTLINE)


def _lantern(draw: Draw, x: int, y: int, r: int, fill: Colour) -> None:
    draw.line((x, y - r - 3, x, y), _OUTLINE)
    draw.ellipse((x - 2 * r // 3, y - r, x + 2 * r // 3, y + r), fill, _OUTLINE)


THINGS: dict[str, Callable[[Draw, int, int, int, Colour], None]] = {
    "boxes": _box,
    "balloons": _balloon,
    "tents": _tent,
    "kites": _kite,
    "umbrellas": _umbrella,
    "flags": _flag,
    "boats": _boat,
    "lanterns": _lantern,
}


def draw_picture(dice: Dice, place: str, things: str, number: int, colour: str) -> Image.Image:
    """Return a picture of `number` objects, at most nine; positions, size, light and picture size are random."""
    width, height = dice.pick(_SIZES)
    light = 0.9 + 0.2 * dice.random()
    sky, ground = (_lit(part, light) for part in PLACES[place])
    image = Image.new("RGB", (width, height), sky)
    draw = ImageDraw.Draw(image)
    horizon = int(height * (0.3 + 0.3 * dice.random()))
    draw.rectangle((0, horizon, width, height), ground)
    for _ in range(6):  # waves, grass or stones
        x, y = dice.below(width), horizon + dice.below(height - horizon)
        draw.line((x, y, x + 5 + dice.below(12), y), _lit(ground, 0.85))
    radius = 9 + dice.below(5)
    cells = [(column, row) for column in range(3) for row in range(3)]
    for column, row in dice.sample(cells, number):
        x = int(width * (column + 0.5) / 3) + dice.below(9) - 4
        y = int(height * (row + 0.5) / 3) + dice.below(9) - 4
        THINGS[things](draw, x, y, radius, _lit(COLOURS[colour], light))
    return image


def _lit(colour: Colour, light: float) -> Colour:
    red, green, blue = (min(255, int(part * light)) for part in colour)
    return red, green, blue
