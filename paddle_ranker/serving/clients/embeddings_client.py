"""A client of `/v1/embeddings`: vectors of texts, from this project's server or another in OpenAI's format."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence

import numpy as np

from paddle_ranker.array_types import Vectors
from paddle_ranker.errors import quoted, refuse_text
from paddle_ranker.serving.clients.client_errors import ServerError
from paddle_ranker.serving.clients.http_client import ModelClient


class EmbeddingsClient(ModelClient):
    """A client of `/v1/embeddings`; see `ModelClient`."""

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of texts that are searched, `[n, size]`."""
        return self._vectors(texts, {"input_type": "document"})

    def query_vectors(self, queries: Sequence[str]) -> Vectors:
        """Return the vectors of queries, `[n, size]`."""
        return self._vectors(queries, {"input_type": "query"})

    def _vectors(self, texts: Sequence[str], fields: dict[str, str]) -> Vectors:
        refuse_text(texts, "texts")
        parts = [self._ask(texts[part], fields) for part in self.parts(len(texts))]
        if len({part.shape[1] for part in parts}) > 1:
            raise ServerError(f"{self._calls.address}: its vectors have several lengths")
        return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)

    def _ask(self, texts: Sequence[str], fields: dict[str, str]) -> Vectors:
        named = {} if self._model is None else {"model": self._model}
        request = {"input": list(texts), "encoding_format": "base64", **named, **fields}
        content = self._post("/v1/embeddings", request)
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
