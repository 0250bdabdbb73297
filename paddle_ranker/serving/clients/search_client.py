"""A client of a server that searches an index: searches, documents, feedback."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Optional
from urllib.parse import quote, urlencode

from paddle_ranker.errors import UsageError, quoted, refuse_text
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.serving.clients.base import Client
from paddle_ranker.serving.clients.client_errors import RefusedError, ServerError, with_retries
from paddle_ranker.serving.clients.http_client import HttpCalls
from paddle_ranker.serving.core.faults import NO_DOCUMENT


class SearchClient(Client):
    """A client of `paddle-ranker search-serve`: searches an index and changes its documents.

    Methods return the server's JSON as dicts. The server's page `/docs` describes them. All calls except `feedback` are
    idempotent and are retried, see `Client`.

    Args:
        url: as of `HttpCalls`.
        options: keyword arguments of `Client`.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 8600, *, url: Optional[str] = None, **options: Any) -> None:
        super().__init__(host, port, **options)
        self._calls = HttpCalls(host, port, self.timeout, self.api_key, url)

    def search(self, query: str, **fields: Any) -> dict[str, Any]:
        """Search. Return the server's answer.

        fields: fields of the request: `top_k=20, rank_top=50, where={...}`. With `cursor=""` the answer has the
            `cursor` of the next page, None on the last page
        """
        return self._ask("POST", "/v1/search", {"query": query, **fields})

    def suggest(self, typed: str, top_k: int = 8) -> list[str]:
        """Return texts that continue `typed`: first queries whose results users have clicked, then titles."""
        answer = self._ask("GET", f"/v1/suggest?{urlencode({'q': typed, 'top_k': top_k}, errors='surrogatepass')}")
        return [suggestion["text"] for suggestion in answer["suggestions"]]

    def add(self, documents: Iterable[Document], mode: str = "replace") -> dict[str, Any]:
        """Add documents. Return the server's answer, with counts of added, replaced and unchanged documents.

        mode: "replace": a document replaces a stored one with the same id; "add": such a document is refused
        """
        refuse_text(documents, "documents", Document)
        contents = [
            {"id": document.id, "text": document.text, "fields": dict(document.fields)} for document in documents
        ]
        return self._ask("POST", "/v1/documents", {"documents": contents, "mode": mode})

    def change(self, id: str, **values: Any) -> dict[str, Any]:
        """Change a document's text or fields. Return the server's answer.

        values: new values by field; None removes a field, and fields that are not named stay
        """
        return self._ask("PATCH", "/v1/documents", {"documents": [{"id": id, **values}]})

    def documents(self, after: Optional[str] = None, limit: int = 100) -> Iterator[Document]:
        """Yield all documents in the order of the server's listing.

        after: an id; only documents after that one are yielded
        limit: documents per request
        """
        while True:
            where = f"?limit={limit}" + ("" if after is None else f"&after={quote(after, safe='')}")
            page = self._ask("GET", f"/v1/documents{where}")["documents"]
            yield from (
                Document(document["id"], document["text"], document["fields"], document["version"]) for document in page
            )
            if len(page) < limit:
                return
            after = page[-1]["id"]

    def remove(self, ids: Sequence[str]) -> dict[str, Any]:
        """Remove the documents with these ids. Return the server's answer, with counts of removed and missing."""
        refuse_text(ids, "ids")
        return self._ask("DELETE", "/v1/documents", {"ids": list(ids)})

    def document(self, id: str) -> Optional[Document]:
        """Return the document with this id, or None if the index has no such document."""
        try:
            content = self._ask("GET", f"/v1/documents/{quote(id, safe='', errors='surrogatepass')}")
        except RefusedError as error:
            if error.code == 404 and f'"{NO_DOCUMENT.name}"' in str(error):  # else there is no index
                return None
            raise
        if content["id"] != id:  # a proxy may have rewritten the address
            raise ServerError(f"{self._calls.address}: answers with document {quoted(content['id'])}, not {quoted(id)}")
        return Document(content["id"], content["text"], content["fields"], content["version"])

    def index(self) -> dict[str, Any]:
        """Return the index's description: name, version, documents, fields."""
        return self._ask("GET", "/v1/index")

    def feedback(self, search: Mapping[str, Any], id: str, event: str, **more: Any) -> None:
        """Log a click on a hit of a search, or a judgment of the hit. Returns when the line is on the server's disk.

        search: the server's answer to the search
        id: id of the hit
        event: "click", or the name of a judgment
        more: further fields of the request, such as `label`

        Raises `UsageError` if no hit has this id.
        """
        ranks = {hit["id"]: hit["rank"] for hit in search["hits"]}
        if id not in ranks:
            raise UsageError(f"{quoted(id)} is no hit of this search: give the id of one of its {len(ranks)}")
        fields = {"search_id": search["search_id"], "query": search["query"], "id": id, "position": ranks[id]}
        self._once("POST", "/v1/feedback", {**fields, "event": event, **more})

    def _ask(self, method: str, path: str, body: Optional[Mapping[str, Any]] = None) -> dict[str, Any]:
        return with_retries(lambda: self._once(method, path, body), self.retries)

    def _once(self, method: str, path: str, body: Optional[Mapping[str, Any]]) -> dict[str, Any]:
        content = None if body is None else json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")
        answered = self._calls.ask(method, path, content)
        try:
            parsed = json.loads(answered)
        except ValueError as error:
            raise ServerError(f"{self._calls.address}: is no server of an index ({quoted(error)})") from error
        if not isinstance(parsed, dict):
            raise ServerError(f"{self._calls.address}: is no server of an index ({quoted(parsed)})")
        return parsed
