"""Start the server: one port, on which the first four bytes of a connection say which protocol it speaks."""

from __future__ import annotations

from paddle_ranker.serving.serve_config import API_KEY_VARIABLE, ServeConfig

__all__ = ["API_KEY_VARIABLE", "ServeConfig", "run"]


def run(config: ServeConfig) -> int:
    """Serve until a signal ends it; return the exit status.

    SIGTERM and SIGINT: stop accepting, answer what is in flight, return 0; a second one ends the process at once.
    SIGHUP: load the model's folder anew and switch to it where it passes its checks.

    Raises `RankerError` where a port is taken, `CheckpointError` and the like where the model cannot be loaded.
    """
    raise NotImplementedError
