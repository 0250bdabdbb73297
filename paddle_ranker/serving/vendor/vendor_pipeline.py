"""Paddle Serving's own pipeline server with a ranker in it: pairs of texts in, probabilities out.

Importing it imports paddle_serving_server, which only the complete stack has, and which makes a folder
`PipelineServingLogs` where it is (SERVING_LOG_PATH says where else).
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
    """Takes requests apart. The vendor's own unpickles what a tensor of type 13 holds; this one takes no tensors."""

    def unpack_request_package(self, request: Any) -> tuple[dict[str, Any], int, Any, str]:
        """Return the texts of a request, its id in logs, and the number and text of an error."""
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
    """Encodes pairs, has them scored by the vendor's local predictor, and prints the probabilities.

    Args:
        config: where the model lies, and what it is called.
    """

    def __init__(self, config: PipelineConfig, **arguments: Any):
        super().__init__(name=config.service, **arguments)
        self._config = config
        self._limits = Limits()

    def init_op(self) -> None:
        """Load the tokenizer, in the process that computes."""
        self._encoder = open_exported_ranker(self._config.model).row_encoder()

    def preprocess(self, input_dicts: dict[str, Any], data_id: int, log_id: int) -> tuple[Any, bool, Any, str]:
        """Return the model's inputs, whether to pass it over, and the number and text of an error."""
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
        """Return what clients read: `{"predict": "[[0.85], [0.79]]"}`."""
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
        """Check the model and build the pipeline; as `prepare_pipeline_config`, with an op of our own in front.

        Raises `CheckpointError` for a model that the vendor's local predictor does not run.
        """
        check_model(self._config)
        response = vendor.ResponseOp(input_ops=[self.get_pipeline_response(TextRequestOp())])
        self._server.set_response_op(response)
        self._server.prepare_server(yml_dict=self._config.values)


def check_model(config: PipelineConfig) -> None:
    """Raise `CheckpointError` where the local predictor would fail later: it kills its processes then."""
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
    # A process of its own, begun before gRPC is: what has threads of gRPC must not fork, and the vendor's server does.
    multiprocessing.get_context("fork").Process(target=_announce, args=(config,), daemon=True).start()
    try:
        service.run_service()
    except KeyboardInterrupt:
        for process in multiprocessing.active_children():
            process.kill()


def _announce(config: PipelineConfig) -> None:
    """Ask every port until it answers with a score, and say on standard output what is served, and where."""
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
    """Have a new process ignore Ctrl-C, which its parent handles, and killed when that one ends, however it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_DIE_WITH_THE_PARENT, signal.SIGKILL, 0, 0, 0)
