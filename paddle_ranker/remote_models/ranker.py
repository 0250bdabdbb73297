"""A ranker behind a URL, in any of the formats that `--teacher_url` speaks, too."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import groupby
from urllib.parse import urlsplit

import numpy as np

from paddle_ranker.array_types import Floats
from paddle_ranker.errors import UsageError, brief
from paddle_ranker.metrics.calibration import are_probabilities, logits_of
from paddle_ranker.remote_models.service import RETRIES, TIMEOUT, Service, key_of
from paddle_ranker.retrieval.index.model_urls import ModelUrl, UrlRanker
from paddle_ranker.serving.clients.http_client import RerankClient
from paddle_ranker.serving.http.rerank_formats import RERANK_FORMATS, format_of

_OPTION = "--ranker"


class HttpRanker(UrlRanker):
    """A ranker behind a URL, whose host or end of its path says the format; see `RERANK_FORMATS`.

    Scores within 0 to 1 are taken for probabilities, and become their logits, unless the format asks for logits.

    Args:
        url: where the service is, and the model's name there.
        batch_size: texts of a request, at most.

    Raises `UsageError` if the URL shows no format, or names a model to a service whose requests have none.
    """

    def __init__(self, url: ModelUrl, batch_size: int):
        parts = urlsplit(url.base)
        name = format_of(parts.hostname or "", parts.path)
        if name is None:
            ends = ", ".join(end for spoken in RERANK_FORMATS.values() for end in spoken.paths)
            raise UsageError(
                f"{_OPTION} {url.base}: the path {brief(parts.path or '/')} shows no format: add one of {ends}"
            )
        self._format = RERANK_FORMATS[name]
        if url.model is not None and not self._format.has_model:
            raise UsageError(f"{_OPTION} #{url.model}: requests of {self._format.what} name no model: leave it out")
        self._url, self._service = url, Service(url.base)
        self._client = RerankClient(
            url=f"{parts.scheme}://{parts.netloc}",
            path=parts.path,
            spoken=self._format,
            model=url.model,
            timeout=TIMEOUT,
            retries=RETRIES,
            api_key=key_of(_OPTION),
            batch_size=min(self._format.batch, batch_size),
        )

    @property
    def name(self) -> str:
        return self._url.name

    def logits(self, queries: Sequence[str], texts: Sequence[str]) -> Floats:
        """Return the logit of each pair (queries[i], texts[i]), `[n]`; raises `ServiceFailed`."""
        scores = [np.zeros(0)]
        pairs = zip(self._service.cut(queries), texts)
        for query, of_query in groupby(pairs, lambda pair: pair[0]):
            titles = [title for _, title in of_query]
            with self._service.asking() as seconds:
                found = self._service.ask_cut(partial(self._client.score, query, seconds=seconds), titles)
            is_logit = self._format.has_logits or not are_probabilities(found)
            scores.append(found if is_logit else logits_of(found))
        return np.concatenate(scores)
