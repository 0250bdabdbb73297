"""A client of `/v1/embeddings`: vectors of texts, from this project's server or another in OpenAI's format."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Optional

import numpy as np

from paddle_ranker.array_types import Vectors
from paddle_ranker.errors import quoted, refuse_text
from paddle_ranker.serving.clients.client_errors import (
    LateError,
    OverloadedError,
    ServerError,
    UnreachableError,
    with_retries,
)
from paddle_ranker.serving.clients.http_client import ModelClient
from paddle_ranker.serving.core.limits import MODEL_OWNER


class EmbeddingsClient(ModelClient):
    """A client of `/v1/embeddings`; see `ModelClient`.

    This project's server is told whether texts are queries, by `input_type`; others do not have the field, and are sent
    texts alone, before which a caller puts the prompts that their model needs.

    Args:
        prefix: what stands before `/embeddings` in the paths, below `url`.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 8600, *, prefix: str = "/v1", **options: Any) -> None:
        super().__init__(host, port, **options)
        self._prefix = prefix

    def vectors(self, texts: Sequence[str], *, seconds: Optional[float] = None) -> Vectors:
        """Return the vectors of texts that are searched, `[n, size]`.

        seconds: time for each answer, if it is shorter than the client's
        """
        return self._vectors(texts, "document", seconds)

    def query_vectors(self, queries: Sequence[str], *, seconds: Optional[float] = None) -> Vectors:
        """Return the vectors of queries, `[n, size]`; for `seconds` see `vectors`."""
        return self._vectors(queries, "query", seconds)

    @cached_property
    def _is_ours(self) -> bool:
        """Whether this project's server answers, which the list of its models tells."""
        try:
            content = with_retries(lambda: self._calls.ask("GET", f"{self._prefix}/models"), self.retries)
            return any(model.get("owned_by") == MODEL_OWNER for model in json.loads(content)["data"])
        except (UnreachableError, OverloadedError, LateError):
            raise
        except (ServerError, ValueError, LookupError, TypeError, AttributeError):
            return False  # others need not have such a list

    def _vectors(self, texts: Sequence[str], input_type: str, seconds: Optional[float]) -> Vectors:
        refuse_text(texts, "texts")
        fields = {"input_type": input_type} if texts and self._is_ours else {}
        parts = [self._ask(texts[part], fields, seconds) for part in self.parts(len(texts))]
        if len({part.shape[1] for part in parts}) > 1:
            raise ServerError(f"{self._calls.address}: its vectors have several lengths")
        return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)

    def _ask(self, texts: Sequence[str], fields: dict[str, str], seconds: Optional[float]) -> Vectors:
        named = {} if self._model is None else {"model": self._model}
        request = {"input": list(texts), **named, **fields}
        if fields:
            request["encoding_format"] = "base64"  # not all others have it
        content = self._post(f"{self._prefix}/embeddings", request, seconds)
        try:
            by_place = {int(item["index"]): _vector(item["embedding"]) for item in json.loads(content)["data"]}
            vectors = np.stack([by_place.pop(place) for place in range(len(texts))])
            if by_place or not np.isfinite(vectors).all():
                raise ValueError("more vectors than texts, or numbers that are not finite")
        except (ValueError, LookupError, TypeError) as error:
            raise ServerError(f"{self._calls.address}: is no server of vectors ({quoted(error)})") from error
        return vectors


def _vector(embedding: object) -> Vectors:
    """Return a vector that came as base64 of little-endian float32 or as numbers, `[size]`."""
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding, validate=True), "<f4").astype(np.float32)
    return np.asarray(embedding, np.float32).reshape(-1)
