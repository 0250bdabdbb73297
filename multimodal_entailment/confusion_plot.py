"""A confusion matrix as a picture."""

from __future__ import annotations

import numpy as np

from multimodal_entailment.info import LABELS
from paddle_ranker.storage.picture import new_picture


def write_confusion_plot(path: str, confusion: np.ndarray, title: str) -> None:
    """Draw counts `[classes, classes]` (rows: the truth), shaded by their share of the row, as PNG, SVG or PDF.

    The shades are shares, so rare and frequent classes look alike.
    """
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    with new_picture(path, 4.6, 4.0, dots_per_inch=150) as picture:
        panel = picture.subplots()
        panel.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
        for row, column in np.ndindex(*confusion.shape):
            dark = shares[row, column] > 0.55
            text = f"{confusion[row, column]}\n{shares[row, column]:.0%}"
            panel.text(column, row, text, ha="center", va="center", color="white" if dark else "#1f2937")
        panel.set_xticks(range(len(LABELS)), LABELS)
        panel.set_yticks(range(len(LABELS)), LABELS, rotation=90, va="center")
        panel.set_xlabel("predicted")
        panel.set_ylabel("truth")
        panel.set_title(title, fontsize=10)
        for side in panel.spines.values():
            side.set_visible(False)
