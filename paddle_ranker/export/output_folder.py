"""Where exports lie unless an option says otherwise."""

from __future__ import annotations

import sys
from pathlib import Path

OUTPUT = "./output"


def output_folder(named: str, project: Path) -> str:
    """Return the folder of an export as it was named; in the place of `OUTPUT` that is not here the project's own.

    The scripts of `scripts/` write into the project's folder, wherever they are called from. A note says what is taken.

    Args:
        named: what a command's option has: `OUTPUT` where nobody gave it.
        project: the checkout that the command is of.
    """
    own = project / OUTPUT
    if named != OUTPUT or Path(named).exists() or not own.exists():
        return named
    print(f"note: {OUTPUT} is not here; taking {own}", file=sys.stderr, flush=True)
    return str(own)
