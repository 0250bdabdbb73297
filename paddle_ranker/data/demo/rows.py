"""Turn scenes into rows: training triples, and groups of graded titles of one query."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from paddle_ranker.data.demo.dice import Dice
from paddle_ranker.data.demo.scenes import Author, Scene, Side, Title, scenes

TITLES_PER_QUERY = 10
HARD_PER_QUERY = 6
# At least as many as hard negatives, for scenes of two sides.
TITLES_PER_SIDE = 6
# Easy negatives are titles of recent sides: a fixed number of them, so that memory does not grow with the rows.
_RECENT_SIDES = 200


@dataclass(frozen=True)
class Group:
    """One query, its titles and their grades (0 not relevant, 1 partly, 2 wholly)."""

    query: str
    titles: tuple[str, ...]
    grades: tuple[int, ...]
    kind: str


class _Recent:
    """Titles of recent sides, from which a title on an unrelated subject can be drawn.

    Every side is as likely as any other, as it is among the relevant titles: else the kind of a title would tell.
    """

    def __init__(self, dice: Dice) -> None:
        self.dice = dice
        self.sides: list[list[Title]] = []
        self.added = 0

    @property
    def full(self) -> bool:
        return len(self.sides) == _RECENT_SIDES

    def add(self, titles: list[Title]) -> None:
        if self.full:
            self.sides[self.added % _RECENT_SIDES] = titles
        else:
            self.sides.append(titles)
        self.added += 1

    def unrelated(self, heads: frozenset[str]) -> Title:
        """Return a title that names none of `heads`, not even as a second subject."""
        while True:
            title = self.dice.pick(self.dice.pick(self.sides))
            if not any(head in title.text for head in heads):
                return title


def _distinct_titles(side: Side, count: int) -> list[Title]:
    titles: dict[str, Title] = {}
    for _ in range(4 * count):
        title = side.title()
        titles.setdefault(title.text, title)
        if len(titles) == count:
            break
    return list(titles.values())


def _scenes_with_titles(author: Author, per_side: int, recent: _Recent) -> Iterator[tuple[Scene, list[list[Title]]]]:
    """Yield scenes and the titles of each side, once `recent` is full of earlier ones."""
    for scene in scenes(author):
        titles = [_distinct_titles(side, per_side) for side in scene.sides]
        if recent.full:
            yield scene, titles
        for side_titles in titles:
            recent.add(side_titles)


def triples(seed: int, hard_share: float = 0.7) -> Iterator[tuple[str, str, str]]:
    """Yield (query, title, negative title) without end.

    Every title of a scene is the relevant one of one triple and, as often, the hard negative of another.
    """
    dice = Dice(seed, "train")
    author, recent = Author(dice, "train"), _Recent(dice)
    for scene, titles in _scenes_with_titles(author, 1, recent):
        shift = 1 + dice.below(len(titles) - 1)
        for index, side in enumerate(scene.sides):
            hard = titles[(index + shift) % len(titles)][0]
            negative = hard if dice.chance(hard_share) else recent.unrelated(scene.heads)
            yield side.query(), titles[index][0].text, negative.text


def groups(seed: int, split: str) -> Iterator[Group]:
    """Yield queries of `split` ("dev" or "test") without end, each with its titles in random order."""
    dice = Dice(seed, split)
    author, recent = Author(dice, split), _Recent(dice)
    for scene, titles in _scenes_with_titles(author, TITLES_PER_SIDE, recent):
        for index, side in enumerate(scene.sides):
            relevant = dice.some(titles[index], 1 + dice.below(4))
            rest = [title for other, pool in enumerate(titles) if other != index for title in pool]
            rows = {title.text: title.grade for title in relevant}
            for title in dice.some(rest, HARD_PER_QUERY):
                rows.setdefault(title.text, 0)
            while len(rows) < TITLES_PER_QUERY:
                rows.setdefault(recent.unrelated(scene.heads).text, 0)
            order = dice.shuffled(list(rows))
            yield Group(side.query(), tuple(order), tuple(rows[text] for text in order), scene.kind)
