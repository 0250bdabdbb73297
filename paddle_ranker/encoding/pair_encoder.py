"""Turn pairs of texts into ids, for one ranker or a blend: segments, truncation and special tokens."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Callable, Optional, Protocol, Union

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.encoding import TOKENIZER_NAMES
from paddle_ranker.encoding.columns import (
    TYPES,
    BlendedPairs,
    Columns,
    EncodedPairs,
    EncodedTexts,
    GivenArrays,
    given_pairs,
    offsets_of,
    ragged_positions,
)
from paddle_ranker.encoding.tokenizers.builtin import Tokenizer
from paddle_ranker.encoding.tokenizers.folder import TokenizerFiles
from paddle_ranker.errors import CheckpointError, InputError, UsageError, quoted

SPECIAL_TOKENS_A_PAIR = 3
SPECIAL_TOKENS_A_TEXT = 2
# Called with each row's token count before truncation, [n], special tokens included, and the length to which rows are
# truncated; may raise an error to refuse them. A row that is to be truncated may have still more tokens.
LengthCheck = Callable[[NDArray[np.int64], int], None]
_SHORTEST_PAIR = SPECIAL_TOKENS_A_PAIR + 2  # room for one token of either side


class PairRowEncoder(Protocol):
    """Turns pairs of texts into columns: a `PairEncoder` with one tokenizer, or a blend's encoder with several.

    Attributes: `max_seq_length`; `vocab_size`; `backend`; `truncated`, the number of truncated pairs; `members`, the
    encoders of which a blend's encoder consists (a `PairEncoder` has itself).
    """

    max_seq_length: int
    vocab_size: int
    backend: str
    truncated: int

    @property
    def members(self) -> tuple[PairEncoder, ...]: ...

    def encode(
        self,
        queries: Sequence[str],
        titles: Sequence[str],
        *,
        truncate: bool = True,
        check: Optional[LengthCheck] = None,
    ) -> Columns:
        """Encode the pairs (queries[i], titles[i]); without `truncate` they keep their full length.

        Args:
            check: called before any pair is built: a long query with many titles takes memory for each of them.
        """
        ...

    def given(self, input_ids: NDArray[np.int64], token_type_ids: NDArray[np.int64]) -> Columns:
        """Return columns of pairs that the caller has encoded, `[n, length]` each; raises `InputError` if invalid."""
        ...

    def save(self, folder: Union[str, os.PathLike[str]]) -> None:
        """Write the tokenizer files into `folder`."""
        ...


class PairEncoder:
    """Turn (query, title) into `[CLS] query [SEP] title [SEP]` with the ids of PaddleNLP's Python tokenizers.

    Special tokens typed in a text are plain text. A pair longer than `max_seq_length` loses tokens from the end of
    its longer side, which never empties a side; `truncated` counts such pairs. Safe to call from several threads.

    Attributes: `max_seq_length`, `vocab_size` (largest id + 1), `pad_id`, `cls_id`, `sep_id`, `unk_id`, `mask_id`,
    `backend` (what turns words into ids), `truncated`.
    """

    backend = "builtin"

    def __init__(self, files: TokenizerFiles, max_seq_length: int, backend: str = "auto") -> None:
        if backend not in TOKENIZER_NAMES:
            raise UsageError(f"unknown tokenizer backend {quoted(backend)}: choose from {', '.join(TOKENIZER_NAMES)}")
        if max_seq_length < _SHORTEST_PAIR:
            raise UsageError(
                f"max_seq_length {max_seq_length}: must be at least {_SHORTEST_PAIR}, "
                "three special tokens and one token of each text"
            )
        self.max_seq_length = max_seq_length
        self.vocab_size = files.vocab_size
        self.truncated = 0
        self._files = files
        self._tokenizer = Tokenizer(files)
        self._truncated_lock = threading.Lock()
        self.pad_id = self._special_id("pad_token")
        self.cls_id = self._special_id("cls_token")
        self.sep_id = self._special_id("sep_token")
        self.unk_id = self._special_id("unk_token")

    @classmethod
    def from_folder(
        cls, folder: Union[str, os.PathLike[str]], max_seq_length: int, backend: str = "auto"
    ) -> PairEncoder:
        """Load `vocab.txt` and the optional `tokenizer_config.json` and `special_tokens_map.json` of `folder`.

        `backend`: one of `TOKENIZER_NAMES`, which all select the built-in tokenizer. Raises `CheckpointError` for
        unusable files, `UsageError` for another name or a `max_seq_length` below 5.
        """
        return cls(TokenizerFiles.read(Path(folder)), max_seq_length, backend)

    @property
    def members(self) -> tuple[PairEncoder, ...]:
        """This encoder only; the encoder of a blend has one member for each ranker."""
        return (self,)

    @property
    def token_to_id(self) -> dict[str, int]:
        """A dict from token to id; a token that the vocabulary repeats has its last id, as in PaddleNLP."""
        return self._files.token_to_id

    @property
    def mask_id(self) -> int:
        """Id of the mask token; raises `CheckpointError` if the vocabulary has none."""
        return self._special_id("mask_token")

    def encode(
        self,
        queries: Sequence[str],
        titles: Sequence[str],
        *,
        truncate: bool = True,
        check: Optional[LengthCheck] = None,
    ) -> EncodedPairs:
        """Encode the pairs (queries[i], titles[i]); a text that repeats within the call is tokenized once.

        Without `truncate` they keep their full length, for `paddle_ranker.encoding.windows`; engines may refuse that.
        `check` may refuse them, see `PairRowEncoder`.
        """
        budget = self.max_seq_length - SPECIAL_TOKENS_A_PAIR
        flat, text_lengths, first, second = self._tokenized(queries, titles, budget + 1 if truncate else None)
        text_starts = offsets_of(text_lengths)[:-1]
        first_lengths, second_lengths = text_lengths[first], text_lengths[second]
        if check is not None:
            check(first_lengths + second_lengths + SPECIAL_TOKENS_A_PAIR, self.max_seq_length)
        if truncate:
            first_lengths, second_lengths = truncated_lengths(first_lengths, second_lengths, budget)
            self._count_truncated((first_lengths < text_lengths[first]) | (second_lengths < text_lengths[second]))

        lengths = first_lengths + second_lengths + SPECIAL_TOKENS_A_PAIR
        offsets = offsets_of(lengths)
        starts, second_starts = offsets[:-1], first_lengths + 2
        ids = np.empty(offsets[-1], dtype=np.int32)
        ids[starts] = self.cls_id
        ids[starts + second_starts - 1] = self.sep_id
        ids[offsets[1:] - 1] = self.sep_id
        for place, text, count in ((1, first, first_lengths), (second_starts, second, second_lengths)):
            ids[ragged_positions(starts + place, count)] = flat[ragged_positions(text_starts[text], count)]
        return EncodedPairs(ids, offsets, second_starts.astype(np.int32), self.pad_id)

    def _tokenized(
        self, queries: Sequence[str], titles: Sequence[str], most: Optional[int]
    ) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return the ids of all distinct texts, their lengths, and the index of each pair's query and title in them.

        Args:
            most: ids of a text that are needed, see `Tokenizer.encode`.
        """
        if len(queries) != len(titles):
            raise ValueError(f"{len(queries)} queries and {len(titles)} titles: give one title for each query")
        index_of: dict[str, int] = {}
        places = np.fromiter(
            (index_of.setdefault(text, len(index_of)) for texts in (queries, titles) for text in texts),
            dtype=np.int64,
            count=2 * len(queries),
        )
        flat, text_lengths = self._tokenizer.encode(list(index_of), most)
        return flat, text_lengths, places[: len(queries)], places[len(queries) :]

    def encode_single(self, texts: Sequence[str], check: Optional[LengthCheck] = None) -> EncodedTexts:
        """Encode texts as `[CLS] text [SEP]`, truncated to `max_seq_length`; `truncated` counts those that were."""
        flat, text_lengths = self._tokenizer.encode(texts, self.max_seq_length - SPECIAL_TOKENS_A_TEXT + 1)
        if check is not None:
            check(text_lengths + SPECIAL_TOKENS_A_TEXT, self.max_seq_length)
        kept = np.minimum(text_lengths, self.max_seq_length - SPECIAL_TOKENS_A_TEXT)
        self._count_truncated(kept < text_lengths)
        offsets = offsets_of(kept + SPECIAL_TOKENS_A_TEXT)
        ids = np.empty(offsets[-1], dtype=np.int32)
        ids[offsets[:-1]], ids[offsets[1:] - 1] = self.cls_id, self.sep_id
        ids[ragged_positions(offsets[:-1] + 1, kept)] = flat[ragged_positions(offsets_of(text_lengths)[:-1], kept)]
        return EncodedTexts(ids, offsets, self.pad_id)

    def given(self, input_ids: NDArray[np.int64], token_type_ids: NDArray[np.int64]) -> Columns:
        """Return columns of pairs that the caller has encoded, `[n, length]` each, padded with `pad_id`.

        Raises `InputError`, which names the row, if a row holds nothing but padding.
        """
        is_empty = (input_ids == self.pad_id).all(axis=1)
        if is_empty.any():
            raise InputError(f"input_ids[{int(np.argmax(is_empty))}]", f"holds nothing but padding ({self.pad_id})")
        return given_pairs(input_ids, token_type_ids, self.pad_id)

    def encode_texts(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Return the ids of each text, [length] int32, not truncated and without special tokens."""
        flat, lengths = self._tokenizer.encode(texts)
        offsets = offsets_of(lengths).tolist()
        return [flat[start:end] for start, end in zip(offsets, offsets[1:])]

    def characters_of(self, text: str, tokens: int) -> int:
        """Return how many code points of a text make up to so many tokens: all of them, if the text has no more."""
        end = 4 * tokens
        while end < len(text) and self.count_tokens(text[:end]) <= tokens:
            end *= 2
        if end >= len(text) and self.count_tokens(text) <= tokens:
            return len(text)
        low, high = 0, min(end, len(text))  # the tokens of `low` code points are few enough, those of `high` are not
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.count_tokens(text[:middle]) <= tokens else (low, middle)
        return low

    def count_tokens(self, text: str) -> int:
        """Return how many tokens a text has, without special tokens."""
        return int(self._tokenizer.encode([text])[1][0])

    def save(self, folder: Union[str, os.PathLike[str]]) -> None:
        """Write the tokenizer files into `folder` (made if missing); `from_folder` and PaddleNLP read them alike."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        self._files.write(target)

    def _special_id(self, role: str) -> int:
        token = self._files.special_tokens[role]
        try:
            return self._files.token_to_id[token]
        except KeyError:
            raise CheckpointError(f"the vocabulary has no {token} (the {role}): add it, or use another model") from None

    def _count_truncated(self, is_truncated: NDArray[np.bool_]) -> None:
        count = int(np.count_nonzero(is_truncated))
        if count:
            with self._truncated_lock:
                self.truncated += count


class BlendedPairEncoder:
    """A `PairRowEncoder` that encodes every pair once for each member of a blend."""

    def __init__(self, members: Sequence[PairEncoder]):
        self.members = tuple(members)
        self.max_seq_length = sum(member.max_seq_length for member in members)  # tokens of a pair in a batch
        self.backend = ", ".join(member.backend for member in members)
        self.vocab_size = max(member.vocab_size for member in members)

    @property
    def truncated(self) -> int:
        """Number of pairs truncated by the member that truncated most."""
        return max(member.truncated for member in self.members)

    @truncated.setter
    def truncated(self, count: int) -> None:
        for member in self.members:
            member.truncated = count

    def encode(
        self,
        queries: Sequence[str],
        titles: Sequence[str],
        *,
        truncate: bool = True,
        check: Optional[LengthCheck] = None,
    ) -> BlendedPairs:
        """Encode the pairs for every member; raises `UsageError` without `truncate`, which windows ask for."""
        if not truncate:
            raise UsageError("a blend of two rankers cannot score windows: use --windows none, or one of its members")
        return BlendedPairs(tuple(member.encode(queries, titles, check=check) for member in self.members))

    def given(self, input_ids: NDArray[np.int64], token_type_ids: NDArray[np.int64]) -> Columns:
        """Return columns of arrays with the members' tokens side by side, as in `BlendedPairs.pad`, `[n, length]` each.

        Raises `InputError` unless all members are there, in order, and at the same positions in every row.
        """
        owners = token_type_ids // TYPES
        first = owners[0]
        sound = (owners == first).all() and (np.diff(first) >= 0).all()
        if not (sound and np.array_equal(np.unique(first), np.arange(len(self.members)))):
            raise InputError(
                "token_type_ids",
                "of a blend, token types 0 and 1 are the first ranker's, 2 and 3 the second's, in columns of their "
                f"own: all {len(self.members)} must be there, in this order, alike in every row",
            )
        return GivenArrays({"input_ids": input_ids, "token_type_ids": token_type_ids})

    def save(self, folder: Union[str, os.PathLike[str]]) -> None:
        """Do nothing: the tokenizer files are in the members' folders."""


def truncated_lengths(
    first: NDArray[np.int64], second: NDArray[np.int64], budget: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return how many tokens [n] each side keeps so that both fit into `budget` >= 2 tokens.

    This is the closed form of removing one token at a time from the longer side, or from the second if both are equal
    (PaddleNLP's `truncate_sequences`): a truncated side keeps half of the budget, or all that the other side leaves.
    """
    kept_first = np.minimum(first, np.maximum(budget - budget // 2, budget - second))
    kept_second = np.minimum(second, np.maximum(budget // 2, budget - first))
    return kept_first, kept_second


def never_match_ids(pair_encoder: PairEncoder) -> list[int]:
    """Return the ids that carry no text: special tokens, padding and [UNK]."""
    ids = {pair_encoder.pad_id, pair_encoder.cls_id, pair_encoder.sep_id, pair_encoder.unk_id}
    with suppress(CheckpointError):  # a vocabulary made for ranking alone need not have [MASK]
        ids.add(pair_encoder.mask_id)
    return sorted(ids)
