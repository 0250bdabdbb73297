"""Print the cosine of the two texts of each pair, one per line.

paddle-ranker predict --model checkpoint/tower/best --input pairs.tsv
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Optional

import numpy as np

from paddle_ranker import runtime
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.options import main_of, note_without_effect, option
from paddle_ranker.options.declare import FETCHED_FOLDER
from paddle_ranker.options.input_files import folder_of
from paddle_ranker.scoring.scoring_options import TowerOptions


@dataclass(frozen=True)
class PredictCosineOptions(TowerOptions):
    params_path: str = option(
        help="tower: a folder of a tower (exported or not) or of any encoder, or a name",
        name="model",
        leads=True,
        addresses=FETCHED_FOLDER,
    )
    text_pair_file: str = option(help="pairs of texts: query, title; - for standard input", name="input", files=True)
    output_emb_size: Optional[int] = option(
        None, help="length of the vectors, for a check: the checkpoint states it; 0: no check", minimum=0
    )
    pad_to_max_seq_len: Optional[bool] = option(None, help="accepted without effect: padding changes no vector")
    margin: Optional[float] = option(None, help="accepted without effect: cosines depend on the vectors alone")
    scale: Optional[float] = option(None, help="accepted without effect, likewise")


def predict(options: PredictCosineOptions) -> Iterator[float]:
    """Yield the cosine of each pair of the file, in order; memory does not grow with the file."""
    note_without_effect(options, ["pad_to_max_seq_len"], "padding changes no vector")
    note_without_effect(options, ["margin", "scale"], "they are about the training")
    runtime.prepare_command(options.cpu_threads)
    from paddle_ranker.data.rows.records import Pair, RecordFile
    from paddle_ranker.errors import UsageError
    from paddle_ranker.options import note
    from paddle_ranker.retrieval.vectors.text_vectors import Tower
    from paddle_ranker.scoring.files import STANDARD_INPUT
    from paddle_ranker.storage.prefetch import chunks

    folder = folder_of(options.text_pair_file)
    tower = Tower.open(options.params_path, LoadOptions.of(options), options.batch_size, folder=folder)
    size = tower.vectors([]).shape[1]
    if options.output_emb_size not in (None, 0, size):
        raise UsageError(f"--output_emb_size {options.output_emb_size}: the tower's vectors have {size} numbers")
    pairs = RecordFile(STANDARD_INPUT if options.text_pair_file == "-" else options.text_pair_file, Pair, options)
    for part in chunks(pairs):
        left, right = tower.query_vectors([pair.query for pair in part]), tower.vectors([pair.title for pair in part])
        lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
        yield from ((left * right).sum(axis=1) / np.maximum(lengths, 1e-12)).tolist()
    if pairs.skipped:
        note(f"{options.text_pair_file}: {pairs.report()}")


def run(options: PredictCosineOptions) -> None:
    for cosine in predict(options):
        print(f"{cosine:.6f}")


main = main_of(run, PredictCosineOptions, __doc__, ends_with_reader=True)


if __name__ == "__main__":
    raise SystemExit(main())
