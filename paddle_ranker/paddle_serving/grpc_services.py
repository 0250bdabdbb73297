"""gRPC: the C++ server's service and the pipeline's, on one port."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable
from contextlib import nullcontext, suppress
from functools import partial
from typing import Any, Callable, NamedTuple, Optional

import grpc
import grpc.aio
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from paddle_ranker.paddle_serving import general_model, pipeline
from paddle_ranker.paddle_serving.messages import GENERAL_SERVICE, PIPELINE_SERVICE, Bounds, Message, messages, parse
from paddle_ranker.paddle_serving.pipeline import TUTORIAL_NAMES, PipelineNames
from paddle_ranker.paddle_serving.served_models import Models
from paddle_ranker.serving.core.byte_budget import ByteBudget
from paddle_ranker.serving.core.faults import INTERNAL, OVERLOADED, TOO_LARGE, Fault
from paddle_ranker.serving.core.limits import require_key
from paddle_ranker.serving.core.threads import run_in_thread
from paddle_ranker.serving.slots.services import Counting

_LOG = logging.getLogger(__name__)
_HEALTH = "/grpc.health.v1.Health/Check"
_SERVING, _NOT_SERVING = 1, 2  # of its enum ServingStatus
_FRAMING_BYTES = 64 * 1024  # up to this excess, the services refuse a message, with a better error than grpcio's


class Method(NamedTuple):
    """A method of a service.

    expected: class of its requests
    bounds: called with the `Models`; returns the bounds of a request's message
    answer: coroutine function, called with the request and with the keywords `deadline`, `share` and `record` of
        `general_model.infer`; returns the response
    """

    expected: Message
    bounds: Callable[[Models], Bounds]
    answer: Callable[..., Awaitable[Message]]


# Connects an `asyncio.Protocol`, which it gets as a function that makes it, to a server.
Dial = Callable[[Callable[[], asyncio.BaseProtocol]], Awaitable[Any]]


async def start_grpc(
    models: Models,
    *,
    api_key: Optional[str] = None,
    names: PipelineNames = TUTORIAL_NAMES,
    counting: Counting = nullcontext,
    budget: Optional[ByteBudget] = None,
    is_ready: Callable[[], bool] = lambda: True,
    keep_alive_seconds: float = 75.0,
) -> tuple[grpc.aio.Server, Dial]:
    """Serve gRPC to this process, in this event loop. Return the server, and a function that connects to it.

    Its address is not a file: programs that clear the temporary folder would make a socket there unreachable.

    api_key: key that callers must send in the metadata `authorization: Bearer KEY` or `x-api-key: KEY`
    counting: counts requests, including those that are refused before they are read
    budget: budget of the bytes that all requests hold; default: no limit
    is_ready: answers `grpc.health.v1.Health/Check`, which needs no key
    keep_alive_seconds: seconds after which a connection without a call is closed; clients then open another one
    """
    limits = models.ranker.limits
    options = [
        ("grpc.max_receive_message_length", limits.request_bytes + _FRAMING_BYTES),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", limits.connections),
        ("grpc.max_connection_idle_ms", max(1, int(1000 * keep_alive_seconds))),
    ]
    is_recent = _is_recent(grpc.__version__)
    if not is_recent:
        options.append(("grpc.compression_enabled_algorithms_bitset", 1))  # off: 16 MiB may become 16 GiB
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers((_Calls(models, api_key, names, counting, budget or ByteBudget(), is_ready),))
    loop = asyncio.get_running_loop()
    dial: Dial
    if is_recent:
        name = f"paddle_ranker_{secrets.token_hex(16)}"
        server.add_insecure_port(f"unix-abstract:{name}")
        dial = partial(loop.create_unix_connection, path=f"\0{name}")
    else:
        dial = partial(loop.create_connection, host="127.0.0.1", port=server.add_insecure_port("127.0.0.1:0"))
    await server.start()
    return server, dial


def _is_recent(version: str) -> bool:
    """Return whether this grpcio has abstract sockets, and stops decompressing a message that gets too large.

    Version 1.33 does neither.
    """
    return tuple(map(int, version.split(".")[:2])) >= (1, 85)  # the oldest version that was tested


class _PipelineFault(Fault):
    """A fault that the pipeline answers with its own err_no, while the gRPC call itself succeeds."""


class _Calls(grpc.GenericRpcHandler):
    """Handler of all calls. A call without the right key is refused before its message is read."""

    def __init__(
        self,
        models: Models,
        api_key: Optional[str],
        names: PipelineNames,
        counting: Counting,
        budget: ByteBudget,
        is_ready: Callable[[], bool],
    ) -> None:
        self._models, self._limits = models, models.ranker.limits
        self._api_key, self._names, self._is_ready = api_key, names, is_ready
        self._counting, self._budget = counting, budget
        self._active = 0
        request, pairs = messages().Request, messages().PipelineRequest
        methods = {
            f"/{GENERAL_SERVICE}/inference": Method(request, general_model.bounds, self._general),
            f"/{GENERAL_SERVICE}/debug": Method(request, general_model.bounds, self._profiled),
            f"/{PIPELINE_SERVICE}/inference": Method(pairs, pipeline.bounds, self._pipeline),
        }
        self._handlers = {
            path: grpc.unary_unary_rpc_method_handler(self._handler(method)) for path, method in methods.items()
        }

    def service(self, handler_call_details: Any) -> Any:
        """Return the handler of a call, or None if no service has the method."""
        if handler_call_details.method == _HEALTH:
            return grpc.unary_unary_rpc_method_handler(
                # These have the fields of HealthCheckRequest and HealthCheckResponse.
                self._health,
                StringValue.FromString,
                Int32Value.SerializeToString,
            )
        handler = self._handlers.get(handler_call_details.method)
        if handler is None:
            return None
        try:
            require_key(self._api_key, _sent_key(handler_call_details.invocation_metadata))
        except Fault as fault:
            return grpc.stream_stream_rpc_method_handler(self._refuser(fault))
        return handler

    async def _general(self, request: Message, **options: Any) -> Message:
        return await general_model.infer(request, self._models, **options)

    async def _profiled(self, request: Message, **options: Any) -> Message:
        request.profile_server = True
        return await general_model.infer(request, self._models, **options)

    async def _pipeline(self, request: Message, **options: Any) -> Message:
        try:
            return await pipeline.infer(request, self._models, self._names, **options)
        except Fault as fault:
            raise _PipelineFault(fault.kind, str(fault)) from fault.settled()

    async def _health(self, request: StringValue, context: Any) -> Int32Value:
        """Answer whether the server is ready, as /ready does. An empty name asks for all services."""
        if request.value not in ("", GENERAL_SERVICE, PIPELINE_SERVICE):
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return Int32Value(value=_SERVING if self._is_ready() else _NOT_SERVING)

    def _handler(self, method: Method) -> Callable[[bytes, Any], Awaitable[bytes]]:
        """Return a coroutine function that answers the calls of a method. grpcio 1.33 accepts no `partial`."""

        async def answer(data: bytes, context: Any) -> bytes:
            return await self._answer(method, data, context)

        return answer

    def _refuser(self, fault: Fault) -> Callable[[Any, Any], Awaitable[None]]:
        """Return a coroutine function that refuses a call with `fault`, without reading its message."""

        async def refuse(messages: Any, context: Any) -> None:
            with suppress(Fault), self._counting():
                raise fault
            await _abort(context, fault)

        return refuse

    async def _answer(self, method: Method, data: bytes, context: Any) -> bytes:
        """Answer a call of a method. Return the response in bytes. If the request is refused, the call is aborted.

        data: the request in bytes
        context: grpcio's context of the call
        """
        self._active += 1
        try:
            with self._counting() as record, self._budget.share() as share:
                if record is not None:
                    record.describe(request_bytes=len(data))
                self._check(data)
                deadline = time.monotonic() + self._seconds(context)
                size = len(data)
                await run_in_thread(size, share.reserve_read, data, deadline=deadline)
                bounds = method.bounds(self._models)
                request = await run_in_thread(size, parse, method.expected, data, bounds, share, deadline=deadline)
                data = b""  # its texts are held once
                response = await method.answer(request, deadline=deadline, share=share, record=record)
                written = bytes(response.SerializeToString())
                if record is not None:
                    record.describe(answer_bytes=len(written))
                return written
        except _PipelineFault as fault:
            return bytes(pipeline.refusal(fault.settled()).SerializeToString())
        except Fault as fault:
            refused = fault.settled()
        except Exception:
            _LOG.exception("a gRPC request failed")
            refused = Fault(INTERNAL, "internal error; see the server's log")
        finally:
            self._active -= 1
        await _abort(context, refused)
        raise refused  # not reached: abort raises

    def _check(self, data: bytes) -> None:
        """Raise `Fault` if too many calls are in flight or the message is too large."""
        if self._active > self._limits.connections:  # counts calls: grpc does not show its connections
            raise Fault(OVERLOADED, f"{self._limits.connections:,} calls are in flight", retry_after=1)
        if len(data) > self._limits.request_bytes:
            problem = f"has {len(data):,} bytes, above the {self._limits.request_bytes:,} of a request"
            raise Fault(TOO_LARGE, problem, field="message")

    def _seconds(self, context: Any) -> float:
        """Return the caller's timeout in seconds, or the server's default if the call has none.

        grpcio 1.33 does not tell the timeout, but cancels the call when it is over.
        """
        remaining = context.time_remaining() if hasattr(context, "time_remaining") else None
        if remaining is None or remaining > 1e6:  # without a deadline, years remain
            return self._limits.deadline_seconds
        return float(remaining)


async def _abort(context: Any, fault: Fault) -> None:
    after = fault.retry_after
    trailing = () if after is None else (("retry-after", f"{after:g}"),)
    await context.abort(grpc.StatusCode[fault.kind.grpc], str(fault), trailing)


def _sent_key(metadata: Any) -> Optional[str]:
    shown = {name.lower(): value for name, value in metadata or ()}
    return shown.get("x-api-key") or shown.get("authorization")
