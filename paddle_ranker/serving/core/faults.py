"""Faults: refusals and errors that a server answers with; each kind has a code for every protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from paddle_ranker.errors import RankerError

ERROR_HEADER = "x-bd-error-code"  # brpc's number of an error, in an HTTP answer


@dataclass(frozen=True)
class FaultKind:
    """A kind of fault, with its codes.

    http: HTTP status
    grpc: name of a gRPC status
    brpc: error number of brpc
    """

    name: str
    http: int
    grpc: str
    brpc: int


# brpc: 1001 no such service, 1002 no such method, 1003 bad request, 1004 authentication, 1008 timed out, 2001 internal,
# 2004 over a limit (src/brpc/errno.proto).
INVALID = FaultKind("invalid_request", 400, "INVALID_ARGUMENT", 1003)
UNPROCESSABLE = FaultKind("unprocessable", 422, "INVALID_ARGUMENT", 1003)
UNAUTHORIZED = FaultKind("unauthorized", 401, "UNAUTHENTICATED", 1004)
MISDIRECTED = FaultKind("misdirected", 421, "PERMISSION_DENIED", 1004)
READ_ONLY = FaultKind("read_only", 403, "PERMISSION_DENIED", 1004)
NO_DOCUMENT = FaultKind("no_such_document", 404, "NOT_FOUND", 1003)
ALREADY_THERE = FaultKind("already_there", 409, "ALREADY_EXISTS", 1003)
NOT_FOUND = FaultKind("not_found", 404, "UNIMPLEMENTED", 1001)
NO_METHOD = FaultKind("no_such_method", 404, "UNIMPLEMENTED", 1002)
NOT_ALLOWED = FaultKind("method_not_allowed", 405, "UNIMPLEMENTED", 1002)
TOO_LARGE = FaultKind("too_large", 413, "RESOURCE_EXHAUSTED", 1003)
OVERLOADED = FaultKind("overloaded", 429, "RESOURCE_EXHAUSTED", 2004)
UNAVAILABLE = FaultKind("unavailable", 503, "UNAVAILABLE", 2004)
TIMED_OUT = FaultKind("deadline_exceeded", 504, "DEADLINE_EXCEEDED", 1008)
INTERNAL = FaultKind("internal", 500, "INTERNAL", 2001)


class Fault(RankerError):
    """The reason why a request is refused.

    Attributes:
        kind: kind of the fault, which has its codes.
        problem: what is wrong, without the field.
        field: place of the fault in the request, `documents[3]`, or None.
        retry_after: seconds after which the request may be tried again, or None.
    """

    def __init__(
        self, kind: FaultKind, message: str, *, field: Optional[str] = None, retry_after: Optional[float] = None
    ):
        super().__init__(message if field is None else f"{field}: {message}")
        self.kind, self.problem = kind, message
        self.field = field
        self.retry_after = retry_after

    def settled(self) -> Fault:
        """Remove the fault's traceback, and return the fault. Call it where a fault becomes an answer.

        The traceback refers to the frames that raised the fault, and so to the request's data. The frames often refer
        to the fault (by a future). Such a cycle would stay in memory until the next garbage collection.
        """
        return self.with_traceback(None)
