"""`GET /v1/contents/NAME`: files in documents' fields, such as pictures; and their URLs in answers."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Container
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Optional
from weakref import WeakValueDictionary

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send
from typing_extensions import TypedDict

from paddle_ranker.data.files.file_readers import READERS
from paddle_ranker.errors import DataError, DependencyError, quoted
from paddle_ranker.retrieval.snapshots.snapshot import LocalSnapshot
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.schema import FIELD_TYPES, Schema
from paddle_ranker.serving.core.faults import NO_DOCUMENT, OVERLOADED, TIMED_OUT, UNAVAILABLE, Fault
from paddle_ranker.serving.http.exchange import deadline_of, refuse_parameters, reserve_of
from paddle_ranker.serving.http.openapi import DescribedRoute
from paddle_ranker.serving.slots.index_slot import IndexSlot

if TYPE_CHECKING:
    from paddle_ranker.data.files.reader_pool import ChildProcess

_PATH = "/v1/contents/"
_PAGE_DPI, _PAGE_PIXELS, _PAGE_SECONDS = 110, 1 << 22, 10.0  # of a page's picture, and of drawing it
_PROCESSES = 3  # pages that are drawn at once, of different files
_MOST_DRAWN = 64  # pages that may wait to be drawn
_MOST_FAILED = 4096  # pages that are remembered since they could not be drawn
_HEADERS = {
    # A browser must show a file, never run it. A file's name is a digest of its bytes, so they never change.
    "content-security-policy": "default-src 'none'; sandbox",
    "x-content-type-options": "nosniff",
    "cache-control": "private, max-age=31536000, immutable",
}
_Page = tuple[str, int]  # a file's name, which is a digest of its bytes, and the page's number


class Content(TypedDict):
    """A file of a document."""

    url: str
    media_type: str


def contents_of(document: Document, schema: Schema, names: Optional[Container[str]]) -> dict[str, list[Content]]:
    """Return the URL and the media type of each file of a document, by field.

    names: the fields whose files are returned; None: all
    """
    contents = {}
    for field in schema.files:
        value = document.fields.get(field.name) if names is None or field.name in names else None
        if value is not None:
            contents[field.name] = [
                Content(url=_PATH + name, media_type=FIELD_TYPES[field.type].media_types[name.partition(".")[2]])
                for name in (value if isinstance(value, list) else [value])
            ]
    return contents


def routes(index: IndexSlot) -> list[BaseRoute]:
    """Return the routes of files, and of pages of PDFs as pictures."""
    drawing = _PageDrawing()

    async def file_of(request: Request, deadline: float) -> tuple[Path, str, str]:
        refuse_parameters(request)
        name = request.path_params["name"]
        request.scope["state"]["protocol"] = "contents"
        await index.current(deadline)
        file = await index.run(_file_of, index.local.snapshot(), name, deadline=deadline)
        if file is None:
            raise _no_content(name)
        return file

    async def content(request: Request) -> Response:
        path, media_type, _ = await file_of(request, index.deadline(deadline_of(request)))
        return _File(path, media_type=media_type, headers=_HEADERS)

    async def page(request: Request) -> Response:
        deadline, number = index.deadline(deadline_of(request)), request.path_params["page"]
        path, _, task = await file_of(request, deadline)
        if not task or not re.fullmatch("[1-9][0-9]{0,8}", number):
            raise Fault(NO_DOCUMENT, f"{quoted(path.name)} has no page {quoted(number)}", field="page")
        picture = await drawing.picture(task, path, int(number), deadline)
        reserve = reserve_of(request)
        if reserve is not None:
            reserve(len(picture))
        return Response(picture, media_type="image/jpeg", headers=_HEADERS)

    name: dict[str, object] = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    number: dict[str, object] = {"name": "page", "in": "path", "required": True, "schema": {"type": "integer"}}
    return [
        DescribedRoute(
            "GET",
            f"{_PATH}{{name}}",
            content,
            "Get a file of a document",
            what="The bytes of a file that a document's field names",
            also=[NO_DOCUMENT],
            parameters=[name],
        ),
        DescribedRoute(
            "GET",
            f"{_PATH}{{name}}/pages/{{page}}",
            page,
            "Get a page of a PDF as a picture",
            what="A picture (JPEG) of a page, the first is 1, on which a hit's boxes can be drawn",
            also=[NO_DOCUMENT],
            parameters=[name, number],
        ),
    ]


class _PageDrawing:
    """Processes that draw pages of PDFs, since a malicious file can make PDFium crash or compute forever.

    The pages of a file are drawn one after the other, so a page that takes long holds one process, and only pages of
    its file wait for it. Callers of one page share its picture. A page that could not be drawn is not tried again.
    """

    def __init__(self) -> None:
        self._threads, self._local = ThreadPoolExecutor(_PROCESSES, thread_name_prefix="pages"), threading.local()
        self._tasks, self._callers = dict[_Page, asyncio.Task[bytes]](), Counter[_Page]()
        self._turns, self._begun = WeakValueDictionary[str, asyncio.Lock](), set[_Page]()
        self._failed: dict[_Page, str] = {}
        self._processes: list[ChildProcess] = []

    async def picture(self, task_name: str, path: Path, page: int, deadline: float) -> bytes:
        """Return a page as JPEG. Raises `Fault` if it cannot be drawn, or not before the deadline.

        task_name: `Reader.draw` of the file's reader
        """
        key = path.name, page
        if key in self._failed:
            raise Fault(NO_DOCUMENT, self._failed[key], field="page")
        if key not in self._tasks:
            if len(self._tasks) >= _MOST_DRAWN:
                raise Fault(OVERLOADED, f"{_MOST_DRAWN} pages wait to be drawn, no more may", retry_after=1.0)
            self._tasks[key] = asyncio.ensure_future(self._draw(task_name, path, page))
            self._tasks[key].add_done_callback(partial(self._ended, key))
        task = self._tasks[key]
        self._callers[key] += 1
        try:
            return await asyncio.wait_for(asyncio.shield(task), max(0.0, deadline - time.monotonic()))
        except asyncio.TimeoutError as error:
            raise Fault(TIMED_OUT, "the deadline passed before the page was drawn") from error
        finally:
            self._callers[key] -= 1
            if not self._callers[key] and key not in self._begun:
                task.cancel()

    async def _draw(self, task_name: str, path: Path, page: int) -> bytes:
        """Draw a page when no other page of its file is being drawn, whether its callers wait or not."""
        key = path.name, page
        async with self._turns.setdefault(path.name, asyncio.Lock()):
            self._begun.add(key)
            try:
                return await asyncio.get_running_loop().run_in_executor(self._threads, self._ask, task_name, path, page)
            except asyncio.CancelledError:  # the server stops
                for process in self._processes:
                    process.end()
                raise
            except DataError as error:
                self._failed[key] = str(error).replace(str(path.parent) + os.sep, "")
                if len(self._failed) > _MOST_FAILED:
                    del self._failed[next(iter(self._failed))]
                raise Fault(NO_DOCUMENT, self._failed[key], field="page") from error
            except DependencyError as error:
                raise Fault(UNAVAILABLE, str(error), retry_after=60.0) from error

    def _ask(self, task_name: str, path: Path, page: int) -> bytes:
        if not hasattr(self._local, "process"):
            from paddle_ranker.data.files.reader_pool import ChildProcess

            self._local.process = ChildProcess()
            self._processes.append(self._local.process)
        arguments = (path, page, _PAGE_DPI, _PAGE_PIXELS)
        return base64.b64decode(self._local.process.ask(task_name, *arguments, seconds=_PAGE_SECONDS))

    def _ended(self, key: _Page, task: asyncio.Task[bytes]) -> None:
        del self._tasks[key], self._callers[key]
        self._begun.discard(key)
        if not task.cancelled():
            task.exception()  # its callers may have left


class _File(FileResponse):
    """Response with a file or one range of it, sent in small parts."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Several ranges, which need more work and bytes than the file, may be ignored (RFC 9110, 14.2).
        ranges = [value for name, value in scope["headers"] if name == b"range"]
        if b"," in b",".join(ranges):
            scope["headers"] = [(name, value) for name, value in scope["headers"] if name != b"range"]
        try:
            await super().__call__(scope, receive, send)
        except (FileNotFoundError, RuntimeError):  # its document was removed meanwhile
            raise _no_content(Path(self.path).name) from None


def _no_content(name: str) -> Fault:
    return Fault(NO_DOCUMENT, f"there is no content {quoted(name)}", field="name")


def _file_of(now: LocalSnapshot, name: str) -> Optional[tuple[Path, str, str]]:
    """Return the path and the media type of a file in the index, and the task that draws its pages (`Reader.draw`).

    Returns None if no document has a file of this name.
    """
    suffix, path = name.partition(".")[2], now.files.find(name)
    kinds = [kind for file in now.info.schema.files if suffix in (kind := FIELD_TYPES[file.type]).media_types]
    if not kinds or path is None or not now.has_file(name):
        return None
    task = next((READERS[kind.reader].draw for kind in kinds if kind.reader), "")
    return path, kinds[-1].media_types[suffix], task
