"""Predict the masked word pieces of sentences with a trained masked language model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F

from paddle_ranker.encoding.tokenizers.builtin import CONTINUATION
from paddle_ranker.errors import CheckpointError, DataError, quoted, refuse_text
from pretraining.mlm_start import require_fit
from pretraining.model import load_masked_lm


@dataclass(frozen=True)
class MaskCandidate:
    """A word piece for a mask, and its probability among all word pieces."""

    token: str
    probability: float


@dataclass(frozen=True)
class Filled:
    """A sentence; the sentence filled with the best candidates; and for each mask its candidates, best first."""

    sentence: str
    filled: str
    masks: list[list[MaskCandidate]]


class MaskFiller:
    """Filler of masks, with the model of a folder.

    Each of several masks in a sentence is predicted while the others are still masked.

    Raises `CheckpointError` if the folder has no masked language model, or another model's tokenizer.
    """

    def __init__(self, folder: Path):
        model = load_masked_lm(folder, need_head=True)
        self._files, self._network = model.tokenizer, model.network
        config = self._network.config
        require_fit(self._files, config, folder)
        self._network.eval()
        self._longest = config.longest_pair
        self.mask = self._files.special_tokens["mask_token"]
        if self.mask not in self._files.token_to_id:
            raise CheckpointError(f"{folder}: the vocabulary has no {self.mask} (the mask_token)")
        self._mask_id, self._cls_id, self._sep_id, self._pad_id = (
            self._files.token_to_id[self._files.special_tokens[f"{name}_token"]]
            for name in ("mask", "cls", "sep", "pad")
        )
        self._tokenizer = self._files.tokenizer()
        self._tokens = {token_id: token for token, token_id in self._files.token_to_id.items()}

    def fill(self, sentences: Sequence[str], top_k: int) -> list[Filled]:
        """Return the `top_k` likeliest word pieces for each mask of each sentence.

        Raises `DataError` if a sentence has no mask, or more tokens than the model has positions.
        """
        refuse_text(sentences, "sentences")
        rows = [self._ids(sentence) for sentence in sentences]
        ids = np.full((len(rows), max(map(len, rows), default=0)), self._pad_id, np.int64)
        for row, values in zip(ids, rows):
            row[: len(values)] = values
        places = np.flatnonzero(ids.reshape(-1) == self._mask_id)
        with paddle.no_grad():
            logits = self._network(ids, places)
            logits = logits[:, : self._files.vocab_size]
            best, indices = paddle.topk(F.softmax(logits, axis=-1), min(top_k, self._files.vocab_size))
        of_row: list[list[list[MaskCandidate]]] = [[] for _ in rows]
        for place, values, tokens in zip(places.tolist(), best.numpy().tolist(), indices.numpy().tolist()):
            candidates = [MaskCandidate(self._tokens.get(t, self.mask), p) for t, p in zip(tokens, values)]
            of_row[place // ids.shape[1]].append(candidates)
        return [Filled(text, self._joined(text, masks), masks) for text, masks in zip(sentences, of_row)]

    def _ids(self, sentence: str) -> list[int]:
        parts = sentence.split(self.mask)
        if len(parts) == 1:
            raise DataError(f"{quoted(sentence)}: has no {self.mask}; write {self.mask} where a word piece is missing")
        ids, lengths = self._tokenizer.encode(parts)
        row, start = [self._cls_id], 0
        for number, length in enumerate(lengths.tolist()):
            row += [self._mask_id] * (number > 0) + ids[start : start + length].tolist()
            start += length
        row.append(self._sep_id)
        if len(row) > self._longest:
            raise DataError(
                f"{quoted(sentence)}: has {len(row)} tokens, the model has {self._longest} positions; shorten it"
            )
        return row

    def _joined(self, sentence: str, masks: list[list[MaskCandidate]]) -> str:
        text, *parts = sentence.split(self.mask)
        for candidates, part in zip(masks, parts):
            token = candidates[0].token
            if token.startswith(CONTINUATION) and len(token) > len(CONTINUATION):
                text, token = text.rstrip(), token[len(CONTINUATION) :]
            text += token + part
        return text
