"""A client of the C++ server over HTTP."""

from __future__ import annotations

from typing import Any

from paddle_ranker.serving.clients.base import GeneralModelClient
from paddle_ranker.serving.clients.errors import ServerError
from paddle_ranker.serving.clients.http_calls import HttpCalls
from paddle_ranker.serving.core.compression import pack
from paddle_ranker.serving.core.faults import Fault
from paddle_ranker.serving.paddle.json_messages import read_message, write_message
from paddle_ranker.serving.paddle.messages import GENERAL_SERVICE, Message, messages, parse

_PATH = f"/{GENERAL_SERVICE.rpartition('.')[2]}/inference"


class HttpClient(GeneralModelClient):
    """Ask with JSON, or with protobuf.

    Args:
        proto: send and take protobuf.
        gzip: pack what is sent; packed answers are taken in any case.
    """

    def __init__(self, *arguments: Any, proto: bool = False, gzip: bool = False, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._proto = proto
        self._gzip = gzip
        self._calls = HttpCalls(self.host, self.port, self.timeout, self.api_key)

    def close(self) -> None:
        self._calls.close()

    def _ask(self, request: Message) -> Message:
        body = request.SerializeToString() if self._proto else write_message(request)
        headers = {"Content_Type": "application/proto" if self._proto else "application/json"}
        if self._gzip:
            body, headers["Content_Encoding"] = pack(body, "gzip"), "gzip"
        content = self._calls.post(_PATH, body, **headers)
        try:
            read = parse(messages().Response, content) if self._proto else read_message(content, messages().Response)
        except Fault as fault:
            raise ServerError(f"{self.address}: {fault}") from fault
        return read
