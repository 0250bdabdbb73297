"""What a server is started with, by whichever command; read before Paddle is imported."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from paddle_ranker.errors import UsageError
from paddle_ranker.serving.core.limits import Limits

API_KEY_VARIABLE = "PADDLE_RANKER_API_KEY"
_LOOPBACK = ("127.", "::1", "localhost")


@dataclass(frozen=True)
class ServeConfig:
    """A server and its ranker.

    model: the folder of a trained or an exported ranker, or one for Paddle Serving; None: no ranker
    entailment_model: the folder of a trained or an exported model of pairs of posts; None: none
    host: address to listen on
    port, more_ports: every one of them speaks every protocol; port 0: a free one
    engine, precision, device, cpu_threads: as `loading.load_for_engine` has them; 0 threads: one a core, shared among
        the workers
    streams: batches that a worker computes at once
    workers: processes, each with a model of its own
    batch_size: a batch holds at most so many pairs of full length
    max_wait_us: microseconds that a request may wait for others to share its batch, where the engine is free
    api_key: what callers must show; None: nothing
    pipeline_service, pipeline_method: of the pipeline's HTTP gateway, `POST /ernie/prediction`
    log_requests: write a line of JSON on standard error for every request
    log_texts: with the users' texts in it
    header_seconds, body_seconds: for a request's head, and for its body
    idle_seconds, rpc_idle_seconds: after which an HTTP connection, and one of baidu_std or gRPC, is closed on which
        nothing is asked
    drain_seconds: that requests in flight have when the server stops
    """

    model: Optional[Path] = None
    host: str = "127.0.0.1"
    port: int = 8600
    more_ports: tuple[int, ...] = ()
    engine: Optional[str] = None
    precision: str = "fp32"
    device: str = "cpu"
    cpu_threads: int = 0
    streams: int = 1
    workers: int = 1
    batch_size: int = 32
    max_wait_us: int = 0
    max_seq_length: Optional[int] = None
    tokenizer: str = "auto"
    limits: Limits = field(default_factory=Limits)
    api_key: Optional[str] = field(default=None, repr=False)
    pipeline_service: str = "ernie"
    pipeline_method: str = "prediction"
    log_requests: bool = True
    log_texts: bool = False
    header_seconds: float = 10.0
    body_seconds: float = 30.0
    idle_seconds: float = 75.0
    rpc_idle_seconds: float = 600.0
    drain_seconds: float = 30.0
    entailment_model: Optional[Path] = None

    def __post_init__(self) -> None:
        if self.model is None and self.entailment_model is None:
            raise UsageError("nothing to serve: give --model, --entailment_model, or both")
        if self.api_key is not None and not self.api_key.strip():
            raise UsageError(f"{API_KEY_VARIABLE} is set and empty: give a key, or unset it")

    @property
    def folders(self) -> tuple[Path, ...]:
        """What is served."""
        return tuple(folder for folder in (self.model, self.entailment_model) if folder is not None)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return self.host.startswith(_LOOPBACK)
