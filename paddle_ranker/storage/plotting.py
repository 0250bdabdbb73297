"""Draw pictures with matplotlib, and write them atomically."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Union

from paddle_ranker.errors import package_for
from paddle_ranker.storage.atomic import new_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Colours by Okabe and Ito, which are distinct for any colour vision.
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
YELLOW, SKY, BLACK = "#E69F00", "#56B4E9", "#000000"


@contextmanager
def new_picture(
    path: Union[str, Path], width: float, height: float, dots_per_inch: int, what: str = "a picture"
) -> Iterator[Figure]:
    """Yield an empty figure of `width` x `height` inches, and write it to `path` if the block succeeds.

    The extension of `path` selects SVG or PDF; the default is PNG. Raises `DependencyError` if matplotlib is missing.

    what: noun for the picture, with which the `DependencyError` begins
    """
    # matplotlib's messages about its caches would interrupt the progress lines of a training.
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with package_for(what, "matplotlib"):
            # Not pyplot, which would choose a backend for the whole process and keep the figure in memory.
            from matplotlib.figure import Figure
        figure = Figure(figsize=(width, height), dpi=dots_per_inch, layout="constrained")
        yield figure
        with new_file(path, "wb") as stream:
            extension = Path(path).suffix.lower()
            figure.savefig(stream, format=extension[1:] if extension in (".svg", ".pdf") else "png", dpi=dots_per_inch)
    finally:
        logger.setLevel(level)
