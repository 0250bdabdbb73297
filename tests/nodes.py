"""Two machines on one: namespaces with a network, a host name and a file of hosts of their own, joined by a cable."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest

from tests.started import until

APART = ("--net", "--uts", "--mount")


class Node(NamedTuple):
    """A machine: its name, its address, and the process that keeps its namespaces."""

    name: str
    address: str
    keeper: int

    def before(self, folder: Path) -> list[str]:
        """Return the words before a command that runs it here, in a folder."""
        own = f"--target={self.keeper}", "--user", "--preserve-credentials", *APART
        return ["nsenter", *own, f"--wd={folder}"]

    def run(self, command: str) -> None:
        """Run a line of a shell here."""
        subprocess.run([*self.before(Path("/")), "sh", "-ec", command], check=True)


@contextmanager
def two_nodes() -> Iterator[tuple[Node, Node]]:
    """Yield two nodes, `node0` and `node1`; skip the test where the system does not let an ordinary user make them."""
    tools = all(map(shutil.which, ("unshare", "nsenter", "ip")))
    if (
        not tools
        or subprocess.run(["unshare", "--user", "--map-root-user", *APART, "true"], capture_output=True).returncode
    ):
        pytest.skip("needs user namespaces for ordinary users, and iproute2 and util-linux of Debian")
    keepers: list[subprocess.Popen[bytes]] = []

    def node(number: int, before: list[str]) -> Node:
        keepers.append(subprocess.Popen([*before, *APART, "sleep", "3600"]))
        pid = keepers[-1].pid
        until(lambda: Path(f"/proc/{pid}/comm").read_text(encoding="ascii") == "sleep\n")
        return Node(f"node{number}", f"10.0.0.{number + 1}", pid)

    with TemporaryDirectory() as folder:
        try:
            first = node(0, ["unshare", "--user", "--map-root-user"])
            nodes = first, node(1, [*first.before(Path("/")), "unshare"])
            first.run(f"ip link add between type veth peer name between netns {nodes[1].keeper}")
            for each in nodes:
                # Debian maps a host's own name to an address that no other host reaches.
                lines = (
                    "127.0.0.1 localhost",
                    f"127.0.1.1 {each.name}",
                    *(f"{n.address} train-{i}.train" for i, n in enumerate(nodes)),
                )
                hosts = Path(folder, each.name)
                hosts.write_text("\n".join([*lines, ""]), encoding="ascii")
                each.run(f"mount --bind {hosts} /etc/hosts; hostname {each.name}; ip link set lo up")
                each.run(f"ip address add {each.address}/24 dev between; ip link set between up")
            yield nodes
        finally:
            for keeper in keepers:
                keeper.kill()
                keeper.wait()
