"""Versions of the packages that compute, on which the last digits of a result depend."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from typing import Optional

from paddle_ranker import version
from paddle_ranker.scoring.engines.engine_registry import AUTO, DYGRAPH, ENGINES, exported_engines

# Distributions that provide a package; a machine with a GPU may have another one than the command's.
_DISTRIBUTIONS = {
    "paddle": ("paddlepaddle", "paddlepaddle-gpu"),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
}


def versions(engine: Optional[str]) -> dict[str, str]:
    """Return the versions here of what computes, by package name: "none" if a package is missing.

    engine: as for option `--engine`
    """
    names = exported_engines() if engine == AUTO else [engine or DYGRAPH]
    packages = sorted({"paddle", "numpy", "tokenizers", *(ENGINES[name].package or "paddle" for name in names)})
    found = {"paddle_ranker": version.__version__, "python": platform.python_version()}
    for package in packages:
        found[package] = "none"
        for distribution in _DISTRIBUTIONS.get(package, (package,)):
            with suppress(metadata.PackageNotFoundError):
                found[package] = metadata.version(distribution)
    return found


def named(found: Mapping[str, str]) -> dict[str, str]:
    """Return versions by what messages call them."""
    return {f"the version of {name}": value for name, value in found.items()}
