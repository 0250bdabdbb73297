"""Options and output that the client scripts in `deploy/` share."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Callable, ClassVar, Optional

import numpy as np

from paddle_ranker.errors import UsageError
from paddle_ranker.options import Options, option
from paddle_ranker.options.declare import ANY_TEXT
from paddle_ranker.paddle_serving.clients.scoring_client import ScoringClient
from paddle_ranker.serving.clients.client_errors import LateError, UnreachableError
from paddle_ranker.serving.core.limits import API_KEY_VARIABLE

# The pair of the published clients.
QUERY, TITLE = "中西方语言与文化的差异", "第二语言习得的一大障碍就是文化差异。"
MODEL_DIR_HELP = (
    "the folder whose tokenizer is used, that of the server's own ranker: an exported one's, or serving_client; where "
    "there is no ./output, the project's"
)


@dataclass(frozen=True)
class ClientOptions(Options):
    """Options of every client script. The API key comes from the environment variable PADDLE_RANKER_API_KEY.

    server: command that starts a server for the script; messages show it
    """

    server: ClassVar[str] = "bash deploy/cpp/start_server.sh"
    query: Optional[str] = option(None, help=f"query (default: {QUERY})", addresses=ANY_TEXT)
    title: Optional[str] = option(None, help=f"title (default: {TITLE})", addresses=ANY_TEXT)
    input_file: Optional[str] = option(
        None, help="a file of pairs to score instead: query, title", name="input", files=True
    )
    text: tuple[str, ...] = option(
        (),
        several=True,
        help="texts, to ask a tower for their vectors instead of a ranker for probabilities",
        addresses=ANY_TEXT,
    )
    host: str = option("127.0.0.1", help="host of the server", addresses=ANY_TEXT)
    timeout: float = option(10.0, help="timeout of an attempt in seconds", above=0)
    retries: int = option(2, help="further attempts if the server is unreachable or overloaded", minimum=0)
    batch_size: int = option(32, help="pairs of a request", minimum=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.input_file is not None and (self.query is not None or self.title is not None):
            raise UsageError("--input has its own queries and titles: leave out --query and --title")
        if self.text and (self.input_file, self.query, self.title) != (None, None, None):
            raise UsageError("--text asks for vectors: leave out --input, --query and --title, which are of pairs")
        if (self.query is None) != (self.title is None):
            raise UsageError("--query and --title belong together: give both, or neither")

    def pairs(self) -> tuple[list[str], list[str]]:
        """Return the queries and the titles to score. Raises `DataError` for a file that does not hold pairs."""
        if self.input_file is None:
            return [QUERY if self.query is None else self.query], [TITLE if self.title is None else self.title]
        from paddle_ranker.data.rows.records import Pair, read_records

        records = read_records(self.input_file, Pair)
        return [record.query for record in records], [record.title for record in records]

    def client_options(self) -> dict[str, Any]:
        """Return keyword arguments for a `ScoringClient`."""
        return {
            "timeout": self.timeout,
            "retries": self.retries,
            "batch_size": self.batch_size,
            "api_key": os.environ.get(API_KEY_VARIABLE) or None,
        }


def print_scores(client: ScoringClient, options: ClientOptions) -> None:
    """Score the pairs. Print how long the requests took, then a line for each pair, `[0.96249247]`.

    The time does not include tokenization. With `--text`, print each text's vector instead, a JSON list.
    """
    with client, adding_advice(options, client.port):
        if options.text:
            print_timed(lambda: client.vectors(options.text))
            return
        requests = client.requests(*options.pairs())
        print_timed(lambda: client.ask_all(requests))


@contextmanager
def adding_advice(options: ClientOptions, port: int) -> Iterator[None]:
    """Add advice to an `UnreachableError` or a `LateError` of the block: how to start a server, or to wait longer.

    port: the server's port, for the advice
    """
    try:
        yield
    except UnreachableError as error:
        raise UnreachableError(
            f"{error}. Does a server run there? {options.server} starts one, or paddle-ranker serve --model "
            f"FOLDER --port {port}; --host and --port say where another one is",
            error.code,
        ) from error
    except LateError as error:
        raise LateError(f"{error}; give it more with --timeout", error.code) from error


def print_timed(ask: Callable[[], np.ndarray]) -> None:
    """Print how long `ask()` takes, then its result, a line for each probability (`[n]`) or vector (`[n, size]`)."""
    began = time.perf_counter()
    result = ask()
    print(f"time to cost :{time.perf_counter() - began:.4f} seconds")
    print("\n".join(lines_of(result)))


def lines_of(result: np.ndarray) -> list[str]:
    """Return a line for each probability, `[0.96249247]`, or vector, `[0.1, -0.2]`, with float32's digits."""
    return [f"[{', '.join(str(np.float32(number)) for number in np.atleast_1d(row))}]" for row in result]
