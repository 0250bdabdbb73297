"""Names of a checkpoint's arrays, whoever wrote it, as the names of this toolkit's networks."""

from __future__ import annotations

import numpy as np

from paddle_ranker.array_types import Array
from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.config import WORD_EMBEDDINGS

_HEADS = ("head", "similarity", "classifier")  # ours, the published pairwise ranker's, the published cross-encoder's
_OF_ENCODERS = ("embeddings.", "encoder.", "pooler.", "cells.")


def name_parameters(arrays: dict[str, Array]) -> dict[str, Array]:
    """Rename a checkpoint's arrays to the names of `RankerNetwork`, and fold a two-class head into one logit.

    The name of the word embeddings reveals the encoder's prefix (`ptm.`, `ernie.`, `bert.`, none). A two-class head
    becomes w = w1 - w0, b = b1 - b0, which is exact: softmax(l)[1] = sigmoid(l1 - l0). Arrays of other parts, such as a
    language model's head, are ignored.

    Raises `CheckpointError` if there is no encoder, or if a head has more than two classes.
    """
    prefixes = sorted((name[: -len(WORD_EMBEDDINGS)] for name in arrays if name.endswith(WORD_EMBEDDINGS)), key=len)
    if not prefixes:
        raise CheckpointError(f"holds no encoder: no parameter's name ends in {WORD_EMBEDDINGS}")
    prefix, named = prefixes[0], {}
    for name, array in arrays.items():
        if name.startswith(prefix) and name[len(prefix) :].startswith(_OF_ENCODERS):
            named[f"encoder.{name[len(prefix) :]}"] = array
        elif name.startswith(("match_embeddings.", "lexical.", "similarity_head.", "steps.", "narrow.")):
            named[name] = array
    for head in _HEADS:
        if f"{head}.weight" in arrays:
            weight, bias = arrays[f"{head}.weight"], arrays.get(f"{head}.bias", np.zeros(0))
            if weight.ndim != 2 or weight.shape[1] not in (1, 2) or bias.shape != (weight.shape[1],):
                raise CheckpointError(
                    f"{head}.weight has shape {list(weight.shape)}: a ranker's head has 1 or 2 columns"
                )
            if weight.shape[1] == 2:  # subtract in float32 at least
                weight, bias = (array.astype(np.promote_types(array.dtype, np.float32)) for array in (weight, bias))
                weight, bias = weight[:, 1:] - weight[:, :1], bias[1:] - bias[:1]
            named["head.weight"], named["head.bias"] = weight, bias
            break
    return named


def has_two_class_head(arrays: dict[str, Array]) -> bool:
    """Return whether a checkpoint's head has two classes, which `name_parameters` combines into one logit."""
    return any(f"{head}.weight" in arrays and arrays[f"{head}.weight"].shape[1:] == (2,) for head in _HEADS)
