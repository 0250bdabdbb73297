"""Explain a prediction: by how much the predicted class's probability falls when a part of the posts is removed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from multimodal_entailment.data import PostPair
from paddle_ranker.errors import UsageError

if TYPE_CHECKING:
    from multimodal_entailment.entailment_scorer import Entailment


def explain(
    model: Entailment, pairs: Sequence[PostPair], probabilities: np.ndarray, skip_bad_images: bool = False
) -> dict[str, np.ndarray]:
    """Return a dict from part to the fall, `[n]`, of the predicted class's probability without that part.

    The parts are `texts`, which are emptied, and `image_1` and `image_2`, which become missing (occlusion: Zeiler and
    Fergus, 2014). A negative fall means that the part spoke against the prediction. A model without text input has no
    part `texts`.

    Args:
        probabilities: the model's for the complete pairs, `[n, 3]`.

    Raises `UsageError` for a model of texts alone: without texts there is nothing to predict from.
    """
    if model.info.vision is None:
        raise UsageError("--explain takes away texts and images by turns: this model looks at texts alone")
    changes: dict[str, dict[str, object]] = {}
    if model.info.max_seq_length is not None:
        changes["texts"] = {"text_1": "", "text_2": ""}
    changes.update({name: {name: None} for name in ("image_1", "image_2")})
    predicted = np.arange(len(pairs)), probabilities.argmax(axis=1)
    falls = {}
    for part, change in changes.items():
        changed = [dataclasses.replace(pair, **change) for pair in pairs]  # type: ignore[arg-type]
        without = model.predict_posts(changed, skip_bad_images)
        falls[part] = probabilities[predicted] - without[predicted]
    return falls
