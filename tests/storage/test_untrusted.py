"""Files of folders that others made, where CPython's parser fails."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paddle_ranker.retrieval.vectors.vector_files import open_vectors
from paddle_ranker.storage.untrusted import open_array

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("opened", [lambda path: open_array(path, 1 << 20), lambda path: open_vectors(path).values])
def test_a_header_is_read_again_where_threads_confused_the_parser(
    opened: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen once in Python 3.11.7, where the parser counts the depth of all threads together."""
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.save(tmp_path / "vectors.npy", values)
    real, calls = ast.literal_eval, list[object]()

    def confused(text: Any) -> Any:
        calls.append(text)
        if len(calls) == 1:
            raise SystemError("AST constructor recursion depth mismatch (before=66, after=63)")
        return real(text)

    monkeypatch.setattr(ast, "literal_eval", confused)
    assert np.array_equal(opened(tmp_path / "vectors.npy"), values) and len(calls) == 2
