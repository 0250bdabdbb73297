"""Measure a model on labelled pairs of posts.

paddle-ranker evaluate --model checkpoint/best --test posts.csv --part test
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from multimodal_entailment.data import PostPair, class_counts, read_posts, split_posts
from multimodal_entailment.info import LABELS
from multimodal_entailment.options import EvaluateEntailmentOptions
from paddle_ranker import runtime
from paddle_ranker.errors import DataError
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.options import main_of
from paddle_ranker.storage.atomic import check_writable
from paddle_ranker.storage.plotting import new_picture

if TYPE_CHECKING:
    from multimodal_entailment.info import EntailmentInfo
    from multimodal_entailment.measures import EntailmentEvaluation


def evaluate(options: EvaluateEntailmentOptions) -> None:
    """Print the measures with 95% bootstrap intervals over pairs, and the confusion matrix."""
    runtime.prepare_command(options.cpu_threads)
    from multimodal_entailment.entailment_scorer import Entailment
    from multimodal_entailment.measures import evaluate_predictions, labels_of

    check_writable(options.confusion_plot)
    model = Entailment.load(
        options.model, LoadOptions.of(options), batch_size=options.batch_size, workers=options.image_workers
    )
    pairs = measured_pairs(options, model.info)
    probabilities = model.predict_posts(pairs, options.skip_bad_rows)
    measured = evaluate_predictions(labels_of(pairs), probabilities, resamples=options.resamples, seed=options.seed)
    if options.confusion_plot is not None:
        title = f"{Path(options.model).resolve().name}: accuracy {measured.intervals['accuracy']}"
        write_confusion_plot(options.confusion_plot, measured.confusion, title)
    print(json.dumps(measured.to_dict(), indent=2) if options.format == "json" else as_text(measured, pairs))


def measured_pairs(options: EvaluateEntailmentOptions, info: EntailmentInfo) -> list[PostPair]:
    """Return the pairs of the file, or its test or validation part (`options.part`).

    Raises `DataError` for a part of a file that the model's training did not split.
    """
    looks = info.vision is not None
    pairs = read_posts(options.test_file, options.image_folder, skip_bad_rows=options.skip_bad_rows, images=looks)
    from paddle_ranker.storage.digest import content_digest

    training = info.training
    content = training.get("content", {})
    is_trained_on = content.get("train_file") == content_digest(options.test_file)
    is_split = is_trained_on and "validation_file" not in content
    if options.part == "all":
        if is_trained_on:
            print(
                f"warning: {options.test_file} is what this model was trained on: measures of these pairs say nothing "
                f"about new pairs{'; --part test has the pairs held out from it' if is_split else ''}",
                file=sys.stderr,
            )
        return pairs
    if not is_split:
        raise DataError(
            f"{options.test_file}: is not the file that this model's training split; --part {options.part} needs that "
            "file, unchanged"
        )
    split = split_posts(pairs, training["test_share"], training["validation_share"], training["split_seed"])
    chosen = split.test if options.part == "test" else split.validation
    if not chosen:
        raise DataError(f"{options.test_file}: the training kept no {options.part} rows")
    return chosen


def as_text(measured: EntailmentEvaluation, pairs: Sequence[PostPair]) -> str:
    """Format the measures as lines: the overall measures, a table of the classes, the confusion matrix."""
    intervals = measured.intervals
    lines = [
        f"accuracy: {_shown(intervals['accuracy'])}",
        f"macro_f1: {_shown(intervals['macro_f1'])}",
        f"auc (one-vs-rest, mean of the classes): {_shown(intervals['auc'])}",
        "",
        f"{'':<14}{'pairs':>7}  " + "".join(f"{name:<24}" for name in ("precision", "recall", "auc")).rstrip(),
    ]
    for label, count in class_counts(pairs).items():
        cells = (_shown(intervals[f"{label} {name}"]) for name in ("precision", "recall", "auc"))
        lines.append(f"{label:<14}{count:>7,}  " + "".join(f"{cell:<24}" for cell in cells).rstrip())
    lines += ["", "truth (rows), predicted (columns)", f"{'':<14}" + "".join(f"{label:>15}" for label in LABELS)]
    lines += [f"{label:<14}" + "".join(f"{n:>15,}" for n in row) for label, row in zip(LABELS, measured.confusion)]
    lines += ["", f"{measured.count:,} pairs of posts; [ ]: 95% bootstrap intervals over them"]
    return "\n".join(lines)


def _shown(interval: object) -> str:
    return "undefined" if math.isnan(interval.estimate) else str(interval)  # type: ignore[attr-defined]


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


main = main_of(evaluate, EvaluateEntailmentOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
