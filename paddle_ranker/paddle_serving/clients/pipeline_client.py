"""A client of Paddle Serving's pipeline server, over gRPC or its HTTP gateway."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Optional

import numpy as np

from paddle_ranker.errors import UsageError, quoted
from paddle_ranker.paddle_serving.clients.grpc import GrpcCalls
from paddle_ranker.paddle_serving.clients.scoring_client import ScoringClient
from paddle_ranker.paddle_serving.json_messages import read_message, write_message
from paddle_ranker.paddle_serving.messages import PIPELINE_SERVICE, Message, messages, parse
from paddle_ranker.paddle_serving.pipeline import CLOSED, TIMEOUT, PipelineNames
from paddle_ranker.serving.clients.client_errors import LateError, OverloadedError, RefusedError, ServerError
from paddle_ranker.serving.clients.http_client import HttpCalls
from paddle_ranker.serving.core.faults import Fault
from paddle_ranker.serving.core.json_text import parse_json


class PipelineClient(ScoringClient):
    """A client that sends texts, which the server tokenizes.

    Args:
        protocol: grpc or http; their ports differ (`rpc_port` and `http_port` of config_nlp.yml).
        names: names of the service and its method.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 8089,
        *,
        protocol: str = "grpc",
        names: Optional[PipelineNames] = None,
        **options: Any,
    ) -> None:
        super().__init__(host, port, **options)
        self._names = names or PipelineNames()
        calls = GrpcCalls if protocol == "grpc" else HttpCalls
        self._calls = calls(host, port, self.timeout, self.api_key)

    def _request(self, queries: Sequence[str], titles: Sequence[str]) -> Message:
        texts = [
            json.dumps({"query": query, "title": title}, ensure_ascii=False) for query, title in zip(queries, titles)
        ]
        return messages().PipelineRequest(key=[str(place) for place in range(len(texts))], value=texts)

    def _ask(self, request: Message) -> Message:
        if isinstance(self._calls, GrpcCalls):
            content = self._calls.call(f"/{PIPELINE_SERVICE}/inference", request.SerializeToString())
            response = parse(messages().PipelineResponse, content)
        else:
            path = f"/{self._names.service}/{self._names.method}"
            content = self._calls.ask("POST", path, write_message(request))
            response = read_message(content, messages().PipelineResponse)
        if response.err_no:
            raise self._error(response.err_no, response.err_msg)
        return response

    def _probabilities(self, response: Message, count: int) -> np.ndarray:
        values = dict(zip(response.key, response.value))
        # An export may have its own alias of the probability.
        name = next(iter(values)) if len(values) == 1 else "predict"
        if name not in values:
            raise ServerError(f"{self.address}: no predict came, only {', '.join(values) or 'nothing'}")
        # A printed list of numbers, or of lists of one number.
        return self._checked(self._printed(name, values[name]).reshape(-1).tolist(), count)

    def _vector_request(self, texts: Sequence[str], is_query: bool) -> Message:
        if is_query:
            raise UsageError("the pipeline has no queries apart from texts: ask by another client")
        keys = [str(place) for place in range(len(texts))]
        return messages().PipelineRequest(name=self._names.service, key=keys, value=texts)

    def _vectors(self, response: Message) -> np.ndarray:
        if len(response.value) != 1 or list(response.key) == ["predict"]:
            raise ServerError(f"{self.address}: no vectors came, only {', '.join(response.key) or 'nothing'}")
        return self._printed(response.key[0], response.value[0]).astype(np.float32)

    def _printed(self, name: str, value: str) -> np.ndarray:
        """Parse a list that the server printed as JSON, without evaluating it as Python. Return it as an array.

        name: key of the value in the answer, for errors
        """
        try:
            return np.asarray(parse_json(value.encode("utf-8")), np.float64)
        except (Fault, ValueError, TypeError) as error:
            raise ServerError(f"{self.address}: {name} is {quoted(value)}, no list of numbers") from error

    def _error(self, number: int, text: str) -> ServerError:
        message = f"{self.address}: err_no {number}: {text}"
        if number == CLOSED:
            return OverloadedError(message, number)
        if number == TIMEOUT:
            return LateError(message, number)
        return RefusedError(message, number)
