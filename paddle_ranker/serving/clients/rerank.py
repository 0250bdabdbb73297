"""A client of `/v1/rerank`, as this project's server and many others have it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Optional

import numpy as np

from paddle_ranker.scoring.ranker import RankedTitle
from paddle_ranker.serving.clients.base import Client
from paddle_ranker.serving.clients.errors import ServerError, asking_again
from paddle_ranker.serving.clients.http import HttpCalls


class RerankClient(Client):
    """Rank titles for a query.

    Args:
        model: its name, which servers of several models want to know.
        options: see `Client`.
    """

    def __init__(
        self, host: str = "127.0.0.1", port: int = 8600, *, model: Optional[str] = None, **options: Any
    ) -> None:
        super().__init__(host, port, **options)
        self._calls = HttpCalls(host, port, self.timeout, self.api_key)
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
        content = asking_again(lambda: self._calls.post("/v1/rerank", body, **headers), self.retries)
        try:
            results = json.loads(content)["results"]
            ranked = [
                RankedTitle(int(result["index"]), titles[int(result["index"])], float(result["relevance_score"]))
                for result in results
            ]
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise ServerError(f"{self.address}: is no rerank server ({error!r:.200})") from error
        wanted = len(titles) if top_k is None else min(top_k, len(titles))
        if len({title.index for title in ranked}) != wanted:
            raise ServerError(f"{self.address}: {len(ranked)} results came, expected {wanted}")
        return ranked

    def score(self, query: str, titles: Sequence[str]) -> np.ndarray:
        """Return the probability of every title, `[n]` float64, in their order."""
        probabilities = np.zeros(len(titles))
        for title in self.rank(query, titles):
            probabilities[title.index] = title.probability
        return probabilities
