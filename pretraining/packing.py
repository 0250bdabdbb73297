"""Make training sequences from documents: packed until they are full, or one truncated document each.

    [CLS] document [SEP] the next document [SEP] the beginning of a third [SEP]
    [CLS] the rest of the third [SEP] a fourth [SEP]

The caller shuffles the documents, so that neighbours in a sorted file do not share a sequence. A document that does not
fit into its sequence continues in the next one; it is split between words, and no piece is shorter than
`SHORTEST_PIECE` tokens unless the document is. The network decides whether tokens attend to other documents of their
sequence (`MaskedLanguageModel.separator`); all have token type 0.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np

from paddle_ranker.encoding.columns import offsets_of, ragged_positions
from paddle_ranker.options import note_counts
from paddle_ranker.storage.arrays import gather
from pretraining.token_store import TokenStore

SHORTEST_PIECE = 8
_SLACK = 64  # number of tokens before a sequence's end among which to look for the start of a word


@dataclass(frozen=True)
class Sequences:
    """Sequences, n of them, as ranges of the token store; they take some 30 bytes of memory per document.

    Sequence i consists of the pieces `offsets[i]` to `offsets[i + 1]` (`[n + 1]` int64), each followed by [SEP]. Piece
    j is `piece_lengths[j]` tokens (`[pieces]` int32) of the store, from `piece_starts[j]` on (`[pieces]` int64).
    """

    store: TokenStore
    piece_starts: np.ndarray
    piece_lengths: np.ndarray
    offsets: np.ndarray
    all_lengths: np.ndarray  # [n] int32, special tokens included
    special_ids: tuple[int, int, int]  # [CLS], [SEP], [PAD]

    def __len__(self) -> int:
        return len(self.all_lengths)

    def batch(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the padded ids, `[batch, length]` int64, and a mask of that shape: True if a word begins there.

        Each special token and each padding token counts as a word.
        """
        cls_id, sep_id, pad_id = self.special_ids
        counts = self.offsets[indices + 1] - self.offsets[indices]
        pieces = ragged_positions(self.offsets[indices], counts)
        lengths = self.piece_lengths[pieces].astype(np.int64)
        rows = np.repeat(np.arange(len(indices)), counts)
        before = offsets_of(lengths + 1)
        first_piece = offsets_of(counts)[:-1]
        columns = 1 + before[:-1] - np.repeat(before[first_piece], counts)
        shape = (len(indices), int(self.all_lengths[indices].max(initial=0)))
        ids, starts = np.full(shape, pad_id, np.int64), np.ones(shape, bool)
        ids[:, 0] = cls_id
        ids[rows, columns + lengths] = sep_id
        places = ragged_positions(self.piece_starts[pieces], lengths)
        flat = ragged_positions(rows * shape[1] + columns, lengths)
        ids.reshape(-1)[flat] = gather(self.store.ids, places)
        starts.reshape(-1)[flat] = gather(self.store.starts, places)
        starts[rows, columns] = True  # a cut word counts as a new word
        return ids, starts


def pack(
    store: TokenStore, documents: np.ndarray, max_length: int, special_ids: tuple[int, int, int], *, packing: str
) -> Sequences:
    """Make sequences of at most `max_length` tokens from the documents with the numbers `documents` `[m]`, in order.

    Args:
        special_ids: the ids of [CLS], [SEP] and [PAD].
        packing: `pack`, or `truncate`: one truncated document per sequence.
    """
    starts, lengths, counts = array("q"), array("i"), array("i")
    bounds = store.offsets
    if packing == "truncate":
        chosen = gather(bounds, documents[:, None] + [0, 1])
        kept = np.minimum(chosen[:, 1] - chosen[:, 0], max_length - 2)
        note_counts({f"documents were cut to {max_length} tokens": int((kept < chosen[:, 1] - chosen[:, 0]).sum())})
        return _sequences(store, chosen[:, 0], kept.astype(np.int32), np.ones(len(kept), np.int64), special_ids)
    held, room = 0, max_length - 1
    for number in range(0, len(documents), 1 << 16):
        block = gather(bounds, documents[number : number + (1 << 16), None] + [0, 1]).tolist()
        for start, end in block:
            while start < end:
                if held and room - 1 < min(end - start, SHORTEST_PIECE):
                    counts.append(held)
                    held, room = 0, max_length - 1
                taken = min(end - start, room - 1)
                if start + taken < end:
                    taken = _between_words(store, start, taken)
                starts.append(start)
                lengths.append(taken)
                held, room, start = held + 1, room - taken - 1, start + taken
                if start < end:  # the document continues in the next sequence
                    counts.append(held)
                    held, room = 0, max_length - 1
    if held:
        counts.append(held)
    return _sequences(
        store, np.array(starts, np.int64), np.array(lengths, np.int32), np.array(counts, np.int64), special_ids
    )


def _between_words(store: TokenStore, start: int, taken: int) -> int:
    """Return the largest token count up to `taken` that ends at the end of a word; `taken` if no such end is near."""
    first = max(1, taken - _SLACK)
    begins = np.flatnonzero(gather(store.starts, np.arange(start + first, start + taken + 1)))
    return int(first + begins[-1]) if len(begins) and first + begins[-1] >= min(SHORTEST_PIECE, taken) else taken


def _sequences(
    store: TokenStore, starts: np.ndarray, lengths: np.ndarray, counts: np.ndarray, special_ids: tuple[int, int, int]
) -> Sequences:
    offsets = offsets_of(counts)
    in_all = 1 + np.add.reduceat(lengths.astype(np.int64) + 1, offsets[:-1])
    return Sequences(store, starts, lengths, offsets, in_all.astype(np.int32), special_ids)
