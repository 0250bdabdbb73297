"""Write the packages that apt knows as documents with fields: name, summary, description, section, size.

python datasets/make_packages.py --output packages.jsonl
paddle-ranker index build --corpus packages.jsonl --output packages
python datasets/make_packages.py --output packages.jsonl --index packages --check 500
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional

from paddle_ranker.errors import RankerError
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.retrieval.collection import WORDS, Collection
from paddle_ranker.storage.atomic import new_file


@dataclass(frozen=True)
class PackagesOptions(Options):
    """Options of `datasets/make_packages.py`."""

    output: str = option(help="file of JSON lines to write, or the one that was indexed")
    index: Optional[str] = option(None, help="an index of --output: print how many names are first for themselves")
    check: int = option(100, help="names that are searched for with --index", minimum=1)
    seed: int = option(7, help="draws the names", minimum=0)


def packages() -> Iterator[dict[str, Any]]:
    """Yield the available packages, each name once."""
    if shutil.which("apt-cache") is None:
        raise RankerError("apt-cache: not found; run this on Debian or Ubuntu, after apt-get update")
    listed = subprocess.run(["apt-cache", "dumpavail"], check=True, capture_output=True, encoding="utf-8").stdout
    seen = set()
    for block in listed.split("\n\n"):
        values, last = dict[str, str](), ""
        for line in block.splitlines():
            if line[:1].isspace():
                values[last] += f"\n{line.strip()}"
            else:
                last, _, values[last] = line.partition(": ")
        name, (summary, *lines) = values.get("Package"), values.get("Description", "").split("\n")
        if name and summary and name not in seen:
            seen.add(name)
            description = " ".join(line for line in lines if line != ".") or summary
            row = {"id": name, "name": name, "summary": summary, "description": description}
            yield {**row, "section": values.get("Section", ""), "size": int(values.get("Installed-Size", 0))}


def run(options: PackagesOptions) -> None:
    """Write the packages, or look for their names in an index."""
    if options.index is None:
        with new_file(options.output) as stream:
            lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in packages()]
            stream.writelines(lines)
        print(f"{options.output}: {len(lines):,} packages")
        return
    with open(options.output, encoding="utf-8") as stream:
        names = [json.loads(line)["name"] for line in stream]
    asked = random.Random(options.seed).sample(names, min(options.check, len(names)))
    found = Collection.open(options.index).search(WORDS, asked, 1)
    first = sum(hits.ids == [name] for name, hits in zip(asked, found))
    print(f"{options.index}: {first:,} of {len(asked):,} names are first in the search for themselves by words")


main = main_of(run, PackagesOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
