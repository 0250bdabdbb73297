"""Make the demo data: every file of the literature search data sets, in their formats, from a seed."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from demo_world.files import FOLDERS, HEADERS, foreign_files, is_current, write_demo
from paddle_ranker.errors import DataError
from paddle_ranker.options import Options, main_of, option


@dataclass(frozen=True)
class MakeDemoOptions(Options):
    """Options of `datasets/make_demo.py`."""

    output_dir: str = option(str(Path(__file__).resolve().parent), help="folder for sort/, recall/, ...", name="output")
    size: int = option(6000, help="training triples", minimum=100, maximum=100_000_000)
    queries: int = option(
        300, help="number of queries in each of dev and test, with ten titles per query", minimum=20, maximum=100_000
    )
    seed: int = option(7, help="random seed; the same seed gives the same bytes", minimum=0)
    if_missing: bool = option(False, help="do nothing if the demo data, or other data, exist")
    force: bool = option(False, help="replace files that this command did not make")


def make_demo(options: MakeDemoOptions) -> int:
    """Write the demo data; replace files of other origin only with `--force`."""
    folder = Path(options.output_dir)
    if options.if_missing and is_current(folder, tuple(HEADERS)):
        print(f"{folder}: the demo data is there")
        return 0
    foreign = [] if options.force else foreign_files(folder)
    held = {name.split("/")[0] for name in foreign}
    names = [name for name in HEADERS if name.split("/")[0] not in held]
    if options.if_missing:
        for kept in sorted(held):
            print(f"{folder / kept}: holds data that was not made here; left as it is")
        if not names or is_current(folder, names):
            return 0
    elif foreign:
        raise DataError(
            f"{folder / foreign[0]} was not made by this command or was changed since ({len(foreign)} such files): "
            f"move it away, give another --output, or replace it with --force"
        )
    began = time.monotonic()
    manifest = write_demo(folder, options.seed, options.size, options.queries, names)
    size = sum(facts["bytes"] for facts in manifest.files.values())
    print(
        f"{folder}: {', '.join(f for f in FOLDERS if f not in held)}: {manifest.size:,} training triples, "
        f"{manifest.queries:,} queries each in dev and test, seed {manifest.seed}, {size / 1e6:.1f} MB "
        f"in {time.monotonic() - began:.1f} s"
    )
    return 0


main = main_of(make_demo, MakeDemoOptions, __doc__, prog="make_demo.py")


if __name__ == "__main__":
    sys.exit(main())
