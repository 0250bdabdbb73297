"""Write the table of characters: `python3.11 -m paddle_ranker.unicode.build_table --oldest python3.9`.

The table gets the Unicode version of the Python that runs this command. Another version changes the tokens of some
texts: change it only on purpose, and mention it in the release notes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import unicodedata
from dataclasses import dataclass
from typing import Any

from paddle_ranker.errors import RankerError
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.storage.atomic import new_file
from paddle_ranker.unicode.character_kinds import FILE, UNASSIGNED, kind_of_category

_ASSIGNED = """import json, sys, unicodedata as u
print(json.dumps([u.unidata_version, [i for i in range(sys.maxunicode + 1) if u.category(chr(i)) != "Cn"]]))"""


@dataclass(frozen=True)
class TableOptions(Options):
    oldest: str = option(help="command of the oldest Python that the package supports")
    output_file: str = option(str(FILE), help="file to write the table to")


def make_table(oldest: str, assigned: set[int]) -> dict[str, Any]:
    """Return the content of the table's file.

    | name | holds |
    | --- | --- |
    | `unicode`, `oldest` | the Unicode versions of this Python and of the oldest one |
    | `kinds` | runs of code points of one kind: the kind's letter, then the first code point, hexadecimal |
    | `young` | lower case, NFKC and combining class, if any, of characters that are new to the oldest Python |

    oldest, assigned: the oldest Python's Unicode version, and the code points assigned in it
    """
    runs: list[str] = []
    young: dict[str, dict[str, Any]] = {}
    for code in range(sys.maxunicode + 1):
        char = chr(code)
        kind = kind_of_category(unicodedata.category(char))
        if not runs or runs[-1][0] != kind:
            runs.append(f"{kind}{code:x}")
        if kind != UNASSIGNED and code not in assigned:
            if unicodedata.normalize("NFD", char) != char:
                raise RankerError(f"U+{code:04X} decomposes, which the table has no place for: add one")
            compatible, lower = unicodedata.normalize("NFKC", char), char.lower()
            facts = {"lower": lower if lower != char else "", "nfkc": compatible if compatible != char else "",
                     "ccc": unicodedata.combining(char)}  # fmt: skip
            if any(facts.values()):
                young[f"{code:x}"] = {name: value for name, value in facts.items() if value}
    return {"unicode": unicodedata.unidata_version, "oldest": oldest, "kinds": " ".join(runs), "young": young}


def build(options: TableOptions) -> None:
    try:
        done = subprocess.run([options.oldest, "-c", _ASSIGNED], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise RankerError(f"--oldest {options.oldest}: does not run ({error}); give a Python's command") from error
    version, assigned = json.loads(done.stdout)
    table = make_table(version, set(assigned))
    with new_file(options.output_file, "w", encoding="ascii") as stream:
        stream.write(json.dumps(table, indent=1) + "\n")
    print(f"{options.output_file}: Unicode {table['unicode']}, {len(table['young'])} characters beyond {version}'s")


main = main_of(build, TableOptions, __doc__)


if __name__ == "__main__":
    sys.exit(main())
