"""What a model's tokenizer is to those who encode with it: `ModelTokenizer`, and the template of its pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Protocol

import numpy as np
from numpy.typing import NDArray

Lengths = NDArray[np.int64]
# Ids of all texts, one after another, [total] int32; tokens of each text, [n] int64.
FlatIds = tuple[NDArray[np.int32], Lengths]


class Tokenizes(Protocol):
    """Texts to ids, without special tokens; may be called from several threads at once."""

    def encode(self, texts: Sequence[str], most: Optional[int] = None) -> FlatIds:
        """Return the ids of `texts`.

        Args:
            most: of a text with more ids, only the first ones are needed: at least so many; None: all.
        """
        ...


@dataclass(frozen=True)
class Spelling:
    """What the tokens of a vocabulary spell, `[vocab_size]` each.

    ids: int64, the smallest id of all tokens that spell the same characters: a word at a text's start and in its
        middle, say, or in capitals; the padding's for special tokens and for spaces
    inside: bool, tokens that begin inside a character, with one of its later bytes
    blank: bool, tokens of spaces alone
    """

    ids: NDArray[np.int64]
    inside: NDArray[np.bool_]
    blank: NDArray[np.bool_]


class ModelTokenizer(Protocol):
    """What a model's folder holds of its tokenizer.

    Attributes:
        vocab_size: largest id + 1.
        special_tokens: a dict from role ("unk_token", "pad_token", ...) to token; a role may be missing.
        may_fall_short: whether the model may have many more embeddings than there are tokens; otherwise such a
            vocabulary was cut short.
        backend: what turns texts into ids: "builtin", or the library's name.
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
        """Return what turns texts into ids."""
        ...

    def words(self) -> Sequence[str]:
        """Return texts of ordinary tokens, to make up samples."""
        ...

    def spelling(self) -> Optional[Spelling]:
        """Return what tokens spell, where those of two texts are compared; None: every token spells its own."""
        ...

    def in_small_letters(self) -> ModelTokenizer:
        """Return the same tokenizer, which makes capital letters small before it splits texts."""
        ...

    def write(self, folder: Path) -> None:
        """Write the tokenizer's files into `folder`, which must exist."""
        ...


@dataclass(frozen=True)
class PairTemplate:
    """The ids around the texts of a pair, and around a single text, and how a pair is truncated.

    before, between, after: the special tokens of a pair, `[CLS]` query `[SEP]` title `[SEP]`
    text_before, text_after: those of a single text
    longer_keeps_more: which side keeps one more token if half of an odd budget is left to both. True: the longer one,
        or the title if both are equally long, as the tokenizers library does; False: the query, as PaddleNLP does
    keeps_end: truncated texts lose their beginnings instead of their ends
    """

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]
    text_before: tuple[int, ...]
    text_after: tuple[int, ...]
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
        """Return how many tokens [n] each side keeps so that both fit into `budget` >= 2 tokens.

        This is the closed form of removing one token at a time from the longer side: a truncated side keeps half of the
        budget, or all that the other side leaves.
        """
        larger = budget - budget // 2
        of_first = np.where(first > second, larger, budget // 2) if self.longer_keeps_more else larger
        kept_first = np.minimum(first, np.maximum(of_first, budget - second))
        kept_second = np.minimum(second, np.maximum(budget - of_first, budget - first))
        return kept_first, kept_second


def bert_template(cls_id: int, sep_id: int) -> PairTemplate:
    """Return the template `[CLS] query [SEP] title [SEP]`, truncated as in PaddleNLP."""
    return PairTemplate((cls_id,), (sep_id,), (sep_id,), (cls_id,), (sep_id,))


BERT_SHAPE = bert_template(0, 0)  # for what needs to know how many special tokens are where, not which
