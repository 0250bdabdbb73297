"""Serve searches of an index on one port: words and vectors, fused, then ordered by a ranker.

paddle-ranker search-serve --index index --ranker checkpoint/best --port 8600
paddle-ranker search-serve --index index --writable true
"""

# The options are in serving/slots/: index_options.py, tower_options.py; and in serving/core/server_config.py.

from __future__ import annotations

from paddle_ranker.commands.serve import options_class, serve
from paddle_ranker.errors import UsageError
from paddle_ranker.options import main_of
from paddle_ranker.serving.core.server_config import ServeConfig
from paddle_ranker.serving.slots.index_options import INDEX
from paddle_ranker.serving.slots.slot_kinds import SLOTS


def search_serve(config: ServeConfig) -> int:
    """Serve until a signal ends the server; return the exit status."""
    if SLOTS[INDEX].folder(config) is None:
        raise UsageError("--index is required: the folder that is searched; make one with paddle-ranker index build")
    return serve(config)


main = main_of(search_serve, options_class, __doc__)
