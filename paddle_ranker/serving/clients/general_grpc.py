"""A client of the C++ server over gRPC."""

from __future__ import annotations

from typing import Any

from paddle_ranker.serving.clients.base import GeneralModelClient
from paddle_ranker.serving.clients.errors import ServerError
from paddle_ranker.serving.clients.grpc_calls import GrpcCalls
from paddle_ranker.serving.core.faults import Fault
from paddle_ranker.serving.paddle.messages import GENERAL_SERVICE, Message, messages, parse


class GrpcClient(GeneralModelClient):
    """Ask over one channel; safe to share among threads."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._calls = GrpcCalls(self.host, self.port, self.timeout, self.api_key)

    def close(self) -> None:
        self._calls.close()

    def _ask(self, request: Message) -> Message:
        content = self._calls.call(f"/{GENERAL_SERVICE}/inference", request.SerializeToString())
        try:
            return parse(messages().Response, content)
        except Fault as fault:
            raise ServerError(f"{self.address}: {fault}") from fault
