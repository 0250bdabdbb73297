"""Defaults of searches."""

from __future__ import annotations

DEPTH, RANK_TOP, TOP_K = 100, 50, 10  # see `search.SearchSettings`
FUSION = "weighted"  # level with or ahead of rrf on each of the sets in docs/collections.md
