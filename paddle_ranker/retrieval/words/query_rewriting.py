"""Rewrite a query: correct mistyped words, complete the last word, and add other spellings and synonyms.

snapshot.rewrite_query(parse_query("kuberentes")).corrected  # (Alternative('kuberentes', ('kubernetes',), 'typing'),)

A word that no document has is replaced by similar words that documents have: words that differ by one error, or by two
if the word has 8 letters or more (`lexical/spelling.py`); the word split into two words; Chinese characters of the same
sound. A word that documents have in another spelling, too, such as naive and naïve, finds both (`unicode/variants.py`).
Numbers, names with digits, words of less than 4 letters and words in quotes stay as they are. Corrections and
synonyms count less than typed words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple, Optional, Protocol

from rapidfuzz.distance import OSA

from paddle_ranker.lexical.analyser import STOP_WORDS, Analyser, CharacterRun, Token, is_spelled, letters_of
from paddle_ranker.lexical.spelling import homophones
from paddle_ranker.retrieval.words.query_parsing import ParsedQuery, required_word
from paddle_ranker.unicode.characters import is_han
from paddle_ranker.unicode.hangul_keys import longer_syllables
from paddle_ranker.unicode.variants import HIRAGANA, KATAKANA, common_form, other_kana

if TYPE_CHECKING:
    from paddle_ranker.retrieval.words.synonyms import Synonyms

TYPING, SOUND, PREFIX = "typing", "sound", "prefix"
# Weight of a word with one error, a completion, and a synonym or another spelling. Of texts of equal length the one
# with the exact spelling comes first; another one has to be about half as long to come before it. A higher weight would
# bring it there sooner, a lower one would hide what was typed without its accents: docs/queries.md has both.
_FACTOR, _OF_PREFIX, _OF_SYNONYM = 0.7, 0.5, 0.8
_MOST_WORDS = 8  # mistyped words of a query that are looked up, and parts that have synonyms
_MOST, _SHARE = 3, 0.05  # most corrections of a word; least share of the most frequent correction's documents
_SHARE_OF_TYPED = 0.02  # least documents of a pair with another character, as a share of those with the typed one
_COMPLETIONS, _COMPLETED = 8, 128  # most completions of a word: the most frequent of this many shortest words
_BY_FAR = 3  # a correction is clear if it has this many times the documents of the next correction
_APART = 3  # least letters of each of two words that were typed without a space
_RARE, _TIMES = 5, 20  # most documents of a word that may be mistyped; a replacement has this many times as many
_SPELLINGS = 8  # most other spellings of a word, the most frequent
_LONGEST = 8  # most units of a part that has synonyms
_SPELLED = re.compile(r"[^\W\d_]+")
_KANA = re.compile(f"[{KATAKANA}][{KATAKANA}\u30fc]*|[{HIRAGANA}][{HIRAGANA}\u30fc]*")


class Alternative(NamedTuple):
    """Words that are searched in addition to a part of a query.

    given: the part of the query, folded
    to: the added words, the most frequent first
    by: `TYPING`, `SOUND` or `PREFIX`; "" for synonyms
    is_clear: whether the first added word is so frequent that it is almost certainly meant
    """

    given: str
    to: tuple[str, ...]
    by: str = ""
    is_clear: bool = True


class AddedWord(NamedTuple):
    """Text that is searched in addition to the query.

    text: the added words
    factor: factor of the words' scores
    given: the part of the query that the text stands for
    is_whole: whether the text counts as one word, which a document has if it has all words of the text in a row
    """

    text: str
    factor: float
    given: str
    is_whole: bool = False


@dataclass(frozen=True)
class WordQuery:
    """Query with its corrections and synonyms.

    given: the query as typed
    text: `given` with the clear corrections, as towers and rankers read it
    extras: texts that the search by words adds to `given`
    corrected, synonyms: the alternatives from which `extras` are made
    """

    given: str
    text: str
    extras: tuple[AddedWord, ...] = ()
    corrected: tuple[Alternative, ...] = ()
    synonyms: tuple[Alternative, ...] = ()


class KnownWords(Protocol):
    """Words that the live documents of a collection have, in a folder or in shards elsewhere."""

    def near(self, word: str, unfinished: bool = False) -> list[tuple[str, int]]:
        """Return all known words at the least edit distance from a mistyped word, each with its distance.

        With several shards, each shard adds the words that are nearest among its own.

        unfinished: compare `word` with the beginnings of longer words, too
        """
        ...

    def alike(self, words: Sequence[str]) -> list[list[str]]:
        """Return, for each word, the known words in other spellings of it, see `common_form`.

        A spelling that is the common form itself is left out.
        """
        ...

    def common_spelling(self, word: str) -> str:
        """Return the common form of a word; the word itself if the fields' languages have other letters in it."""
        ...

    def beginning(self, prefix: str, most: int) -> list[str]:
        """Return at most `most` known words that begin with a prefix, in any spelling, the shortest first."""
        ...

    def tokens_of_word(self, word: str) -> list[str]:
        """Return the tokens that the fields' analysers make of a folded word."""
        ...

    def counts(self, tokens: Sequence[str]) -> list[int]:
        """Return how many documents have each token."""
        ...


class QueryRewriter:
    """Rewriter of queries, which adds corrections, completions and synonyms.

    Args:
        words: words of the collection, from which corrections and completions are taken.
        analyser: analyser of queries. The analysers of all searched fields must split texts at the same positions.
    """

    def __init__(self, words: KnownWords, analyser: Analyser):
        self._words, self._analyser = words, analyser
        self._stop_words = analyser.stop_words | STOP_WORDS
        self._heard: dict[str, str] = {}  # cached homophones of a character; there are at most 20,000 characters

    def rewrite(self, query: ParsedQuery, prefix: bool = False, synonyms: Optional[Synonyms] = None) -> WordQuery:
        """Return a query with its corrections and synonyms.

        prefix: whether the last word is unfinished, so that its completions are searched, too
        """
        folded, runs = self._runs(query.text)
        quotes = [self._analyser.fold(phrase) for phrase in query.phrases if required_word(phrase) is None]
        corrected, extras, text = list[Alternative](), list[AddedWord](), query.text
        last = runs[-1] if prefix and runs and runs[-1].is_word else None
        beginning = "" if last is None else folded[last.start :]
        if last is not None and len(beginning) > 1 and len(beginning) <= len(last.text) + 1:
            if completed := self._completions(beginning):
                corrected.append(Alternative(beginning, completed, PREFIX))
                extras += [AddedWord(completion, _OF_PREFIX, beginning, True) for completion in completed]
            elif self._may_be_mistyped(last) and beginning == last.text and not self._counts([beginning])[0]:
                corrected += self._mistyped([beginning], unfinished=True)
        elif prefix and runs and not runs[-1].is_word and not folded[runs[-1].start + len(runs[-1].text) :]:
            units = ["", *runs[-1].units()]
            before, unit = units[-2], units[-1]
            if completed := self._completed_unit(unit):
                corrected.append(Alternative(unit, completed, PREFIX))
                extras += [AddedWord(before + completion, _OF_PREFIX, unit) for completion in completed]
        runs_left = [run for run in runs if not corrected or run is not last]
        words, pairs = self._counted(runs_left)
        respelled, alternatives = self._spellings(runs_left, quotes)
        corrected += respelled
        done = {alternative.given for alternative in respelled}
        unknown = [word for word, count in words.items()
                   if not count and word not in done and not any(word in quote for quote in quotes)]  # fmt: skip
        joined = self._joined(runs_left, folded, unknown)
        corrected += joined
        apart = {word for alternative in joined for word in alternative.given.split()}
        corrected += self._mistyped([word for word in unknown if word not in apart][:_MOST_WORDS])
        unheard = [not count and not any(pair.text in quote for quote in quotes) for pair, count in pairs]
        corrected += self._misheard(folded, [pair for pair, _ in pairs], unheard)
        for alternative in corrected:
            if alternative.by != PREFIX:
                text = self._replaced(text, alternative.given, alternative.to[0]) if alternative.is_clear else text
                extras += [
                    AddedWord(other, _FACTOR ** _errors(alternative, other), alternative.given)
                    for other in alternative.to
                ]
        alternatives += self._synonyms(runs, folded, synonyms.of(self._analyser)) if synonyms is not None else []
        for alternative in alternatives:
            extras += [AddedWord(other, _OF_SYNONYM, alternative.given, True) for other in alternative.to]
        return WordQuery(query.text, text, tuple(extras), tuple(corrected), tuple(alternatives))

    def _spellings(
        self, runs: Sequence[CharacterRun], quotes: Sequence[str]
    ) -> tuple[list[Alternative], list[Alternative]]:
        """Return other spellings of words that no document has as they are typed, and of words that documents have."""
        parts = dict.fromkeys(
            part for run in runs if run.is_word for part in letters_of(run) if len(part) > 1
            and part not in self._stop_words and not any(part in quote for quote in quotes)
        )  # fmt: skip
        others = dict(zip(parts, self._words.alike([*parts])))
        for part in parts:
            others[part] = [other for other in {*others[part], self._words.common_spelling(part)} if other != part]
        kana = {kana: [other_kana(kana)] for run in runs if run.kind == "i" for kana in _kana_of(run)}
        others.update((part, alike) for part, alike in kana.items() if not any(part in quote for quote in quotes))
        unknown, known = list[Alternative](), list[Alternative]()
        for part, alike in [*others.items()]:
            if len(unknown) + len(known) < _MOST_WORDS and alike:
                found = self._known_spellings(alike)
                if found and self._known_spellings([part]):
                    known.append(Alternative(part, found))
                elif found:
                    unknown.append(Alternative(part, found, TYPING))
        return unknown, known

    def _known_spellings(self, words: Sequence[str]) -> tuple[str, ...]:
        """Return the most frequent of some words that documents have, in letters or in kana."""
        counts = dict(zip(words, self._counts(words)))
        for word in words:
            if not word.isascii() and (runs := [run for run in self._analyser.runs(word) if not run.is_word]):
                tokens = [token.text for run in runs for token in (self._analyser.groups(run) or run.words())]
                counts[word] = min(self._words.counts(tokens))
        ranked = sorted(((count, word) for word, count in counts.items() if count), key=_most_first)
        return tuple(word for _, word in ranked[:_SPELLINGS])

    def did_you_mean(self, query: WordQuery) -> Optional[str]:
        """Return the query's text with rare words replaced by similar frequent ones; None if no word is replaced."""
        folded, runs = self._runs(query.text)
        words, pairs = self._counted(runs)
        text, rare = query.text, {word: count for word, count in words.items() if 0 < count <= _RARE}
        for alternative in self._joined(runs, folded, [*rare], _TIMES * max(rare.values(), default=0)):
            text = self._replaced(text, alternative.given, alternative.to[0])
            rare = {word: count for word, count in rare.items() if word not in alternative.given.split()}
        for word, count in list(rare.items())[:_MOST_WORDS]:
            for alternative in self._mistyped([word], _TIMES * count):
                text = self._replaced(text, alternative.given, alternative.to[0])
        is_rare = [count <= _RARE for _, count in pairs]
        for alternative in self._misheard(folded, [pair for pair, _ in pairs], is_rare, _TIMES * _RARE):
            text = self._replaced(text, alternative.given, alternative.to[0])
        return None if text == query.text else text

    def _runs(self, text: str) -> tuple[str, list[CharacterRun]]:
        """Return a text's folded form and the character runs of this form."""
        folded = self._analyser.fold(text)
        return folded, list(self._analyser.runs(folded))

    def _counted(self, runs: Sequence[CharacterRun]) -> tuple[dict[str, int], list[tuple[Token, int]]]:
        """Count the documents with each word that may be mistyped; and with each pair of Chinese characters."""
        spelled = list(dict.fromkeys(run.text for run in runs if self._may_be_mistyped(run)))
        pairs = [pair for run in runs if _is_chinese(run) for pair in self._analyser.groups(run)]
        counts = self._words.counts([pair.text for pair in pairs])
        return dict(zip(spelled, self._counts(spelled))), list(zip(pairs, counts))

    def _may_be_mistyped(self, run: CharacterRun) -> bool:
        return bool(is_spelled(run.shape)) and run.text not in self._stop_words

    def _counts(self, words: Sequence[str]) -> list[int]:
        """Return, for each word, how many documents have it: the count of the most frequent token of the word."""
        tokens = [self._words.tokens_of_word(word) for word in words]
        counts = dict(zip(chain(*tokens), self._words.counts([*chain(*tokens)])))
        return [max((counts[token] for token in word_tokens), default=0) for word_tokens in tokens]

    def _by_count(self, words: Sequence[str]) -> list[tuple[int, str]]:
        """Return (number of documents, word) for each word, the most frequent first."""
        return sorted(zip(self._counts(words), words), key=_most_first)

    def _frequent(self, words: Sequence[str], least: int = 1) -> tuple[tuple[str, ...], bool]:
        """Return the most frequent of `words`, and whether the first is far more frequent than the second.

        At most `_MOST` words are returned, and none that is much rarer than the first.

        least: leave out words that fewer documents have
        """
        counts = self._by_count(words)
        most = counts[0][0] if counts else 0
        frequent = tuple(word for count, word in counts[:_MOST] if count >= max(least, _SHARE * most))
        return frequent, len(frequent) < 2 or most >= _BY_FAR * counts[1][0]

    def _mistyped(self, words: Sequence[str], least: int = 1, unfinished: bool = False) -> Iterator[Alternative]:
        """Yield a correction of each word that is similar to a word of the collection, or splits into two such words.

        least: number of documents that must have a similar word
        """
        for word in words:
            near = self._words.near(word, unfinished)
            distance = min((errors for _, errors in near), default=0)
            others = list(dict.fromkeys(other for other, errors in near if errors == distance))
            corrections, is_clear = self._frequent(others, least)
            if not near and least == 1 and (parts := self._apart(word)):
                corrections = (parts,)
            if corrections:
                yield Alternative(word, corrections, TYPING, is_clear)

    def _joined(
        self, runs: Sequence[CharacterRun], folded: str, wrong: Sequence[str], least: int = 1
    ) -> list[Alternative]:
        """Return corrections that join two neighbouring words of the query to a word of the collection.

        wrong: words that no, or hardly any, document has; one of the two words must be among these words
        least: number of documents that must have the joined word
        """
        pairs = [
            (number, first.text, second.text)
            for number, (first, second) in enumerate(zip(runs, runs[1:]))
            if (first.text in wrong or second.text in wrong)
            and all(map(self._may_be_mistyped, (first, second)))
            and folded[first.start + len(first.text) : second.start].isspace()
        ]
        counts, joined, done = self._counts([first + second for _, first, second in pairs]), list[Alternative](), 0
        for (number, first, second), count in zip(pairs, counts):
            if count >= least and number >= done:
                joined.append(Alternative(f"{first} {second}", (first + second,), TYPING))
                done = number + 2
        return joined

    def _apart(self, word: str) -> str:
        """Split a word into two words of the collection, with a space between; return "" if that is not possible."""
        splits = range(_APART, len(word) - _APART + 1)
        counts = self._counts([part for split in splits for part in (word[:split], word[split:])])
        least = {split: min(counts[2 * n : 2 * n + 2]) for n, split in enumerate(splits)}
        best = max(least, key=least.__getitem__, default=0)
        return f"{word[:best]} {word[best:]}" if best and least[best] else ""

    def _completions(self, beginning: str) -> tuple[str, ...]:
        others = [word for word in self._words.beginning(beginning, _COMPLETED) if word != beginning]
        return tuple(word for count, word in self._by_count(others)[:_COMPLETIONS] if count)

    def _completed_unit(self, unit: str) -> tuple[str, ...]:
        """Return the most frequent units that a unit under way may become: งู for ง, 울 for 우."""
        others = longer_syllables(unit)
        if not others and not is_han(unit):
            others = [word for word in self._words.beginning(unit, _COMPLETED) if _is_unit(self._analyser, word)]
        counts = zip(self._words.counts(others), others)
        ranked = sorted((counted for counted in counts if counted[0] and counted[1] != unit), key=_most_first)
        return tuple(other for _, other in ranked[:_COMPLETIONS])

    def _misheard(
        self, folded: str, pairs: Sequence[Token], unknown: Sequence[bool], least: int = 1
    ) -> Iterator[Alternative]:
        """Yield corrections of Chinese characters by characters of the same sound.

        A character may be wrong if all pairs that contain it are unknown. A correction is kept if documents have all of
        these pairs with the character that replaces it, and if they are not few beside those with the typed character:
        一 of 一里路 is in many texts, and 忆里 in a few is no reason to read another character.

        pairs: pairs of neighbouring characters of the query, or jieba's words
        unknown: for each pair, whether no, or hardly any, document has it
        least: number of documents that must have each corrected pair
        """
        around: dict[int, list[int]] = {}
        for number, pair in enumerate(pairs):
            for position in range(pair.start, pair.end):
                around.setdefault(position, []).append(number)
        wrong = [position for position, numbers in around.items() if all(unknown[number] for number in numbers)]
        tried = {position: self._homophones(folded[position]) for position in wrong[: 2 * _MOST_WORDS]}
        made = {
            (position, other, number): _with(pairs[number], position, other)
            for position, others in tried.items() for other in others for number in around[position]
        }  # fmt: skip
        counts = dict(zip(made, self._words.counts([*made.values()])))
        documents = {
            (position, other): min(counts[position, other, number] for number in around[position])
            for position, others in tried.items() for other in others
        }  # fmt: skip
        typed = dict(zip(tried, self._words.counts([folded[position] for position in tried])))
        done = set[int]()
        for position, best in sorted(documents, key=lambda key: (-len(around[key[0]]), -documents[key], *key)):
            count = documents[position, best]
            if count < max(least, _SHARE_OF_TYPED * typed[position]) or not done.isdisjoint(around[position]):
                continue
            done.update(around[position])
            start, end = pairs[around[position][0]].start, pairs[around[position][-1]].end
            at_position = ((documents[position, other], other) for other in tried[position])
            others = sorted(
                (counted for counted in at_position if counted[0] >= max(least, _SHARE * count)), key=_most_first
            )
            part = Token(folded[start:end], start, end)
            is_clear = len(others) < 2 or count >= _BY_FAR * others[1][0]
            yield Alternative(
                part.text, tuple(_with(part, position, other) for _, other in others[:_MOST]), SOUND, is_clear
            )

    def _homophones(self, character: str) -> str:
        """Return the characters that sound like `character` and that documents have."""
        sounding = self._heard.get(character)
        if sounding is None:
            others = homophones(character)
            counts = self._words.counts([*others])
            sounding = self._heard[character] = "".join(other for other, count in zip(others, counts) if count)
        return sounding

    def _synonyms(self, runs: Sequence[CharacterRun], folded: str, rules: dict[str, list[str]]) -> list[Alternative]:
        """Return synonyms of parts of the query.

        If parts overlap, only the part that begins first gets synonyms; if parts begin together, only the longest.

        rules: synonyms of each word, see `Synonyms.of`
        """
        ends = [0] * (len(folded) + 1)
        units = [unit for run in runs for unit in ([run] if run.is_word else run.words())]
        alternatives = list[Alternative]()
        for first, unit in enumerate(units if rules else ()):
            if len(alternatives) == _MOST_WORDS:
                break
            for last in range(min(len(units), first + _LONGEST) - 1, first - 1, -1):
                end = units[last].start + len(units[last].text)
                part = " ".join(folded[unit.start : end].split())
                if part in rules and ends[unit.start] < end:
                    alternatives.append(Alternative(part, tuple(dict.fromkeys(rules[part]))))
                    ends[unit.start : end] = [end] * (end - unit.start)
                    break
        return alternatives

    def _replaced(self, text: str, mistyped: str, to: str) -> str:
        """Return a text with `to` in place of the folded word `mistyped`; unchanged if the text lacks that word."""
        if is_han(mistyped):
            return text.replace(mistyped, to)
        words, matches = mistyped.split(), list(_SPELLED.finditer(text))
        folded, parts, start, done = [self._analyser.fold(match[0]) for match in matches], list[str](), 0, 0
        for number, match in enumerate(matches):
            last = number + len(words) - 1
            if number < done or folded[number : last + 1] != words:
                continue
            between = text[match.start() : matches[last].end()]
            if len(between.split()) == len(words):
                parts += [text[start : match.start()], to]
                start, done = matches[last].end(), last + 1
        return "".join([*parts, text[start:]])


def corrected_phrases(phrases: Sequence[str], query: WordQuery, analyser: Analyser) -> tuple[str, ...]:
    """Return phrases with the first correction for each required word that no document has, see `required_word`."""
    corrections = [one for one in query.corrected if one.by != PREFIX]
    read = list[str]()
    for phrase in phrases:
        word = required_word(phrase)
        folded = None if word is None else analyser.fold(word)
        to = next((_corrected(folded, one) for one in corrections if _corrects(folded, one)), "") if folded else ""
        read += [f"+{part}" for part in to.split()] or [phrase]
    return tuple(dict.fromkeys(read))


def _corrects(word: str, correction: Alternative) -> bool:
    """Return whether a correction is of a word, of two words of which it is one, or of Chinese characters in it."""
    given = correction.given
    return word in (given, *given.split()) or (bool(is_han(given)) and given in word)


def _corrected(word: str, correction: Alternative) -> str:
    return word.replace(correction.given, correction.to[0]) if correction.given in word else correction.to[0]


def _is_unit(analyser: Analyser, text: str) -> bool:
    runs = list(analyser.runs(text))
    return len(runs) == 1 and not runs[0].is_word and len(runs[0].units()) == 1


def _kana_of(run: CharacterRun) -> Iterator[str]:
    """Yield the parts of a run that are katakana or hiragana alone; a single character only if it is the whole run."""
    for match in _KANA.finditer(run.text):
        if len(match[0]) > 1 or match[0] == run.text:
            yield match[0]


def _is_chinese(run: CharacterRun) -> bool:
    return run.kind == "i" and bool(is_han(run.text))


def _with(pair: Token, position: int, other: str) -> str:
    """Return the text of a token, where `other` replaces the character at a position of the query."""
    offset = position - pair.start
    return pair.text[:offset] + other + pair.text[offset + 1 :]


def _most_first(counted: tuple[int, str]) -> tuple[int, str]:
    return -counted[0], counted[1]


def _errors(alternative: Alternative, other: str) -> int:
    if alternative.by == SOUND or " " in alternative.given + other:
        return 1
    return min(2, OSA.distance(common_form(alternative.given), common_form(other)))
