"""Configuration of a server, used by every command that starts one; importing this does not import Paddle."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from ipaddress import ip_address
from pathlib import Path
from socket import gethostname
from typing import Optional, Union

from paddle_ranker.errors import UsageError
from paddle_ranker.model.model_options import CheckpointOptions, HeadOptions, TokenizerOptions
from paddle_ranker.options import option, redeclare
from paddle_ranker.options.declare import ANY_TEXT, FETCHED_FOLDER, FOLDER_OR_URL
from paddle_ranker.scoring.scoring_options import EngineOptions
from paddle_ranker.serving.core.limits import API_KEY_VARIABLE, SEARCH_KEY_VARIABLE, Limits

RANKER_SLOT = "ranker"  # the slot of the model that most servers have
MOST_STREAMS = 64
_OF_MANY = re.compile(r"best|last|model_\d+")  # folders that every training has
_LOOPBACK = ("127.", "::1", "localhost")


def _key_of_environment() -> Optional[str]:
    return os.environ.get(API_KEY_VARIABLE)


def _search_key_of_environment() -> Optional[str]:
    return os.environ.get(SEARCH_KEY_VARIABLE)


@dataclass(frozen=True)
class ServeConfig(Limits, HeadOptions, TokenizerOptions, EngineOptions):
    """Options of `paddle-ranker serve`. Other commands that start a server build this from their own options.

    Each further kind of served model adds the options of its `SlotKind`.

    api_key: key that callers must send; None: no key. It is read from the environment, since process lists would show
        an option
    search_key: key that opens searches alone, beside `api_key`, so that a web page may show it; None: no such key
    """

    folder: Optional[Path] = option(  # noqa: RUF009
        None,
        positional=True,
        either=True,
        help="a model of any kind; same as the option for its kind",
        addresses=FETCHED_FOLDER,
    )
    model: Optional[Path] = option(  # noqa: RUF009
        None,
        either=True,
        aliases=("--ranker",),
        help="the ranker: a trained one's folder, an exported one's, one for Paddle Serving, or a name, OWNER/MODEL; "
        "with --index, the URL of a service, http://HOST/v1/rerank#MODEL",
        addresses=FOLDER_OR_URL,
    )
    host: str = option(
        "127.0.0.1", help="address to listen on; 0.0.0.0: all addresses of this machine", addresses=ANY_TEXT
    )
    port: int = option(8600, help="port to listen on; 0: a free port, which is printed", minimum=0, maximum=65535)
    more_ports: tuple[Union[int, str], ...] = option((), several=True, help="further ports; each speaks every protocol")
    http_port: Optional[int] = option(
        None,
        help="a further port for HTTP only, for proxies and clouds; 0: a free port",
        minimum=0,
        maximum=65535,
    )
    workers: int = option(1, help="processes, each with the model in its own memory", minimum=1, maximum=256)
    cpu_threads: int = redeclare(
        EngineOptions,
        "cpu_threads",
        help="threads of a matrix product in each worker; 0: all cores, divided among the workers",
    )
    streams: int = option(1, help="batches that each worker computes at once", minimum=1, maximum=MOST_STREAMS)
    max_wait_us: int = option(
        0, help="microseconds that a request waits for others while the engine is idle", minimum=0, maximum=10_000_000
    )
    max_seq_length: Optional[int] = redeclare(CheckpointOptions, "max_seq_length")
    stop_after_seconds: float = option(
        0.0,
        help="seconds for which a server that is told to stop stays open, while /ready is 503: longer than a proxy "
        "takes to notice that (default: 0)",
        minimum=0,
        maximum=3600,
    )
    keep_alive_seconds: float = option(
        75.0,
        help="seconds after which an idle connection is closed: longer than in proxies, which must be the first",
        above=0,
        maximum=86400,
    )
    drain_seconds: float = option(30.0, help="seconds for requests in flight when the server stops", minimum=0)
    log_requests: bool = option(True, help="write a line of JSON on standard error for each request")
    log_texts: bool = option(False, help="include the users' texts in that line")
    served_name: tuple[str, ...] = option(
        (),
        several=True,
        help="the model's name in answers (default: its folder's, news/best for those of a training); of another model "
        "than the ranker: tower=NAME",
        addresses=ANY_TEXT,
    )
    allowed_hosts: tuple[str, ...] = option(
        (),
        several=True,
        help="names of hosts by which HTTP may be asked, *.example.com for all below one, * for all (default: with a "
        "key all; without one --host and the names of this machine)",
        addresses=ANY_TEXT,
    )
    api_key: Optional[str] = field(default_factory=_key_of_environment, repr=False)
    search_key: Optional[str] = field(default_factory=_search_key_of_environment, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(port.isdigit() and 0 < int(port) < 65536 for port in self._more_ports()):
            raise UsageError(f"--more_ports {' '.join(map(str, self.more_ports))}: give numbers from 1 to 65535")
        if self.http_port and self.http_port in self.ports:
            raise UsageError(f"--http_port {self.http_port}: --port or --more_ports has it already; choose another")
        if self.api_key is not None and not self.api_key.strip():
            raise UsageError(f"{API_KEY_VARIABLE} is set and empty: give a key, or unset it")
        if self.search_key is not None and not self.search_key.strip():
            raise UsageError(f"{SEARCH_KEY_VARIABLE} is set and empty: give a key, or unset it")
        if self.search_key is not None and self.api_key is None:
            raise UsageError(f"{SEARCH_KEY_VARIABLE} is set, but everybody may search: set {API_KEY_VARIABLE}, too")
        if self.search_key is not None and self.search_key == self.api_key:
            raise UsageError(f"{SEARCH_KEY_VARIABLE} is the same as {API_KEY_VARIABLE}, which opens all: give another")

    def name_of(self, slot: str, folder: Path) -> str:
        """Return a model's name for answers: its `served_name`, or by default the name of its folder.

        The name stays the same if the link `best` points to another folder. If folders of all trainings have the same
        name, such as `best`, the name of the parent folder comes before it: `news/best`.
        """
        names = dict(name.rpartition("=")[::2] for name in self.served_name)
        main = names.get("") if slot == RANKER_SLOT or self.model is None else None
        path = Path(os.path.abspath(folder))
        parent = f"{path.parent.name}/" if _OF_MANY.fullmatch(path.name) and path.parent.name else ""
        return names.get(slot) or main or f"{parent}{path.name}"

    def is_own_host(self, named: str) -> bool:
        """Return whether this server answers requests for a host. `named` is the request's `Host` without the port.

        Another site can make its own host name point to this server (DNS rebinding). So a server without a key only
        answers names that no other site can own: those of loopback, those without a dot and, unless it listens on
        loopback alone, addresses and this machine's name. If `allowed_hosts` is set, the server answers only its names.
        """
        named = named.lower().rstrip(".")
        if self.allowed_hosts or self.api_key is not None:
            return not self.allowed_hosts or any(fnmatchcase(named, host.lower()) for host in self.allowed_hosts)
        if named in ("127.0.0.1", "localhost"):  # the usual names
            return True
        try:
            return ip_address(named).is_loopback or not self.is_loopback
        except ValueError:
            names = (self.address.lower(), "localhost", *(() if self.is_loopback else (gethostname().lower(),)))
            return "." not in named or named in names or named.endswith(".localhost")

    @property
    def ports(self) -> tuple[int, ...]:
        """The ports that speak every protocol, without duplicates."""
        return tuple(dict.fromkeys((self.port, *map(int, self._more_ports()))))

    @property
    def is_loopback(self) -> bool:
        """Whether the server listens on loopback, so that only this machine can connect."""
        return self.address.startswith(_LOOPBACK)

    @property
    def address(self) -> str:
        """The host without the brackets that IPv6 addresses have in URLs."""
        return self.host.strip("[]")

    def _more_ports(self) -> list[str]:
        return [port for text in self.more_ports for port in str(text).split(",") if port]
