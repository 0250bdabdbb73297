"""gRPC: calls that raise the errors of `client_errors`, and a client of the C++ server."""

from __future__ import annotations

from typing import Any, Optional

from paddle_ranker.errors import package_for
from paddle_ranker.paddle_serving.clients.scoring_client import GeneralModelClient
from paddle_ranker.paddle_serving.messages import GENERAL_SERVICE, Message, messages, parse
from paddle_ranker.serving.clients.base import LARGEST_ANSWER
from paddle_ranker.serving.clients.client_errors import (
    LateError,
    OverloadedError,
    RefusedError,
    ServerError,
    UnreachableError,
)


class GrpcCalls:
    """Calls over one gRPC channel to a server. Ignores the environment's proxy settings."""

    def __init__(self, host: str, port: int, timeout: float, api_key: Optional[str]) -> None:
        with package_for("gRPC", "'paddle-ranker[serving]'"):
            import grpc
        self.address = f"{host}:{port}"
        self._grpc: Any = grpc
        self._timeout = timeout
        self._metadata = () if api_key is None else (("authorization", f"Bearer {api_key}"),)
        target = f"[{host}]:{port}" if ":" in host else self.address
        options = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", LARGEST_ANSWER)]
        self._channel = grpc.insecure_channel(target, options=options)

    def close(self) -> None:
        self._channel.close()

    def call(self, method: str, data: bytes) -> bytes:
        """Call `method` with a serialized request and return the serialized response. Raises `ServerError`."""
        try:
            answered: bytes = self._channel.unary_unary(method)(data, timeout=self._timeout, metadata=self._metadata)
            return answered
        except self._grpc.RpcError as error:
            raise self._error(error) from error

    def _error(self, error: Any) -> ServerError:
        codes = self._grpc.StatusCode
        message = f"{self.address}: {error.code().name}: {' '.join(str(error.details()).split())[:500]}"
        after = dict(error.trailing_metadata() or ()).get("retry-after")
        if after is not None and error.code() in (codes.RESOURCE_EXHAUSTED, codes.UNAVAILABLE):
            return OverloadedError(message, error.code().name, _seconds(after))
        if error.code() is codes.UNAVAILABLE:
            return UnreachableError(message, error.code().name)
        if error.code() is codes.DEADLINE_EXCEEDED:
            return LateError(message, error.code().name)
        return RefusedError(message, error.code().name)


def _seconds(text: str) -> Optional[float]:
    try:
        return float(text)
    except ValueError:
        return None


class GrpcClient(GeneralModelClient):
    """A client with one channel. Thread-safe."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._calls = GrpcCalls(self.host, self.port, self.timeout, self.api_key)

    def _ask(self, request: Message) -> Message:
        content = self._calls.call(f"/{GENERAL_SERVICE}/inference", request.SerializeToString())
        return parse(messages().Response, content)
