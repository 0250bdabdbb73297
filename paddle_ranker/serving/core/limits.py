"""Limits of requests, and the checks that all protocols share: API key, sizes, size after decompression."""

from __future__ import annotations

import dataclasses
import gzip
import hmac
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional, Union

from paddle_ranker.errors import UsageError
from paddle_ranker.options import Options, option
from paddle_ranker.serving.core.byte_budget import Share
from paddle_ranker.serving.core.faults import INVALID, TOO_LARGE, UNAUTHORIZED, UNPROCESSABLE, Fault
from paddle_ranker.serving.core.json_text import JsonBounds, json_bounds

_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "zlib": zlib.MAX_WBITS}
_PACKED_SLICE, _UNPACKED_SLICE = 64 * 1024, 1024 * 1024  # bytes that go in and come out at a time
_MOST_MEMBERS = 1 << 12  # of a body in gzip; each costs a slice
_LEAST_BUFFERED = 256 * 1024 * 1024
MODEL_OWNER = "paddle_ranker"  # of the models in `/v1/models`, by which clients know this server
TIMEOUT_HEADER = "x-request-timeout-ms"  # how long the caller of an HTTP request waits
LONGEST_TIMEOUT = 3_600_000  # milliseconds that a request may state
API_KEY_VARIABLE = "PADDLE_RANKER_API_KEY"
SEARCH_KEY_VARIABLE = "PADDLE_RANKER_SEARCH_KEY"  # of a key that opens searches alone, which a web page may show


def stated_milliseconds(seconds: float) -> int:
    """Return the timeout in milliseconds that a client's request states if the caller waits for `seconds`."""
    return max(1, int(min(seconds * 1000, LONGEST_TIMEOUT)))


@dataclass(frozen=True)
class Limits(Options):
    """Limits of a server's requests. `/info` shows them."""

    request_bytes: int = option(
        16 * 1024 * 1024, help="most bytes of a request's body, decompressed", minimum=1, shared=True
    )
    buffered_bytes: Optional[int] = option(
        None,
        help="most bytes of requests and answers that each worker holds, over all protocols, from a request's first "
        "byte until its answer is sent; default: 256 MiB, or four times --request_bytes if that is more",
        minimum=1,
        shared=True,
    )
    pairs: int = option(1000, help="most pairs of a request", minimum=1, shared=True)
    characters: int = option(100_000, help="most characters of a text", minimum=1, shared=True)
    queue_pairs: int = option(8192, help="most pairs that wait for each worker's engine", minimum=1, shared=True)
    connections: int = option(2048, help="most open connections of each worker", minimum=1, shared=True)
    deadline_seconds: float = option(30.0, help="deadline in seconds of requests that state none", above=0, shared=True)
    auto_truncate: bool = option(
        False,
        help="cut texts that are too long to be scored whole, or above --characters, whatever a request says of it, "
        "instead of refusing the request",
        shared=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_queue("queue_pairs", self.queue_pairs, self.pairs)
        if self.buffered < 3 * self.request_bytes:
            problem = (
                f"a request may have {self.request_bytes} bytes, as many again until it is unpacked, and others too"
            )
            raise UsageError(f"--buffered_bytes {self.buffered}: {problem}; give {3 * self.request_bytes} or more")

    @property
    def buffered(self) -> int:
        """Maximum number of bytes of requests and answers that a worker holds at a time."""
        if self.buffered_bytes is None:
            return max(_LEAST_BUFFERED, 4 * self.request_bytes)
        return self.buffered_bytes

    @property
    def json_bounds(self) -> JsonBounds:
        return json_bounds(self.pairs)

    def values(self) -> dict[str, float]:
        """Return the limits by name, for `/info`."""
        others = ("debug", "auto_truncate")
        names = [field.name for field in dataclasses.fields(Limits) if field.name not in others]
        return {**{name: getattr(self, name) for name in names}, "buffered_bytes": self.buffered}

    def check_pairs(self, count: int, field: str) -> None:
        """Raise `Fault` if a request's `field` holds no pairs or too many."""
        check_count(count, self.pairs, field)

    def check_most(self, count: int, field: str) -> None:
        """Raise `Fault` if a request's `field` holds too many pairs. An empty field is refused later, not here."""
        if count:
            self.check_pairs(count, field)

    def check_texts(self, texts: Sequence[object], field: str) -> None:
        """Raise `Fault` for the first text that `check_text` refuses. The fault names the text as `field[3]`."""
        previous = object()  # unlike any text
        for place, text in enumerate(texts):
            if text is not previous:  # one query stands beside all of its titles
                self.check_text(text, f"{field}[{place}]")
                previous = text

    def scored_text(self, text: str, field: str) -> str:
        """Return a text, cut to `characters` if `auto_truncate` is set. Raises as `check_text` does."""
        if self.auto_truncate and isinstance(text, str):
            text = text[: self.characters]
        self.check_text(text, field)
        return text

    def scored_texts(self, texts: Sequence[str], field: str) -> Sequence[str]:
        """Return texts, cut to `characters` if `auto_truncate` is set. Raises as `check_texts` does."""
        if self.auto_truncate and any(isinstance(text, str) and len(text) > self.characters for text in texts):
            texts = [text[: self.characters] if isinstance(text, str) else text for text in texts]
        self.check_texts(texts, field)
        return texts

    def check_text(self, text: object, field: str) -> None:
        """Raise `Fault` if `text` is not a string, not valid Unicode or too long."""
        if not isinstance(text, str):
            raise Fault(INVALID, f"is {type(text).__name__}, expected a text", field=field)
        if len(text) > self.characters:
            problem = f"has {len(text):,} characters, at most {self.characters:,} are allowed"
            raise Fault(TOO_LARGE, problem, field=field)
        if not text.isascii():
            try:
                text.encode("utf-8")
            except UnicodeEncodeError:
                raise Fault(INVALID, "holds half of a surrogate pair", field=field) from None


def require_words(texts: Union[str, Sequence[str]], field: str) -> None:
    """Raise `Fault` for the first text that is empty or only spaces. Commands refuse such texts in files, too."""
    for place, text in enumerate([texts] if isinstance(texts, str) else texts):
        if not text or text.isspace():
            where = field if isinstance(texts, str) else f"{field}[{place}]"
            raise Fault(UNPROCESSABLE, "is empty, expected a text", field=where)


def check_queue(name: str, waiting: int, pairs: int) -> None:
    """Raise `UsageError` if a queue for `waiting` pairs is too short for the largest allowed request, of `pairs` pairs.

    name: the option that sets the queue's length
    """
    if waiting < pairs:
        raise UsageError(f"--{name} {waiting}: a request may have {pairs} pairs, and could never wait")


def check_count(count: int, most: int, field: str) -> None:
    """Raise `Fault` if a request's `field` is empty or holds more than `most` items."""
    if not count:
        raise Fault(INVALID, "is empty, expected one or more", field=field)
    if count > most:
        raise Fault(TOO_LARGE, f"holds {count:,}, at most {most:,} are allowed", field=field)


def require_key(api_key: Optional[str], shown: Union[str, bytes, None]) -> None:
    """Raise `Fault(UNAUTHORIZED)` if the server has an API key and the caller's differs.

    The comparison takes the same time wherever the two keys differ.

    api_key: the server's key, or None
    shown: the key that the caller sent, perhaps after `Bearer `, or None
    """
    if api_key is not None and not is_key(api_key, shown):
        raise Fault(UNAUTHORIZED, "the API key is missing" if not _bare(shown) else "the API key is wrong")


def is_key(key: str, shown: Union[str, bytes, None]) -> bool:
    """Return whether a caller sent a key, perhaps after `Bearer `; takes the same time wherever the two differ."""
    return hmac.compare_digest(_bare(shown), key.encode("utf-8"))


def _bare(shown: Union[str, bytes, None]) -> bytes:
    key = shown.encode("utf-8", "surrogateescape") if isinstance(shown, str) else (shown or b"")
    return key[7:] if key[:7].lower() == b"bearer " else key


def unpack(data: bytes, method: str, limit: int, share: Optional[Share] = None) -> bytes:
    """Decompress `data`, compressed by `method` (gzip or zlib), to at most `limit` bytes.

    share: the request's share of the byte budget, which counts `data` already; decompressed bytes are added in pieces

    Raises `Fault`: `TOO_LARGE` above the limit, `INVALID` for damaged data, `UNAVAILABLE` above the budget.
    """
    unpacker = zlib.decompressobj(_WINDOW_BITS[method])
    packed = 0 if share is None else share.held
    parts: list[bytes] = []
    size = taken = 0
    members = 1
    try:
        while taken < len(data):
            if unpacker.eof:  # gzip may have several members, one after the other (RFC 1952)
                if method != "gzip" or data[taken : taken + 1] != b"\x1f" or members == _MOST_MEMBERS:
                    rest = len(data) - taken
                    raise Fault(INVALID, f"goes on for {rest:,} bytes after its {method} data", field="body")
                unpacker, members = zlib.decompressobj(_WINDOW_BITS[method]), members + 1
            piece, goes_on = data[taken : taken + _PACKED_SLICE], True
            taken += len(piece)
            while goes_on:
                part = unpacker.decompress(piece, min(_UNPACKED_SLICE, limit + 1 - size))
                piece = unpacker.unconsumed_tail
                # A full part may not be all. At the end of the data, `unconsumed_tail` has the bytes after it.
                goes_on = not unpacker.eof and (bool(piece) or len(part) == _UNPACKED_SLICE)
                size += len(part)
                if size > limit:
                    raise Fault(TOO_LARGE, f"unpacks to more than the {limit:,} bytes of a request", field="body")
                if share is not None:
                    share.reserve(packed + size)
                parts.append(part)
            taken -= len(unpacker.unused_data)
    except zlib.error as error:
        raise Fault(INVALID, f"is not {method} ({error})", field="body") from error
    if not unpacker.eof:
        raise Fault(INVALID, f"ends in the middle of its {method} data", field="body")
    if share is not None:
        share.reserve(size)
    return b"".join(parts)


def pack(data: bytes, method: str) -> bytes:
    """Compress `data` by `method`: gzip (without a timestamp) or zlib."""
    return gzip.compress(data, compresslevel=1, mtime=0) if method == "gzip" else zlib.compress(data, 1)
