"""Ask the C++ server (deploy/cpp/start_server.sh, or this project's own) over HTTP for the probabilities of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from paddle_ranker.export.output_folder import OUTPUT, output_folder
from paddle_ranker.options import option, run_command
from paddle_ranker.serving.clients.command import MODEL_DIR_HELP, ClientOptions, print_scores

PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class HttpClientOptions(ClientOptions):
    port: int = option(8600, help="the server's port", minimum=1, maximum=65535)
    model_dir: str = option(OUTPUT, help=MODEL_DIR_HELP)
    proto: bool = option(False, help="send protobuf instead of JSON")
    gzip: bool = option(False, help="pack the requests")


def ask(options: HttpClientOptions) -> None:
    """Print the probabilities that the server returns for the pairs."""
    from paddle_ranker.serving.clients import HttpClient

    client = HttpClient(
        options.host,
        options.port,
        model_dir=output_folder(options.model_dir, PROJECT),
        proto=options.proto,
        gzip=options.gzip,
        **options.client_options(),
    )
    print_scores(client, options)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; return its exit status."""
    return run_command(ask, HttpClientOptions, argv, description=__doc__ or "")


if __name__ == "__main__":
    raise SystemExit(main())
