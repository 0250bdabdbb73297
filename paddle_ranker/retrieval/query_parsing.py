"""Read a query: its phrases and exclusions, its mistyped words, its synonyms.

query = parse_query('kuberentes "rolling update" -helm')
query.text, query.phrases, query.excluded     # 'kuberentes rolling update', ('rolling update',), ('helm',)
snapshot.rewrite_query(query).corrected          # (Alternative('kuberentes', ('kubernetes',), 'typing'),)

A word that no document has is replaced by similar words that documents have: with one error, or two from 8 letters on;
split into two words; Chinese characters by others of the same sound. Numbers, names with digits, words of less than 4
letters and words in quotes stay as they are. Corrections and synonyms count less than what was typed.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple, Optional, Protocol

from rapidfuzz.distance import OSA

from paddle_ranker.errors import CheckpointError, DataError, ParameterError, brief, quoted
from paddle_ranker.lexical.analyser import STOP_WORDS, Analyser, CharacterRun, Token, is_spelled
from paddle_ranker.lexical.spelling import homophones
from paddle_ranker.retrieval.bounds import LONGEST_QUERY, MOST_PARTS
from paddle_ranker.storage.untrusted import read_file
from paddle_ranker.unicode.characters import fold, is_han, without_accents

TYPING, SOUND, PREFIX = "typing", "sound", "prefix"
_FACTOR, _OF_PREFIX, _OF_SYNONYM = 0.7, 0.5, 0.8  # weight of a word with one error, a completion, a synonym
_MOST_WORDS = 8  # mistyped words of a query that are looked up, and parts that have synonyms
_MOST, _SHARE = 3, 0.05  # most corrections of a word; least share of the most frequent one's documents
_COMPLETIONS, _COMPLETED = 8, 128  # most completions of a word: the most frequent of this many shortest ones
_BY_FAR = 3  # a correction is clear if it has this many times the documents of the next one
_APART = 3  # least letters of each of two words that were typed as one
_RARE, _TIMES = 5, 20  # most documents of a word that may be mistyped; a replacement has this many times as many
_LONGEST, _MOST_SYNONYMS = 8, 1 << 20  # units of a synonym; bytes of the file
_MOST_TERMS, _LOOK_SECONDS = 32, 1.0  # synonyms of a word, and words on a side of a line; between checks of the file
_SPELLED = re.compile(r"[^\W\d_]+")
_SIGN = re.compile(r'(?<![A-Za-z0-9])"|(?<!\S)[-+]')  # which may begin a phrase, an exclusion, a required word
_SIGNED_WORD = re.compile(r"(?![A-Za-z](?!\S))[^\W\d_]\S*")
_AFTER_SUBTITLE = re.compile(r'"|(?<!\S)-|((?<=[^\s-])[-\u2010-\u2015\u2212\uff0d](?![-\w]))')
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ParsedQuery:
    """Query without its quotes and signs.

    text: the query's words, including those in quotes
    phrases: texts in quotes, and words after plus signs, with the sign (see `required_word`). A result must have each
        of them, unless no document at all has it
    excluded: phrases and words after minus signs. No result has any of them
    read: number of the query's code points that were read, if it was too long; None: all of them
    """

    text: str
    phrases: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    read: Optional[int] = None


def parse_query(text: str, *, literal: bool = False) -> ParsedQuery:
    """Parse a query. Documents must have `"a phrase"` and a word after a plus sign, not a word after a minus sign.

    Other quotes, as in 学历“鄙视链”, are text. A sign within words, before a digit, another sign or a single letter
    (`ls -l`) means nothing, nor do two minus signs around a subtitle (`鬼滅の刃 -無限列車編-`). Only the first 1,000
    code points are read. Raises `ParameterError` for a query of exclusions alone, for too many phrases and exclusions,
    and for a phrase that the 1,000 code points cut off.

    literal: quotes and signs are text, too
    """
    whole, text = text, text[:LONGEST_QUERY]
    read = len(text) if len(text) < len(whole) else None
    if literal or not _SIGN.search(text):
        return ParsedQuery(text, read=read)
    words, phrases, excluded = _parts(text, whole)
    if not phrases and not excluded:
        return ParsedQuery(text, read=read)
    words = " ".join(words.split())
    if not words:
        problem = f"{quoted(text)} says only what must not be there: add what to search for, or search literally"
        raise ParameterError("query", problem)
    return ParsedQuery(words, tuple(dict.fromkeys(phrases)), tuple(dict.fromkeys(excluded)), read)


def required_word(phrase: str) -> Optional[str]:
    """Return the word of a phrase that was written as a word after a plus sign; None for a phrase in quotes."""
    return phrase[1:] if phrase.startswith("+") and _SIGNED_WORD.fullmatch(phrase, 1) else None


def _parts(text: str, whole: str) -> tuple[str, list[str], list[str]]:
    """Return the words of a query as one text, its phrases, and its exclusions.

    whole: the query before it was cut to the first 1,000 code points
    """
    words, phrases, excluded, start, place = list[str](), list[str](), list[str](), 0, 0
    while sign := _SIGN.search(text, place):
        place, parts, is_signed = sign.end(), excluded if sign[0] == "-" else phrases, sign[0] != '"'
        if not is_signed or text.startswith('"', place):
            begin, is_word = place + is_signed, False
            end = text.find('"', begin)
            is_cut = end < 0 <= whole.find('"', len(text))
            after = end + 1
        else:
            if (word := _SIGNED_WORD.match(text, place)) is None:
                continue
            subtitle = _AFTER_SUBTITLE.search(text, place) if parts is excluded else None
            if subtitle is not None and subtitle[1]:
                place = subtitle.end()
                continue
            (begin, end), is_word = word.span(), True
            is_cut = end == len(text) < len(whole) and not whole[end].isspace()
            after = end
        if is_cut:
            problem = f"{brief(whole[begin:])} does not end within the {LONGEST_QUERY:,} characters that are read"
            raise ParameterError("query", f"{problem}: shorten it, or search literally")
        if end < 0 or not (part := text[begin:end].strip()):
            continue
        words += [text[start : sign.start()], part if parts is phrases else ""]
        if parts is phrases:  # a plus sign within quotes would read as one before a word
            part = f"+{part}" if is_word else required_word(part) or part
        parts.append(part)
        start = place = after
        if len(phrases) + len(excluded) > MOST_PARTS:
            problem = f"{brief(text)} has more than the {MOST_PARTS} phrases and exclusions that are allowed"
            raise ParameterError("query", problem)
    return " ".join([*words, text[start:]]), phrases, excluded


class Alternative(NamedTuple):
    """Words that are searched in addition to a part of a query.

    given: that part of the query, folded
    to: the words, the most frequent first
    by: reason: `TYPING`, `SOUND` or `PREFIX`; "" for synonyms
    is_clear: whether the first word is so frequent that hardly any other can be meant
    """

    given: str
    to: tuple[str, ...]
    by: str = ""
    is_clear: bool = True


class AddedWord(NamedTuple):
    """Text that is searched in addition to the query.

    text: its words
    factor: factor of the scores of these words
    given: the part of the query that the text stands for
    is_whole: whether a document must have all words next to each other; they then count as one word
    """

    text: str
    factor: float
    given: str
    is_whole: bool = False


@dataclass(frozen=True)
class WordQuery:
    """Query as it is searched by words.

    given: the query as typed
    text: the text that towers and rankers read: `given` with the clear corrections
    extras: texts that are searched in addition to the words of `given`
    corrected, synonyms: the alternatives that `extras` are made of
    """

    given: str
    text: str
    extras: tuple[AddedWord, ...] = ()
    corrected: tuple[Alternative, ...] = ()
    synonyms: tuple[Alternative, ...] = ()


class Synonyms:
    """Synonyms of words, from a file.

    A line of the file is `car, automobile` (each also finds the other) or `laptop, 笔记本 => notebook computer` (the
    words on the left also find the one on the right). Empty lines and those that begin with # are ignored.

    A search uses the rules that are loaded and never waits for the file. While there are searches, a thread checks the
    file at most once a second, and reads it again if it has changed. If that fails, the old rules stay, and the reason
    is logged.

    Args:
        file: a regular file of at most 1 MiB.

    Raises `DataError` for a malformed line, and for a file that is larger or not a regular file.
    """

    def __init__(self, file: Path):
        self._file, self._looking = file, threading.Lock()
        self._stamp: tuple[int, ...] = ()
        self._next_look = 0.0
        self._rules: list[tuple[str, list[str]]] = []
        self._folded = dict[Analyser, dict[str, list[str]]]()
        self.reload()

    def of(self, analyser: Analyser) -> dict[str, list[str]]:
        """Return the synonyms by word; words and synonyms are folded by the analyser."""
        if time.monotonic() >= self._next_look and self._looking.acquire(blocking=False):
            threading.Thread(target=self._look, name="synonyms", daemon=True).start()
        folded, rules = self._folded, self._rules
        if analyser not in folded:
            folded[analyser] = _folded_rules(rules, analyser)
        return folded[analyser]

    def reload(self) -> bool:
        """Read the file if it has changed; return whether it was read.

        Raises `DataError` for a file that is not valid, and `OSError` if the file does not exist.
        """
        stat = os.stat(self._file)
        stamp = stat.st_ino, stat.st_mtime_ns, stat.st_size
        if stamp == self._stamp:
            return False
        self._stamp = stamp  # a file that is wrong is read once
        rules = _read_rules(self._file)
        folded = {analyser: _folded_rules(rules, analyser) for analyser in [*self._folded]}
        self._rules, self._folded = rules, folded
        return True

    def _look(self) -> None:
        try:
            self.reload()
        except (DataError, OSError) as error:
            _LOG.warning("the synonyms stay as they were: %s", error)
        finally:
            self._next_look = time.monotonic() + _LOOK_SECONDS
            self._looking.release()


def _read_rules(file: Path) -> list[tuple[str, list[str]]]:
    try:
        lines = read_file(file, _MOST_SYNONYMS).decode("utf-8-sig").split("\n")
    except CheckpointError:
        raise DataError(
            f"{file}: is no regular file of at most {_MOST_SYNONYMS >> 20} MiB, as synonyms are read from; give another"
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: is not UTF-8 ({error.reason} at byte {error.start:,}); convert it") from error
    rules: dict[str, list[str]] = {}
    for number, line in enumerate(lines, start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        left, arrow, right = line.partition("=>")
        words, to = ([" ".join(word.split()) for word in side.split(",")] for side in (left, right if arrow else left))
        if not all(words) or not all(to) or "=>" in right or (not arrow and len(words) < 2):
            raise DataError(f'{file}: line {number:,} is {quoted(line)}, expected "a, b" or "a, b => c"; correct it')
        if max(len(words), len(to)) > _MOST_TERMS:
            raise DataError(f"{file}: line {number:,} has more than {_MOST_TERMS} words beside each other; divide it")
        for word in words:
            synonyms = rules.setdefault(" ".join(fold(word).split()), [])
            synonyms += [other for other in to if other != word and other not in synonyms]
            if len(synonyms) > _MOST_TERMS:
                raise DataError(
                    f"{file}: line {number:,} gives {quoted(word)} more than {_MOST_TERMS} synonyms; leave some out"
                )
    return [*rules.items()]


def _folded_rules(rules: Sequence[tuple[str, list[str]]], analyser: Analyser) -> dict[str, list[str]]:
    folded: dict[str, list[str]] = {}
    for word, others in rules:
        folded.setdefault(" ".join(analyser.fold(word).split()), []).extend(others)
    return folded


class KnownWords(Protocol):
    """Words that the live documents of a collection have, in a folder or in shards elsewhere."""

    def near(self, word: str, unfinished: bool = False) -> list[tuple[str, int]]:
        """Return known words that a mistyped word may stand for, each with its edit distance.

        All words at the least distance are among them.

        unfinished: compare with the beginnings of longer words, too
        """
        ...

    def beginning(self, prefix: str, most: int) -> list[str]:
        """Return at most `most` known words that begin with a prefix, the shortest first."""
        ...

    def tokens_of_word(self, word: str) -> list[str]:
        """Return the tokens as which the analysers of the fields index a folded word."""
        ...

    def counts(self, tokens: Sequence[str]) -> list[int]:
        """Return how many documents have each token."""
        ...


class QueryRewriter:
    """Rewriter of queries: adds corrections, completions and synonyms, from the words of a collection.

    Args:
        words: the collection's words.
        analyser: analyser of the queries; all searched fields split texts into the same words.
    """

    def __init__(self, words: KnownWords, analyser: Analyser):
        self._words, self._analyser = words, analyser
        self._stop_words = analyser.stop_words | STOP_WORDS
        self._heard: dict[str, str] = {}  # by character; there are 20,000 of them at most

    def rewrite(self, query: ParsedQuery, prefix: bool = False, synonyms: Optional[Synonyms] = None) -> WordQuery:
        """Return a query with its corrections and synonyms.

        prefix: the last word is unfinished: words that begin as this word does are searched, too
        """
        folded, runs = self._runs(query.text)
        quotes = [self._analyser.fold(required_word(phrase) or phrase) for phrase in query.phrases]
        corrected, extras, text = list[Alternative](), list[AddedWord](), query.text
        last = runs[-1] if prefix and runs and runs[-1].is_word else None
        beginning = "" if last is None else folded[last.start :]
        if last is not None and len(beginning) > 1 and len(beginning) <= len(last.text) + 1:
            if completed := self._completions(beginning):
                corrected.append(Alternative(beginning, completed, PREFIX))
                extras += [AddedWord(completion, _OF_PREFIX, beginning) for completion in completed]
            elif self._may_be_mistyped(last) and beginning == last.text and not self._counts([beginning])[0]:
                corrected += self._mistyped([beginning], unfinished=True)
        runs_left = [run for run in runs if not corrected or run is not last]
        words, pairs = self._counted(runs_left)
        unknown = [word for word, count in words.items() if not count and not any(word in quote for quote in quotes)]
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
        alternatives = self._synonyms(runs, folded, synonyms.of(self._analyser)) if synonyms is not None else []
        for alternative in alternatives:
            extras += [AddedWord(other, _OF_SYNONYM, alternative.given, True) for other in alternative.to]
        return WordQuery(query.text, text, tuple(extras), tuple(corrected), tuple(alternatives))

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
        """Return how many documents have each word that may be mistyped, and each pair of Chinese characters."""
        spelled = list(dict.fromkeys(run.text for run in runs if self._may_be_mistyped(run)))
        pairs = [pair for run in runs if _is_chinese(run) for pair in self._analyser.groups(run)]
        counts = self._words.counts([pair.text for pair in pairs])
        return dict(zip(spelled, self._counts(spelled))), list(zip(pairs, counts))

    def _may_be_mistyped(self, run: CharacterRun) -> bool:
        return bool(is_spelled(run.shape)) and run.text not in self._stop_words

    def _counts(self, words: Sequence[str]) -> list[int]:
        """Return how many documents have each word: the count of its most frequent token."""
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
        """Yield a correction for each word that is similar to words of the collection.

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
        """Return corrections of two neighbouring words that, written as one, are a word of the collection.

        wrong: unknown words; one of the two must be among them
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
        places = range(_APART, len(word) - _APART + 1)
        counts = self._counts([part for place in places for part in (word[:place], word[place:])])
        least = {place: min(counts[2 * n : 2 * n + 2]) for n, place in enumerate(places)}
        best = max(least, key=lambda place: least[place], default=0)
        return f"{word[:best]} {word[best:]}" if best and least[best] else ""

    def _completions(self, beginning: str) -> tuple[str, ...]:
        others = [word for word in self._words.beginning(beginning, _COMPLETED) if word != beginning]
        return tuple(word for count, word in self._by_count(others)[:_COMPLETIONS] if count)

    def _misheard(
        self, folded: str, pairs: Sequence[Token], unknown: Sequence[bool], least: int = 1
    ) -> Iterator[Alternative]:
        """Yield corrections of Chinese characters by others of the same sound.

        A character is looked up if no document has any of the pairs (or words) that contain it. With the other
        character in its place, documents must have all of these pairs.

        pairs: pairs of characters of the query
        unknown: for each pair, whether no document has it
        """
        around: dict[int, list[int]] = {}
        for number, pair in enumerate(pairs):
            for place in range(pair.start, pair.end):
                around.setdefault(place, []).append(number)
        wrong = [place for place, numbers in around.items() if all(unknown[number] for number in numbers)]
        tried = {place: self._homophones(folded[place]) for place in wrong[: 2 * _MOST_WORDS]}
        made = {
            (place, other, number): _with(pairs[number], place, other)
            for place, others in tried.items() for other in others for number in around[place]
        }  # fmt: skip
        counts = dict(zip(made, self._words.counts([*made.values()])))
        best = [
            (len(around[place]), min(counts[place, other, number] for number in around[place]), place, other)
            for place, others in tried.items() for other in others
        ]  # fmt: skip
        done = set[int]()
        for _, count, place, _ in sorted(best, key=lambda item: (-item[0], -item[1], *item[2:])):
            if count < least or not done.isdisjoint(around[place]):
                continue
            done.update(around[place])
            start, end = pairs[around[place][0]].start, pairs[around[place][-1]].end
            frequent = max(least, _SHARE * count)
            others = sorted(
                ((documents, other) for _, documents, at, other in best if at == place and documents >= frequent),
                key=_most_first,
            )
            part = Token(folded[start:end], start, end)
            is_clear = len(others) < 2 or count >= _BY_FAR * others[1][0]
            yield Alternative(
                part.text, tuple(_with(part, place, other) for _, other in others[:_MOST]), SOUND, is_clear
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

        Of parts that overlap, the one that begins first counts; of those that begin together, the longest.

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


def _is_chinese(run: CharacterRun) -> bool:
    return run.kind == "i" and bool(is_han(run.text))


def _with(pair: Token, place: int, other: str) -> str:
    at = place - pair.start
    return pair.text[:at] + other + pair.text[at + 1 :]


def _most_first(counted: tuple[int, str]) -> tuple[int, str]:
    return -counted[0], counted[1]


def _errors(alternative: Alternative, other: str) -> int:
    if alternative.by == SOUND or " " in alternative.given + other:
        return 1
    return min(2, OSA.distance(without_accents(alternative.given), without_accents(other)))
