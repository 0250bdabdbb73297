"""Where words begin among the tokens of a text, for masking whole words."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import groupby
from typing import Any, Optional

import numpy as np

from paddle_ranker.encoding.tokenizers.folder import TokenizerFiles
from paddle_ranker.encoding.tokenizers.text_rules import WordSplitter, is_chinese
from paddle_ranker.encoding.tokenizers.wordpiece import CONTINUATION
from paddle_ranker.errors import DependencyError


class WordStarts:
    """Tell which tokens begin a word: all but `##` pieces and, with `segment`, the later ideographs of jieba's words.

    Without jieba installed each ideograph is a word of its own; `segments` says whether it is.
    """

    def __init__(self, files: TokenizerFiles, segment: bool):
        self._continues = np.zeros(files.vocab_size, bool)
        for token, token_id in files.token_to_id.items():
            self._continues[token_id] = token.startswith(CONTINUATION) and len(token) > len(CONTINUATION)
        self._splitter = WordSplitter(files.rules)
        self._wanted = segment

    @cached_property
    def _segmenter(self) -> Optional[Any]:
        from paddle_ranker.lexical.tokens import jieba_segmenter

        try:
            return jieba_segmenter() if self._wanted else None
        except DependencyError:
            return None

    @property
    def segments(self) -> bool:
        """Whether ideographs are joined to words."""
        return self._segmenter is not None

    def of(self, texts: Sequence[str], ids: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Return where words begin, `[total]` bool, among the `ids` `[total]` of `texts`, `lengths` `[n]` of each."""
        starts = ~self._continues[ids]
        if self.segments:
            # Each word of the splitter has exactly one token that does not continue another: they are one to one.
            joined = [begins for text in texts for begins in self._begins(self._splitter.split(text))]
            starts[np.flatnonzero(starts)] = joined
        return starts

    def _begins(self, words: list[str]) -> list[bool]:
        """Return which of the splitter's words begin one of jieba's."""
        begins: list[bool] = []
        for ideographs, run in groupby(words, lambda word: len(word) == 1 and is_chinese(ord(word))):
            run_words = list(run)
            if not ideographs:
                begins += [True] * len(run_words)
                continue
            assert self._segmenter is not None
            for word in self._segmenter.cut("".join(run_words), HMM=False):
                begins += [True] + [False] * (len(word) - 1)
        return begins
