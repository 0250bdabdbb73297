"""Encoded rows in columns, with a length per row, for batching, engines and the trainer.

`Columns` is the interface of pairs, single texts, pairs given as arrays, and of classes in recipes and plugins.
Millions of rows take little more memory than their ids, or none if they are on a disk (`column_store.py`).
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, TypeVar, Union

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.array_types import Array, Arrays
from paddle_ranker.storage.arrays import gather

TEXT, PICTURE = "text", "picture"  # inputs of models, `reads` of the row encoders
Indices = Union[Sequence[int], NDArray[np.int64], NDArray[np.int32]]

C = TypeVar("C", bound="Columns")


class Columns(ABC):
    """Rows of model inputs. The length of a row is its cost in a batch."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def lengths_of(self, indices: Indices) -> NDArray[np.int64]:
        """Return the token count of each row at `indices` [m], [m] int64; pictures and sounds count as tokens, too."""

    @abstractmethod
    def take(self: C, indices: Indices) -> C:
        """Return the rows at `indices` [m] (repeats allowed), in that order."""

    @abstractmethod
    def pad(self, indices: Indices) -> Arrays:
        """Return the model's inputs, by name, for the rows at `indices` [batch], padded to the longest of the rows."""

    @classmethod
    @abstractmethod
    def concat(cls: type[C], parts: Sequence[C]) -> C:
        """Join `parts` in order; `can_join` must be true for any two parts."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Token count of each row, [n] int64."""
        return self.lengths_of(np.arange(len(self)))

    def can_join(self, other: Columns) -> bool:
        """Return whether rows of this object and of `other` can share a batch."""
        return type(self) is type(other)

    def cached(self, folder: Path, max_bytes: int) -> Columns:
        """Return rows that decode each file once: kept in memory or, beyond `max_bytes`, in a file in `folder`."""
        return self

    def chunks(self: C, size: int) -> Iterator[tuple[NDArray[np.int64], C]]:
        """Yield (indices, rows) of at most `size` rows at a time, in order."""
        for start in range(0, len(self), size):
            rows = np.arange(start, min(len(self), start + size))
            yield rows, self.take(rows)


def offsets_of(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the starts of ragged rows with `lengths` [n], followed by the total length, [n + 1] int64."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def ragged_positions(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return `starts[i], ..., starts[i] + lengths[i] - 1` for all i, concatenated."""
    offsets = offsets_of(lengths)
    positions: NDArray[np.int64] = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
    return positions


class _Ragged(Columns):
    """Rows of ids in a flat array: row i is `ids[offsets[i]:offsets[i + 1]]`; `pad_id` pads the rows of a batch.

    If the model reads places of tokens, `places` is a flat array with `place_size` numbers for each token, else None.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    pad_id: int
    places: Optional[NDArray[np.int16]]
    place_size: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> NDArray[np.int32]:
        """Return the ids of a row, [length] int32."""
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)

    def lengths_of(self, indices: Indices) -> NDArray[np.int64]:
        return self._spans(np.asarray(indices, dtype=np.int64))[1]

    def _spans(self, chosen: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the starts in `ids` and the lengths of the rows `chosen` [m], [m] int64 each."""
        bounds = gather(self.offsets, chosen[..., None] + [0, 1])
        return bounds[..., 0], bounds[..., 1] - bounds[..., 0]

    def _taken(self, chosen: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the ids and the offsets of the rows `chosen` [m]."""
        starts, lengths = self._spans(chosen)
        return gather(self.ids, ragged_positions(starts, lengths)), offsets_of(lengths)

    def _places_of(self, chosen: NDArray[np.int64]) -> Optional[NDArray[np.int16]]:
        """Return the places of the tokens of rows `chosen` [m], `[tokens * place_size]`; None without places."""
        if self.places is None:
            return None
        tokens = ragged_positions(*self._spans(chosen))
        return gather(self.places, self.place_size * tokens[:, None] + np.arange(self.place_size)).reshape(-1)

    def _types_and_places(
        self, types: NDArray[np.int64], is_token: NDArray[np.bool_], chosen: NDArray[np.int64]
    ) -> Array:
        """Add the places of the rows to their token types, if the model reads places.

        Returns `types` unchanged, or `[batch, length, 1 + place_size]`: each token's type, then the numbers of its
        place.

        types: token types, `[batch, length]`
        is_token: which positions are tokens, not padding, `[batch, length]`
        chosen: indices of the rows
        """
        places = self._places_of(chosen)
        if places is None:
            return types
        placed = np.zeros((*types.shape, 1 + self.place_size), np.int64)
        placed[:, :, 0] = types
        placed[is_token, 1:] = places.reshape(-1, self.place_size)
        return placed

    def _padded(self, chosen: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return ids padded to the longest chosen row, and a mask of tokens, `[batch, length]` each."""
        starts, lengths = self._spans(chosen)
        is_token = np.arange(lengths.max(initial=0)) < lengths[:, None]
        input_ids = np.full(is_token.shape, self.pad_id, dtype=np.int64)
        input_ids[is_token] = gather(self.ids, ragged_positions(starts, lengths))
        return input_ids, is_token


def _joined(parts: Sequence[_Ragged]) -> tuple[NDArray[np.int32], NDArray[np.int64], int]:
    """Return the ids, the offsets and the padding id of all rows of `parts`, in order."""
    lengths = [np.empty(0, np.int64), *(part.lengths for part in parts)]
    ids = np.concatenate([np.empty(0, np.int32), *(part.ids for part in parts)])
    return ids, offsets_of(np.concatenate(lengths)), parts[0].pad_id if parts else 0


def _joined_places(parts: Sequence[_Ragged]) -> tuple[Optional[NDArray[np.int16]], int]:
    """Return (places of all tokens of `parts`, `[tokens * place_size]`, place_size), or (None, 0) without places."""
    places = [part.places for part in parts if part.places is not None]
    return (np.concatenate(places), parts[0].place_size) if places else (None, 0)


def pair_keys(pairs: Columns) -> Iterator[int]:
    """Yield a hash of each pair's tokens."""
    assert isinstance(pairs, EncodedPairs)
    bounds = pairs.offsets.tolist()
    for row, (start, end) in enumerate(zip(bounds, bounds[1:])):
        size = pairs.place_size
        places = b"" if pairs.places is None else pairs.places[size * start : size * end].tobytes()
        yield hash((int(pairs.second_starts[row]), pairs.ids[start:end].tobytes(), places))


@dataclass(frozen=True)
class EncodedTexts(_Ragged):
    """Texts `[CLS] text [SEP]`: `ids` [total] int32, `offsets` [n + 1] int64, `places` as in `EncodedPairs`."""

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    pad_id: int = 0
    places: Optional[NDArray[np.int16]] = None
    place_size: int = 0

    def take(self, indices: Indices) -> EncodedTexts:
        chosen = np.asarray(indices, dtype=np.int64)
        return EncodedTexts(*self._taken(chosen), self.pad_id, self._places_of(chosen), self.place_size)

    @classmethod
    def concat(cls, parts: Sequence[EncodedTexts]) -> EncodedTexts:
        return cls(*_joined(parts), *_joined_places(parts))

    def pad(self, indices: Indices) -> Arrays:
        """Return `input_ids` and `token_type_ids` (all 0), `[batch, length]` int64, padded to the longest text.

        If the model reads places, `token_type_ids` contains the places, too, as in `EncodedPairs.pad`.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        input_ids, is_token = self._padded(chosen)
        types = self._types_and_places(np.zeros_like(input_ids), is_token, chosen)
        return {"input_ids": input_ids, "token_type_ids": types}


@dataclass(frozen=True)
class EncodedPairs(_Ragged):
    """Pairs `[CLS] query [SEP] title [SEP]`.

    `ids` [total] int32; `offsets` [n + 1] int64: pair i is `ids[offsets[i]:offsets[i + 1]]`;
    `second_starts` [n] int32: the index within the pair at which the title (token type 1) starts;
    `places` [total * place_size] int16: the numbers of each token's place, or None if the model reads no places.

    The arrays may be memory-mapped files (`column_store.py`). `take`, `pad` and `lengths_of` then read only the
    requested rows. Unlike indexing, they keep no pages of the files in memory.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    second_starts: NDArray[np.int32]
    pad_id: int = 0
    places: Optional[NDArray[np.int16]] = None
    place_size: int = 0

    @classmethod
    def of_texts(cls, texts: EncodedTexts) -> EncodedPairs:
        """Return texts as pairs without a second part."""
        ends = texts.lengths.astype(np.int32)
        return cls(texts.ids, texts.offsets, ends, texts.pad_id, texts.places, texts.place_size)

    def take(self, indices: Indices) -> EncodedPairs:
        chosen = np.asarray(indices, dtype=np.int64)
        second_starts, places = gather(self.second_starts, chosen), self._places_of(chosen)
        return EncodedPairs(*self._taken(chosen), second_starts, self.pad_id, places, self.place_size)

    @classmethod
    def concat(cls, parts: Sequence[EncodedPairs]) -> EncodedPairs:
        ids, offsets, pad_id = _joined(parts)
        second_starts = np.concatenate([np.empty(0, np.int32), *(part.second_starts for part in parts)])
        return cls(ids, offsets, second_starts, pad_id, *_joined_places(parts))

    def pad(self, indices: Indices) -> Arrays:
        """Return `input_ids` and `token_type_ids`, `[batch, length]` int64; padding has `pad_id` and token type 0.

        With places, `token_type_ids` is `[batch, length, 1 + place_size]`: a token's type, then the numbers of its
        place, 0 for padding.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        input_ids, is_token = self._padded(chosen)
        is_second = np.arange(input_ids.shape[1]) >= gather(self.second_starts, chosen)[:, None]
        types = (is_token & is_second).astype(np.int64)
        return {"input_ids": input_ids, "token_type_ids": self._types_and_places(types, is_token, chosen)}


@dataclass(frozen=True)
class GivenArrays(Columns):
    """Rows of padded arrays from the caller; they share no batch with other rows.

    arrays: arrays by input name, `[n, length]` each
    """

    arrays: Arrays

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def lengths_of(self, indices: Indices) -> NDArray[np.int64]:
        """Return the arrays' padded length for each of `indices` [m], [m] int64."""
        return np.full(len(indices), next(iter(self.arrays.values())).shape[1], np.int64)

    def take(self, indices: Indices) -> GivenArrays:
        return GivenArrays(self.pad(indices))

    def pad(self, indices: Indices) -> Arrays:
        """Return the arrays' rows at `indices`, by input name, with the caller's padding."""
        rows = np.asarray(indices, dtype=np.int64)
        return {name: array[rows] for name, array in self.arrays.items()}

    @classmethod
    def concat(cls, parts: Sequence[GivenArrays]) -> GivenArrays:
        """Return the only part; raises `ValueError` for several parts."""
        if len(parts) != 1:
            raise ValueError("rows given as arrays are not joined")
        return parts[0]

    def can_join(self, other: Columns) -> bool:
        return self is other


TOKEN_TYPES = 2  # token types per member of a blend


@dataclass(frozen=True)
class BlendedPairs(Columns):
    """Pairs encoded by each member of a blend."""

    members: tuple[EncodedPairs, ...]

    def __len__(self) -> int:
        return len(self.members[0])

    def lengths_of(self, indices: Indices) -> NDArray[np.int64]:
        """Return the token count of each pair at `indices` [m], summed over all members, [m] int64."""
        return np.sum([member.lengths_of(indices) for member in self.members], axis=0, dtype=np.int64)

    def take(self, indices: Indices) -> BlendedPairs:
        return BlendedPairs(tuple(member.take(indices) for member in self.members))

    @classmethod
    def concat(cls, parts: Sequence[BlendedPairs]) -> BlendedPairs:
        return cls(tuple(EncodedPairs.concat(encoded) for encoded in zip(*(part.members for part in parts))))

    def pad(self, indices: Indices) -> Arrays:
        """Return the members' `input_ids` side by side; member k (from 0) has the token types 2k and 2k + 1."""
        padded = [member.pad(indices) for member in self.members]
        types = [TOKEN_TYPES * number + arrays["token_type_ids"] for number, arrays in enumerate(padded)]
        return {
            "input_ids": np.concatenate([arrays["input_ids"] for arrays in padded], axis=1),
            "token_type_ids": np.concatenate(types, axis=1),
        }


def given_pairs(input_ids: NDArray[np.int64], token_type_ids: NDArray[np.int64], pad_id: int) -> Columns:
    """Convert `[n, length]` arrays to `EncodedPairs` or, if token type 0 follows another type, to `GivenArrays`.

    `EncodedPairs` may share batches with other rows. They omit the padding at the end of rows, which rankers ignore.
    """
    columns = np.arange(input_ids.shape[1])
    is_token = input_ids != pad_id
    lengths = np.where(is_token, columns + 1, 0).max(axis=1)
    inside = columns < lengths[:, None]
    firsts = np.where(token_type_ids == 0, columns + 1, 0) * inside
    second_starts = firsts.max(axis=1)  # behind the last token of type 0
    if not np.array_equal((token_type_ids != 0) & inside, (columns >= second_starts[:, None]) & inside):
        return GivenArrays({"input_ids": input_ids, "token_type_ids": token_type_ids})
    return EncodedPairs(input_ids[inside].astype(np.int32), offsets_of(lengths), second_starts.astype(np.int32), pad_id)


class FileEncoder(ABC):
    """Row encoder of files, such as pictures. A file is a path, its bytes, or an array of what is in it.

    Attributes:
        reads: what the files are, such as `PICTURE`.
        truncated: number of rows that were cut, which is 0.
    """

    reads: str
    truncated: int

    @property
    @abstractmethod
    def max_length(self) -> int:
        """Number of tokens that the longest row counts as."""

    @abstractmethod
    def in_folder(self, folder: Path) -> FileEncoder:
        """Return the encoder for paths that are relative to `folder`."""

    @abstractmethod
    def encode(self, files: Sequence[Union[str, Path, bytes, Array]]) -> Columns:
        """Encode files; raises `DataError` for the first file that cannot be read."""

    def encode_queries(self, files: Sequence[Union[str, Path, bytes, Array]]) -> Columns:
        """Encode files to search by."""
        return self.encode(files)

    def encode_each(self, contents: Iterable[Array]) -> Columns:
        """Encode a stream of files' contents; an encoder may hold a single one in memory at a time."""
        return self.encode([*contents])

    def files(self, paths: Sequence[str]) -> Columns:
        """Return columns of files, which may be decoded when they are needed."""
        return self.encode(paths)

    @abstractmethod
    def samples(self) -> Iterator[Columns]:
        """Yield batches of noise, to compare a network with its export, and rows alone with rows in a batch."""

    @abstractmethod
    def save(self, folder: Union[str, os.PathLike[str]]) -> None:
        """Write the encoder's settings into `folder`, as transformers reads them."""
