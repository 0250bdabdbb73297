"""Predict for pairs of posts whether the second follows from the first, with probabilities.

paddle-ranker predict --model checkpoint/best --input posts.csv --explain
"""

from __future__ import annotations

import csv
import dataclasses
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from multimodal_entailment.data import PostPair, read_posts
from multimodal_entailment.info import LABELS
from multimodal_entailment.options import PredictEntailmentOptions
from paddle_ranker import runtime
from paddle_ranker.errors import UsageError
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.options import json_text, main_of
from paddle_ranker.storage.atomic import check_writable
from paddle_ranker.storage.streams import output_free_for

if TYPE_CHECKING:
    from multimodal_entailment.entailment_scorer import Entailment
    from multimodal_entailment.info import EntailmentInfo


def predict(options: PredictEntailmentOptions) -> None:
    """Write a row for each pair: its ids, the likeliest class, and the probability of each class."""
    runtime.prepare_command(options.cpu_threads)
    from multimodal_entailment.entailment_scorer import Entailment
    from paddle_ranker.storage.atomic import new_file

    check_writable(options.output_file)
    model = Entailment.load(
        options.model, LoadOptions.of(options), batch_size=options.batch_size, workers=options.image_workers
    )
    pairs = given_pairs(options, model.info)
    probabilities = model.predict_posts(pairs, options.skip_bad_rows)
    falls = explain(model, pairs, probabilities, options.skip_bad_rows) if options.explain else {}

    names = ["id_1", "id_2", "label", *LABELS, *(f"without_{part}" for part in falls)]
    without = ([float(values[number]) for values in falls.values()] for number in range(len(pairs)))
    rows = [
        [pair.id_1, pair.id_2, LABELS[row.argmax()], *row.tolist(), *fallen]
        for pair, row, fallen in zip(pairs, probabilities, without)
    ]
    text = _as_json(names, rows) if options.format == "json" else _as_csv(names, rows)
    if options.output_file is None:
        sys.stdout.write(text)
        return
    with new_file(options.output_file, newline="") as stream:
        stream.write(text)
    with output_free_for(options.output_file):
        print(f"{len(pairs):,} pairs: {options.output_file}")


def explain(
    model: Entailment, pairs: Sequence[PostPair], probabilities: np.ndarray, skip_bad_images: bool = False
) -> dict[str, np.ndarray]:
    """Explain predictions by how far the predicted class's probability falls without each part of the posts.

    Returns a dict from part to these falls, `[n]`. The parts are `texts`, which are emptied, and `image_1` and
    `image_2`, which become missing (occlusion: Zeiler and Fergus, 2014). A negative fall means that the part spoke
    against the prediction. A model without text input has no part `texts`.

    Args:
        probabilities: the predictions for the complete pairs, `[n, 3]`.

    Raises `UsageError` for a model of texts alone: without texts there is nothing to predict from.
    """
    if model.info.vision is None:
        raise UsageError("--explain removes texts or images, but this model takes only texts")
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


def _as_csv(names: list[str], rows: list[list[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([f"{cell:.6f}" if isinstance(cell, float) else cell for cell in row] for row in rows)
    return text.getvalue()


def _as_json(names: list[str], rows: list[list[Any]]) -> str:
    rounded = ([round(cell, 6) if isinstance(cell, float) else cell for cell in row] for row in rows)
    return "".join(f"{json_text(dict(zip(names, row)))}\n" for row in rounded)


def given_pairs(options: PredictEntailmentOptions, info: EntailmentInfo) -> list[PostPair]:
    """Return the pairs of the file, or the single pair of the command line."""
    if options.input_file is None:
        return [_typed_pair(options, info)]
    return read_posts(
        options.input_file,
        options.image_folder,
        need_labels=False,
        skip_bad_rows=options.skip_bad_rows,
        images=info.vision is not None,
    )


def _typed_pair(options: PredictEntailmentOptions, info: EntailmentInfo) -> PostPair:
    """Return the pair of the command line; raises `UsageError` if a post is empty, as in files."""
    folder, texts = Path(options.image_folder or ""), (options.text_1 or "", options.text_2 or "")
    images = [
        None if not image or info.vision is None else str(folder / image)
        for image in (options.image_1, options.image_2)
    ]
    for number, (text, image) in enumerate(zip(texts, images), 1):
        if not text.strip() and image is None:
            required = f"--text_{number}" + (f", --image_{number} or both" if info.vision is not None else "")
            raise UsageError(f"post {number} is empty: give {required}")
    return PostPair("1", texts[0], images[0], "2", texts[1], images[1], None, 1)


main = main_of(predict, PredictEntailmentOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
