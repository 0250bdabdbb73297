"""Say where two options name the same data: what is learned from and measured on says nothing about other data."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from itertools import combinations
from typing import Optional

from paddle_ranker.options.files import paths_of
from paddle_ranker.storage.digest import content_digest


def warn_of_same_data(files: Mapping[str, Optional[str]]) -> None:
    """Print a warning for each two options that name one file, or files of one content; None names nothing.

    files: by the option's name without dashes, its file or files
    """
    given = [(option, path) for option, paths in files.items() if paths is not None for path in paths_of(paths)]
    for (one, first), (other, second) in combinations(given, 2):
        how = _shared(first, second) if one != other else None
        if how is not None:
            print(
                f"warning: --{other} {second} is --{one} {first} ({how}): what is measured on what was learned from "
                "says nothing about new queries",
                file=sys.stderr,
            )


def _shared(first: str, second: str) -> Optional[str]:
    if not (os.path.exists(first) and os.path.exists(second)):
        return None
    if os.path.samefile(first, second):
        return "the same file"
    is_same_size = (
        os.path.isfile(first) and os.path.isfile(second) and os.path.getsize(first) == os.path.getsize(second)
    )
    return "the same content" if is_same_size and content_digest(first) == content_digest(second) else None
