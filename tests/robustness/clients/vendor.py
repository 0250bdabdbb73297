"""Paddle Serving's own clients, on the complete stack."""

from __future__ import annotations

import importlib
import sys
from importlib import metadata
from typing import Any

from tests.robustness.clients.given import Scores, run


def native(given: dict[str, Any]) -> tuple[str, Scores]:
    """Ask with the compiled client, over baidu_std."""
    return _native(given, given["serving_client"], lambda group: group, lambda values: values.reshape(-1))


def native_vectors(given: dict[str, Any]) -> tuple[str, Scores]:
    """Ask for the vectors of titles."""
    return _native(given, given["tower_client"], lambda group: group["text"], lambda values: values)


def _native(given: dict[str, Any], config: str, tokens: Any, shaped: Any) -> tuple[str, Scores]:
    import numpy as np

    from paddle_ranker.errors import DependencyError
    from paddle_ranker.paddle_serving.launchers.native_client import native_client

    try:
        client = native_client()()
    except DependencyError as error:
        raise ImportError(str(error)) from error
    client.load_client_config(config)
    client.connect([f"{given['host']}:{given['port']}"])
    found = []
    for group in given["groups"]:
        feed = {name: np.array(tokens(group)[name]) for name in client.feed_names_}
        [values] = client.predict(feed=feed, fetch=client.fetch_names_, batch=True).values()
        found.append(shaped(values).tolist())
    return metadata.version("paddle-serving-client"), found


def pipeline(given: dict[str, Any]) -> tuple[str, Scores]:
    """Ask with the pipeline's client, as the tutorial's script does: each pair as Python prints a dict."""
    import json

    client = importlib.import_module("paddle_serving_server.pipeline").PipelineClient()
    client.connect([f"{given['host']}:{given['port']}"])
    found = []
    for group in given["groups"]:
        feed = {str(n): str({"query": group["query"], "title": title}) for n, title in enumerate(group["titles"])}
        answer = client.predict(feed_dict={**feed, "clientip": "127.0.0.1"})
        if answer.err_no:
            raise ValueError(f"err_no {answer.err_no}: {answer.err_msg}")
        found.append([row[0] for row in json.loads(answer.value[0])])
    return metadata.version("paddle-serving-server"), found


if __name__ == "__main__":
    sys.exit(run(native, native_vectors, pipeline))
