"""Serve models on one port: rankers by Paddle Serving's protocols and by /rerank of today's clients, others by HTTP.

paddle-ranker serve --model output --port 8600
paddle-ranker serve output_entailment
"""

# The options are in serving/core/server_config.py, and in serving/slots/ a class for each kind of slot.

from __future__ import annotations

from paddle_ranker.options import main_of
from paddle_ranker.serving.core.server_config import ServeConfig
from paddle_ranker.serving.slots.slot_kinds import SLOTS, serve_options, with_found_models


def serve(config: ServeConfig) -> int:
    """Serve until a signal ends the server; return the exit status."""
    from paddle_ranker.serving.process.server import run

    return run(with_found_models(config))


def options_class() -> type[ServeConfig]:
    """Return the options class, with the options of model kinds that installed plugins serve."""
    SLOTS.load_plugins()
    return serve_options()


main = main_of(serve, options_class, __doc__)
