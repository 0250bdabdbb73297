"""Names of what is not a path of this machine: addresses of files (`stores.py` fetches them), URLs of services.

Messages call a copy in the cache by its address, and a file that is being written by its name at the end.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Optional, Union

from paddle_ranker.errors import RankerError

_SCHEME = re.compile(r"(?:[^\W\d]\w*=)?([A-Za-z][A-Za-z0-9+.-]*)://")  # also behind the name in NAME=FOLDER
FETCHED: dict[str, str] = {}  # what this process has fetched: local path to address
_CALLED: dict[str, str] = {}  # temporary paths that are being written: path to the name in messages


def scheme_of(text: str) -> Optional[str]:
    """Return the scheme of an address, such as `s3` of `s3://bucket/name` or `NAME=s3://bucket/name`; else None."""
    match = _SCHEME.match(text)
    return match[1] if match else None


def is_url(value: object) -> bool:
    """Return whether a value is the URL of a service, http:// or https://."""
    return isinstance(value, str) and value.lower().startswith(("http://", "https://"))


def copies_of(path: str) -> Mapping[str, str]:
    """Return the copies that this process has fetched among `path` and the folders around it: path to address."""
    return {copy: FETCHED[copy] for copy in map(str, (Path(path), *Path(path).parents)) if copy in FETCHED}


def versions_of(paths: Iterable[str]) -> dict[str, str]:
    """Return the version of what this process has fetched, by address, for copies among `paths`."""
    return {address: Path(copy).parent.name for path in paths for copy, address in copies_of(path).items()}


def address_of(path: str) -> Optional[str]:
    """Return the address from which this process has fetched a path; None for other paths."""
    for copy, address in copies_of(path).items():
        return f"{address}{path[len(copy) :]}"
    return None


def with_addresses(text: str) -> str:
    """Return a message in which copies in the cache are called by their addresses, and paths as `called` says."""
    for copy, address in [*_CALLED.items(), *FETCHED.items()]:
        text = text.replace(copy, address)
    return text


@contextmanager
def called(path: Union[str, Path], name: Union[str, Path]) -> Iterator[None]:
    """In the block, let notes and errors call a temporary path by the name that it gets at the end."""
    _CALLED[str(path)] = str(name)
    try:
        yield
    except (RankerError, OSError, RuntimeError) as error:
        error.args = tuple(with_addresses(part) if isinstance(part, str) else part for part in error.args)
        if isinstance(error, OSError) and error.filename is not None:
            error.filename = with_addresses(os.fsdecode(error.filename))
        raise
    finally:
        del _CALLED[str(path)]
