"""Paddle Serving's own pipeline server with a ranker in it: takes pairs of texts, returns probabilities.

This module imports paddle_serving_server, which only the complete stack has. That package makes a folder
`PipelineServingLogs` in the current folder, or where SERVING_LOG_PATH says.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import time
from typing import Any

import numpy as np
from paddle_serving_server import pipeline as vendor
from paddle_serving_server.web_service import Op, WebService

from paddle_ranker import runtime
from paddle_ranker.errors import CheckpointError
from paddle_ranker.export.serving_files import SERVING_VARIABLE
from paddle_ranker.model.exported import EXPORT_SERVING, INPUTS, exporting_again, open_exported_ranker
from paddle_ranker.serving.core.faults import INVALID, Fault
from paddle_ranker.serving.core.limits import Limits
from paddle_ranker.serving.paddle.messages import messages
from paddle_ranker.serving.paddle.pipeline import PipelineNames, error_number, read_pairs
from paddle_ranker.serving.vendor.brpc_server import EVERY_ADDRESS
from paddle_ranker.serving.vendor.pipeline_config import PipelineConfig

_DIE_WITH_THE_PARENT = 1  # PR_SET_PDEATHSIG
_REQUEST = "request"
_PATIENCE, _PAUSE = 600.0, 0.2  # seconds: that a request waits while the model is loaded, between two attempts


class TextRequestOp(vendor.RequestOp):
    """Unpacks requests. The vendor's own op unpickles the contents of tensors of type 13; this op refuses tensors."""

    def unpack_request_package(self, request: Any) -> tuple[dict[str, Any], int, Any, str]:
        """Return a dict with the pairs of a request, the request's id in logs, and an error's number and text."""
        own = messages().PipelineRequest(key=request.key, value=request.value)
        try:
            if len(request.tensors):
                raise Fault(INVALID, 'is not taken: send {"query": ..., "title": ...} as a value', field="tensors")
            pairs = read_pairs(own, Limits())
        except Fault as fault:
            return {}, request.logid, error_number(fault.kind), str(fault)
        profile = {key: value for key, value in zip(request.key, request.value) if key == "pipeline.profile"}
        return {_REQUEST: pairs, **profile}, request.logid, None, ""


class RankerOp(Op):
    """Encodes pairs, lets the vendor's local predictor score them, and prints the probabilities as text.

    Args:
        config: names the model's folder and the service.
    """

    def __init__(self, config: PipelineConfig, **arguments: Any):
        super().__init__(name=config.service, **arguments)
        self._config = config
        self._limits = Limits()

    def init_op(self) -> None:
        """Load the tokenizer; called in the process that computes."""
        self._encoder = open_exported_ranker(self._config.model).row_encoder()

    def preprocess(self, input_dicts: dict[str, Any], data_id: int, log_id: int) -> tuple[Any, bool, Any, str]:
        """Return the model's inputs, whether to skip the model, and an error's number and text."""
        ((_, given),) = input_dicts.items()
        queries, titles = (list(column) for column in zip(*given[_REQUEST]))
        try:
            self._limits.check_pairs(len(titles), "value")
            self._limits.check_texts(queries, "query")
            self._limits.check_texts(titles, "title")
        except Fault as fault:
            return None, False, error_number(fault.kind), str(fault)
        encoded = self._encoder.encode(queries, titles)
        arrays = tuple(encoded.pad(np.arange(len(titles))).values())
        if self._batch_size > 1:  # requests are joined, for which they must be of one length
            missing = self._encoder.max_seq_length - arrays[0].shape[1]
            ids, types = (np.pad(array, ((0, 0), (0, missing))) for array in arrays)
            ids[:, ids.shape[1] - missing :] = self._encoder.members[0].pad_id
            arrays = ids, types
        return dict(zip(INPUTS, arrays)), False, None, ""

    def postprocess(
        self, input_dicts: dict[str, Any], fetch_dict: dict[str, Any], data_id: int, log_id: int
    ) -> tuple[dict[str, str], None, str]:
        """Return the values for the client, `{"predict": "[[0.85], [0.79]]"}`, and no error."""
        return {name: str(values.tolist()) for name, values in fetch_dict.items()}, None, ""


class RankerService(WebService):
    """The pipeline's server: a request, the ranker, a response."""

    def __init__(self, config: PipelineConfig):
        super().__init__(name=config.service)
        self._config = config

    def get_pipeline_response(self, read_op: Any) -> RankerOp:
        """Return the last op before the response."""
        return RankerOp(self._config, input_ops=[read_op])

    def prepare(self) -> None:
        """Check the model and build the pipeline: `prepare_pipeline_config` with `TextRequestOp` as the first op.

        Raises `CheckpointError` for a model that the vendor's local predictor does not run.
        """
        check_model(self._config)
        response = vendor.ResponseOp(input_ops=[self.get_pipeline_response(TextRequestOp())])
        self._server.set_response_op(response)
        self._server.prepare_server(yml_dict=self._config.values)


def check_model(config: PipelineConfig) -> None:
    """Raise `CheckpointError` if the local predictor would fail on the model later and kill its processes."""
    folder = open_exported_ranker(config.model)
    if folder.program.suffix != ".pdmodel" or folder.outputs != ("predict",):
        import paddle

        is_others = folder.program.suffix != ".pdmodel"
        remedy = (
            exporting_again(folder.folder, paddle.__version__) if is_others else f"{EXPORT_SERVING} {folder.folder}"
        )
        raise CheckpointError(
            f"{folder.folder}: the pipeline runs what export_to_serving.py writes with this Paddle, and this is "
            f"{folder.program.name} with {', '.join(folder.outputs)}: {remedy}"
        )
    aliases = folder.info.export.get("aliases", {}) if folder.info.export else {}
    renamed = [aliases[name] for name in INPUTS if aliases.get(name, name) != name]
    if renamed:
        raise CheckpointError(
            f"{folder.folder}: its inputs have the aliases {', '.join(renamed)}, with which Paddle Serving's pipeline "
            "cannot feed them: export it again without --feed_alias_names"
        )
    fetched = config.op["local_service_conf"].get("fetch_list") or []
    unknown = [name for name in fetched if name != aliases.get(SERVING_VARIABLE, "predict")]
    if unknown:
        raise CheckpointError(
            f"fetch_list: the model returns {aliases.get(SERVING_VARIABLE, 'predict')}, not {', '.join(unknown)}"
        )


def run(config: PipelineConfig) -> None:
    """Serve until SIGINT or SIGTERM comes; the processes that the vendor starts end with this one."""
    runtime.select_device("cpu")  # of this process alone, which computes nothing: it takes SIGTERM back from Paddle
    os.register_at_fork(after_in_child=_end_with_the_parent)
    service = RankerService(config)
    service.prepare()
    # A separate process, started before gRPC: a process with gRPC's threads must not fork, as the vendor's server does.
    multiprocessing.get_context("fork").Process(target=_announce, args=(config,), daemon=True).start()
    try:
        service.run_service()
    except KeyboardInterrupt:
        for process in multiprocessing.active_children():
            process.kill()


def _announce(config: PipelineConfig) -> None:
    """Ask every port until it answers with a score, then print what is served, and where."""
    from paddle_ranker.serving.clients import PipelineClient
    from paddle_ranker.serving.clients.errors import ServerError

    names, places = PipelineNames(config.service), []
    for protocol, port in config.ports.items():
        with PipelineClient(port=port, protocol=protocol, names=names, timeout=_PATIENCE, retries=0) as client:
            while True:
                try:
                    client.score(["a"], ["b"])
                    break
                except ServerError:  # it does not listen yet, or its gateway finds nobody behind it
                    time.sleep(_PAUSE)
        way = "gRPC" if protocol == "grpc" else f"HTTP, POST /{names.service}/{names.method}"
        places.append(f"http://{EVERY_ADDRESS}:{port} ({way})")
    print(f"serving {config.model} on {' and '.join(places)}", flush=True)


def _end_with_the_parent() -> None:
    """Make a new process ignore Ctrl-C, which its parent handles, and be killed when its parent ends in any way."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_DIE_WITH_THE_PARENT, signal.SIGKILL, 0, 0, 0)
