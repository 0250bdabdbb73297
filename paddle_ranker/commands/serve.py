"""Serve models on one port: rankers by Paddle Serving's protocols and by /rerank of today's clients, others by HTTP.

paddle-ranker serve --model output --port 8600
paddle-ranker serve output_entailment
"""

from __future__ import annotations

import dataclasses

from paddle_ranker.errors import UsageError
from paddle_ranker.model.pretrained import find_model, resolve_model
from paddle_ranker.options import main_of
from paddle_ranker.serving.core.config import ServeConfig
from paddle_ranker.serving.core.slot_kinds import (
    SLOTS,
    serve_options,
    served_by,
    with_folder_in_slot,
    with_tower_of_index,
)


def serve(config: ServeConfig) -> int:
    """Serve until a signal ends the server; return the exit status."""
    from paddle_ranker.serving.process.server import run

    if config.folder is not None:
        config = dataclasses.replace(config, folder=find_model(config.folder))
    config = with_tower_of_index(with_folder_in_slot(config))
    for kind in served_by(config).values():
        given = kind.folder(config)
        folder = None if given is None else find_model(given)
        if folder is None or (folder == given and folder.exists()):
            continue
        if not folder.exists() and not kind.takes_encoders:
            raise UsageError(f"--{kind.option} {folder}: there is no such folder; train or export a model first")
        config = dataclasses.replace(config, **{kind.option: resolve_model(str(folder))})  # type: ignore[arg-type]
    return run(config)


def options_class() -> type[ServeConfig]:
    """Return the options class, with the options of model kinds that installed plugins serve."""
    SLOTS.load_plugins()
    return serve_options()


main = main_of(serve, options_class, __doc__)
