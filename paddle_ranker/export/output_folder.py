"""Default folder of exports."""

from __future__ import annotations

import sys
from pathlib import Path

OUTPUT = "./output"


def output_folder(named: str, project: Path) -> str:
    """Return the folder `named`, or `OUTPUT` in the project's folder if `named` is `OUTPUT` and exists only there.

    The scripts in `scripts/` write into the project's folder, wherever they are called from. A note on standard error
    says if the result is in that folder.

    named: the value of a command's option; its default is `OUTPUT`
    project: the checkout that the command belongs to
    """
    default = project / OUTPUT
    if named != OUTPUT or Path(named).exists() or not default.exists():
        return named
    print(f"note: {OUTPUT} is not here; taking {default}", file=sys.stderr, flush=True)
    return str(default)
