"""Options of `serve` for the pipeline's gateway."""

from __future__ import annotations

from dataclasses import dataclass

from paddle_ranker.options import Options, option
from paddle_ranker.serving.core.server_config import ServeConfig


@dataclass(frozen=True)
class PipelineOptions(Options):
    """Names of the pipeline's service and of its method. The defaults are the tutorial's, `POST /ernie/prediction`."""

    pipeline_service: str = option("ernie", help="service name of the pipeline's gateway, POST /ernie/prediction")
    pipeline_method: str = option("prediction", help="method name of the pipeline's gateway")


def pipeline_options(config: ServeConfig) -> PipelineOptions:
    """Return a server's names, or the defaults if its configuration has none."""
    return config if isinstance(config, PipelineOptions) else PipelineOptions()
