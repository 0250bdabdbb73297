"""Base classes of the clients of Paddle Serving: pairs or texts become requests, answers probabilities or vectors."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np

from paddle_ranker.encoding.pair_encoder import PairRowEncoder
from paddle_ranker.errors import UsageError, refuse_text, require_pairs
from paddle_ranker.model.model_folder import RANKER, TOWER, identify
from paddle_ranker.model.tower import TextEncoder
from paddle_ranker.paddle_serving.general_model import FLOAT32, INT64, STRING
from paddle_ranker.paddle_serving.messages import Message, messages
from paddle_ranker.paddle_serving.serving_files import EMBEDDING
from paddle_ranker.serving.clients.base import BatchClient
from paddle_ranker.serving.clients.client_errors import ServerError, with_retries
from paddle_ranker.serving.core.faults import Fault

Folder = Union[str, "os.PathLike[str]"]


def load_pair_encoder(folder: Folder) -> PairRowEncoder:
    """Return the pair encoder of a ranker's folder: a trained, exported or transformers model, or a client's copy.

    Raises `CheckpointError` for the folder of another kind of model.
    """
    return identify(Path(folder)).row_encoder(RANKER)


def load_text_encoder(folder: Folder) -> Optional[TextEncoder]:
    """Return the text encoder of a tower's folder, or of a client's copy, or None for another kind of model."""
    folder_type = identify(Path(folder))
    return folder_type.row_encoder(TOWER) if folder_type.is_tower else None


class ScoringClient(BatchClient, ABC):
    """A client that gets the probabilities of pairs from a ranker, or the vectors of texts from a tower."""

    def score(self, queries: Sequence[str], titles: Sequence[str]) -> np.ndarray:
        """Return the probability of each pair (queries[i], titles[i]), `[n]` float32. May send several requests."""
        return self.ask_all(self.requests(queries, titles))

    def requests(self, queries: Sequence[str], titles: Sequence[str]) -> list[tuple[Message, int]]:
        """Return (message, pair count) of each request for these pairs. Raises `UsageError` if the lengths differ."""
        require_pairs(queries, titles)
        parts = [(queries[part], titles[part]) for part in self.parts(len(queries))]
        return [(self._request(*part), len(part[0])) for part in parts]

    def ask_all(self, requests: Sequence[tuple[Message, int]]) -> np.ndarray:
        """Send `requests` in order and return the probabilities of all their pairs, `[n]` float32."""
        probabilities = [np.empty(0, np.float32)]
        for request, count in requests:
            probabilities.append(self._probabilities(with_retries(lambda: self._answer(request), self.retries), count))  # noqa: B023
        return np.concatenate(probabilities)

    def vectors(self, texts: Sequence[str], *, is_query: bool = False) -> np.ndarray:
        """Return the vector of each text by the server's tower, `[n, size]` float32. May send several requests.

        is_query: whether the texts are queries, for which the tower may have another prompt
        """
        refuse_text(texts, "texts")
        parts = []
        for part in map(texts.__getitem__, self.parts(len(texts))):
            request = self._vector_request(part, is_query)
            vectors = self._vectors(with_retries(lambda: self._answer(request), self.retries))  # noqa: B023
            if vectors.ndim != 2 or len(vectors) != len(part):
                raise ServerError(f"{self.address}: {list(vectors.shape)} numbers came for {len(part)} texts")
            parts.append(vectors)
        return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)

    def _answer(self, request: Message) -> Message:
        try:
            return self._ask(request)
        except Fault as fault:
            raise ServerError(f"{self.address}: {fault}") from fault

    @abstractmethod
    def _request(self, queries: Sequence[str], titles: Sequence[str]) -> Message: ...

    @abstractmethod
    def _ask(self, request: Message) -> Message:
        """Send one request and return the response. Raises `ServerError`, or `Fault` for an unreadable response."""

    @abstractmethod
    def _probabilities(self, response: Message, count: int) -> np.ndarray: ...

    @abstractmethod
    def _vector_request(self, texts: Sequence[str], is_query: bool) -> Message: ...

    @abstractmethod
    def _vectors(self, response: Message) -> np.ndarray: ...

    def _checked(self, values: Sequence[float], count: int) -> np.ndarray:
        probabilities = np.asarray(values, np.float32)
        if probabilities.shape != (count,):
            raise ServerError(f"{self.address}: {probabilities.size} probabilities came for {count} pairs")
        return probabilities


class GeneralModelClient(ScoringClient):
    """A client of GeneralModelService, the service of Paddle Serving's C++ server.

    Args:
        model_dir: folder of the model, whose tokenizer encodes pairs or texts; None: the client sends texts, which only
            this project's server accepts.
    """

    def __init__(
        self, host: str = "127.0.0.1", port: int = 8600, *, model_dir: Optional[Folder] = None, **options: Any
    ) -> None:
        super().__init__(host, port, **options)
        self._text_encoder = None if model_dir is None else load_text_encoder(model_dir)
        is_ranker = model_dir is not None and self._text_encoder is None
        self._pair_encoder = load_pair_encoder(model_dir) if model_dir is not None and is_ranker else None

    def _request(self, queries: Sequence[str], titles: Sequence[str]) -> Message:
        if self._text_encoder is not None:
            raise UsageError("the client's model_dir is a tower's, which makes vectors and scores no pairs")
        if self._pair_encoder is None:
            return _general_request("predict", {"query": queries, "title": titles})
        pairs = self._pair_encoder.encode(queries, titles)
        return _general_request("predict", pairs.pad(np.arange(len(pairs))))

    def _vector_request(self, texts: Sequence[str], is_query: bool) -> Message:
        if self._pair_encoder is not None:
            raise UsageError("the client's model_dir is a ranker's, which scores pairs and makes no vectors")
        encoder = self._text_encoder
        if encoder is None:
            return _general_request(EMBEDDING, {"query" if is_query else "text": texts})
        columns = encoder.encode_queries(texts) if is_query else encoder.encode(texts)
        return _general_request(EMBEDDING, columns.pad(np.arange(len(columns))))

    def _probabilities(self, response: Message, count: int) -> np.ndarray:
        return self._checked(self._tensor(response).float_data, count)

    def _vectors(self, response: Message) -> np.ndarray:
        tensor = self._tensor(response)
        numbers = np.array(tensor.float_data, np.float32)
        if len(tensor.shape) != 2 or math.prod(tensor.shape) != len(numbers):
            raise ServerError(f"{self.address}: {len(numbers)} numbers came as {list(tensor.shape)[:8]}")
        return numbers.reshape(tuple(tensor.shape))

    def _tensor(self, response: Message) -> Message:
        if response.err_no:
            raise ServerError(f"{self.address}: error {response.err_no}: {response.err_msg}", response.err_no)
        tensors = [tensor for output in response.outputs for tensor in output.tensor]
        if len(tensors) != 1 or tensors[0].elem_type != FLOAT32:
            raise ServerError(f"{self.address}: {len(tensors)} tensors came, expected one of float32")
        return tensors[0]


def _general_request(fetched: str, feeds: Mapping[str, Union[np.ndarray, Sequence[str]]]) -> Message:
    """Return a Request that feeds arrays of tokens or columns of texts, and fetches one output."""
    request = messages().Request(fetch_var_names=[fetched])
    for name, values in feeds.items():
        tensor = request.tensor.add(name=name, alias_name=name)
        if isinstance(values, np.ndarray):
            tensor.elem_type = INT64
            tensor.shape.extend(values.shape)
            tensor.int64_data.extend(values.ravel().tolist())
        else:
            tensor.elem_type = STRING
            tensor.shape.append(len(values))
            tensor.data.extend(values)
    return request
