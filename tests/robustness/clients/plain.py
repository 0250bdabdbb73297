"""Clients without a library of ours: curl, requests, and grpcio with messages written by hand."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from typing import Any

from tests.robustness.clients.given import Scores, run, tensors, url
from tests.robustness.clients.messages import general_request, general_scores, pipeline_answer, pipeline_request

_INFERENCE = "/GeneralModelService/inference"
_GENERAL = "/baidu.paddle_serving.predictor.general_model.GeneralModelService/inference"
_PIPELINE = "/baidu.paddle_serving.pipeline_serving.PipelineService/inference"
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


def requests_proto(given: dict[str, Any]) -> tuple[str, Scores]:
    """Send protobuf packed by gzip, and take it so."""
    import requests

    found = []
    with requests.Session() as session:
        session.trust_env = False
        for group in given["groups"]:
            headers = {"Content-Type": "application/proto", "Content-Encoding": "gzip", "Accept-Encoding": "gzip"}
            body = gzip.compress(general_request(tensors(group)))
            answer = session.post(url(given, _INFERENCE), data=body, headers=headers, timeout=_SECONDS)
            answer.raise_for_status()
            found.append(general_scores(answer.content))
    return requests.__version__, found


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


def grpcio(given: dict[str, Any]) -> tuple[str, Scores]:
    """Call the C++ server's service with messages that were written by hand."""
    return _call(given, _GENERAL, lambda group: general_request(tensors(group)), general_scores)


def grpcio_pipeline(given: dict[str, Any]) -> tuple[str, Scores]:
    """Call the pipeline's service with messages that were written by hand."""
    read = lambda answer: _printed(pipeline_answer(answer))  # noqa: E731
    return _call(given, _PIPELINE, lambda group: pipeline_request(_texts(group)), read)


def _call(given: dict[str, Any], method: str, write: Any, read: Any) -> tuple[str, Scores]:
    import grpc

    options = [("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(f"{given['host']}:{given['port']}", options=options) as channel:
        call = channel.unary_unary(method)
        return grpc.__version__, [read(call(write(group), timeout=_SECONDS)) for group in given["groups"]]


if __name__ == "__main__":
    sys.exit(run(curl, requests_proto, requests_pipeline, requests_embed, grpcio, grpcio_pipeline))
