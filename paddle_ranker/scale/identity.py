"""What the parts of one job depend on: the command states it once, and each process of the cluster compares.

identity = Identity.of({"--model": digest}, read={"pairs.tsv": digest}, opened={"/models/7": digest}, engine=None)
identity.require_versions()  # in an actor, before it opens the models
identity.require(identity.opened)
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Optional

from paddle_ranker.addresses import copies_of
from paddle_ranker.errors import RankerError
from paddle_ranker.options.input_files import paths_of
from paddle_ranker.scoring.engines.engine_registry import AUTO
from paddle_ranker.scoring.versions import named, versions
from paddle_ranker.storage.digest import content_digest, json_digest
from paddle_ranker.stores import fetch_again


@dataclass(frozen=True)
class Identity:
    """All that the parts of one job depend on, JSON-ready.

    made_of: digests of models and files, options and versions; a job is continued only with equal ones
    read: for each file (or files) that the reading task reads, the digest
    opened: for each model or file that actors open, the digest; links are resolved, so that all open the same one
    versions: versions of the packages that compute, by package name
    copies: the paths among them that are copies of what is at an address, by path
    """

    made_of: Mapping[str, object]
    read: Mapping[str, str]
    opened: Mapping[str, str]
    versions: Mapping[str, str]
    copies: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls, facts: Mapping[str, object], read: Mapping[str, str], opened: Mapping[str, str], engine: Optional[str]
    ) -> Identity:
        """Return the identity of a job of this process: `facts`, and the versions of what computes by `engine`."""
        here = versions(engine)
        paths = [path for several in (*read, *opened) for path in paths_of(several)]
        copies = {copy: address for path in paths for copy, address in copies_of(path).items()}
        return cls({**facts, **named(here)}, read, opened, here, copies)

    @property
    def digest(self) -> str:
        return json_digest(self.made_of)

    def require_versions(self) -> None:
        """Raise `RankerError`, which names this machine, if a package has another version than for the command."""
        require_versions(self.versions)

    def fetch(self, contents: Mapping[str, str]) -> None:
        """Fetch those paths of `contents` that the command has fetched from an address, unless this machine has them.

        contents: `read` or `opened`
        """
        for several in contents:
            for path in paths_of(several):
                for copy, address in self.copies.items():
                    if path == copy or path.startswith(f"{copy}{os.sep}"):
                        fetch_again(copy, address)

    def require(self, contents: Mapping[str, str]) -> None:
        """Raise `RankerError`, which names this machine, if the content of a path has not the stated digest.

        contents: `read` or `opened`
        """
        for path, digest in contents.items():
            there = None
            with suppress(RankerError, OSError):
                there = content_digest(path)
            if there != digest:
                raise RankerError(
                    f"{path}: on {socket.gethostname()} it is not, or no longer, what it was when the command began: "
                    "put it back and run the command again, or name another --output"
                )


def require_versions(expected: Mapping[str, str]) -> None:
    """Raise `RankerError`, which names this machine, if a package has another version here than in `expected`."""
    here = versions(AUTO)
    for name, value in expected.items():
        if here.get(name) != value:
            raise RankerError(
                f"{socket.gethostname()} has {name} {here.get(name)}, the command's machine {value}: all machines "
                "need the same versions"
            )
