"""Make pairs of posts, each a text about a place and a picture of it, with labels that follow from the drawn relations.

Scenes (a place with a kind of things in it) and phrasings of the test pairs occur in no training or validation pair,
but every word and every kind of thing does.

Three relations between two posts, each visible in different inputs, determine the label:

* the texts' statements about the place: the same, the opposite, or something else (text one with text two);
* text two's claim about the things in picture one: none, their colour, or another colour (text two with image one);
* the number of things in the pictures: picture two has fewer, more, or none at all (image one with image two).

A contradiction in any relation makes the pair contradictory. Otherwise, anything that post two adds makes it not
entailed. Everything else in texts and pictures is drawn independently of these relations. So a subset of the inputs
contains only a few numbers about the label, and the accuracy of the best guess is an exact fraction.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, combinations, product
from pathlib import Path
from typing import Any

from PIL import Image

from multimodal_entailment.data import PostPair, write_posts
from multimodal_entailment.demo_pictures import COLOURS, PLACES, THINGS, draw_picture
from multimodal_entailment.info import LABELS
from paddle_ranker.data.rows.dice import Dice
from paddle_ranker.errors import RankerError
from paddle_ranker.storage.atomic import make_folder, new_folder

INPUTS = ("text_1", "image_1", "text_2", "image_2")
CONTRADICTS, FOLLOWS, ADDS = range(3)  # the effect of a relation, numbered like the labels
NO_CLAIM, TRUE_CLAIM, FALSE_CLAIM = range(3)
_TEXTS = {CONTRADICTS: Fraction(20, 100), FOLLOWS: Fraction(55, 100), ADDS: Fraction(25, 100)}
_CLAIMS = {NO_CLAIM: Fraction(50, 100), TRUE_CLAIM: Fraction(38, 100), FALSE_CLAIM: Fraction(12, 100)}
_PICTURES = {CONTRADICTS: Fraction(12, 100), FOLLOWS: Fraction(65, 100), ADDS: Fraction(23, 100)}
_NUMBERS = range(1, 9)  # numbers of things in a picture
_APART = 2  # even an observer who miscounts by one sees which picture shows more


@dataclass(frozen=True)
class Relations:
    """Relations of a pair of posts: of their texts, of the claim, and the numbers of things in the pictures."""

    texts: int
    claim: int
    things_1: int
    things_2: int

    @property
    def pictures(self) -> int:
        """Return the relation of picture two to picture one."""
        if not self.things_2:
            return CONTRADICTS
        return ADDS if self.things_2 > self.things_1 else FOLLOWS

    @property
    def label(self) -> int:
        """Return an index into `LABELS`."""
        if CONTRADICTS in (self.texts, self.pictures) or self.claim == FALSE_CLAIM:
            return LABELS.index("Contradictory")
        return LABELS.index("NoEntailment" if ADDS in (self.texts, self.pictures) else "Implies")

    def seen(self, inputs: Sequence[str]) -> tuple[object, ...]:
        """Return all information about the relations that a subset of `INPUTS` contains."""
        claim: object = None
        if "text_2" in inputs:  # text two alone shows whether there is a claim
            claim = self.claim if "image_1" in inputs else self.claim != NO_CLAIM
        return (
            self.texts if {"text_1", "text_2"} <= set(inputs) else None,
            claim,
            self.things_1 if "image_1" in inputs else None,
            self.things_2 if "image_2" in inputs else None,
        )


def numbers_of_things(pictures: int) -> list[tuple[int, int]]:
    """Return the pairs of numbers of things, in picture one and two, that a relation allows; all are equally likely."""
    if pictures == CONTRADICTS:
        return [(number, 0) for number in _NUMBERS]
    pairs = [(more, fewer) for more, fewer in product(_NUMBERS, _NUMBERS) if more - fewer >= _APART]
    return pairs if pictures == FOLLOWS else [(fewer, more) for more, fewer in pairs]


def all_relations() -> dict[Relations, Fraction]:
    """Return a dict from each possible `Relations` to its probability; the probabilities sum to 1."""
    probabilities = {}
    for (texts, p), (claim, q), (pictures, r) in product(_TEXTS.items(), _CLAIMS.items(), _PICTURES.items()):
        numbers = numbers_of_things(pictures)
        for first, second in numbers:
            probabilities[Relations(texts, claim, first, second)] = p * q * r / len(numbers)
    return probabilities


def class_shares() -> dict[str, Fraction]:
    """Return a dict from a label's name to its share of all pairs that can be drawn."""
    shares = dict.fromkeys(LABELS, Fraction(0))
    for relations, probability in all_relations().items():
        shares[LABELS[relations.label]] += probability
    return shares


def subsets() -> list[tuple[str, ...]]:
    """Return all subsets of `INPUTS`, smaller ones first; the first is empty."""
    return [chosen for count in range(len(INPUTS) + 1) for chosen in combinations(INPUTS, count)]


def best_guesses(inputs: Sequence[str]) -> tuple[Fraction, dict[tuple[object, ...], int]]:
    """Return the best possible accuracy from some inputs, and the best label for each result of `Relations.seen`."""
    labels: dict[tuple[object, ...], dict[int, Fraction]] = defaultdict(lambda: defaultdict(Fraction))
    for relations, probability in all_relations().items():
        labels[relations.seen(inputs)][relations.label] += probability
    accuracy = sum((max(shares.values()) for shares in labels.values()), Fraction(0))
    return accuracy, {seen: max(sorted(shares), key=shares.__getitem__) for seen, shares in labels.items()}


def accuracy_of_best_guesses(inputs: Sequence[str], drawn: Iterable[Relations]) -> Fraction:
    """Return the accuracy of `best_guesses` from some inputs on the pairs in `drawn`."""
    _, guesses = best_guesses(inputs)
    right = [guesses[relations.seen(inputs)] == relations.label for relations in drawn]
    return Fraction(sum(right), len(right))


GENERATOR_VERSION = 1  # to be raised with every change of the generated posts
PARTS = ("train", "validation", "test")
STATES = (
    ("open", "closed"), ("busy", "quiet"), ("clean", "dirty"), ("dry", "wet"),
    ("warm", "cold"), ("safe", "dangerous"), ("bright", "dark"), ("new", "old"),
)  # fmt: skip
# The parts share no phrasing; the words of the test all occur in the training.
FACTS = {
    "train": (
        "The {place} is {state} today.",
        "Today we found the {place} {state}.",
        "Just seen: the {place} is {state}.",
        "News from the {place}: it is {state}.",
        "They say the {place} is {state} now.",
        "We went to the {place}, and it is {state}.",
        "Look, the {place} is {state} this morning.",
        "I found out that the {place} is {state}.",
        "At the {place} this morning: all {state}.",
    ),
    "validation": ("Just found: the {place} is {state} now.", "Now they say it: {state}, the {place} is.",
                   "We went to look: the {place} is {state} this morning."),
    "test": ("News: we found out that the {place} is {state} now.", "Look at the {place}, it is {state} this morning.",
             "I went to the {place} today: {state}.", "This morning the {place} is {state}, they say."),
}  # fmt: skip
CLAIMS = {
    "train": (
        "The {things} in the first picture are {colour}.",
        "In the first picture we see {colour} {things}.",
        "Those {things} in the picture before are all {colour}.",
        "All the {things} you see in the first picture: {colour}.",
        "First picture: {colour} {things}.",
    ),
    "validation": ("The first picture: all {things} are {colour}.", "We see {colour} {things} in the picture before."),
    "test": ("You see {colour} {things} in the first picture.", "In the picture before, the {things} are {colour}.",
             "Picture before: those {things} are all {colour}."),
}  # fmt: skip


@dataclass(frozen=True)
class DemoPair:
    """The texts of a pair, the contents of its pictures (place, things, number, colour), and its relations."""

    texts: tuple[str, str]
    pictures: tuple[tuple[str, str, int, str], tuple[str, str, int, str]]
    relations: Relations


def scenes(part: str) -> list[tuple[str, str]]:
    """Return a part's scenes, (place, things): 5/8 of all scenes for train, 1/8 for validation, 2/8 for test."""
    sides = len(PLACES)
    chosen = {"train": range(5), "validation": range(5, 6), "test": range(6, 8)}[part]
    pairs = product(enumerate(PLACES), enumerate(THINGS))
    return [(place, things) for (i, place), (j, things) in pairs if (i + j) % sides in chosen]


def demo_pairs(part: str, seed: int) -> Iterator[DemoPair]:
    """Yield endless pairs of posts for one of `PARTS`; the same seed gives the same pairs."""
    dice = Dice(seed, f"posts of {part}")
    relations, edges = list(all_relations()), [float(edge) for edge in accumulate(all_relations().values())]
    while True:
        number = bisect_right(edges, dice.random())
        yield _pair(dice, part, relations[min(number, len(relations) - 1)])


def _pair(dice: Dice, part: str, relations: Relations) -> DemoPair:
    place, things = dice.pick(scenes(part))
    kind, other = dice.sample(STATES, 2)
    side = dice.below(2)
    statement = kind[side]
    then = {CONTRADICTS: kind[1 - side], ADDS: other[dice.below(2)]}.get(relations.texts, statement)
    sentences = [_fact(dice, part, place, statement), _fact(dice, part, place, then)]
    colour, another, claimed = dice.pick(list(COLOURS)), dice.pick(list(COLOURS)), ""
    if relations.claim != NO_CLAIM:
        claimed = colour if relations.claim == TRUE_CLAIM else dice.pick([name for name in COLOURS if name != colour])
        claim = dice.pick(CLAIMS[part]).format(things=things, colour=claimed)
        sentences[1] = " ".join(dice.shuffled([sentences[1], claim]))
    pictures = (place, things, relations.things_1, colour), (place, things, relations.things_2, another)
    return DemoPair((sentences[0], sentences[1]), pictures, relations)


def _fact(dice: Dice, part: str, place: str, state: str) -> str:
    fact = dice.pick(FACTS[part]).format(place=place, state=state)
    return f"{fact} #{place}" if dice.chance(0.3) else fact


def make_demo_posts(folder: Path, size: int, seed: int) -> dict[str, Any]:
    """Write `train.csv`, `validation.csv`, `test.csv`, their `images/` and `truth.json`; return the truth's content.

    There are `size` training pairs, a fifth as many validation pairs and half as many test pairs. For each subset of
    the inputs, `truth.json` has `best_accuracy`, the best possible accuracy over all pairs that could be drawn, and
    `best_guesses_on_test`, the accuracy of the same guesses on the drawn test pairs.

    The folder is written atomically. Raises `RankerError` if it exists or cannot be written.
    """
    if folder.exists():
        raise RankerError(f"{folder}: already exists; choose another --output, or remove it")
    make_folder(folder.parent)
    counts = dict(zip(PARTS, (size, max(1, size // 5), max(1, size // 2))))
    with new_folder(folder) as temporary:
        (temporary / "images").mkdir()
        drawn = {part: _write_part(temporary, part, count, seed) for part, count in counts.items()}
        truth = _truth(seed, drawn)
        (temporary / "truth.json").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")
    return truth


def _write_part(folder: Path, part: str, count: int, seed: int) -> list[Relations]:
    dice, rows, relations = Dice(seed, f"pictures of {part}"), [], []
    for number, pair in zip(range(count), demo_pairs(part, seed)):
        names = []
        for which, picture in enumerate(pair.pictures, start=1):
            names.append(f"images/{part}_{number:06d}_{which}.png")
            _save(draw_picture(dice, *picture), folder / names[-1])
        ids = [Path(name).stem for name in names]
        label = pair.relations.label
        rows.append(PostPair(ids[0], pair.texts[0], names[0], ids[1], pair.texts[1], names[1], label, number + 2))
        relations.append(pair.relations)
    write_posts(folder / f"{part}.csv", rows)
    return relations


def _save(image: Image.Image, path: Path) -> None:
    image.save(path, "PNG", compress_level=6)


def _truth(seed: int, drawn: dict[str, list[Relations]]) -> dict[str, Any]:
    best, on_test = {}, {}
    for inputs in subsets():
        name = "+".join(inputs) or "nothing"
        accuracy, _ = best_guesses(inputs)
        best[name] = {"accuracy": float(accuracy), "exactly": str(accuracy)}
        on_test[name] = float(accuracy_of_best_guesses(inputs, drawn["test"]))
    return {
        "generator_version": GENERATOR_VERSION,
        "seed": seed,
        "pairs": {part: len(relations) for part, relations in drawn.items()},
        "class_shares": {label: float(share) for label, share in class_shares().items()},
        "best_accuracy": best,
        "best_guesses_on_test": on_test,
    }
