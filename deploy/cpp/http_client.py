"""Request the probabilities of pairs from the C++ server (deploy/cpp/start_server.sh), or this project's, over HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from paddle_ranker.export.output_folder import OUTPUT, output_folder
from paddle_ranker.options import main_of, option
from paddle_ranker.paddle_serving.clients.command import MODEL_DIR_HELP, ClientOptions, print_scores

PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class HttpClientOptions(ClientOptions):
    port: int = option(8600, help="the server's port", minimum=1, maximum=65535)
    model_dir: str = option(OUTPUT, help=MODEL_DIR_HELP)
    proto: bool = option(False, help="send protobuf instead of JSON")
    gzip: bool = option(False, help="compress the requests")


def ask(options: HttpClientOptions) -> None:
    """Print the probabilities that the server returns for the pairs."""
    from paddle_ranker.paddle_serving.clients import HttpClient

    client = HttpClient(
        options.host,
        options.port,
        model_dir=output_folder(options.model_dir, PROJECT),
        proto=options.proto,
        gzip=options.gzip,
        **options.client_options(),
    )
    print_scores(client, options)


main = main_of(ask, HttpClientOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
