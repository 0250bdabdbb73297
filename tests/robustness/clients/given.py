"""What a client of the conformance table is given and gives back; nothing here needs more than Python.

Its process reads one JSON object: `host`, `port`, `groups` (each a `query`, its `titles`, and `input_ids` and
`token_type_ids` of the pairs, and in `text` those of the titles), and `serving_client` and `tower_client`, folders. It
writes one line, an object a client: `version` and `probabilities`, a list for each group, of vectors if it asks for
these; or `missing`, what is not installed; or `problem`.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import Any, Callable

Scores = list[list[Any]]  # of a group's pairs, a number each; of its texts, a vector each
Client = Callable[[dict[str, Any]], tuple[str, Scores]]


def run(*clients: Client, **named: Client) -> int:
    """Let the clients that the command line names score what the standard input holds."""
    by_name = {**{client.__name__: client for client in clients}, **named}
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    given, found = json.load(sys.stdin), dict[str, Any]()
    for name in sys.argv[1:]:
        try:
            version, probabilities = by_name[name](given)
            found[name] = {"version": version, "probabilities": probabilities}
        except ImportError as error:
            found[name] = {"missing": str(error)}
        except Exception as error:
            traceback.print_exc()
            found[name] = {"problem": f"{type(error).__name__}: {error}"}
    print(json.dumps(found), file=answers, flush=True)
    return 0


def url(given: dict[str, Any], path: str = "") -> str:
    """Return the server's address."""
    return f"http://{given['host']}:{given['port']}{path}"


def tensors(group: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what the contract's curl line has as `tensor`."""
    return [
        {
            "int64_data": [value for row in group[name] for value in row],
            "elem_type": 0,
            "name": name,
            "alias_name": name,
            "shape": [len(group[name]), len(group[name][0])],
        }
        for name in ("input_ids", "token_type_ids")
    ]


def by_index(pairs: list[tuple[int, float]]) -> list[float]:
    """Return the scores in the order of the titles."""
    return [score for _, score in sorted(pairs)]
