"""WordPiece: a word to ids, the longest known piece first."""

from __future__ import annotations

from collections.abc import Mapping

MAX_WORD_CHARACTERS = 100
CONTINUATION = "##"


class WordPiece:
    """Greedy longest-match-first WordPiece over `token_to_id` (https://arxiv.org/abs/1609.08144, BERT's inference)."""

    def __init__(self, token_to_id: Mapping[str, int], unk_id: int) -> None:
        self._initial = {token: i for token, i in token_to_id.items() if not token.startswith(CONTINUATION)}
        self._continued = {
            token[len(CONTINUATION) :]: i for token, i in token_to_id.items() if token.startswith(CONTINUATION)
        }
        self._longest = max(map(len, [*self._initial, *self._continued]), default=1)
        self._unk_id = unk_id

    def ids(self, word: str) -> list[int]:
        """Return the ids of `word`'s pieces; one unknown id where no pieces make it up or it is over 100 characters."""
        if len(word) > MAX_WORD_CHARACTERS:
            return [self._unk_id]
        ids: list[int] = []
        start, pieces = 0, self._initial
        while start < len(word):
            for end in range(min(len(word), start + self._longest), start, -1):
                piece_id = pieces.get(word[start:end])
                if piece_id is not None:
                    break
            else:
                return [self._unk_id]
            ids.append(piece_id)
            start, pieces = end, self._continued
        return ids
