"""Draw pictures with matplotlib, into files that appear whole or not at all."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Union

from paddle_ranker.errors import DependencyError
from paddle_ranker.storage.atomic import new_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which people with any colour vision tell apart.
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
YELLOW, SKY, BLACK = "#E69F00", "#56B4E9", "#000000"


@contextmanager
def new_picture(
    path: Union[str, Path], width: float, height: float, dots_per_inch: int, what: str = "a picture"
) -> Iterator[Figure]:
    """Yield an empty figure of that size in inches, which is written to `path` when the block ends well.

    The file is SVG or PDF where it is named so, else PNG. Raises `DependencyError`, naming `what` needs it, where
    matplotlib is not installed.
    """
    # What it says of its caches would come in the middle of a training's progress.
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        # Not pyplot: it would choose a backend for the whole process, and keep the figure.
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DependencyError(f"{what} needs matplotlib ({error}): pip install matplotlib") from error
    else:
        figure = Figure(figsize=(width, height), dpi=dots_per_inch, layout="constrained")
        yield figure
        with new_file(path, "wb") as stream:
            extension = Path(path).suffix.lower()
            figure.savefig(stream, format=extension[1:] if extension in (".svg", ".pdf") else "png", dpi=dots_per_inch)
    finally:
        logger.setLevel(level)
