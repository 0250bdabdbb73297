"""Measure the recall by words of mistyped queries with a random error each, corrected or not.

    python -m benchmarks.typing_errors --judged ../shared/data/qbqtc/train.tsv
    python -m benchmarks.typing_errors --lines descriptions.txt

Recall@50 is shown as a share of the recall without errors. Times are of the same queries, in turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np

from paddle_ranker.data.rows.labels import number_of
from paddle_ranker.errors import UsageError
from paddle_ranker.lexical.analyser import is_spelled, standard
from paddle_ranker.lexical.spelling import WordVocabulary, homophones, most_errors
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.retrieval.words.query_parsing import ParsedQuery
from paddle_ranker.retrieval.words.word_search import WordSearcher

_DEPTH, _WORDS = 50, 3  # words of a query that is drawn from a line
Error = Callable[[str, int, str, np.random.Generator], Optional[str]]


@dataclass(frozen=True)
class TypingOptions(Options):
    judged: Optional[str] = option(None, help="queries, titles and labels, tab-separated with a header", either=True)
    lines: Optional[str] = option(None, help="texts, one a line: three words of one are a query for it", either=True)
    queries: int = option(1000, help="queries", minimum=1)
    seed: int = option(0, help="seed of queries and errors", minimum=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.judged is None) == (self.lines is None):
            raise UsageError("say what is searched: --judged or --lines, one of both")


def _sounds(text: str, place: int, letters: str, draw: np.random.Generator) -> Optional[str]:
    others = [homophone for homophone in homophones(text[place]) if homophone in letters]
    return text[:place] + str(draw.choice(others)) + text[place + 1 :] if others else None


def _swap(text: str, place: int, letters: str, draw: np.random.Generator) -> Optional[str]:
    pair = text[place : place + 2]
    return text[:place] + pair[::-1] + text[place + 2 :] if len({*pair}) == 2 and " " not in pair else None


ERRORS: dict[str, Error] = {
    "same sound": _sounds,
    "swap": _swap,
    "delete": lambda text, place, letters, draw: text[:place] + text[place + 1 :],
    "insert": lambda text, place, letters, draw: text[:place] + str(draw.choice(list(letters))) + text[place:],
    "replace": lambda text, place, letters, draw: text[:place] + str(draw.choice(list(letters))) + text[place + 1 :],
}


def read(options: TypingOptions, draw: np.random.Generator) -> tuple[list[str], dict[str, set[int]]]:
    """Return texts and, by query, the numbers of the relevant texts."""
    relevant: dict[str, set[int]] = {}
    if options.lines is not None:
        with open(options.lines, encoding="utf-8") as stream:
            texts = list(dict.fromkeys(line.strip() for line in stream if line.strip()))
        for number in draw.permutation(len(texts))[: options.queries].tolist():
            words = [run.text for run in standard.runs(standard.fold(texts[number])) if is_spelled(run.shape)]
            words = list(
                dict.fromkeys(word for word in words if len(word) > _WORDS and word not in standard.stop_words)
            )
            if len(words) >= _WORDS:
                relevant[" ".join(draw.choice(words, _WORDS, replace=False))] = {number}
        return texts, relevant
    titles: dict[str, int] = {}
    with open(str(options.judged), encoding="utf-8") as stream:
        for line in list(stream)[1:]:
            query, title, label = line.rstrip("\n").split("\t")[:3]
            number = titles.setdefault(title, len(titles))
            if (number_of(label) or 0) >= 1:
                relevant.setdefault(query, set()).add(number)
    chosen = draw.permutation(sorted(relevant))[: options.queries].tolist()
    return list(titles), {query: relevant[query] for query in chosen}


def run(options: TypingOptions) -> None:
    draw = np.random.default_rng(options.seed)
    texts, relevant = read(options, draw)
    words = WordSearcher.of_texts(texts, "standard")
    assert words.rewriter is not None
    words.rewriter.rewrite(ParsedQuery("mistyyped"))  # the vocabulary is arranged when it is first needed

    def search(query: str, corrects: bool = True) -> tuple[Sequence[int], float]:
        began = time.perf_counter()
        assert words.rewriter is not None
        found, _ = words.search(words.rewriter.rewrite(ParsedQuery(query)) if corrects else query, _DEPTH)
        return found.tolist(), time.perf_counter() - began

    def recall(query: str, asked: str, corrects: bool) -> float:
        return len(relevant[query].intersection(search(asked, corrects)[0])) / min(_DEPTH, len(relevant[query]))

    print(f"{len(texts):,} texts, {len(relevant):,} queries")
    whole = {query: recall(query, query, False) for query in relevant}
    same = sum(recall(query, query, True) for query in relevant) / sum(whole.values())
    print(f"without errors: Recall@{_DEPTH} {sum(whole.values()) / len(whole):.4f}; with corrections {same:.4f} of it")
    letters = "abcdefghijklmnopqrstuvwxyz"
    if options.judged is not None:
        letters = "".join(char for text in texts for char in text if "\u4e00" <= char <= "\u9fff")
    for name, error in ERRORS.items():
        typed = dict[str, str]()
        for query in relevant:
            places = [place for place, char in enumerate(query) if char.isalpha()]
            made = error(query, int(draw.choice(places)), letters, draw) if places else None
            if made is not None and made.strip():
                typed[query] = made
        if not typed:
            continue
        best = sum(whole[query] for query in typed)
        plain, corrected = (sum(recall(q, t, on) for q, t in typed.items()) / best for on in (False, True))
        times = np.array([[search(query)[1], search(one)[1], search(query, False)[1]] for query, one in typed.items()])
        mean = 1000 * times.mean(axis=0)
        print(
            f"{name}: {len(typed)} queries, {plain:.4f} as typed, {corrected:.4f} with corrections; {mean[1]:.2f} ms, "
            f"{mean[1] / mean[0]:.2f} times as long as without an error ({mean[0]:.2f} ms; literally {mean[2]:.2f} ms)"
        )
    vocabulary = WordVocabulary.of(f"{a}{b}{c}" for a in _SYLLABLES for b in _SYLLABLES for c in _SYLLABLES)
    asked = [str(vocabulary[place]) for place in draw.integers(0, len(vocabulary), 300).tolist()]
    took = []
    for word in asked:
        began = time.perf_counter()
        one = word[:2] + word[3:]
        any(any(vocabulary.near(one, errors)) for errors in range(most_errors(one) + 1))
        took.append(1000 * (time.perf_counter() - began))
    print(f"{len(vocabulary):,} words: near one in {np.median(took):.2f} ms (p95 {np.quantile(took, 0.95):.2f} ms)")


_SYLLABLES = [f"{a}{b}{c}" for a in "bcdfghklmn" for b in "aeiou" for c in ("", "r")]

main = main_of(run, TypingOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
