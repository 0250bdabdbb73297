"""Pictures in the JSON of requests: `data:` URLs, or files in base64; addresses are not fetched."""

from __future__ import annotations

import base64
from typing import NamedTuple

from paddle_ranker.retrieval.stored.content_files import bytes_of
from paddle_ranker.serving.core.faults import UNPROCESSABLE, Fault


class Picture(NamedTuple):
    """A picture of a request.

    field: path of the picture in the request, for faults: `images[0]`
    data: a `data:` URL, or the base64 of its file
    """

    field: str
    data: str

    def file(self) -> bytes:
        """Return the bytes of the picture's file. Raises `Fault` if `data` is neither a `data:` URL nor base64."""
        is_url = ":" in self.data[:16]
        try:
            return bytes_of(self.data) if is_url else base64.b64decode(self.data, validate=True)
        except ValueError as error:
            problem = f"is damaged base64 ({error})"
            if is_url:
                problem = "is no data: URL in base64; addresses are not fetched: send the file"
            raise Fault(UNPROCESSABLE, problem, field=self.field) from None
