"""Clients without a library of ours: curl and requests."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from tests.robustness.clients.given import Scores, run, tensors, url

_INFERENCE = "/GeneralModelService/inference"
_SECONDS = 60


def _texts(group: dict[str, Any]) -> list[str]:
    return [json.dumps({"query": group["query"], "title": title}) for title in group["titles"]]


def _printed(value: str) -> list[float]:
    return [row[0] for row in json.loads(value)]


def curl(given: dict[str, Any]) -> tuple[str, Scores]:
    """Send the contract's line."""
    found = []
    try:
        version = subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    except FileNotFoundError:
        raise ImportError("curl") from None
    for group in given["groups"]:
        body = json.dumps({"tensor": tensors(group), "fetch_var_names": ["sigmoid_2.tmp_0"], "log_id": 0})
        line = ["curl", "-sS", "--fail", "-XPOST", url(given, _INFERENCE), "-d", body]
        answer = subprocess.run(line, capture_output=True, check=True, timeout=_SECONDS).stdout
        found.append(json.loads(answer)["outputs"][0]["tensor"][0]["float_data"])
    return version, found


def requests_pipeline(given: dict[str, Any]) -> tuple[str, Scores]:
    """Send the tutorial's payload to the pipeline's gateway."""
    import requests

    found = []
    with requests.Session() as session:
        session.trust_env = False
        for group in given["groups"]:
            values = _texts(group)
            body = {"key": [str(place) for place in range(len(values))], "value": values}
            answer = session.post(url(given, "/ernie/prediction"), data=json.dumps(body), timeout=_SECONDS).json()
            if answer["err_no"]:
                raise ValueError(f"err_no {answer['err_no']}: {answer['err_msg']}")
            found.append(_printed(answer["value"][0]))
    return requests.__version__, found


def requests_embed(given: dict[str, Any]) -> tuple[str, Scores]:
    """Ask as Text Embeddings Inference is asked, the query by the name of its prompt."""
    import requests

    found = []
    with requests.Session() as session:
        session.trust_env = False
        for group in given["groups"]:
            vectors = []
            for texts, prompt in ((group["titles"], None), (group["query"], "query")):
                body = {"inputs": texts, "prompt_name": prompt, "truncate": True, "normalize": True}
                answer = session.post(url(given, "/embed"), json=body, timeout=_SECONDS)
                answer.raise_for_status()
                vectors += answer.json()
            found.append(vectors)
    return requests.__version__, found


if __name__ == "__main__":
    sys.exit(run(curl, requests_pipeline, requests_embed))
