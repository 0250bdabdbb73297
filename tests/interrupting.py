"""A plugin that interrupts its own process at a moment chosen by tests: during the import of a certain module.

Commands load it by `PADDLE_RANKER_PLUGINS=tests.interrupting`; `INTERRUPT_AT` names the module, `INTERRUPT_INSIDE` the
compiled module whose initialisation imports it, if any.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any


class _Finder:
    """Finder that finds nothing, but sends the signal when the module is looked for."""

    def __init__(self, at: str, inside: str) -> None:
        self.at, self.inside = at, inside
        self.is_armed = not inside

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Return None, so that the next finder finds the module."""
        if name == self.inside:
            self.is_armed = True
            sys.modules.pop(self.at, None)  # so that it is imported once more
        elif name == self.at and self.is_armed:
            self.is_armed = False
            os.kill(os.getpid(), getattr(signal, os.environ.get("INTERRUPT_BY", "SIGINT")))


sys.meta_path.insert(0, _Finder(os.environ["INTERRUPT_AT"], os.environ.get("INTERRUPT_INSIDE", "")))
