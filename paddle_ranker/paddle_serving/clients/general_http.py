"""HTTP: a client of the C++ server."""

from __future__ import annotations

from typing import Any

from paddle_ranker.paddle_serving.clients.scoring_client import GeneralModelClient
from paddle_ranker.paddle_serving.json_messages import read_message, write_message
from paddle_ranker.paddle_serving.messages import GENERAL_SERVICE, Message, messages, parse
from paddle_ranker.serving.clients.http_client import HttpCalls
from paddle_ranker.serving.core.limits import pack

_PATH = f"/{GENERAL_SERVICE.rpartition('.')[2]}/inference"


class HttpClient(GeneralModelClient):
    """A client that sends JSON or protobuf.

    Args:
        proto: send and accept protobuf.
        gzip: compress requests; compressed answers are accepted in any case.
    """

    def __init__(self, *arguments: Any, proto: bool = False, gzip: bool = False, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._proto = proto
        self._gzip = gzip
        self._calls = HttpCalls(self.host, self.port, self.timeout, self.api_key)

    def _ask(self, request: Message) -> Message:
        body = request.SerializeToString() if self._proto else write_message(request)
        headers = {"Content_Type": "application/proto"} if self._proto else {}
        if self._gzip:
            body, headers["Content_Encoding"] = pack(body, "gzip"), "gzip"
        content = self._calls.ask("POST", _PATH, body, **headers)
        return parse(messages().Response, content) if self._proto else read_message(content, messages().Response)
