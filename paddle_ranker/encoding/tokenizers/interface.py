"""Interface of a model's tokenizer, `ModelTokenizer`, and the template of its pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Protocol

import numpy as np
from numpy.typing import NDArray

Ids = tuple[int, ...]
Lengths = NDArray[np.int64]
# Ids of all texts, one after another, [total] int32; tokens of each text, [n] int64.
FlatIds = tuple[NDArray[np.int32], Lengths]


class Tokenizes(Protocol):
    """Encoder of texts as ids, without special tokens. Thread-safe."""

    def encode(self, texts: Sequence[str], most: Optional[int] = None) -> FlatIds:
        """Return (ids, counts): the ids of all texts, concatenated, and the number of ids of each text.

        most: number of ids that the caller needs of each text; further ids may be missing. Defaults to all ids
        """
        ...

    def after(self, prompt: str) -> Tokenizes:
        """Return an encoder of texts that follow a prompt; its ids begin with those of the prompt.

        The prompt is the model owner's: special tokens in it get their ids. Those in texts are plain text, unless the
        files have `special_tokens_in_texts`.
        """
        ...

    def ends(self, texts: Sequence[str]) -> list[Lengths]:
        """Return the end of each token of each text, in code points, `[tokens] int64`, ascending."""
        ...


@dataclass(frozen=True)
class Spelling:
    """Classes of tokens that spell the same characters; each array is `[vocab_size]`.

    ids: int64, the smallest id in the token's class; for special tokens and spaces the padding's id. For example, the
        tokens of a word at the start of a text, inside a text and in capitals share a class
    inside: bool, True for tokens that begin inside a character, with one of its later bytes
    blank: bool, True for tokens that consist of spaces
    """

    ids: NDArray[np.int64]
    inside: NDArray[np.bool_]
    blank: NDArray[np.bool_]


class ModelTokenizer(Protocol):
    """Tokenizer files of a model's folder.

    Attributes:
        vocab_size: largest id + 1.
        special_tokens: tokens by role ("unk_token", "pad_token", ...); a role may be missing.
        may_fall_short: whether the vocabulary may have far fewer tokens than the model has embeddings. If False, a
            vocabulary with fewer tokens is treated as damaged.
        backend: "builtin" or "tokenizers", the code that turns texts into ids.
        special_tokens_in_texts: whether special tokens in texts get their ids, except the padding token.
        markers: ids of the tokens that the files declare as special, by token.
    """

    @property
    def vocab_size(self) -> int: ...

    @property
    def special_tokens(self) -> dict[str, str]: ...

    @property
    def may_fall_short(self) -> bool: ...

    @property
    def backend(self) -> str: ...

    @property
    def special_tokens_in_texts(self) -> bool: ...

    @property
    def markers(self) -> dict[str, int]: ...

    @property
    def token_to_id(self) -> dict[str, int]:
        """A dict from token to id."""
        ...

    def id_of(self, token: str) -> Optional[int]:
        """Return a token's id; None if the vocabulary lacks it."""
        ...

    def template(self) -> PairTemplate:
        """Return the special tokens of a pair and of a text."""
        ...

    def tokenizer(self) -> Tokenizes:
        """Create the encoder of texts with these files."""
        ...

    def words(self) -> Sequence[str]:
        """Return texts of ordinary tokens, from which example texts are built."""
        ...

    def spelling(self) -> Optional[Spelling]:
        """Return the spelling by which tokens of two texts are compared, or None if their ids are compared."""
        ...

    def in_small_letters(self) -> ModelTokenizer:
        """Return a copy that lowercases texts before it splits them."""
        ...

    def with_special_tokens_in_texts(self) -> ModelTokenizer:
        """Return a copy that gives special tokens in texts their ids."""
        ...

    def write(self, folder: Path) -> None:
        """Write the tokenizer's files into `folder`, which must exist."""
        ...


@dataclass(frozen=True)
class PairTemplate:
    """Special tokens around a pair and around a single text, and rules of truncation.

    before, between, after: ids around the texts of a pair, such as `[CLS]` query `[SEP]` title `[SEP]`
    text_before, text_after: ids around a single text
    longer_keeps_more: which side keeps one token more if both are truncated and keep an odd number of tokens together.
        True: the longer side, or the title if both are equally long, as in `tokenizers`. False: the query, as in
        PaddleNLP
    keeps_end: whether truncation removes the beginnings of texts instead of their ends
    """

    before: Ids
    between: Ids
    after: Ids
    text_before: Ids
    text_after: Ids
    longer_keeps_more: bool = False
    keeps_end: bool = False

    @property
    def pair_tokens(self) -> int:
        """Number of special tokens of a pair."""
        return len(self.before) + len(self.between) + len(self.after)

    @property
    def text_tokens(self) -> int:
        """Number of special tokens of a single text."""
        return len(self.text_before) + len(self.text_after)

    def truncated(self, first: Lengths, second: Lengths, budget: int) -> tuple[Lengths, Lengths]:
        """Return how many tokens of each pair's first and second text to keep, `[n]` each, so that the pair fits.

        first, second: token counts of the texts, `[n]` each
        budget: maximum number of tokens of both texts together, at least 2

        The result equals removing token after token from the longer text: a truncated text keeps half of the budget,
        or all that the other text leaves.
        """
        larger = budget - budget // 2
        of_first = np.where(first > second, larger, budget // 2) if self.longer_keeps_more else larger
        kept_first = np.minimum(first, np.maximum(of_first, budget - second))
        kept_second = np.minimum(second, np.maximum(budget - of_first, budget - first))
        return kept_first, kept_second


def bert_template(cls_id: int, sep_id: int) -> PairTemplate:
    """Return the template `[CLS] query [SEP] title [SEP]`, truncated as in PaddleNLP."""
    return PairTemplate((cls_id,), (sep_id,), (sep_id,), (cls_id,), (sep_id,))


BERT_SHAPE = bert_template(0, 0)  # for code that needs the numbers of special tokens, not their ids
