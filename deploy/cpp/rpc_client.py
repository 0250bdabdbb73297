"""Request the probabilities of pairs from the C++ server (deploy/cpp/start_server.sh), or this project's, over RPC.
If Paddle Serving's native client can be loaded, and --model_dir is a serving_client folder, which that client reads, it
sends the requests; otherwise this project's client does, with the same messages.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from paddle_ranker.array_types import Arrays
from paddle_ranker.encoding.columns import Columns
from paddle_ranker.errors import DependencyError, UsageError
from paddle_ranker.export.output_folder import OUTPUT, output_folder
from paddle_ranker.options import main_of, option
from paddle_ranker.paddle_serving.clients.command import (
    MODEL_DIR_HELP,
    ClientOptions,
    adding_advice,
    print_scores,
    print_timed,
)

PROJECT = Path(__file__).resolve().parents[2]
CLIENT_CONFIG = "serving_client_conf.prototxt"


@dataclass(frozen=True)
class RpcClientOptions(ClientOptions):
    port: int = option(8600, help="the server's port", minimum=1, maximum=65535)
    model_dir: str = option(OUTPUT, help=MODEL_DIR_HELP)
    client: str = option(
        "auto",
        help="native: Paddle Serving's client, which needs a serving_client folder as --model_dir; own: this project's "
        "client; auto: native if possible",
        choices=("auto", "native", "own"),
    )


def ask(options: RpcClientOptions) -> None:
    """Print the probabilities that the server returns for the pairs."""
    options = dataclasses.replace(options, model_dir=output_folder(options.model_dir, PROJECT))
    if options.client == "native" or (options.client == "auto" and _native_can_be(options)):
        ask_natively(options)
        return
    from paddle_ranker.paddle_serving.clients import BaiduStdClient

    client = BaiduStdClient(options.host, options.port, model_dir=options.model_dir, **options.client_options())
    print_scores(client, options)


def _native_can_be(options: RpcClientOptions) -> bool:
    from paddle_ranker.paddle_serving.launchers.native_client import native_client

    if not (Path(options.model_dir) / CLIENT_CONFIG).is_file():
        return False
    try:
        native_client()
    except DependencyError:
        return False
    return True


def ask_natively(options: RpcClientOptions) -> None:
    """Print the probabilities of the pairs, or the texts' vectors, requested through Paddle Serving's own client."""
    from paddle_ranker.paddle_serving.clients.scoring_client import load_pair_encoder, load_text_encoder
    from paddle_ranker.paddle_serving.launchers.native_client import native_client
    from paddle_ranker.serving.clients.client_errors import UnreachableError, with_retries

    config = Path(options.model_dir) / CLIENT_CONFIG
    if not config.is_file():
        raise UsageError(f"--client native reads {config}, which is not there: give --model_dir serving_client")
    text_encoder = load_text_encoder(options.model_dir)
    if (text_encoder is None) == bool(options.text):
        what = "none; give --query and --title" if options.text else "one; give --text"
        raise UsageError(f"--text is for a tower's folder, and --model_dir {options.model_dir} is {what}")
    rows: Columns
    if text_encoder is not None:
        rows = text_encoder.encode(options.text)
    else:
        rows = load_pair_encoder(options.model_dir).encode(*options.pairs())
    client = native_client()()
    client.load_client_config(options.model_dir)
    client.set_rpc_timeout_ms(max(1, int(options.timeout * 1000)))
    client.connect([f"{options.host}:{options.port}"])
    batches = [
        rows.pad(np.arange(start, min(len(rows), start + options.batch_size)))
        for start in range(0, len(rows), options.batch_size)
    ]

    def predict_batch(batch: Arrays) -> np.ndarray:
        feed = dict(zip(client.feed_names_, batch.values()))
        fetched = client.predict(feed=feed, fetch=client.fetch_names_[:1], batch=True)
        if not fetched:  # The native client does not report whether a retry makes sense; a retry is safe.
            address = f"{options.host}:{options.port}"
            raise UnreachableError(f"{address}: no scores; the native client's message stands above")
        found: np.ndarray = next(iter(fetched.values()))
        return found if options.text else found.reshape(-1)

    def ask_all() -> np.ndarray:
        return np.concatenate([with_retries(partial(predict_batch, batch), options.retries) for batch in batches])

    with adding_advice(options, options.port):
        print_timed(ask_all)


main = main_of(ask, RpcClientOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
