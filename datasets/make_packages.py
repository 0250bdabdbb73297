"""Write the packages that apt knows as documents with fields: name, summary, description, section, size.

python datasets/make_packages.py --output packages.jsonl
paddle-ranker index build --corpus packages.jsonl --output packages
python datasets/make_packages.py --output packages.jsonl --index packages --check 500
python datasets/make_packages.py --output packages.jsonl --index packages --check 400 --groups 50

`apt-get -o Acquire::Languages=en update` first: it fetches the list of packages and their long descriptions.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional

from paddle_ranker.errors import RankerError
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.retrieval.collection import WORDS, Collection
from paddle_ranker.retrieval.near_duplicates import CONTENT
from paddle_ranker.retrieval.search import Searcher
from paddle_ranker.storage.atomic import new_file


@dataclass(frozen=True)
class PackagesOptions(Options):
    """Options of `datasets/make_packages.py`."""

    output: str = option(help="file of JSON lines to write, or the one that was indexed")
    index: Optional[str] = option(None, help="an index of --output: print how many names are first for themselves")
    check: int = option(100, help="names that are searched for with --index", minimum=1)
    groups: int = option(
        0, help="with --index: search for --check beginnings of summaries, print groups of nearly the same descriptions"
    )
    seed: int = option(7, help="draws the names", minimum=0)


def packages() -> Iterator[dict[str, Any]]:
    """Yield the available packages, each name once."""
    if shutil.which("apt-cache") is None:
        raise RankerError("apt-cache: not found; run this on Debian or Ubuntu, after apt-get update")
    # Where apt is set to do without translations, its cache leaves out the long descriptions, too.
    command = ["apt-cache", "-o", "Acquire::Languages=en", "search", "--full", "--names-only", "."]
    listed = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout
    seen = set()
    for block in listed.split("\n\n"):
        values, last = dict[str, str](), ""
        for line in block.splitlines():
            if line[:1].isspace():
                values[last] += f"\n{line.strip()}"
            else:
                last, _, values[last] = line.partition(": ")
        name, (summary, *lines) = (
            values.get("Package"),
            values.get("Description-en", values.get("Description", "")).split("\n"),
        )
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
        rows = [json.loads(line) for line in stream]
    if options.groups:
        print_groups(options, rows)
        return
    names = [row["name"] for row in rows]
    asked = random.Random(options.seed).sample(names, min(options.check, len(names)))
    found = Collection.open(options.index).search(WORDS, asked, 1)
    first = sum(hits.ids == [name] for name, hits in zip(asked, found))
    print(f"{options.index}: {first:,} of {len(asked):,} names are first in the search for themselves by words")


def print_groups(options: PackagesOptions, rows: list[dict[str, Any]]) -> None:
    """Print groups of nearly the same descriptions, for people to look at, and how long searches took."""
    draw, texts = random.Random(options.seed), {row["id"]: row["description"] for row in rows}
    queries = [" ".join(row["summary"].split()[:4]) for row in draw.sample(rows, min(options.check, len(rows)))]
    with Searcher.open(str(options.index)) as searcher:
        for group_by in (None, CONTENT):
            began = time.process_time()
            found = [result for query in queries for result in searcher.search(query, group_by=group_by)]
            took = 1000 * (time.process_time() - began) / len(queries)
            groups = {one.id: one.similar for one in found if one.similar}
            similar = sum(bool(one.similar) for one in found)
            print(f"group_by {group_by}: {took:.1f} ms; {similar:,} of {len(found):,} results have similar ones")
    for id in draw.sample(sorted(groups), min(options.groups, len(groups))):
        other = draw.choice(groups[id])
        print(f"\n{id}: {texts[id]}\n{other} (of {len(groups[id])}): {texts[other]}")


main = main_of(run, PackagesOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
