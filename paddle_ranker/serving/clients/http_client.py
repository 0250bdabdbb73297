"""HTTP: calls that raise the errors of `client_errors`, and clients of the C++ server and of `/v1/rerank`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Optional
from urllib.parse import urlsplit

import numpy as np
import requests
from pydantic import TypeAdapter

from paddle_ranker.errors import UsageError, brief, quoted, refuse_text
from paddle_ranker.scoring.ranker import RankedTitle, require_cut
from paddle_ranker.scoring.texts import require_text
from paddle_ranker.serving.clients.base import LARGEST_ANSWER, BatchClient
from paddle_ranker.serving.clients.client_errors import (
    LONGEST_WAIT,
    LateError,
    OverloadedError,
    RefusedError,
    ServerError,
    UnreachableError,
    with_retries,
)
from paddle_ranker.serving.core.faults import ERROR_HEADER, Fault
from paddle_ranker.serving.core.json_text import json_bounds
from paddle_ranker.serving.core.limits import TIMEOUT_HEADER, stated_milliseconds
from paddle_ranker.serving.core.validation import validated
from paddle_ranker.serving.http.rerank_formats import RERANK_FORMATS, RerankFormat

_RERANK = RERANK_FORMATS["cohere"]


class HttpCalls:
    """Requests over one HTTP connection to a server, kept open.

    url: URL below which the server's paths are, in place of host and port. Its proxy and certificates are those of the
        environment (`HTTPS_PROXY`, `NO_PROXY`, `REQUESTS_CA_BUNDLE`, `SSL_CERT_FILE`); otherwise these are ignored

    Raises `UsageError` for another URL than http://HOST/PATH or https://HOST/PATH, and for one with a password.
    """

    def __init__(self, host: str, port: int, timeout: float, api_key: Optional[str], url: Optional[str] = None) -> None:
        self.address = f"{host}:{port}" if url is None else url
        self._url = f"http://{f'[{host}]' if ':' in host else host}:{port}" if url is None else base_url(url)
        self._timeout = timeout
        self._session = requests.Session()
        self._session.trust_env = False  # also because a ~/.netrc would replace the key
        if url is not None:
            self._session.proxies = requests.utils.get_environ_proxies(self._url)
            certificates = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE")
            self._session.verify = certificates or True
        self._headers = {TIMEOUT_HEADER: str(stated_milliseconds(timeout)), "Content-Type": "application/json"}
        if api_key is not None:
            self._headers["Authorization"] = f"Bearer {api_key}"

    def close(self) -> None:
        self._session.close()

    def ask(
        self, method: str, path: str, body: Optional[bytes] = None, seconds: Optional[float] = None, **headers: str
    ) -> bytes:
        """Send a request and return the body of the response. Raises `ServerError` unless its status is 200.

        seconds: timeout of this request, if it is shorter than that of all
        headers: header fields by name, with `_` for `-`; by default the body is JSON
        """
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        timeout = self._timeout if seconds is None else min(seconds, self._timeout)
        try:
            request = requests.Request(method, self._url + "/", data=body, headers={**self._headers, **named})
            prepared = self._session.prepare_request(request)
            prepared.url = f"{prepared.url}{path[1:]}"  # unchanged: `requests` would resolve `..`
            session = self._session
            settings = {"timeout": timeout, "proxies": session.proxies, "verify": session.verify}
            with session.send(prepared, stream=True, allow_redirects=False, **settings) as answered:
                content = self._read(answered)
        except requests.Timeout as error:
            raise LateError(f"{self.address}: no answer within {timeout:.3g} seconds") from error
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
            raise UnreachableError(f"{self.address}: {_reason(error)}") from error
        except requests.RequestException as error:
            raise ServerError(f"{self.address}: {_reason(error)}") from error
        if answered.status_code == 200:
            return content
        raise self._error(answered, content)

    def _read(self, answered: requests.Response) -> bytes:
        parts = bytearray()
        for part in answered.iter_content(1 << 16):
            parts += part
            if len(parts) > LARGEST_ANSWER:
                raise ServerError(f"{self.address}: answers more than {LARGEST_ANSWER:,} bytes")
        return bytes(parts)

    def _error(self, answered: requests.Response, content: bytes) -> ServerError:
        status = answered.status_code
        number = answered.headers.get(ERROR_HEADER)
        text = " ".join(content.decode("utf-8", "replace").split())[:500]
        message = f"{self.address}: status {status}{f', error {number}' if number else ''}: {text}"
        if status in (429, 503):
            after = answered.headers.get("retry-after", "")
            return OverloadedError(message, status, float(after) if after.isdecimal() else None)
        if status == 504:
            return LateError(message, status)
        return RefusedError(message, status)


def base_url(url: str) -> str:
    """Return a server's URL without a slash at its end; raises `UsageError` for another kind, and for secrets in it."""
    shown = brief(str(url).partition("?")[0].rpartition("@")[2])
    try:
        parts = urlsplit(require_text(url, "url"))
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError as error:
        raise UsageError(f"url {shown}: {error}") from error
    if "@" in parts.netloc:
        raise UsageError(f"url {shown}: holds a user or a password; give the server's key as key")
    if not is_url or parts.query or parts.fragment:
        raise UsageError(f"url {shown}: expected http://HOST:PORT or https://HOST/PATH, below which /v1/... is")
    return url.rstrip("/")


def _reason(error: Exception) -> str:
    """Return in one line the error that an exception of `urllib3` or `requests` wraps."""
    inner: object = error.args[0] if error.args else error
    inner = getattr(inner, "reason", inner)
    text = " ".join(str(inner).split())
    return text.rpartition(": ")[2] if "NewConnectionError" in text or "Failed to establish" in text else text[:300]


class ModelClient(BatchClient):
    """A client of a path that computes by a model.

    Args:
        model: name of the model; servers of several models need it.
        url: as of `HttpCalls`.
        options: keyword arguments of `BatchClient`.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 8600,
        *,
        model: Optional[str] = None,
        url: Optional[str] = None,
        **options: Any,
    ) -> None:
        super().__init__(host, port, **options)
        self._calls = HttpCalls(host, port, self.timeout, self.api_key, url)
        self._model = model

    def _post(self, path: str, fields: Mapping[str, Any], seconds: Optional[float] = None) -> bytes:
        """Return the answer to a request with these fields, as JSON; asks again as `retries` says.

        seconds: time of each attempt, and the longest wait that a server may ask for, if these are shorter than usual
        """
        body = json.dumps(fields, ensure_ascii=False).encode("utf-8", "surrogatepass")
        longest_wait = LONGEST_WAIT if seconds is None else min(seconds, LONGEST_WAIT)
        return with_retries(lambda: self._calls.ask("POST", path, body, seconds), self.retries, longest_wait)


class RerankClient(ModelClient):
    """A client of `/v1/rerank`, a path that this project's server and many others have; see `ModelClient`.

    Args:
        path: path of the requests, below `url`.
        spoken: the service's requests and answers; if they have logits (`has_logits`), these stand in the place of
            probabilities.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 8600,
        *,
        path: str = "/v1/rerank",
        spoken: RerankFormat = _RERANK,
        **options: Any,
    ) -> None:
        super().__init__(host, port, **options)
        self._path, self._format = path, spoken

    @cached_property
    def _answer(self) -> TypeAdapter[Any]:
        return TypeAdapter(self._format.answer)

    def rank(
        self, query: str, titles: Sequence[str], top_k: Optional[int] = None, *, seconds: Optional[float] = None
    ) -> list[RankedTitle]:
        """Return the titles, best first, at most `top_k` of them. May send several requests.

        seconds: time for each answer, if it is shorter than the client's
        """
        refuse_text(titles, "titles")
        require_cut(top_k, None)
        ranked: list[RankedTitle] = []
        for part in self.parts(len(titles)):
            titles_of_part = self._rank(query, titles[part], top_k, seconds)
            ranked += [replace(title, index=part.start + title.index) for title in titles_of_part]
        return sorted(ranked, key=lambda title: -title.probability)[:top_k]

    def _rank(
        self, query: str, titles: Sequence[str], top_k: Optional[int], seconds: Optional[float]
    ) -> list[RankedTitle]:
        """Rank titles with one request."""
        spoken = self._format
        fields = spoken.body(query, titles, self._model)
        if top_k is not None:
            fields["top_n"] = top_k
        content = self._post(self._path, fields, seconds)
        try:
            answer = validated(self._answer, content, json_bounds(len(titles)))
            ranked = [
                RankedTitle(result["index"], titles[result["index"]], float(result[spoken.score]))
                for result in (answer if spoken.results is None else answer[spoken.results])
            ]
        except (Fault, IndexError) as error:
            raise ServerError(f"{self._calls.address}: is no rerank server ({quoted(error)})") from error
        wanted = len(titles) if top_k is None else min(top_k, len(titles))
        if len({title.index for title in ranked}) != wanted:
            raise ServerError(f"{self._calls.address}: {len(ranked)} results came, expected {wanted}")
        return ranked

    def score(self, query: str, titles: Sequence[str], *, seconds: Optional[float] = None) -> np.ndarray:
        """Return each title's probability, `[n]` float64, in the order of `titles`; for `seconds` see `rank`."""
        refuse_text(titles, "titles")
        probabilities = np.zeros(len(titles))
        for title in self.rank(query, titles, seconds=seconds):
            probabilities[title.index] = title.probability
        return probabilities
