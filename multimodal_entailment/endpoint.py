"""`POST /v1/entailment`: pairs of posts as JSON with base64 images, or a single pair as a form with image files."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncGenerator
from typing import Annotated, Optional

from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from typing_extensions import NotRequired, TypedDict

from multimodal_entailment.served import EntailmentSlot, Post
from paddle_ranker.serving.core.faults import INVALID, TOO_LARGE, UNPROCESSABLE, Fault
from paddle_ranker.serving.core.json_text import json_bounds, parse_json
from paddle_ranker.serving.core.threads import MUCH_BYTES, run_in_thread
from paddle_ranker.serving.core.validation import refusal
from paddle_ranker.serving.http.exchange import answer, deadline_of, read_body
from paddle_ranker.serving.http.openapi import DescribedRoute

_TEXTS, _IMAGES = ("text_1", "text_2"), ("image_1", "image_2")
_FIELDS = _TEXTS + _IMAGES
_IMAGE = "the file's bytes in base64, or a data URI of them; null or absent: it is missing"


class PostPairBody(BaseModel):
    """Two posts; the question is whether the second follows from the first."""

    model_config = ConfigDict(strict=True, extra="forbid")

    text_1: Optional[str] = Field(None, description="needed by a model that looks at texts")
    text_2: Optional[str] = None
    image_1: Optional[str] = Field(None, description=_IMAGE)
    image_2: Optional[str] = Field(None, description=_IMAGE)


class PostPairs(BaseModel):
    """Pairs of posts, answered in their order."""

    model_config = ConfigDict(strict=True, extra="forbid")

    pairs: Annotated[list[PostPairBody], FailFast()]


class PostForm(TypedDict):
    """A pair of posts as a form."""

    text_1: NotRequired[str]
    text_2: NotRequired[str]
    image_1: NotRequired[bytes]
    image_2: NotRequired[bytes]


class EntailmentResult(TypedDict):
    """The likeliest class of a pair, and the probabilities of all."""

    label: str
    probabilities: dict[str, float]


class Judged(TypedDict):
    """Judgments of pairs of posts, in their order."""

    id: str
    model: str
    results: list[EntailmentResult]


class EntailmentRoute:
    """The handler of the route.

    Args:
        service: computes the probabilities.
        keep_texts: store the texts in the request's state, for the log.
    """

    def __init__(self, service: EntailmentSlot, *, keep_texts: bool = False):
        self._service, self._keep_texts = service, keep_texts

    async def answer(self, request: Request) -> Response:
        """Return the likeliest class and all probabilities of each pair."""
        deadline = deadline_of(request)
        body = await read_body(request, self._service.limits.request_bytes)
        reads_texts = self._service.reads_texts  # this raises if no model is loaded
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() == "multipart/form-data":
            if len(body) <= MUCH_BYTES:
                posts = [await _posted_form(request.headers, body)]
            else:
                posts = [await run_in_thread(len(body), _posted_form_apart, request.headers, body, deadline=deadline)]
        else:
            posts = await run_in_thread(len(body), self._posted_json, body, deadline=deadline)
        state = request.scope["state"]
        state["pairs"] = len(posts)
        if self._keep_texts:
            state["texts"] = [post.texts for post in posts]
        self._check(posts, reads_texts)
        probabilities = await self._service.probabilities(posts, deadline=deadline)
        labels = self._service.labels
        results = [
            {"label": labels[int(row.argmax())], "probabilities": dict(zip(labels, row.tolist()))}
            for row in probabilities
        ]
        content = {"id": state["request_id"], "model": self._service.name, "results": results}
        return answer(request, json.dumps(content).encode())

    def _posted_json(self, body: bytes) -> list[Post]:
        values = parse_json(body, json_bounds(self._service.limits.posts))
        if not isinstance(values, dict):
            raise Fault(UNPROCESSABLE, f"is {type(values).__name__}, expected an object", field="body")
        is_one = "pairs" not in values
        try:
            pairs = [PostPairBody.model_validate(values)] if is_one else PostPairs.model_validate(values).pairs
        except ValidationError as error:
            raise refusal(error) from error
        self._service.limits.check_posts(len(pairs), "pairs")
        most = self._service.limits.image_bytes
        posts = []
        for number, pair in enumerate(pairs):
            place = "" if is_one else f"pairs[{number}]."
            images = [_unpacked(getattr(pair, name), f"{place}{name}", most) for name in _IMAGES]
            posts.append(Post((pair.text_1, pair.text_2), (images[0], images[1]), place))
        return posts

    def _check(self, posts: list[Post], reads_texts: bool) -> None:
        for post in posts:
            for name, text in zip(_TEXTS, post.texts):
                if text is None and reads_texts:
                    raise Fault(UNPROCESSABLE, "is missing: the model looks at texts", field=f"{post.place}{name}")
                if text is not None:
                    self._service.limits.check_text(text, f"{post.place}{name}")


def _unpacked(image: Optional[str], place: str, most: int) -> Optional[bytes]:
    """Decode an image from base64; None stays None. Raises `Fault` if it is not base64, or too large."""
    if image is None:
        return None
    if image.startswith("data:"):
        head, comma, image = image.partition(",")
        if not comma or not head.endswith(";base64"):
            raise Fault(UNPROCESSABLE, "is a data URI without ;base64,", field=place)
    if len(image) // 4 * 3 > most + 2:
        raise Fault(TOO_LARGE, f"has more than the {most:,} bytes of an image", field=place)
    try:
        return base64.b64decode(image, validate=True)
    except (binascii.Error, ValueError) as error:
        hint = "; addresses are not fetched, send the image itself" if "://" in image[:10] else ""
        raise Fault(UNPROCESSABLE, f"is not base64 ({error}){hint}", field=place) from error


async def _posted_form(headers: Headers, body: bytes) -> Post:
    """Read a form in memory; no part of it goes to the disk."""

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body
        yield b""

    parser = MultiPartParser(
        headers, stream(), max_files=len(_FIELDS), max_fields=len(_FIELDS), max_part_size=len(body) + 1
    )
    parser.spool_max_size = len(body) + 1
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Fault(INVALID, f"is not a form ({error.message})", field="body") from error
    except (KeyError, ValueError) as error:  # for example a header without a boundary, or bytes that are not text
        raise Fault(INVALID, f"is not a form ({type(error).__name__}: {error})", field="body") from error
    try:
        return await _post_of(form)
    finally:
        await form.close()


def _posted_form_apart(headers: Headers, body: bytes) -> Post:
    # The coroutine is made in this thread: if the caller has left before, this function never runs.
    return asyncio.run(_posted_form(headers, body))


async def _post_of(form: FormData) -> Post:
    texts: dict[str, Optional[str]] = dict.fromkeys(_TEXTS)
    images: dict[str, Optional[bytes]] = dict.fromkeys(_IMAGES)
    seen: set[str] = set()
    for name, value in form.multi_items():
        if name in seen:
            raise Fault(UNPROCESSABLE, "is there twice; a form holds one pair of posts", field=name[:80])
        seen.add(name)
        if name in texts and isinstance(value, str):
            texts[name] = value
        elif name in images and isinstance(value, UploadFile):
            images[name] = await value.read() or None  # a browser sends an empty file if none was chosen
        elif name in images and value == "":  # other clients send an empty text
            continue
        else:
            expected = "a text" if name in texts else "a file" if name in images else "no field of this name"
            raise Fault(UNPROCESSABLE, f"expected {expected}", field=name[:80])
    return Post((texts["text_1"], texts["text_2"]), (images["image_1"], images["image_2"]), "")


def routes(path: str, service: EntailmentSlot, *, keep_texts: bool = False) -> list[BaseRoute]:
    return [
        DescribedRoute(
            "POST",
            path,
            EntailmentRoute(service, keep_texts=keep_texts).answer,
            "Say for pairs of posts whether the second follows from the first",
            [PostPairs, PostPairBody],
            [Judged],
            forms={"multipart/form-data": PostForm},
        )
    ]
