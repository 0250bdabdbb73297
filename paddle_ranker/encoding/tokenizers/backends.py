"""Which ways there are from texts to ids: all give the same ids, and differ in speed and in what must be installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from paddle_ranker.encoding.tokenizers.builtin import CachedWords, FlatIds
from paddle_ranker.encoding.tokenizers.folder import TokenizerFiles
from paddle_ranker.encoding.tokenizers.libraries import HuggingFace, PaddleFast, PaddlePython
from paddle_ranker.errors import UsageError
from paddle_ranker.options import Options, option


class Backend(Protocol):
    """Texts to ids, without special tokens; may be called from several threads at once."""

    def encode(self, texts: Sequence[str]) -> FlatIds:
        """Return the ids of `texts`."""
        ...


_BACKENDS: dict[str, Callable[[TokenizerFiles], Backend]] = {
    "builtin": CachedWords,
    "tokenizers": HuggingFace,
    "fast_tokenizer": PaddleFast,
    "python": PaddlePython,
}
BACKENDS = ("auto", *_BACKENDS)


@dataclass(frozen=True)
class TokenizerOptions(Options):
    """What every command accepts that turns text into ids."""

    tokenizer: str = option(
        "auto", help="what turns text into ids; all give the same, auto is the fastest", choices=BACKENDS, shared=True
    )


def make_backend(name: str, files: TokenizerFiles) -> tuple[str, Backend]:
    """Return the backend `name` ("auto": the fastest) with its own name.

    Raises `DependencyError` where its package is not installed, `UsageError` for an unknown name.
    """
    if name == "auto":  # the fastest of all in `python -m benchmarks.tokenizers`, and it needs nothing installed
        name = "builtin"
    if name not in _BACKENDS:
        raise UsageError(f"unknown tokenizer backend {name!r}: choose from {', '.join(BACKENDS)}")
    return name, _BACKENDS[name](files)
