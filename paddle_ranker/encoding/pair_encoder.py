"""Encode pairs of texts as ids, for a ranker or a blend: special tokens, truncation and prompts."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase
from typing import Callable, Optional, Union

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.data.files.placed_text import PlacedText
from paddle_ranker.encoding.columns import (
    TOKEN_TYPES,
    BlendedPairs,
    Columns,
    EncodedPairs,
    EncodedTexts,
    GivenArrays,
    given_pairs,
    offsets_of,
    ragged_positions,
)
from paddle_ranker.encoding.tokenizers.interface import Ids, ModelTokenizer, Spelling, Tokenizes
from paddle_ranker.encoding.tokenizers.tokenizer_folder import read_tokenizer
from paddle_ranker.errors import CheckpointError, InputError, UsageError, quoted, refuse_text, require_pairs
from paddle_ranker.notes import note_at_end

# Called with each row's token count before truncation, [n], special tokens included, and with the maximum length; may
# raise an error to refuse the rows. Counts above the maximum length may be too small.
LengthCheck = Callable[[NDArray[np.int64], int], None]
# Warning and remedy if a `PairEncoder` `loses_capitals`.
LOST_CAPITALS = (
    "its tokenizer keeps capital letters, and its vocabulary has none, so every word with one is [UNK]; paddle-ranker "
    "convert MODEL NEW --to tower --lowercase makes them small"
)

TOKENS_OF_CHARACTER = 4  # most tokens of a character
_LEAST_ROOM = 8  # a prompt must leave an eighth of the tokens to the text after it


class PairEncoder:
    """Encoder of pairs by a model's tokenizer and its template, such as `[CLS] query [SEP] title [SEP]`.

    Special tokens in a text are encoded as plain text, unless the tokenizer has `special_tokens_in_texts`; those in a
    prompt get their ids. A pair longer than `max_seq_length` is truncated: its longer
    side loses tokens at the end (at the start if the tokenizer truncates on the left), and no side becomes empty.
    `truncated` counts such pairs; a command reports the number when it ends. Thread-safe.

    Attributes:
        query_prompt: text before every query of a pair.
        max_seq_length: maximum length of a pair in tokens.
        vocab_size: largest id + 1.
        template: special tokens around the texts.
        pad_id: id of the padding token.
        special_tokens_in_texts: whether special tokens in texts get their ids.
        markers: ids of special tokens, by token.
        cls_id, sep_id, unk_id, mask_id: ids of special tokens; raise `CheckpointError` if the vocabulary lacks them.
        backend: code that turns texts into ids: "builtin" or "tokenizers".
        truncated: number of truncated pairs and texts.
        members: a tuple of the encoder itself alone; `BlendedPairEncoder.members` has several encoders.
    """

    places = ""  # places that the model reads beside the words: "boxes", "cells", or "pictures", which are titles
    place_size = 0  # count of numbers in a token's place; a box has 4

    def __init__(self, files: ModelTokenizer, max_seq_length: int) -> None:
        self.template = files.template()
        self.query_prompt = ""
        self.max_seq_length = max_seq_length
        self.vocab_size = files.vocab_size
        self.truncated, self._cut = 0, "pairs"
        self._files = files
        self._tokenizer: Tokenizes = files.tokenizer()
        self.backend = files.backend
        self.markers, self.special_tokens_in_texts = files.markers, files.special_tokens_in_texts
        self._truncated_lock = threading.Lock()
        self.pad_id = self._special_id("pad_token")
        self._require_room_for_pairs()
        note_at_end(self)

    def _require_room_for_pairs(self) -> None:
        """Raise `UsageError` if a pair has no room for one token of each side."""
        shortest = self.template.pair_tokens + 2
        if self.max_seq_length < shortest:
            special = {3: "three", 4: "four"}.get(self.template.pair_tokens, str(self.template.pair_tokens))
            raise UsageError(
                f"max_seq_length {self.max_seq_length}: must be at least {shortest}, "
                f"{special} special tokens and one token of each text"
            )

    @classmethod
    def from_folder(cls, folder: Union[str, os.PathLike[str]], max_seq_length: int) -> PairEncoder:
        """Create the encoder of a folder's tokenizer.

        Raises `CheckpointError` for unusable files, `UsageError` if `max_seq_length` has no room for the special tokens
        and a token of each text.
        """
        return cls(read_tokenizer(Path(folder)), max_seq_length)

    @property
    def members(self) -> tuple[PairEncoder, ...]:
        return (self,)

    @property
    def token_to_id(self) -> dict[str, int]:
        """Ids by token; a token that the vocabulary repeats has its last id, as in PaddleNLP."""
        return self._files.token_to_id

    @property
    def cls_id(self) -> int:
        return self._special_id("cls_token")

    @property
    def sep_id(self) -> int:
        return self._special_id("sep_token")

    @property
    def unk_id(self) -> int:
        return self._special_id("unk_token")

    @property
    def mask_id(self) -> int:
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

        truncate: False keeps the full length of pairs, for `paddle_ranker.encoding.windows`
        check: called with the pairs' lengths, see `LengthCheck`. It is called before the pairs are built, since each
            pair holds a copy of its query: a long query with many titles takes much memory
        """
        require_pairs(queries, titles)
        template = self.template
        budget = self.max_seq_length - template.pair_tokens
        most = budget + 1 if truncate and not template.keeps_end else None
        flat, text_lengths, first, second = self._tokenized(queries, titles, most)
        text_starts = offsets_of(text_lengths)[:-1]
        first_lengths, second_lengths = text_lengths[first], text_lengths[second]
        if check is not None:
            check(first_lengths + second_lengths + template.pair_tokens, self.max_seq_length)
        if truncate:
            first_lengths, second_lengths = template.truncated(first_lengths, second_lengths, budget)
            self._count_truncated((first_lengths < text_lengths[first]) | (second_lengths < text_lengths[second]))

        lengths = first_lengths + second_lengths + template.pair_tokens
        offsets = offsets_of(lengths)
        starts, ends = offsets[:-1], offsets[1:]
        first_ends = starts + len(template.before) + first_lengths
        second_starts = first_ends + len(template.between)
        ids = np.empty(offsets[-1], dtype=np.int32)
        _put(ids, starts, template.before)
        _put(ids, first_ends, template.between)
        _put(ids, ends - len(template.after), template.after)
        for place, text, count in ((starts + len(template.before), first, first_lengths),
                                   (second_starts, second, second_lengths)):  # fmt: skip
            source = text_starts[text] + (text_lengths[text] - count if template.keeps_end else 0)
            ids[ragged_positions(place, count)] = flat[ragged_positions(source, count)]
        pairs = EncodedPairs(ids, offsets, (second_starts - starts).astype(np.int32), self.pad_id)
        if self.query_prompt:
            queries = [self.query_prompt + query for query in queries]
        return self._with_places(pairs, queries, titles)

    def check_places(self, title: PlacedText) -> int:
        """Return how many places of a title are changed to fit; raises `DataError` if they have another form.

        A model that reads no places takes any.
        """
        return 0

    def _with_places(self, pairs: EncodedPairs, queries: Sequence[str], titles: Sequence[str]) -> EncodedPairs:
        """Return the pairs with the places of their tokens; unchanged if the model reads no places."""
        return pairs

    def set_title_folder(self, folder: Path) -> None:
        """Do nothing: titles are texts."""

    def sample(self, text: str, random: np.random.Generator) -> str:
        """Return `text` as an example title, to compare two models; it has random places if the model reads places."""
        return text

    def _tokenized(
        self, queries: Sequence[str], titles: Sequence[str], most: Optional[int]
    ) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Tokenize each distinct text of some pairs once, queries after the prompt.

        most: how many ids are needed per text, see `Tokenizes.encode`

        Returns (ids, lengths, queries, titles). `ids` concatenates the ids of the distinct texts, and `lengths` has the
        number of ids of each. `queries` and `titles` have, for each pair, the index of its text in `lengths`.
        """
        index_of: dict[tuple[str, str], int] = {}
        places = np.fromiter(
            (
                index_of.setdefault((prompt, text), len(index_of))
                for prompt, texts in ((self.query_prompt, queries), ("", titles))
                for text in texts
            ),
            dtype=np.int64,
            count=2 * len(queries),
        )
        parts = [
            self._after(prompt).encode([text for _, text in group], most)
            for prompt, group in groupby(index_of, key=itemgetter(0))
        ]
        flat = np.concatenate([np.empty(0, np.int32), *(ids for ids, _ in parts)])
        text_lengths = np.concatenate([np.empty(0, np.int64), *(lengths for _, lengths in parts)])
        return flat, text_lengths, places[: len(queries)], places[len(queries) :]

    def encode_single(
        self, texts: Sequence[str], check: Optional[LengthCheck] = None, prompt: str = ""
    ) -> EncodedTexts:
        """Encode texts as `[CLS] prompt text [SEP]`, cut to `max_seq_length`; `truncated` counts those that are cut."""
        refuse_text(texts, "texts")
        template = self.template
        return self._alone(texts, template.text_before, template.text_after, self.max_seq_length, check, prompt)

    def encode_queries(self, queries: Sequence[str]) -> EncodedTexts:
        """Encode queries like the start of a pair, `[CLS] query [SEP]`, truncated to the longest query of a pair."""
        refuse_text(queries, "queries")
        template, most = self.template, self.max_seq_length - len(self.template.after) - 1
        return self._alone(queries, template.before, template.between, most, prompt=self.query_prompt)

    def encode_titles(self, titles: Sequence[str]) -> EncodedTexts:
        """Encode titles like the end of a pair, `title [SEP]`, truncated to the longest title of a pair."""
        refuse_text(titles, "titles")
        template = self.template
        most = self.max_seq_length - len(template.before) - len(template.between) - 1
        return self._alone(titles, (), template.after, most)

    def _alone(
        self,
        texts: Sequence[str],
        before: Ids,
        after: Ids,
        most: int,
        check: Optional[LengthCheck] = None,
        prompt: str = "",
    ) -> EncodedTexts:
        """Encode texts, after a prompt, between special tokens.

        before, after: ids of the special tokens
        most: maximum tokens of a text, special tokens included
        check: see `LengthCheck`
        """
        special, keeps_end = len(before) + len(after), self.template.keeps_end
        flat, text_lengths = self._after(prompt).encode(texts, None if keeps_end else most - special + 1)
        if check is not None:
            check(text_lengths + special, most)
        kept = np.minimum(text_lengths, most - special)
        self._count_truncated(kept < text_lengths, "texts")
        offsets = offsets_of(kept + special)
        ids = np.empty(offsets[-1], dtype=np.int32)
        _put(ids, offsets[:-1], before)
        _put(ids, offsets[1:] - len(after), after)
        source = offsets_of(text_lengths)[:-1] + (text_lengths - kept if keeps_end else 0)
        ids[ragged_positions(offsets[:-1] + len(before), kept)] = flat[ragged_positions(source, kept)]
        return EncodedTexts(ids, offsets, self.pad_id)

    def given(self, input_ids: NDArray[np.int64], token_type_ids: NDArray[np.int64]) -> Columns:
        """Convert pairs that the caller has encoded, `[n, length]`, padded with `pad_id`, to columns.

        Raises `InputError`, which names the row, if a row is all padding.
        """
        is_empty = (input_ids == self.pad_id).all(axis=1)
        if is_empty.any():
            raise InputError(f"input_ids[{int(np.argmax(is_empty))}]", f"holds nothing but padding ({self.pad_id})")
        return given_pairs(input_ids, token_type_ids, self.pad_id)

    def words(self) -> Sequence[str]:
        """Return the texts of the vocabulary's ordinary tokens, from which example texts are built."""
        return self._files.words()

    def spelling(self) -> Optional[Spelling]:
        """Return the spelling by which tokens are compared, or None if their ids are compared."""
        return self._files.spelling()

    @property
    def loses_capitals(self) -> bool:
        """Whether every capital letter becomes [UNK], though the vocabulary has all small letters."""
        with suppress(CheckpointError):
            unknown = [self.unk_id]
            is_unknown = [ids.tolist() == unknown for ids in self.encode_texts([*ascii_uppercase, *ascii_lowercase])]
            return all(is_unknown[:26]) and not any(is_unknown[26:])
        return False

    def encode_texts(self, texts: Sequence[str], prompt: str = "") -> list[NDArray[np.int32]]:
        """Return the ids of each text after a prompt, [length] int32, not truncated and without a template."""
        refuse_text(texts, "texts")
        flat, lengths = self._after(prompt).encode(texts)
        offsets = offsets_of(lengths).tolist()
        return [flat[start:end] for start, end in zip(offsets, offsets[1:])]

    def require_room(self, prompt: str, name: str, most: int) -> None:
        """Raise `CheckpointError` if a prompt leaves less than an eighth of `most` tokens to the text after it.

        name: name of the prompt for the message
        """
        taken = self.count_tokens("", prompt) if prompt else 0
        least = max(1, most // _LEAST_ROOM)
        if taken and most - taken < least:
            raise CheckpointError(
                f"{name} {quoted(prompt)} has {taken} tokens, and {most} are read with it: every text would be cut to "
                f"fewer than {least}; give a shorter prompt, or a higher --max_seq_length"
            )

    def with_query_prompt(self, prompt: str) -> PairEncoder:
        """Set the text before every query, and return this encoder.

        Raises `CheckpointError` if the prompt leaves queries no room beside a long title.
        """
        self.require_room(prompt, "query_prompt", (self.max_seq_length - self.template.pair_tokens) // 2)
        self.query_prompt = prompt
        return self

    def characters_of(self, text: str, tokens: int, prompt: str = "") -> int:
        """Return how many characters of a text, from its start, encode after a prompt to at most `tokens` tokens."""
        end = 4 * tokens
        while end < len(text) and self.count_tokens(text[:end], prompt) <= tokens:
            end *= 2
        if end >= len(text) and self.count_tokens(text, prompt) <= tokens:
            return len(text)
        low, high = 0, min(end, len(text))  # `low` characters fit, `high` do not
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.count_tokens(text[:middle], prompt) <= tokens else (low, middle)
        return low

    def count_tokens(self, text: str, prompt: str = "") -> int:
        """Return the number of tokens of a text after a prompt, without those of a template."""
        return int(self._after(prompt).encode([text])[1][0])

    def _after(self, prompt: str) -> Tokenizes:
        """Return the encoder of texts after a prompt."""
        return self._tokenizer.after(prompt) if prompt else self._tokenizer

    def token_ends(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Return the end of each token of each text, in code points, `[tokens]`, without special tokens."""
        refuse_text(texts, "texts")
        return self._tokenizer.ends(texts)

    def room_beside(self, query: str) -> int:
        """Return the number of tokens to which a title beside `query` is truncated."""
        budget = self.max_seq_length - self.template.pair_tokens
        return max(budget - self.count_tokens(query, self.query_prompt), budget // 2)

    def save(self, folder: Union[str, os.PathLike[str]]) -> None:
        """Write the tokenizer files into `folder`, created if missing; `from_folder` and PaddleNLP read them."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        self._files.write(target)

    def _special_id(self, role: str) -> int:
        token = self._files.special_tokens.get(role)
        special_id = None if token is None else self._files.id_of(token)
        if special_id is None:
            what = role if token is None else f"{token} (the {role})"
            raise CheckpointError(f"the vocabulary has no {what}: add it, or use another model")
        return special_id

    def counts(self) -> dict[str, int]:
        """Return the number of truncated pairs or texts, in a dict whose key is the phrase for a report."""
        return {f"{self._cut} were cut to {self.max_seq_length} tokens": self.truncated}

    def _count_truncated(self, is_truncated: NDArray[np.bool_], what: str = "pairs") -> None:
        count = int(np.count_nonzero(is_truncated))
        if count:
            with self._truncated_lock:
                self.truncated, self._cut = self.truncated + count, what


INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"  # Qwen3-Reranker's
_JUDGE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n<Instruct>: '
)
_ANSWER = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


def chat_of(instruction: str, query: str, document: str) -> str:
    """Return the chat of Qwen3-Reranker that asks whether a document meets an instruction."""
    return f"{_JUDGE}{instruction}\n<Query>: {query}\n<Document>: {document}{_ANSWER}"


class InstructedPairEncoder(PairEncoder):
    """Encoder of pairs in the chat of Qwen3-Reranker, which asks whether a document meets an instruction.

    instruction: the instruction, unless the query prompt replaces it

    The chat without query and title is the template, so truncation does not
    shorten it. The template is divided where Qwen's tokenizer separates words: before a space, and after a line's end.
    Single texts keep the tokenizer's template.
    """

    def __init__(self, files: ModelTokenizer, max_seq_length: int, instruction: str = INSTRUCTION) -> None:
        super().__init__(files, max_seq_length)
        self._alone_template = self.template
        self.with_query_prompt(instruction)

    def with_query_prompt(self, prompt: str) -> PairEncoder:
        """Set the instruction, unless `prompt` is "", and return this encoder."""
        if prompt:
            chat = (f"{_JUDGE}{prompt}\n<Query>:", "<Document>:", _ANSWER)
            before, between, after = (tuple(self.encode_texts([""], part)[0].tolist()) for part in chat)
            self.template = replace(self._alone_template, before=before, between=between, after=after)
        return self

    def encode(
        self,
        queries: Sequence[str],
        titles: Sequence[str],
        *,
        truncate: bool = True,
        check: Optional[LengthCheck] = None,
    ) -> EncodedPairs:
        """Encode the pairs as `PairEncoder.encode` does, within the chat.

        Raises `UsageError` if the chat leaves no room for texts.
        """
        require_pairs(queries, titles)
        self._require_room_for_pairs()
        queries, titles = [f" {query}\n" for query in queries], [f" {title}" for title in titles]
        return super().encode(queries, titles, truncate=truncate, check=check)

    def room_beside(self, query: str) -> int:
        return super().room_beside(f" {query}\n")


class BlendedPairEncoder:
    """Encoder of pairs for a blend: encodes every pair for each member.

    Attributes:
        members: encoders of the blend's members.
        max_seq_length: sum of the members' maximum lengths, in tokens.
        vocab_size: largest vocabulary size of a member.
        backend: backends of the members, joined by commas.
    """

    def __init__(self, members: Sequence[PairEncoder]):
        self.members = tuple(members)
        if any(member.place_size for member in members):
            raise UsageError("a ranker that reads boxes or cells cannot be blended: leave it out")
        self.max_seq_length = sum(member.max_seq_length for member in members)
        self.backend = ", ".join(member.backend for member in members)
        self.vocab_size = max(member.vocab_size for member in members)
        note_at_end(self, instead_of=self.members)

    def counts(self) -> dict[str, int]:
        """Return the members' counts, in a dict by the phrase for a report; of equal phrases, the largest count."""
        counts: dict[str, int] = {}
        for member in self.members:
            for what, count in member.counts().items():
                counts[what] = max(count, counts.get(what, 0))
        return counts

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
        """Encode the pairs for every member.

        Raises `UsageError` if `truncate` is False, since a blend cannot score windows.
        """
        if not truncate:
            raise UsageError("a blend of two rankers cannot score windows: use --windows none, or one of its members")
        return BlendedPairs(tuple(member.encode(queries, titles, check=check) for member in self.members))

    def given(self, input_ids: NDArray[np.int64], token_type_ids: NDArray[np.int64]) -> Columns:
        """Wrap the token arrays of a blend, as `BlendedPairs.pad` returns them, for scoring.

        Raises `InputError` unless each row has the tokens of every ranker, in the blend's order, and in the same
        columns as the other rows.
        """
        owners = token_type_ids // TOKEN_TYPES
        first = owners[0]
        sound = (owners == first).all() and (np.diff(first) >= 0).all()
        if not (sound and np.array_equal(np.unique(first), np.arange(len(self.members)))):
            raise InputError(
                "token_type_ids",
                "of a blend, token types 0 and 1 are the first ranker's, 2 and 3 the second's, in columns of their "
                f"own: all {len(self.members)} must be there, in this order, alike in every row",
            )
        return GivenArrays({"input_ids": input_ids, "token_type_ids": token_type_ids})

    def set_title_folder(self, folder: Path) -> None:
        """Do nothing: titles are texts."""

    def save(self, folder: Union[str, os.PathLike[str]]) -> None:
        """Do nothing: the tokenizer files are in the members' folders."""


PairRowEncoder = Union[PairEncoder, BlendedPairEncoder]


def _put(ids: NDArray[np.int32], places: NDArray[np.int64], special: Sequence[int]) -> None:
    for number, token in enumerate(special):
        ids[places + number] = token


def shortest(encoder: PairRowEncoder) -> PairEncoder:
    """Return the encoder itself or, for a blend, the member with the smallest `max_seq_length`."""
    return min(encoder.members, key=lambda member: member.max_seq_length)


def never_match_ids(pair_encoder: PairEncoder) -> list[int]:
    """Return the ids that stand for no text: special tokens, padding and [UNK]."""
    template = pair_encoder.template
    ids = {pair_encoder.pad_id, *template.before, *template.between, *template.after}
    for role in ("unk_id", "mask_id"):  # a vocabulary made for ranking alone need not have [MASK]
        with suppress(CheckpointError):
            ids.add(getattr(pair_encoder, role))
    return sorted(ids)
