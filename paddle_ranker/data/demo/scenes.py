"""The kinds of relevance of the demo world, as training triples and as graded titles of a query.

A scene is a handful of subjects that are easily mistaken for each other. Each side of a scene can write queries for
its own subject and titles about it. A title is relevant to the queries of its own side and to no others, so every
title is relevant to one query of its scene and irrelevant to the rest: a title alone does not reveal its label.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Callable

from paddle_ranker.data.demo import phrases
from paddle_ranker.data.demo.dice import Dice
from paddle_ranker.data.demo.phrases import FIELDS, Field, SynonymSet


@dataclass(frozen=True)
class Title:
    """A title with its keywords appended, and its grade for its own side: 2, or 1 if it treats another subject, too."""

    text: str
    grade: int


@dataclass(frozen=True)
class Side:
    """One subject of a scene: writes queries for it and titles about it."""

    query: Callable[[], str]
    title: Callable[[], Title]


@dataclass(frozen=True)
class Scene:
    """Subjects that are easily mistaken for each other; `heads` are the words that unrelated titles avoid."""

    kind: str
    heads: frozenset[str]
    sides: tuple[Side, ...]


class Author:
    """Draws subjects, and writes queries and titles in the wording of one split."""

    def __init__(self, dice: Dice, split: str) -> None:
        self.dice = dice
        self.split = split

    def field(self) -> Field:
        """Return a field."""
        return self.dice.pick(FIELDS)

    def heads(self, field: Field, count: int) -> list[str]:
        """Return `count` different heads of `field` in this split."""
        return self.dice.some(field.heads[self.split], count)

    def topic(self, field: Field, head: str) -> str:
        """Return `head`, under a modifier three times out of four."""
        return self.dice.pick(field.modifiers) + head if self.dice.chance(0.75) else head

    def ask(self, subject: str) -> str:
        """Return a query for `subject`, one time in five with the name of an author or institution to find it by."""
        asked = self.dice.pick(phrases.QUERY_FRAMES).format(subject)
        return self.under(self.name(), asked) if self.dice.chance(0.2) else asked

    def under(self, name: str, asked: str) -> str:
        """Return the query `asked` with an author's or an institution's name at either end."""
        return self.dice.pick(("{0} {1}", "{0}{1}", "{1} {0}")).format(name, asked)

    def institution(self) -> str:
        """Return an institution of this split."""
        return self.dice.pick(phrases.PLACES[self.split]) + self.dice.pick(phrases.INSTITUTIONS)

    def person(self) -> str:
        """Return a person of this split."""
        return self.dice.pick(phrases.SURNAMES) + self.dice.pick(phrases.GIVEN_NAMES[self.split])

    def name(self) -> str:
        """Return an institution, a person or both."""
        return self.dice.pick((self.institution(), self.person(), self.institution() + self.person()))

    def write(
        self, field: Field, body: str, keywords: list[str], avoid: tuple[str, ...] = (), framed: bool = True
    ) -> Title:
        """Return a title around `body`, with `keywords` and one or two general ones appended.

        One title in four treats a second subject, too (grade 1), whose head is not in `avoid`.
        """
        dice = self.dice
        tags = dice.some(field.tags, 1 + dice.below(2))
        keywords = list(keywords)
        grade = 2
        if dice.chance(0.25):
            others = [head for head in field.heads[self.split] if head not in avoid]
            other = self.topic(field, dice.pick(others))
            body = f"{body}与{other}" if dice.chance(0.5) else f"{other}与{body}"
            keywords.append(other)
            grade = 1
        text = dice.pick(phrases.TITLE_FRAMES[self.split]).format(body) if framed else body
        # Mostly a general word comes first, so that commas separate the subjects from the title.
        glued = [tags.pop()] if dice.chance(0.75) else []
        return Title(text + ",".join(glued + dice.shuffled(keywords + tags)), grade)

    def write_topic(self, field: Field, topic: str, avoid: tuple[str, ...]) -> Title:
        """Return a plain title about `topic`."""
        tag = self.dice.pick(field.tags)
        body = self.dice.pick(("{0}", "{0}", "{0}的{1}", "{1}视角下的{0}", "{0}中的{1}问题")).format(topic, tag)
        return self.write(field, body, [topic], avoid)


def part(author: Author) -> Scene:
    """Topics that share their modifier or their head."""
    field, dice = author.field(), author.dice
    head, other = author.heads(field, 2)
    modifier, second = dice.some(field.modifiers, 2)
    avoid = (head, other)

    def side(topic: str) -> Side:
        return Side(lambda: author.ask(topic), lambda: author.write_topic(field, topic, avoid))

    topics = (modifier + head, modifier + other, second + head)
    return Scene("part", frozenset(avoid), tuple(side(topic) for topic in topics))


def background(author: Author) -> Scene:
    """Tell a paper's subject from its mere background; the keywords name only the subject."""
    field, dice = author.field(), author.dice
    heads = author.heads(field, 2)
    first, second = (author.topic(field, head) for head in heads)

    def side(central: str, setting: str) -> Side:
        def title() -> Title:
            if dice.chance(0.1):
                return author.write_topic(field, central, tuple(heads))
            body = dice.pick(phrases.BACKGROUND_FRAMES[author.split]).format(setting, central)
            return author.write(field, body, [central], tuple(heads), framed=False)

        return Side(lambda: author.ask(central), title)

    return Scene("background", frozenset(heads), (side(first, second), side(second, first)))


def direction(author: Author) -> Scene:
    """Tell "A acts on B" from "B acts on A"."""
    field, dice = author.field(), author.dice
    heads = author.heads(field, 2)
    first, second = (author.topic(field, head) for head in heads)
    verb = dice.pick(phrases.DIRECTION_VERBS[author.split])

    def side(cause: str, effect: str) -> Side:
        def say(passive: float) -> str:
            frames = phrases.PASSIVE_FRAMES if dice.chance(passive) else phrases.DIRECTION_FRAMES
            return dice.pick(frames).format(cause, effect, verb)

        return Side(
            lambda: say(0.1), lambda: author.write(field, say(0.15), dice.shuffled([cause, effect]), tuple(heads))
        )

    return Scene("direction", frozenset(heads), (side(first, second), side(second, first)))


def _contrast(author: Author, kind: str, markers: tuple[str, ...]) -> Scene:
    field, dice = author.field(), author.dice
    head = author.heads(field, 1)[0]
    topic = author.topic(field, head)

    def side(subject: str) -> Side:
        return Side(lambda: author.ask(subject), lambda: author.write_topic(field, subject, (head,)))

    subjects = [topic] + [marker.format(topic) for marker in dice.some(markers, 1)]
    return Scene(kind, frozenset((head,)), tuple(side(subject) for subject in subjects))


def contrast(author: Author) -> Scene:
    """Tell a subject X from one that a small word turns into another (非X, X教材)."""
    return _contrast(author, "contrast", phrases.MARKERS)


def contrast_new(author: Author) -> Scene:
    """Do as `contrast`, with words that training never shows: it shows only that some words change the subject."""
    return _contrast(author, "contrast_new", phrases.NEW_MARKERS[author.split])


def _synonym(author: Author, kind: str, meanings: SynonymSet, template: str) -> Scene:
    field, dice = author.field(), author.dice
    head = author.heads(field, 1)[0]
    topic = author.topic(field, head)

    def side(words: tuple[str, ...]) -> Side:
        asked = dice.pick(words)
        others = [word for word in words if word != asked]

        def title() -> Title:
            word = dice.pick(others) if dice.chance(0.8) else asked
            return author.write(field, template.format(topic, word), [topic, word], (head,))

        return Side(lambda: author.ask(template.format(topic, asked)), title)

    return Scene(kind, frozenset((head,)), tuple(side(words) for words in meanings))


def synonym(author: Author) -> Scene:
    """Tell a synonym (夏季, 夏天) from a word that excludes it (冬季); one shared character decides."""
    if author.dice.chance(0.5):
        return _synonym(author, "synonym", author.dice.pick(phrases.SETTINGS), "{1}{0}")
    return _synonym(author, "synonym", author.dice.pick(phrases.ASPECTS), "{0}的{1}")


def synonym_far(author: Author) -> Scene:
    """Do as `synonym`, with synonyms that share no character (高校, 大学); training has them with other topics."""
    return _synonym(author, "synonym_far", author.dice.pick(phrases.FAR_SYNONYMS), "{0}的{1}")


def synonym_new(author: Author) -> Scene:
    """Do as `synonym`, with sets that training never shows: shared characters help, but which one counts is unknown."""
    return _synonym(author, "synonym_new", author.dice.pick(phrases.NEW_SYNONYMS[author.split]), "{1}{0}")


def source(author: Author) -> Scene:
    """Tell papers on a topic by a person or institution from papers about that person or institution."""
    field, dice = author.field(), author.dice
    head = author.heads(field, 1)[0]
    topic = author.topic(field, head)
    name, aspects = dice.pick(
        ((author.institution(), phrases.PLACE_ASPECTS), (author.person(), phrases.PERSON_ASPECTS))
    )
    aspect = dice.pick(aspects)

    def query() -> str:
        return author.under(name, dice.pick(phrases.QUERY_FRAMES).format(topic))

    def about() -> Title:
        return author.write(field, f"{name}{aspect}", [name, aspect], (head,))

    def query_about() -> str:
        return dice.pick(phrases.QUERY_FRAMES).format(f"{name}{aspect}")

    by_author = Side(query, lambda: author.write_topic(field, topic, (head,)))
    return Scene("source", frozenset((head,)), (by_author, Side(query_about, about)))


def abbreviation(author: Author) -> Scene:
    """Tell a topic shortened to the first characters of its two parts from topics that share one of the parts."""
    field, dice = author.field(), author.dice
    head, other = author.heads(field, 2)
    modifier, second = dice.some(field.modifiers, 2)
    shorten_query = dice.chance(0.7)

    def side(first: str, last: str) -> Side:
        topic, short = first + last, first[0] + last[0]
        asked, written = (short, topic) if shorten_query else (topic, short)
        return Side(lambda: author.ask(asked), lambda: author.write_topic(field, written, (head, other)))

    pairs = ((modifier, head), (modifier, other), (second, head))
    return Scene("abbreviation", frozenset((head, other)), tuple(side(*pair) for pair in pairs))


def attachment(author: Author) -> Scene:
    """Tell which of two modifiers belongs to which of two heads."""
    field, dice = author.field(), author.dice
    heads = author.heads(field, 2)
    modifiers = dice.some(field.modifiers, 2)

    def side(last: int) -> Side:
        topics = [modifiers[0] + heads[last], modifiers[1] + heads[1 - last]]

        def title() -> Title:
            body = dice.pick(phrases.COMPARISONS[author.split]).format(*dice.shuffled(topics))
            return author.write(field, body, topics, tuple(heads), framed=False)

        return Side(lambda: author.ask(dice.pick((topics[0], f"{topics[0]}和{topics[1]}"))), title)

    return Scene("attachment", frozenset(heads), (side(0), side(1)))


# How many of 50 scenes are of each kind, in train, and in dev and test.
TRAIN_SCENES: dict[Callable[[Author], Scene], int] = {
    part: 5, background: 7, direction: 5, contrast: 10, synonym: 8, synonym_far: 2, source: 5, abbreviation: 5,
    attachment: 3,
}  # fmt: skip
HELD_OUT_SCENES: dict[Callable[[Author], Scene], int] = {
    part: 5, background: 7, direction: 5, contrast: 8, contrast_new: 2, synonym: 6, synonym_new: 2, synonym_far: 2,
    source: 5, abbreviation: 5, attachment: 3,
}  # fmt: skip


def scenes(author: Author) -> Iterator[Scene]:
    """Yield scenes endlessly; each run of 50 holds every kind as often as the split's table says."""
    shares = TRAIN_SCENES if author.split == "train" else HELD_OUT_SCENES
    plan = [make for make, count in shares.items() for _ in range(count)]
    while True:
        for make in author.dice.shuffled(plan):
            yield make(author)


TITLES_PER_QUERY = 10
HARD_PER_QUERY = 6
# At least `HARD_PER_QUERY`: in a scene of two sides, all hard negatives come from the other side.
TITLES_PER_SIDE = 6
# Easy negatives are titles of this many recent sides; the number is fixed, so memory does not grow with the rows.
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

    All sides are equally likely, as they are among relevant titles: otherwise a title's kind would reveal its label.
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


def triples(seed: int) -> Iterator[tuple[str, str, str]]:
    """Yield (query, title, negative title) endlessly.

    Every title of a scene is the relevant title of one triple and, with probability 0.7, the hard negative of another.
    The other triples have a title on an unrelated subject as their negative.
    """
    dice = Dice(seed, "train")
    author, recent = Author(dice, "train"), _Recent(dice)
    for scene, titles in _scenes_with_titles(author, 1, recent):
        shift = 1 + dice.below(len(titles) - 1)
        for index, side in enumerate(scene.sides):
            hard = titles[(index + shift) % len(titles)][0]
            negative = hard if dice.chance(0.7) else recent.unrelated(scene.heads)
            yield side.query(), titles[index][0].text, negative.text


def groups(seed: int, split: str) -> Iterator[Group]:
    """Yield queries of `split` ("dev" or "test") endlessly, each with its titles in random order."""
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
