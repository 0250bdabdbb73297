"""Request the probabilities of pairs from the pipeline's server (deploy/python/web_service.py), or this project's.

The texts are sent; the server tokenizes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Optional

from paddle_ranker.options import main_of, option
from paddle_ranker.paddle_serving.clients.command import ClientOptions, print_scores

PORTS = {"grpc": 8089, "http": 8088}  # ports in config_nlp.yml


@dataclass(frozen=True)
class PipelineClientOptions(ClientOptions):
    server: ClassVar[str] = "python deploy/python/web_service.py"
    port: Optional[int] = option(
        None,
        help="the server's port (default: 8089, rpc_port of config_nlp.yml; with --protocol http 8088, its http_port)",
        minimum=1,
        maximum=65535,
    )
    protocol: str = option("grpc", help="protocol: grpc, or http for the gateway", choices=tuple(PORTS))
    service: str = option("ernie", help="name of the service, with which the gateway's path begins")


def ask(options: PipelineClientOptions) -> None:
    """Print the probabilities that the server returns for the pairs."""
    from paddle_ranker.paddle_serving.clients import PipelineClient
    from paddle_ranker.paddle_serving.pipeline import PipelineNames

    names = PipelineNames(service=options.service)
    port = options.port or PORTS[options.protocol]
    client = PipelineClient(options.host, port, protocol=options.protocol, names=names, **options.client_options())
    print_scores(client, options)


main = main_of(ask, PipelineClientOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
