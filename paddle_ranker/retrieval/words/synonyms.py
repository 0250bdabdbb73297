"""Synonyms of words, which an operator gives in a file."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from paddle_ranker.errors import CheckpointError, DataError, quoted
from paddle_ranker.lexical.analyser import Analyser
from paddle_ranker.storage.untrusted import read_file
from paddle_ranker.unicode.characters import fold

_MOST_BYTES = 1 << 20  # size of the file
_MOST_TERMS = 32  # synonyms of a word, and words on a side of a line
_LOOK_SECONDS = 1.0  # between two checks of the file
_LOG = logging.getLogger(__name__)


class Synonyms:
    """Synonyms of words, from a file.

    A line of the file is `car, automobile` (each word also finds the other) or `laptop, 笔记本 => notebook computer`
    (each word on the left also finds the word on the right). Empty lines and lines that begin with # are ignored.

    Searches never wait for the file. While there are searches, a thread checks the file at most once a second, and
    reads it again if it has changed. If reading fails, the synonyms stay as they were, and the reason is logged.

    Args:
        file: a regular file of at most 1 MiB.

    Raises `DataError` for a malformed line, for a larger file, and for a file that is not regular.
    """

    def __init__(self, file: Path):
        self._file, self._looking = file, threading.Lock()
        self._stamp: tuple[int, ...] = ()
        self._next_look = 0.0
        self._rules: list[tuple[str, list[str]]] = []
        self._folded = dict[Analyser, dict[str, list[str]]]()
        self.reload()

    def of(self, analyser: Analyser) -> dict[str, list[str]]:
        """Return the synonyms by word, folded by the analyser."""
        if time.monotonic() >= self._next_look and self._looking.acquire(blocking=False):
            threading.Thread(target=self._look, name="synonyms", daemon=True).start()
        folded, rules = self._folded, self._rules
        if analyser not in folded:
            folded[analyser] = _folded_rules(rules, analyser)
        return folded[analyser]

    def reload(self) -> bool:
        """Read the file if it has changed; return whether it was read.

        Raises `DataError` for an invalid file, and `OSError` if there is no file.
        """
        stat = os.stat(self._file)
        stamp = stat.st_ino, stat.st_mtime_ns, stat.st_size
        if stamp == self._stamp:
            return False
        self._stamp = stamp  # before reading, so that an invalid file is read once
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
        lines = read_file(file, _MOST_BYTES).decode("utf-8-sig").split("\n")
    except CheckpointError:
        raise DataError(
            f"{file}: is no regular file of at most {_MOST_BYTES >> 20} MiB, as synonyms are read from; give another"
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
