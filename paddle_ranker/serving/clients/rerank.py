"""A client of `/v1/rerank`, as this project's server and many others have it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Optional

import numpy as np

from paddle_ranker.scoring.ranker import RankedTitle
from paddle_ranker.serving.clients.errors import ServerError
from paddle_ranker.serving.clients.http_calls import HttpCalls
from paddle_ranker.serving.clients.retrying import asking_again


class RerankClient:
    """Rank titles for a query.

    Args:
        timeout: seconds for one attempt.
        retries: further attempts where the connection fails or the server has too much to do.
        api_key: what the server asks for; None: nothing.
        model: its name, which servers of several models want to know.

    Raises `ServerError` (a `RankerError`) where a server does not answer with scores.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 8600,
        *,
        timeout: float = 10.0,
        retries: int = 2,
        api_key: Optional[str] = None,
        model: Optional[str] = None,
    ) -> None:
        self._calls = HttpCalls(host, port, timeout, api_key)
        self._retries = retries
        self._model = model

    def rank(self, query: str, titles: Sequence[str], top_k: Optional[int] = None) -> list[RankedTitle]:
        """Return the titles, best first; the best `top_k` of them, where given."""
        if not titles:
            return []
        asked: dict[str, Any] = {"query": query, "documents": list(titles)}
        if top_k is not None:
            asked["top_n"] = top_k
        if self._model is not None:
            asked["model"] = self._model
        body = json.dumps(asked, ensure_ascii=False).encode("utf-8", "surrogatepass")
        headers = {"Content_Type": "application/json"}
        content = asking_again(lambda: self._calls.post("/v1/rerank", body, **headers), self._retries)
        try:
            results = json.loads(content)["results"]
            ranked = [
                RankedTitle(int(result["index"]), titles[int(result["index"])], float(result["relevance_score"]))
                for result in results
            ]
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise ServerError(f"{self._calls.address}: is no rerank server ({error!r:.200})") from error
        wanted = len(titles) if top_k is None else min(top_k, len(titles))
        if len({title.index for title in ranked}) != wanted:
            raise ServerError(f"{self._calls.address}: {len(ranked)} results came, expected {wanted}")
        return ranked

    def score(self, query: str, titles: Sequence[str]) -> np.ndarray:
        """Return the probability of every title, `[n]` float64, in their order."""
        probabilities = np.zeros(len(titles))
        for title in self.rank(query, titles):
            probabilities[title.index] = title.probability
        return probabilities

    def close(self) -> None:
        """Close the connection."""
        self._calls.close()

    def __enter__(self) -> RerankClient:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()
