"""Head of a masked language model in a checkpoint, under the names of PaddleNLP's ErnieForMaskedLM."""

from __future__ import annotations

import numpy as np

from paddle_ranker.array_types import Array
from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.config import WORD_EMBEDDINGS

HEAD = "cls.predictions"
_PARTS = ("transform.weight", "transform.bias", "layer_norm.weight", "layer_norm.bias")


def is_whole_head(arrays: dict[str, Array]) -> bool:
    """Return whether a checkpoint's arrays include the complete head, under PaddleNLP's names."""
    has_bias = f"{HEAD}.decoder_bias" in arrays or f"{HEAD}.decoder.bias" in arrays
    return has_bias and all(f"{HEAD}.{part}" in arrays for part in _PARTS)


def masked_lm_head(arrays: dict[str, Array]) -> dict[str, Array]:
    """Return the arrays of the masked language model's head; empty if the checkpoint has no head.

    PaddleNLP's checkpoints repeat the word embeddings as `decoder.weight`, and the head's bias under a second name. The
    copies are left out.

    Raises `CheckpointError` if `decoder.weight` differs from the word embeddings.
    """
    head = {name: array for name, array in arrays.items() if name.startswith(f"{HEAD}.")}
    bias, decoder = head.pop(f"{HEAD}.decoder.bias", None), head.pop(f"{HEAD}.decoder.weight", None)
    if bias is not None:
        head.setdefault(f"{HEAD}.decoder_bias", bias)
    words = next((array for name, array in arrays.items() if name.endswith(WORD_EMBEDDINGS)), None)
    if decoder is not None and words is not None and not np.array_equal(decoder, words):
        raise CheckpointError(
            f"{HEAD}.decoder.weight is not the word embeddings: a head with a matrix of its own is not done here"
        )
    return head
