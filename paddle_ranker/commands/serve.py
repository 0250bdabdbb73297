"""Serve a ranker on one port: Paddle Serving's protocols, /rerank of today's clients; and a model of pairs of posts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from paddle_ranker.encoding.tokenizers.backends import TokenizerOptions
from paddle_ranker.errors import UsageError
from paddle_ranker.options import option, run_command
from paddle_ranker.scoring.engines import ENGINES
from paddle_ranker.scoring.engines.precisions import PRECISIONS
from paddle_ranker.scoring.options import BatchOptions
from paddle_ranker.serving.core.config import API_KEY_VARIABLE, ServeConfig
from paddle_ranker.serving.core.limits import Limits

_DEFAULTS = Limits()


@dataclass(frozen=True)
class ServeOptions(BatchOptions, TokenizerOptions):
    """Options of `python -m paddle_ranker serve`."""

    model: Optional[str] = option(
        None, help="the ranker: a trained one's folder, an exported one's, or one for Paddle Serving"
    )
    entailment_model: Optional[str] = option(
        None, help="a model of pairs of posts, trained or exported: it answers POST /v1/entailment"
    )
    host: str = option("127.0.0.1", help="address to listen on; 0.0.0.0: every one of this machine's")
    port: int = option(8600, help="port to listen on; 0: a free one, which is printed", minimum=0, maximum=65535)
    more_ports: tuple[str, ...] = option((), several=True, help="further ports; each speaks every protocol")
    workers: int = option(1, help="processes, each with the model in its own memory", minimum=1, maximum=256)
    engine: Optional[str] = option(
        None,
        help="what computes the scores: dygraph, of a trained ranker; inference, onnx, openvino or auto, of an "
        "exported one (default: dygraph for a trained ranker, inference for an exported one)",
        choices=ENGINES,
    )
    precision: str = option(
        "fp32", help="of the matrix products; other than fp32 needs an exported ranker", choices=PRECISIONS
    )
    device: str = option("cpu", help="cpu, gpu, xpu or npu")
    cpu_threads: int = option(
        0, help="threads of a matrix product in each worker; 0: all cores, shared among the workers", minimum=0
    )
    streams: int = option(1, help="batches that each worker computes at once", minimum=1, maximum=64)
    max_wait_us: int = option(
        0, help="microseconds that a request waits for others while the engine is idle", minimum=0, maximum=10_000_000
    )
    max_seq_length: Optional[int] = option(
        None, help="longest pair in tokens (default: what the ranker was trained with)", minimum=5
    )
    request_bytes: int = option(_DEFAULTS.request_bytes, help="of a request's body, unpacked", minimum=1024)
    pairs: int = option(_DEFAULTS.pairs, help="pairs of a request", minimum=1)
    characters: int = option(_DEFAULTS.characters, help="characters of a text", minimum=1)
    queue_pairs: int = option(_DEFAULTS.queue_pairs, help="pairs that wait for each worker's engine", minimum=1)
    posts: int = option(_DEFAULTS.posts, help="pairs of posts of a request", minimum=1)
    queue_posts: int = option(_DEFAULTS.queue_posts, help="pairs of posts that wait in each worker", minimum=1)
    image_bytes: int = option(_DEFAULTS.image_bytes, help="of an image, as it comes", minimum=1)
    image_pixels: int = option(_DEFAULTS.image_pixels, help="of an image, as its header says", minimum=1)
    connections: int = option(_DEFAULTS.connections, help="connections that each worker has open", minimum=1)
    header_bytes: int = option(_DEFAULTS.header_bytes, help="bytes of an HTTP request's head", minimum=256)
    deadline_seconds: float = option(_DEFAULTS.deadline_seconds, help="for requests that name no deadline", above=0)
    header_seconds: float = option(10.0, help="that a request's head may take", above=0)
    body_seconds: float = option(30.0, help="that a request's body, and reading its answer, may take", above=0)
    idle_seconds: float = option(75.0, help="after which an HTTP connection without a request is closed", minimum=1)
    rpc_idle_seconds: float = option(600.0, help="the same, of baidu_std and gRPC", minimum=1)
    drain_seconds: float = option(30.0, help="that requests in flight have when the server stops", minimum=0)
    pipeline_service: str = option("ernie", help="service name of the pipeline's gateway, POST /ernie/prediction")
    pipeline_method: str = option("prediction", help="method name of the pipeline's gateway")
    log_requests: bool = option(True, help="write a line of JSON on standard error for each request")
    log_texts: bool = option(False, help="with the texts of the users in it")


def serve(options: ServeOptions) -> int:
    """Serve until a signal ends it. The API key comes from the environment, where no list of processes shows it."""
    from paddle_ranker.serving.process.server import run

    for name, folder in (("model", options.model), ("entailment_model", options.entailment_model)):
        if folder is not None and not Path(folder).exists():
            raise UsageError(f"--{name} {folder}: there is no such folder; train or export a model first")
    return run(config_of(options))


def config_of(options: ServeOptions) -> ServeConfig:
    """Return what the options and the environment say."""
    ports = [part for text in options.more_ports for part in text.split(",") if part]
    if not all(port.isdigit() and 0 < int(port) < 65536 for port in ports):
        raise UsageError(f"--more_ports {' '.join(options.more_ports)}: give numbers from 1 to 65535")
    limits = Limits(
        request_bytes=options.request_bytes,
        pairs=options.pairs,
        characters=options.characters,
        queue_pairs=options.queue_pairs,
        posts=options.posts,
        queue_posts=options.queue_posts,
        image_bytes=options.image_bytes,
        image_pixels=options.image_pixels,
        connections=options.connections,
        header_bytes=options.header_bytes,
        deadline_seconds=options.deadline_seconds,
    )
    return ServeConfig(
        model=None if options.model is None else Path(options.model),
        entailment_model=None if options.entailment_model is None else Path(options.entailment_model),
        host=options.host,
        port=options.port,
        more_ports=tuple(int(port) for port in ports),
        engine=options.engine,
        precision=options.precision,
        device=options.device,
        cpu_threads=options.cpu_threads,
        streams=options.streams,
        workers=options.workers,
        batch_size=options.batch_size,
        max_wait_us=options.max_wait_us,
        max_seq_length=options.max_seq_length,
        tokenizer=options.tokenizer,
        limits=limits,
        api_key=os.environ.get(API_KEY_VARIABLE),
        pipeline_service=options.pipeline_service,
        pipeline_method=options.pipeline_method,
        log_requests=options.log_requests,
        log_texts=options.log_texts,
        header_seconds=options.header_seconds,
        body_seconds=options.body_seconds,
        idle_seconds=options.idle_seconds,
        rpc_idle_seconds=options.rpc_idle_seconds,
        drain_seconds=options.drain_seconds,
    )


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; return its exit status."""
    return run_command(serve, ServeOptions, argv, description=__doc__ or "")
