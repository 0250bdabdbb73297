"""Split a text in any script into words, by a table of character classes and patterns over them.

standard("维生素A与C++")     # 维 生 素 维生 生素 a 素a 与 a与 c++ c 与c++
standard("COVID-19 的 trained models")     # covid 19 covid19 的 19的 train model
analyser("accents+french")("des élèves")     # eleve

No word is dropped: a word's idf determines its weight.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import import_module
from operator import add
from typing import Any, NamedTuple, Optional, Union
from unicodedata import combining

from paddle_ranker.errors import DependencyError, UsageError, listed, package_for, quoted
from paddle_ranker.unicode.characters import HAN, accents, class_of, fold, is_han, is_whole, shape_of
from paddle_ranker.unicode.variants import LETTERS, common_form

LONGEST = 64  # characters of a word; longer words are neither stemmed nor joined from parts
_DIGEST = 6  # a word of more parts, with less than three characters on average, is a digest: a single token
_SHORT = 3  # most characters of a word that forms a pair with a neighbouring ideograph
_LONGEST_NAME = 24  # characters of a word with digits or signs that can complete a query
WRITTEN = "\0="  # prefix of the term for a word as written, with its signs
PART = "\0"  # prefix of terms for parts of words that are no tokens
SINGLE, STOP = 0.8, 0.1  # weights of a unit beside units, such as an ideograph, and of a stop word among words
# Weight of the token for a whole name (维生素A, PM2.5) if the query is only this name. With a smaller weight, a short
# text with most of the parts would rank above a long text with the name.
NAME, _NAME_UNITS = 5.0, 4
_AS_WRITTEN = 10.0  # weight of a word's term with signs, if the query is only this word: twice the sum of its parts
ENGLISH = "english"
_CONTRACTED = frozenset(("t", "s", "m", "d", "re", "ll", "ve"))


# Stop words by language; other languages of `LANGUAGES` have none. The English words are Lucene's
# (EnglishAnalyzer.ENGLISH_STOP_WORDS_SET).
_STOP_WORDS = {
    ENGLISH: "a an and are as at be but by for if in into is it no not of on or such that the their then there these "
    "they this to was will with",
    "danish": "af at da de den der det du en er et for fra han har hun i ikke jeg man med men og om på som til var vi",
    "dutch": "aan als bij dat de die dit een en er het hij ik in is maar met naar niet of om op te van voor was wat ze",
    "french": "à au aux avec ce ces dans de des du elle en est et eux il ils je la le les leur lui ma mais me mes ne "
    "nos nous on ou par pas pour qu que qui sa se ses son sont sur ta te un une vos vous",
    "german": "aber als am an auch auf aus bei bin das dass dem den der des die ein eine einem einen einer eines er es "
    "für hat ich ihr im in ist mit nach nicht oder sich sie sind so und um von war was wie wir zu zum zur",
    "italian": "a ai al alla alle anche che chi ci come con da dal dalla dei del della delle di e è gli ha i il in io "
    "la le lo ma ne nel nella non o per più se si sono su sul sulla tra un una uno",
    "norwegian": "av at da de den der det du en er et for fra han har hun i ikke jeg man med men og om på som til var "
    "vi",
    "portuguese": "a à ao aos as às com como da das de do dos e é em entre essa esse esta este eu foi já mais mas na "
    "não nas no nos o os ou para pela pelo por que são se sem seu sua também um uma",
    "russian": "а без бы был была были было в во вы да для до его ее если же за и из или им их к как ко мы на не но о "
    "он она они от по при с со так то у что это я",
    "spanish": "a al como con de del el ella en entre era es esta este fue ha la las lo los más me mi muy no nos o "
    "para pero por que se ser si sin sobre son su sus también un una y ya",
    "swedish": "att av de den det du ej en er ett från för han har hon i inte jag man med men och om på så som till "
    "var vi är",
}
STOP_WORDS = frozenset(_STOP_WORDS[ENGLISH].split())
# Frequent words of English, and of other languages; a text with more English words counts as English.
_ENGLISH, _FOREIGN = (
    frozenset(words.split())
    for words in (
        "the of and to that this with are their there these they into it",
        "der die das und ist ein eine nicht mit den dem auf von zu le la les des et est un une du que qui dans pour "
        "sur el los las y por con una para del il lo di che non per sono het een van en niet dat och att det som og "
        "ikke ve bir bu dan yang",
    )
)
_CAPITALS = re.compile(
    r"(?<!\w)(?<!\w[-.&/_@+'])(?:(?<=\w )A|{})(?![-.&/_@+'\u2019]?\w)".format("|".join(STOP_WORDS - {"a"}).upper())
)
_UNSTEMMED = "icelandic"  # Snowball has no stemmer of it
_STEMMED = (
    "arabic armenian basque catalan danish dutch english finnish french german greek hindi hungarian indonesian irish "
    "italian lithuanian nepali norwegian portuguese romanian russian spanish swedish tamil turkish"
)
LANGUAGES = tuple(sorted([*_STEMMED.split(), _UNSTEMMED]))


# At most 8 commas of thousands, because a longer list of groups would be matched again from each group.
_BODY = r"w[wm]*(?:'w[wm]*)*|0{1,3}(?:,000){1,8}(?![0,])(?:\.0+)*|0+(?:\.0+)*"
_ENDING = r"\+\+|[+#%*](?![w0+#%*])"  # C++ C# 50%
_PART = f"(?:{_BODY})(?:{_ENDING})?"
_PARTS, _GROUPS = re.compile(f"({_BODY})({_ENDING})?"), re.compile("[^.]+")
_ATOMS = re.compile("w[wm]*|0+")  # runs of letters and runs of digits
# .NET #tag COVID-19 node.js snake_case R&D
_RUNS = re.compile(f"i[im]*|t[tm]*|(?:(?<![w0m.#@$])[.#@$](?=[w0]))?{_PART}(?:[-._/&@+]?{_PART})*")
_UNITS = re.compile("[it]m*")
is_spelled = re.compile("w[wm]{0,63}").fullmatch  # called with a word's classes; matches a word of letters only


class Token(NamedTuple):
    """Token, and its start and end in code points."""

    text: str
    start: int
    end: int


class Word(NamedTuple):
    """Tokens of a word.

    tokens: the tokens with their positions
    texts: the tokens' texts
    first: the word's first part, which may form a pair with an ideograph before the word
    last: the word's last part, which may form a pair with an ideograph after the word
    parts: terms for the runs of letters and runs of digits that no token stands for (see `Analyser.phrase_terms`), and
        `written`
    written: a term for the whole word with its signs, as in I/O, e-mail and don't; "" if the whole word is a token, or
        is very long
    """

    tokens: tuple[Token, ...]
    texts: tuple[str, ...]
    first: str
    last: str
    parts: tuple[str, ...]
    written: str


class CharacterRun(NamedTuple):
    """Run of characters of a folded text: a word, ideographs, or letters of a script without spaces.

    kind: i (ideographs), t (a script without spaces), or w (a word)
    text: the characters
    start: position of the first character in the folded text
    shape: the class of each character
    language: language of the stems
    pair: token of the end of the previous run and the beginning of this run; "" if they form no pair
    """

    kind: str
    text: str
    start: int
    shape: str
    language: str = ENGLISH
    pair: str = ""

    @property
    def is_word(self) -> bool:
        return self.kind not in "it"

    @property
    def word(self) -> Word:
        """The tokens of this run; only for a run that is a word."""
        return word_of(self.text, self.shape, self.language)

    def units(self) -> Union[str, list[str]]:
        """Return the ideographs or letters of this run, each with its marks; only for a run that is no word."""
        return _units(self.text, self.shape)

    def words(self) -> list[Token]:
        """Return the tokens of a run that is a word, or the `units` of another run.

        Starts and ends are positions in the folded text.
        """
        if self.is_word:
            tokens: Sequence[Token] = self.word.tokens
        else:
            tokens = [Token(self.text[slice(*match.span())], *match.span()) for match in _UNITS.finditer(self.shape)]
        return [Token(text, self.start + start, self.start + end) for text, start, end in tokens]


def pieces(folded: str) -> Iterator[tuple[int, str, str]]:
    """Yield (position, characters, classes) of each run of a folded text."""
    shape = shape_of(folded)
    for match in _RUNS.finditer(shape):
        start, end = match.span()
        yield start, folded[start:end], shape[start:end]


def _stems_of(folded: str, language: str) -> Iterator[tuple[str, int, int]]:
    """Yield (stem, start, end) of each run of letters and each run of digits of a folded text's words."""
    for at, text, shape in pieces(folded):
        for match in _ATOMS.finditer(shape) if shape[0] not in "it" else ():
            start, end = match.span()
            yield stem(text[start:end], language), at + start, at + end


def occurrences(text: str, part: str) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of each occurrence of a part in a text; an empty part has none."""
    start = text.find(part) if part else -1
    while start >= 0:
        yield start, start + len(part)
        start = text.find(part, start + 1)


class Phrase:
    """Folded phrase.

    A text has the phrase if it has the phrase's characters in a row, apart from the width of spaces, with whole words
    at both ends (see `is_whole`). With a language, a phrase that is one word of several parts (t-shirt) stands for all
    that a search for the word finds as a whole: parts of the same stems in a row, joined by one sign or space, or by
    nothing.

    Args:
        folded: the phrase, folded.
        language: language of the stems; "": the phrase occurs only as it is written.

    Attributes:
        text: the phrase.
        joined: token of the parts joined by nothing; "" if the phrase stands for itself alone.
    """

    def __init__(self, folded: str, language: str = ""):
        text = " ".join(folded.split())
        while text and class_of(text[0]) == "m":  # a mark without a character
            text = text[1:].lstrip()
        self.text, self._is_single = text, " " not in text
        self.joined, self._language, self._stems = "", language, list[str]()
        runs = list(pieces(text)) if language else []
        if len(runs) == 1 and runs[0][1] == text and "w" in runs[0][2]:
            self._stems = [stem for stem, _, _ in _stems_of(text, language)]
        if len(self._stems) > 1:
            tokens = word_of(text, runs[0][2], language).tokens
            self.joined = max(tokens, key=lambda token: token.end - token.start).text

    def matches(self, folded: str) -> Iterator[bool]:
        """Yield, for each occurrence of the phrase in a folded text, whether it begins and ends with whole words."""
        text = folded if self._is_single else " ".join(folded.split())
        yield from (is_whole(text, *span) for span in occurrences(text, self.text))
        if self.joined:
            yield from self._in_a_row(folded)

    def _in_a_row(self, folded: str) -> Iterator[bool]:
        """Yield, for each part of a text, whether the phrase's parts begin there, by their stems."""
        row = deque[tuple[str, int, int]](maxlen=len(self._stems))
        for part in _stems_of(folded, self._language):
            row.append(part)
            parts = [*row]
            yield [stem for stem, _, _ in parts] == self._stems and all(
                after - end <= 1 for (_, _, end), (_, after, _) in zip(parts, parts[1:])
            )


@dataclass(frozen=True)
class Analyser:
    """Tokenizer of texts in any script; called with a text, it returns the tokens.

    accents: ignore accents: é is e, in Latin and Greek letters, and ё is е
    simplified: convert traditional Chinese characters to simplified ones, by OpenCC
    jieba: split Chinese into characters and jieba's words, instead of characters and pairs
    language: language of stems and stop words; "": texts may be in any language, and stems are English
    """

    accents: bool = False
    simplified: bool = False
    jieba: bool = False
    language: str = ""

    def __call__(self, text: str) -> list[str]:
        """Return the tokens of a text: ideographs, Thai syllables and so on, and their pairs; words as stems, as
        written, and in parts.

        Stop words of the language (English by default) are left out. A stop word is kept if it stands beside
        ideographs, if the text has no other words, or, in English, if it is in capitals.
        """
        return self.tokens(text)

    def tokens(self, text: str, seen: Optional[set[str]] = None, parts: Optional[list[str]] = None) -> list[str]:
        """Return the tokens of a text.

        seen: set to which words and short names of the folded text are added, and parts of words with other spellings,
            such as œuvre in l'œuvre, and units with marks, such as งู
        parts: list to which terms of parts of words are added, see `phrase_terms`
        """
        tokens, jieba = list[str](), self.jieba
        runs = list(self.runs(self.fold(text)))
        is_english = not self.language and not _ENGLISH.isdisjoint([run.text for run in runs]) and _is_english(runs)
        stop_words = self.stop_words if is_english or self.language else frozenset[str]()
        for index, (kind, run, _, shape, language, pair) in enumerate(runs):
            if kind in "it":
                units = _units(run, shape)
                tokens += units
                if seen is not None and "m" in shape:
                    seen.update(unit for unit in units if len(unit) > 1)
                tokens += self._joined(runs[index], units) if jieba else map(add, units, units[1:])
            elif run not in stop_words or not _among_words(runs, index):
                word = word_of(run, shape, language)
                tokens += word.texts
                if parts is not None:
                    parts += word.parts
                if seen is not None and (len(run) <= _LONGEST_NAME or is_spelled(shape)):
                    seen.add(run)
                if seen is not None and not run.isascii() and not is_spelled(shape):
                    seen.update(_with_variants(run, shape))
            if pair:
                tokens.append(pair)
        if is_english and not text.isupper():
            capitals = (
                match for match in _CAPITALS.finditer(text) if not combining(text[match.end() : match.end() + 1] or " ")
            )
            tokens += (match[0].lower() for match in capitals)
        return tokens or [run.text for run in runs]

    def phrase_terms(self, folded: str) -> list[tuple[str, ...]]:
        """Return groups of terms that find a folded phrase: a text with the phrase has a term of each group.

        A group is of a run of letters or of digits, not of a word: covid-19 has the token covid19, and post-covid-19
        has not, but both have covid and 19. A run without a token of its own, as in don't or 1,000, is found by the
        term that `tokens` adds to `parts`.
        """
        groups = dict[tuple[str, ...], None]()
        for run in self.runs(folded):
            if run.is_word:
                for text in _atoms(run.text, run.shape):
                    if text not in self.stop_words:
                        groups[stem(text, run.language), PART + text, PART] = None
                continue
            units = run.units()
            if len(units) == 1 or (run.kind == "i" and self.jieba):
                groups.update(((unit,), None) for unit in units)
            else:
                groups.update(((joined,), None) for joined in map(add, units, units[1:]))
        return list(groups)

    @cached_property
    def table(self) -> dict[int, str]:
        """The replacements of characters that the options ask for, for `str.translate` of a folded text."""
        return {**(accents() if self.accents else {}), **(_simplified() if self.simplified else {})}

    @cached_property
    def stop_words(self) -> frozenset[str]:
        return frozenset(self.fold(_STOP_WORDS.get(self.language or ENGLISH, "")).split())

    @property
    def letters(self) -> str:
        """The letters of the language that are no variants of others, see `common_form`."""
        return LETTERS.get(self.language, "")

    def fold(self, text: str) -> str:
        """Fold a text: remove differences of width and case, and invisible characters; then replace by `table`."""
        folded = fold(text)
        return folded.translate(self.table) if self.table and not folded.isascii() else folded

    def has_word(self, text: str, word: str) -> bool:
        """Return whether a text has a folded word as `tokens` adds it to `seen`, and not just its stem."""
        folded = self.fold(text)
        return word in folded and any(
            word in (run.text, *(_with_variants(run.text, run.shape) if run.is_word else run.units()))
            for run in self.runs(folded)
        )

    def runs(self, folded: str) -> Iterator[CharacterRun]:
        before, beside, end, language = "", "", 0, self.language or ENGLISH
        for start, text, shape in pieces(folded):
            kind, pair = shape[0], ""
            if kind not in "it":
                _, _, first, last, *_ = word_of(text, shape, language)
                if before == "i" and folded[end:start] in ("", " ") and len(first) <= _SHORT:
                    pair = beside + first
                kind = "w"
            else:
                units = _units(text, shape)
                first, last = units[0], units[-1]
                if before == "w" and kind == "i" and folded[end:start] in ("", " ") and len(beside) <= _SHORT:
                    pair = beside + first
            yield CharacterRun(kind, text, start, shape, language, pair)
            before, beside, end = kind, last, start + len(text)

    def groups(self, run: CharacterRun) -> list[Token]:
        """Return the pairs of neighbouring units of a run that is no word; with `jieba`, jieba's words of ideographs.

        Starts and ends are positions in the folded text.
        """
        units = run.words()
        pairs = [Token(first.text + second.text, first.start, second.end) for first, second in zip(units, units[1:])]
        if not self.jieba or run.kind != "i":
            return pairs
        words = jieba_segmenter().tokenize(run.text, "search")
        tokens = [
            Token(word, run.start + start, run.start + end)
            for word, start, end in words
            if len(word) > 1 and run.shape[end : end + 1] != "m"
        ]
        return [*tokens, *(pair for pair in pairs if not is_han(pair.text))]

    def _joined(self, run: CharacterRun, units: Sequence[str]) -> Iterable[str]:
        """Return the texts of the tokens that `groups` returns."""
        return [token.text for token in self.groups(run)] if self.jieba else map(add, units, units[1:])

    def groups_of(self, text: str) -> frozenset[str]:
        """Return the texts of the tokens that `groups` returns for the runs of a text."""
        runs = (run for run in self.runs(self.fold(text)) if not run.is_word)
        return frozenset(token.text for run in runs for token in self.groups(run))

    def weighed(self, query: str) -> Iterator[tuple[str, float]]:
        """Yield the tokens of a query with their weights, 1 by default.

        A unit beside another unit, as in Chinese or Thai, gets a lower weight. So does a stop word among other words,
        in English only if it is in small letters. If the query is a name, such as 维生素A or PM2.5, the token of the
        whole name gets a higher weight.
        """
        runs = list(self.runs(self.fold(query)))
        asks = (bool(self.language) or query.isascii()) and any(token not in self.stop_words for token in self(query))
        written = _whole_name(runs)
        for run in runs:
            if run.pair:
                yield run.pair, NAME if run.pair == written else 1.0
            if run.is_word:
                is_small = asks and (bool(self.language) or query[run.start : run.start + len(run.text)].islower())
                for token in run.word.texts:
                    is_stop = is_small and (run.text if self.language else token) in self.stop_words
                    yield token, STOP if is_stop else NAME if token == written else 1.0
                if run.word.written:
                    yield run.word.written, _AS_WRITTEN if len(runs) == 1 else 1.0
                continue
            units = run.units()
            yield from ((unit, SINGLE if len(units) > 1 else 1.0) for unit in units)
            yield from ((joined, 1.0) for joined in self._joined(run, units))


@lru_cache(maxsize=64)
def analyser(options: str) -> Analyser:
    """Return the analyser with options joined by "+", as in "accents+french"; "" is `standard`.

    Raises `UsageError` for an unknown option.
    """
    settings: dict[str, Any] = {}
    for name in filter(None, options.split("+")):
        key = "language" if name in LANGUAGES else name
        if key in settings or key not in ("language", *FOLDS):
            raise UsageError(
                f"analyser {quoted(options)}: expected some of {listed(FOLDS)}, and a language ({listed(LANGUAGES)}), "
                "joined by +"
            )
        settings[key] = name if key == "language" else True
    return Analyser(**settings)


FOLDS = ("accents", "simplified", "jieba")
standard = analyser("")


def _is_english(runs: Sequence[CharacterRun]) -> bool:
    return sum((run.text in _ENGLISH) - (run.text in _FOREIGN or not run.text.isascii()) for run in runs) > 0


def _among_words(runs: Sequence[CharacterRun], index: int) -> bool:
    return all(run.is_word for run in runs[max(0, index - 1) : index + 2])


def _whole_name(runs: Sequence[CharacterRun]) -> str:
    """If the query is a name of several tokens (PM2.5, 维生素A), return the token of the whole name, else "".

    runs: all character runs of the folded query
    """
    if len(runs) == 1 and runs[0].is_word and "'" not in runs[0].text and len(runs[0].word.texts) > 1:
        return max(runs[0].word.texts, key=len)
    if len(runs) == 2 and all(len(run.units()) <= _NAME_UNITS for run in runs if not run.is_word):
        return runs[1].pair
    return ""


@lru_cache(maxsize=1)
def _simplified() -> dict[int, str]:
    """Return the simplified character of each traditional character, by code point; context is ignored."""
    with package_for("the analyser's simplified", "opencc"):
        from opencc import OpenCC
    characters = [chr(code) for first, last in HAN for code in range(first, last + 1)]
    pairs = zip(characters, OpenCC("t2s").convert("\n".join(characters)).split("\n"))
    return {ord(character): other for character, other in pairs if character != other and len(other) == 1}


@lru_cache(maxsize=1)
def jieba_segmenter() -> Any:
    """Return jieba's word segmenter, initialised; raises `DependencyError` if jieba is not installed."""
    with package_for("splitting words", "jieba (or take the tokenizer bigram)"):
        import jieba
    jieba.setLogLevel("ERROR")
    tokenizer = jieba.Tokenizer()
    # As jieba's `initialize`, but without its cache: a marshal file in the shared temporary folder, where anyone could
    # put a malicious one, and where writing it ends in a traceback if the folder is full.
    tokenizer.FREQ, tokenizer.total = tokenizer.gen_pfdict(tokenizer.get_dict_file())
    tokenizer.initialized = True
    return tokenizer


def _units(text: str, shape: str) -> Union[str, list[str]]:
    return text if "m" not in shape else [text[slice(*match.span())] for match in _UNITS.finditer(shape)]


def word_of(text: str, shape: str, language: str = ENGLISH) -> Word:
    """Tokenize a word of a folded text; `shape` has the class of each character."""
    # Long words are not cached, because they hardly occur again.
    return _word(text, shape, language) if len(text) <= LONGEST else _word.__wrapped__(text, shape, language)


@lru_cache(maxsize=1 << 16)
def _word(text: str, shape: str, language: str) -> Word:
    parts = list(_PARTS.finditer(shape))
    tokens = tuple(_tokens_of(text, parts, language))
    texts, known = tuple(token.text for token in tokens), {token.text for token in tokens}
    others: Iterable[str] = ()
    if _is_digest(text, parts) and len(text) > LONGEST:
        others = ("",)  # there may be thousands
    else:
        others = (atom for atom in dict.fromkeys(_atoms(text, shape)) if stem(atom, language) not in known)
    first, last = text[: parts[0].end()], text[parts[-1].start() :]
    has_signs = not set(shape) <= set("wm0") and text not in known
    written = WRITTEN + text if has_signs and len(text) <= LONGEST and not _is_digest(text, parts) else ""
    terms = (*(PART + atom for atom in others), *filter(None, [written]))
    return Word(tokens, texts, first, last, terms, written)


def _atoms(text: str, shape: str) -> Iterator[str]:
    """Yield the runs of letters and the runs of digits of a word."""
    return (text[slice(*match.span())] for match in _ATOMS.finditer(shape))


def letters_of(run: CharacterRun) -> list[str]:
    """Return the runs of letters of a word, each once; a word of very many parts has none."""
    is_short = len(run.text) <= LONGEST or is_spelled(run.shape)
    return [text for text in dict.fromkeys(_atoms(run.text, run.shape)) if text[0].isalpha()] if is_short else []


def _with_variants(text: str, shape: str) -> Iterator[str]:
    """Yield the runs of letters of a word that have other spellings; a word of very many parts yields none."""
    parts = _atoms(text, shape) if len(text) <= LONGEST else ()
    return (part for part in parts if len(part) > 1 and common_form(part) != part)


def _is_digest(text: str, parts: Sequence[re.Match[str]]) -> bool:
    return len(parts) > _DIGEST and len(text) < 3 * len(parts)


def _tokens_of(text: str, parts: Sequence[re.Match[str]], language: str) -> Iterator[Token]:
    if _is_digest(text, parts):
        yield Token(text, 0, len(text))
        return
    for part in parts:
        start, end = part.span(1)
        body = text[start:end]
        if part.group(2):
            yield Token(text[start : part.end()], start, part.end())
        if "'" in body:
            plain = body[:-2] if body.endswith("'s") else body
            yield Token(stem(plain.replace("'", ""), language), start, end)
            head, _, tail = plain.partition("'")
            if tail and len(head) <= 2:  # l'eau, qu'il
                yield Token(stem(tail.replace("'", ""), language), start + len(head) + 1, start + len(plain))
            elif tail and tail not in _CONTRACTED:  # İstanbul'da
                yield Token(stem(head, language), start, start + len(head))
        else:
            yield Token(stem(body.replace(",", ""), language), start, end)
            for before in _GROUPS.finditer(body) if "." in body else ():
                yield Token(before.group(), start + before.start(), start + before.end())
    begin = parts[0].start()
    if len(text) <= LONGEST and (len(parts) > 1 or begin):
        written = text[begin : parts[0].end()]
        for before, after in zip(parts, parts[1:]):
            joiner = text[before.end() : after.start()]
            is_number = written[-1].isdigit() and text[after.start()].isdigit()
            written += (joiner if is_number else "") + text[after.start() : after.end()]
        if len(parts) > 1:
            yield Token(stem(written.replace("'", ""), language), begin, len(text))
        if begin:
            yield Token(text[:begin] + written, 0, len(text))


def stem(word: str, language: str = ENGLISH) -> str:
    """Return the stem of a word, which may be longer or shorter than the word.

    A word above `LONGEST` characters is returned unchanged, because Snowball takes time quadratic in the length.
    """
    if language == _UNSTEMMED:
        return word
    letters = word.isascii() and word.isalpha() if language == ENGLISH else not any(map(str.isdecimal, word))
    return stem_of(word, language) if letters and 3 < len(word) <= LONGEST else word


@lru_cache(maxsize=1 << 16)
def stem_of(word: str, language: str = ENGLISH) -> str:
    """Return the stem of a word by Snowball's stemmer for a language."""
    try:
        module = import_module(f"snowballstemmer.{language}_stemmer")
    except ImportError as error:
        raise DependencyError(
            f"{language.title()} words need snowballstemmer: pip install -U snowballstemmer (or take the tokenizer "
            "bigram)"
        ) from error
    # A stemmer stores its current word, so that threads cannot share a stemmer.
    return str(getattr(module, f"{language.title()}Stemmer")().stemWord(word))
