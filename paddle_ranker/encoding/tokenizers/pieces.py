"""Tokenizer of ERNIE-M: pieces of SentencePiece, split further, with the ids of a `vocab.txt`.

It needs the library sentencepiece, which PaddleNLP's `ErnieMTokenizer` uses, so that odd texts get the same pieces.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Optional

import numpy as np

from paddle_ranker.encoding.tokenizers.builtin import WordTokenizer, lowered
from paddle_ranker.encoding.tokenizers.interface import FlatIds, Lengths
from paddle_ranker.errors import CheckpointError, brief, package_for

UNDERLINE = "▁"  # SentencePiece's mark of a space before a piece
_ALONE = ",;:.?!~，；：。？！《》【】"
_FIRST_HAN, _LAST_HAN = "\u4e00", "\u9fff"


def split_piece(piece: str) -> list[str]:
    """Split a piece around ideographs and some punctuation, and between digits and other characters.

    As in PaddleNLP's `ErnieMTokenizer._tokenize`; a part that is a mark of a space alone is dropped.
    """
    if piece == UNDERLINE:
        return []
    parts, start = list[str](), 0
    for place, char in enumerate(piece):
        if char == UNDERLINE:
            continue
        is_alone = _FIRST_HAN <= char <= _LAST_HAN or char in _ALONE
        if is_alone or (place and char.isdigit() != piece[place - 1].isdigit()):
            parts += [piece[start:place], char] if is_alone else [piece[start:place]]
            start = place + is_alone
    return [part for part in parts if part not in ("", UNDERLINE)] + ([piece[start:]] if piece[start:] else [])


class PieceTokenizer(WordTokenizer):
    """Encoder of texts as the ids of ERNIE-M's pieces, without special tokens. Thread-safe.

    model: content of a SentencePiece model's file
    lowers: whether texts are lowercased before they are split
    token_to_id: ids by token
    unk_id: id of unknown parts of pieces
    markers, in_texts, added: as in `WordTokenizer`

    Raises `DependencyError` without sentencepiece, `CheckpointError` for a damaged model.
    """

    def __init__(
        self,
        model: bytes,
        lowers: bool,
        token_to_id: Mapping[str, int],
        unk_id: int,
        markers: Mapping[str, int],
        in_texts: Collection[str],
        added: Mapping[str, int],
    ) -> None:
        with package_for("ERNIE-M's tokenizer", "sentencepiece"):
            from sentencepiece import SentencePieceProcessor
        processor = SentencePieceProcessor()
        try:
            processor.LoadFromSerializedProto(model)
        except RuntimeError as error:
            raise CheckpointError(f"not a SentencePiece model ({brief(str(error))}); copy it again") from None
        self._pieces, self._lowers = processor.EncodeAsPieces, lowers
        super().__init__(partial(_ids, token_to_id, unk_id), markers, in_texts, added, lowers)

    def encode(self, texts: Sequence[str], most: Optional[int] = None) -> FlatIds:
        return super().encode([*map(without_surrogates, texts)], most)

    def _words(self, text: str) -> list[str]:
        pieces: list[str] = self._pieces(lowered(text) if self._lowers else text)
        return pieces

    def ends(self, texts: Sequence[str]) -> list[Lengths]:
        return super().ends([*map(without_surrogates, texts)])

    def _ends_of_words(self, texts: Sequence[str]) -> list[Lengths]:
        return [*map(self._ends, texts)]

    def _ends(self, text: str) -> Lengths:
        """Return the ends of a text's tokens, by the lengths of pieces and of normalised characters."""
        parts = (part for piece in self._words(text) for part in split_piece(piece))
        stops = np.cumsum([_width(part.replace(UNDERLINE, "")) for part in parts], dtype=np.int64)
        widths = np.cumsum([_width(char) for char in text], dtype=np.int64)
        return np.minimum(np.searchsorted(widths, stops) + 1, len(text))


def _ids(token_to_id: Mapping[str, int], unk_id: int, piece: str) -> list[int]:
    return [token_to_id.get(part, unk_id) for part in split_piece(piece)]


def _width(text: str) -> int:
    """Return the number of visible characters in a text after SentencePiece's usual normalisation."""
    return sum(char.isprintable() and not char.isspace() for char in unicodedata.normalize("NFKC", text))


def without_surrogates(text: str) -> str:
    """Replace lone surrogates in a text, which JSON can contain and libraries refuse."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
