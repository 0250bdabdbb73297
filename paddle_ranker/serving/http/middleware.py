"""Middleware around every HTTP request: request id, API key, faults as JSON, log line, metrics."""

from __future__ import annotations

import asyncio
import hmac
import itertools
import json
import logging
import math
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Callable, Optional

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from paddle_ranker.errors import quoted
from paddle_ranker.serving.core.byte_budget import ByteBudget
from paddle_ranker.serving.core.faults import INTERNAL, INVALID, MISDIRECTED, NOT_ALLOWED, Fault
from paddle_ranker.serving.core.limits import is_key, require_key
from paddle_ranker.serving.core.logs import JsonLog
from paddle_ranker.serving.core.metrics import Metrics
from paddle_ranker.serving.core.observers import AnsweredRequest, Observer
from paddle_ranker.serving.core.server_config import ServeConfig
from paddle_ranker.serving.core.threads import MUCH_BYTES
from paddle_ranker.serving.http.endpoints import ENDPOINTS, refusal
from paddle_ranker.serving.http.exchange import SHARE, require_own_page
from paddle_ranker.serving.http.openapi import MODELS_PATH
from paddle_ranker.serving.http.page import PAGE_PATHS, is_page
from paddle_ranker.serving.slots.slots import Slots

_ID_HEADER, _CACHING, _CLOSING = b"x-request-id", (b"cache-control", b"no-store"), (b"connection", b"close")
_NO_SNIFFING = (b"x-content-type-options", b"nosniff")  # an answer in JSON is no page, whatever texts it has
_READING = ("GET", "HEAD", "OPTIONS")
_SINGLE = (b"host", b"authorization", b"x-api-key", b"content-type", b"content-encoding", b"origin", b"sec-fetch-site")
OPEN_PATHS = frozenset({"/live", "/ready", "/health", "/metrics", "/openapi.json"})  # need no key
ADMIN_PATHS = OPEN_PATHS | {"/info", MODELS_PATH, "/admin/reload"}
CLIENT_LEFT = 499  # nginx's status for a client that has left, in the log
_SLICE = 64 * 1024  # bytes of an answer that are sent at a time
_LOOK_SECONDS = 0.25  # after this time, a request's caller is watched, in case it leaves
_SLASHES = re.compile("/{2,}")
_SOUND_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}\Z")
_FILES = "/v1/contents/"  # files of documents, which the page shows by addresses
_NAMING_FILES = ("/v1/index", "/v1/search")  # answers with which the page gets its cookie for files
SEARCH_PATHS = frozenset({"/v1/search", "/v1/suggest", "/v1/index"})  # open to a search key, and to other origins
_COOKIE, _COOKIE_SECONDS = "cookie", 24 * 3600  # in a request's state; how long the cookie holds
_LOG = logging.getLogger(__name__)


def files_cookie(api_key: str, now: float) -> str:
    """Return a cookie that opens the documents' files for a day to a browser whose page has shown the key.

    Pictures and players send no header, so the page would have to load each file whole and show it from memory. The
    cookie opens nothing but files, no script can read it, and pages of other sites cannot send it.
    """
    until = str(int(now) + _COOKIE_SECONDS)
    return f"{_cookie_name(api_key)}={until}-{_signed(api_key, until)}"


def opens_files(api_key: str, cookies: str, now: float) -> bool:
    """Return whether a request's header `Cookie` has a cookie of `files_cookie` that holds."""
    named = dict(one.strip().partition("=")[::2] for one in cookies.split(";"))
    until, _, signature = named.get(_cookie_name(api_key), "").partition("-")
    is_ours = hmac.compare_digest(signature.encode(), _signed(api_key, until).encode())
    return is_ours and until.isdecimal() and int(until) >= now


def _cookie_name(api_key: str) -> str:
    return f"files_{_signed(api_key, 'name')[:12]}"  # servers at other ports of a host share its cookies


def _signed(api_key: str, text: str) -> str:
    return hmac.new(api_key.encode(), b"files " + text.encode("utf-8", "replace"), "sha256").hexdigest()


class _Exchange:
    """A request and its answer: wraps the application's `receive` and `send`, and records the progress of both."""

    def __init__(self, receive: Receive, send: Send, state: dict[str, Any], is_read: bool, closes: Callable[[], bool]):
        self._receive, self._send, self.state, self.is_read, self._closes = receive, send, state, is_read, closes
        self._task = asyncio.current_task()
        self._watching: Optional[asyncio.Task[None]] = None
        self.began = time.perf_counter()
        self.status, self.is_answered, self.is_left = 0, False, False
        self.received = self.sent = 0  # bytes of the bodies, as they are on the wire
        self._start: Optional[Message] = None

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self.received += len(message.get("body", b""))
            self.is_read = self.is_read or not message.get("more_body")
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [*message.get("headers", ()), (_ID_HEADER, self.state["request_id"].encode("latin-1"))]
            names = [name for name, _ in headers]
            headers += [field for field in (_CACHING, _NO_SNIFFING) if field[0] not in names]
            if _COOKIE in self.state:
                headers.append((b"set-cookie", self.state[_COOKIE]))
            if self._closes() and _CLOSING not in headers:
                headers.append(_CLOSING)
            message["headers"] = headers
            self._start = message  # sent with the first bytes, before which the application may still fail
            return
        body, is_last = message.get("body", b""), not message.get("more_body")
        self.sent += len(body)
        if self._start is not None:
            if len(body) > MUCH_BYTES and SHARE in self.state:
                # Reserve the answer in place of the request, which is freed. A stream is reserved part by part.
                self.state[SHARE].reserve(len(body))
            start, self._start = self._start, None
            self.status = start["status"]
            await self._send(start)
        if is_last:
            if len(body) > _SLICE:  # so that the server waits for a slow client
                rest = memoryview(body)
                while len(rest) > _SLICE:
                    await self._send({"type": "http.response.body", "body": bytes(rest[:_SLICE]), "more_body": True})
                    rest = rest[_SLICE:]
                message = {"type": "http.response.body", "body": bytes(rest)}
            self.is_answered = True  # its caller may leave
        await self._send(message)

    def watch(self) -> None:
        """Begin to watch the caller: if it leaves before the answer is complete, the request's handler is cancelled."""
        if self._watching is None and self.is_read:
            self._watching = asyncio.ensure_future(self._end_with_caller())

    async def _end_with_caller(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self.is_answered and self._task is not None:
            self.is_left = True
            self._task.cancel()

    def end(self) -> None:
        """Stop watching the caller."""
        if self._watching is not None:
            self._watching.cancel()


class Middleware:
    """ASGI application that wraps the server's application: request ids, API key, faults as JSON, log and metrics.

    A handler can set entries of `scope["state"]` for the log: `protocol`, `pairs` and `texts` of the request; `stages`,
    milliseconds by stage, which the metrics count, too; `spans`, the times of stages, for observers; `is_empty`,
    whether a search has no results; `outcome`, the name of a fault's kind, if the handler itself answers with a fault;
    `refused`, the status, if the connection did.

    A path with doubled slashes, or one at its end, is the path without them where only that one exists: clients join a
    base address and a path in both ways. Paths with ids (`/v1/documents/{id}`) are left as they are.

    Args:
        config: has the host names that requests may address, and the key that callers must send, except to `OPEN_PATHS`
            and for the page's files.
        slots: the server's slots, of whose lineup each request has a lease; None: requests take no lease.
        log: log of requests; None: requests are not logged.
        budget: budget of the bytes of all requests and answers; default: no limit.
        stopping: returns whether the server stops, so that each answer closes its connection.
        observers: are told of each answered request.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        config: Optional[ServeConfig] = None,
        *,
        slots: Optional[Slots] = None,
        log: Optional[JsonLog] = None,
        budget: Optional[ByteBudget] = None,
        stopping: Callable[[], bool] = lambda: False,
        observers: Sequence[Observer] = (),
    ):
        self._stopping = stopping
        self._app, self._metrics = app, metrics
        self._lease: Callable[[], AbstractContextManager[object]] = nullcontext if slots is None else slots.lease
        self._budget = budget or ByteBudget()
        self._config, self._log = config or ServeConfig(), log
        self._observers = observers
        begin = secrets.token_hex(8)
        self._protocols = {**dict.fromkeys(ADMIN_PATHS, "operators"), **PAGE_PATHS}
        self._read_paths: set[str] = set()
        self._refusals: dict[str, Callable[[Fault, str], dict[str, object]]] = {}
        for endpoint in ENDPOINTS.values():
            self._protocols.update(endpoint.paths)
            self._read_paths.update(endpoint.read_paths)
            self._refusals.update(dict.fromkeys(endpoint.paths, endpoint.refusal))
        # By beginning of paths such as /v1/documents/{id}, up to the user's part.
        self._beginnings = {path.partition("{")[0]: name for path, name in self._protocols.items() if "{" in path}
        self._own_ids = (f"{begin}-{number}" for number in itertools.count(1))
        self._exchanges: set[_Exchange] = set()
        self._next_look: Optional[asyncio.TimerHandle] = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. ASGI scopes other than HTTP are ignored."""
        if scope["type"] != "http":
            return
        if scope["path"] not in self._protocols:
            single = _SLASHES.sub("/", scope["path"])
            plain = single.rstrip("/")
            is_known = plain in self._protocols and plain not in PAGE_PATHS
            if is_known and not single.startswith(tuple(self._beginnings)):  # an empty id is no request for all
                scope["path"] = plain
        shown: dict[bytes, bytes] = dict(scope["headers"])
        state: dict[str, Any] = scope.setdefault("state", {})
        request_id = shown.get(_ID_HEADER, b"").decode("latin-1")
        state["request_id"] = request_id if _SOUND_ID.match(request_id) else next(self._own_ids)
        traceparent = shown.get(b"traceparent", b"").decode("latin-1")
        state["traceparent"] = traceparent if _SOUND_ID.match(traceparent) else None
        scope["app"] = self  # makes Starlette's routes raise `HTTPException` instead of answering with plain text
        # Nothing reads the body of a GET.
        exchange = _Exchange(receive, send, state, is_read=scope["method"] == "GET", closes=self._stopping)
        fault: Optional[Fault] = None
        headers: dict[str, str] = {}
        self._exchanges.add(exchange)
        if self._next_look is None:
            self._next_look = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)
        try:
            if len(shown) < len(scope["headers"]):
                _refuse_repeated([name for name, _ in scope["headers"]])
            self._require_own_host(shown.get(b"host", b"").decode("latin-1"))
            if scope["path"] not in OPEN_PATHS and not is_page(scope):
                self._require_key(scope, shown)
            if scope["method"] not in _READING and self._changes(scope["path"]):
                require_own_page(shown)
            with self._budget.share() as state[SHARE], self._lease():
                await self._app(scope, exchange.receive, exchange.send)
        except Fault as error:
            fault = error.settled()
        except HTTPException as error:
            fault, headers = _fault_of(error, scope)
        except ClientDisconnect:
            exchange.status = state.get("refused", CLIENT_LEFT)
        except asyncio.CancelledError:
            if not exchange.is_left:  # the server stops
                raise
            exchange.status = state.get("refused", CLIENT_LEFT)
        except Exception:
            _LOG.exception("an HTTP request failed")
            fault = Fault(INTERNAL, "internal error; see the server's log")
        finally:
            exchange.end()
            self._exchanges.discard(exchange)
            if not self._exchanges and self._next_look is not None:
                self._next_look.cancel()
                self._next_look = None
        if fault is not None and not exchange.status:
            content = self._refusals.get(scope["path"], refusal)(fault, state["request_id"])
            await _send_fault(fault, content, exchange.send, headers)
        self._note(scope, exchange, fault)

    def _require_key(self, scope: Scope, shown: Mapping[bytes, bytes]) -> None:
        """Raise `Fault` unless a request has the key.

        A search may have the search key instead, and a request for a file the cookie of a page that has the key.
        """
        key, now = self._config.api_key, time.time()
        given = shown.get(b"x-api-key") or shown.get(b"authorization")
        cookies = shown.get(b"cookie", b"").decode("latin-1")
        is_of_file = scope["method"] in _READING and scope["path"].startswith(_FILES)
        if key and not given and is_of_file and opens_files(key, cookies, now):
            return
        if self._config.search_key and scope["path"] in SEARCH_PATHS and is_key(self._config.search_key, given):
            return
        require_key(key, given)
        if key and scope["path"] in _NAMING_FILES and b"x-api-key" in shown:
            # Its path is that of the answer's folder, whatever proxies put before it.
            cookie = f"{files_cookie(key, now)}; HttpOnly; SameSite=Strict; Max-Age={_COOKIE_SECONDS}"
            scope["state"][_COOKIE] = cookie.encode()

    def _changes(self, path: str) -> bool:
        """Return whether a POST or DELETE at a path may change something. Paddle Serving's paths only compute."""
        is_known = path in self._protocols or path.startswith(tuple(self._beginnings))
        return is_known and path not in self._read_paths

    def _look(self) -> None:
        """Watch callers that have waited for a while. Watching all callers from the start would slow small requests."""
        for exchange in self._exchanges:
            if time.perf_counter() - exchange.began > _LOOK_SECONDS:
                exchange.watch()
        self._next_look = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    def _require_own_host(self, named: str) -> None:
        host = named[: named.rfind("]") + 1] or named.partition(":")[0]
        if named and not self._config.is_own_host(host.strip("[]")):
            problem = f"is {quoted(named)}, which this server does not answer: --allowed_hosts can name it"
            raise Fault(MISDIRECTED, problem, field="Host")

    def _note(self, scope: Scope, exchange: _Exchange, fault: Optional[Fault]) -> None:
        """Count an answered request in the metrics, and log it.

        fault: why the request was refused, or None
        """
        state, status, seconds = scope["state"], exchange.status, time.perf_counter() - exchange.began
        protocol = state.get("protocol") or self._protocol(scope["path"])
        outcome = "ok" if status < 400 else "cancelled" if status == CLIENT_LEFT else "other"
        outcome = fault.kind.name if fault else state.get("outcome", outcome)
        self._metrics.request(protocol, outcome, seconds, state.get("stages"))
        if state.get("is_empty"):
            self._metrics.empty_search()
        # Other paths may contain texts of users.
        path = scope["path"] if scope["path"] in self._protocols else None
        if self._observers:
            request = AnsweredRequest(
                scope["method"],
                path,
                protocol,
                outcome,
                status,
                seconds,
                dict(scope["headers"]),
                state["request_id"],
                state.get("pairs"),
                state.get("spans", ()),
            )
            for observer in self._observers:
                observer.answered(request)
        if self._log is not None and (protocol != "operators" or status >= 400):
            self._log.write(
                "request",
                request_id=state["request_id"],
                protocol=protocol,
                outcome=outcome,
                method=scope["method"],
                client=(scope.get("client") or [None])[0],
                traceparent=state.get("traceparent"),
                path=path,
                status=status,
                milliseconds=round(1000 * seconds, 3),
                request_bytes=exchange.received,
                answer_bytes=exchange.sent,
                pairs=state.get("pairs"),
                stages=state.get("stages"),
                texts=state.get("texts") if self._config.log_texts else None,
            )

    def _protocol(self, path: str) -> str:
        """Return the name under which requests at a path are logged and counted unless the handler sets another."""
        if path in self._protocols:
            return self._protocols[path]
        for beginning, name in self._beginnings.items():
            if path.startswith(beginning):
                return name
        names = (endpoint.name_of(path) for endpoint in ENDPOINTS.values())
        return next((name for name in names if name is not None), "other")


def _refuse_repeated(names: Sequence[bytes]) -> None:
    """Raise `Fault` if a header field of `_SINGLE` occurs twice, as a proxy and this server could use different values.

    names: names of the request's header fields
    """
    for name in _SINGLE:
        if names.count(name) > 1:
            raise Fault(INVALID, "stands more than once", field=name.decode().title())


def _fault_of(error: HTTPException, scope: Scope) -> tuple[Fault, dict[str, str]]:
    """Convert an error of Starlette's router to a fault. Return the fault, and header fields for its answer."""
    if error.status_code != NOT_ALLOWED.http:
        return Fault(INVALID, error.detail), dict(error.headers or {})
    # The methods of all routes of the path; the error has those of the first route alone.
    routes = [route for route in scope["router"].routes if route.matches(scope)[0] is not Match.NONE]
    allowed = ", ".join(sorted(set().union(*(route.methods for route in routes))))
    problem = f"{quoted(scope['path'])} is not asked by {scope['method'][:20]}, but by {allowed}; see /docs"
    return Fault(NOT_ALLOWED, problem), {"allow": allowed}


async def _send_fault(fault: Fault, content: dict[str, object], send: Send, more_headers: Mapping[str, str]) -> None:
    """Answer with a fault. `content` is the JSON of the answer."""
    body = json.dumps(content, ensure_ascii=False).encode("utf-8", "replace")
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in more_headers.items()]
    if fault.retry_after is not None:
        headers.append((b"retry-after", str(max(1, math.ceil(fault.retry_after))).encode()))
    if fault.kind.http == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if fault.kind.http == 413:
        headers.append((b"connection", b"close"))  # the rest of the body is not read
    await send({"type": "http.response.start", "status": fault.kind.http, "headers": headers})
    await send({"type": "http.response.body", "body": body})
