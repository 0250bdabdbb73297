"""The relations between the demo's posts, the label that they determine, and the best possible accuracy.

Three relations between two posts, each visible in different inputs, determine the label:

* the texts' statements about the place: the same, the opposite, or something else (text one with text two);
* text two's claim about the things in picture one: none, their colour, or another colour (text two with image one);
* the number of things in the pictures: picture two has fewer, more, or none at all (image one with image two).

A contradiction in any relation makes the pair contradictory. Otherwise, anything that post two adds makes it not
entailed. Everything else in texts and pictures is drawn independently of these relations. So a subset of the
inputs contains only a few numbers about the label, and the accuracy of the best guess is an exact fraction.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, product

from multimodal_entailment.info import LABELS

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
    """Return the possible numbers of things in the two pictures for a relation, all equally likely."""
    if pictures == CONTRADICTS:
        return [(number, 0) for number in _NUMBERS]
    pairs = [(more, fewer) for more, fewer in product(_NUMBERS, _NUMBERS) if more - fewer >= _APART]
    return pairs if pictures == FOLLOWS else [(fewer, more) for more, fewer in pairs]


def all_relations() -> dict[Relations, Fraction]:
    """Return a dict from each possible `Relations` to its probability; the probabilities sum to 1."""
    found = {}
    for (texts, p), (claim, q), (pictures, r) in product(_TEXTS.items(), _CLAIMS.items(), _PICTURES.items()):
        numbers = numbers_of_things(pictures)
        for first, second in numbers:
            found[Relations(texts, claim, first, second)] = p * q * r / len(numbers)
    return found


def class_shares() -> dict[str, Fraction]:
    """Return a dict from a label's name to its share."""
    shares = dict.fromkeys(LABELS, Fraction(0))
    for relations, probability in all_relations().items():
        shares[LABELS[relations.label]] += probability
    return shares


def subsets() -> list[tuple[str, ...]]:
    """Return all subsets of `INPUTS`, smaller ones first; the first is empty."""
    return [chosen for count in range(len(INPUTS) + 1) for chosen in combinations(INPUTS, count)]


def best_guesses(inputs: Sequence[str]) -> tuple[Fraction, dict[tuple[object, ...], int]]:
    """Return the best possible accuracy from some inputs, and a dict from their information to the best label."""
    labels: dict[tuple[object, ...], dict[int, Fraction]] = defaultdict(lambda: defaultdict(Fraction))
    for relations, probability in all_relations().items():
        labels[relations.seen(inputs)][relations.label] += probability
    accuracy = sum((max(shares.values()) for shares in labels.values()), Fraction(0))
    return accuracy, {seen: max(sorted(shares), key=shares.__getitem__) for seen, shares in labels.items()}


def accuracy_of_best_guesses(inputs: Sequence[str], drawn: Iterable[Relations]) -> Fraction:
    """Return the best possible accuracy on the pairs in `drawn`, for a model that sees only some inputs."""
    _, guesses = best_guesses(inputs)
    right = [guesses[relations.seen(inputs)] == relations.label for relations in drawn]
    return Fraction(sum(right), len(right))
