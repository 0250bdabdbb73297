"""Which ways there are from texts to ids: all give the same ids, and differ in speed and in what must be installed."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from paddle_ranker.errors import UsageError

if TYPE_CHECKING:
    from paddle_ranker.encoding.tokenizers.builtin import FlatIds
    from paddle_ranker.encoding.tokenizers.folder import TokenizerFiles


class Backend(Protocol):
    """Texts to ids, without special tokens; may be called from several threads at once."""

    def encode(self, texts: Sequence[str]) -> FlatIds:
        """Return the ids of `texts`."""
        ...


_BACKENDS = {  # the modules and classes, imported where they are asked for: options are read before NumPy is imported
    "builtin": ("builtin", "CachedWords"),
    "tokenizers": ("libraries", "HuggingFace"),
    "fast_tokenizer": ("libraries", "PaddleFast"),
    "python": ("libraries", "PaddlePython"),
}
BACKENDS = ("auto", *_BACKENDS)


def make_backend(name: str, files: TokenizerFiles) -> tuple[str, Backend]:
    """Return the backend `name` ("auto": the fastest) with its own name.

    Raises `DependencyError` where its package is not installed, `UsageError` for an unknown name.
    """
    if name == "auto":  # the fastest of all in `python -m benchmarks.tokenizers`, and it needs nothing installed
        name = "builtin"
    if name not in _BACKENDS:
        raise UsageError(f"unknown tokenizer backend {name!r}: choose from {', '.join(BACKENDS)}")
    module, made = _BACKENDS[name]
    backend: Backend = getattr(importlib.import_module(f"paddle_ranker.encoding.tokenizers.{module}"), made)(files)
    return name, backend
