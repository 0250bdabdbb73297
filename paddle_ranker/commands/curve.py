"""Draw the learning curves of one or more trainings into one picture.

paddle-ranker curve first/checkpoint:second/checkpoint --output both.png
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from paddle_ranker.errors import UsageError, quoted
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.options.input_files import split_paths
from paddle_ranker.storage.atomic import make_folder
from paddle_ranker.storage.streams import is_stream, output_free_for
from paddle_ranker.training.learning_curve import METRICS_FILE, PICTURE_FILE, draw_learning_curves, read_curve


@dataclass(frozen=True)
class CurveOptions(Options):
    runs: str = option(
        help=f"folder of a training (its --output), or several folders with {os.pathsep} between them", positional=True
    )
    output: str = option(PICTURE_FILE, help="picture to write, a PNG file")


def run(options: CurveOptions) -> None:
    """Draw the learning curves, also of trainings that still run, and print the picture's path."""
    folders = list(dict.fromkeys(Path(name) for name in split_paths(options.runs) if name))
    if not folders:
        raise UsageError(f"RUNS {quoted(options.runs)}: name a folder with a {METRICS_FILE}")
    curves = [read_curve(folder / METRICS_FILE, name) for folder, name in zip(folders, names_of(folders))]
    with output_free_for(options.output):
        if not is_stream(options.output):
            make_folder(Path(options.output).parent)
        draw_learning_curves(curves, Path(options.output))
        print(options.output)


def names_of(folders: Sequence[Path]) -> list[str]:
    """Return a short name for each folder: its path without the leading and trailing parts that all folders share."""
    parts = [Path(os.path.abspath(folder)).parts for folder in folders]  # `best` stays best, wherever it points
    if len(parts) == 1:
        return [parts[0][-1]]
    while all(len(p) > 1 and p[-1] == parts[0][-1] for p in parts):
        parts = [p[:-1] for p in parts]
    while all(len(p) > 1 and p[0] == parts[0][0] for p in parts):
        parts = [p[1:] for p in parts]
    return ["/".join(p) for p in parts]


main = main_of(run, CurveOptions, __doc__)
