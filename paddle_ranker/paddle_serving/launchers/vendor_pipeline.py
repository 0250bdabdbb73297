"""Paddle Serving's own pipeline server with a model in it: takes pairs or texts, returns probabilities or vectors.

This module imports paddle_serving_server, which only the complete stack has. That package creates a folder
`PipelineServingLogs` in the current folder, or in the one that SERVING_LOG_PATH names.
"""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import signal
import time
from typing import Any, Callable, cast

import numpy as np
from paddle_serving_server import pipeline as vendor
from paddle_serving_server.web_service import Op, WebService

from paddle_ranker.encoding.columns import Columns
from paddle_ranker.encoding.pair_encoder import PairRowEncoder
from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.exported import EXPORT_SERVING, INPUTS, ExportedFolder, exporting_again, open_exported
from paddle_ranker.model.model_folder import MODEL
from paddle_ranker.model.tower import KIND as TOWER
from paddle_ranker.model.tower import TextEncoder
from paddle_ranker.paddle_serving.launchers.brpc_server import EVERY_ADDRESS
from paddle_ranker.paddle_serving.launchers.pipeline_config import TENSORRT, PipelineConfig
from paddle_ranker.paddle_serving.messages import messages
from paddle_ranker.paddle_serving.pipeline import PipelineNames, error_number, read_pairs, read_texts
from paddle_ranker.scoring.engines.paddle_inference import TENSORRT_ROWS, tensorrt_shapes
from paddle_ranker.serving.core.faults import INVALID, Fault
from paddle_ranker.serving.core.limits import Limits

_DIE_WITH_THE_PARENT = 1  # PR_SET_PDEATHSIG
_REQUEST = "request"
_PATIENCE, _PAUSE = 600.0, 0.2  # seconds that a request waits while the model is loaded; seconds between attempts


class TextRequestOp(vendor.RequestOp):
    """An op that unpacks requests of texts and refuses tensors, since the vendor's op unpickles tensors of type 13.

    Args:
        is_tower: whether values are texts for a tower; otherwise they are pairs for a ranker.
    """

    def __init__(self, is_tower: bool):
        super().__init__()
        self._read = read_texts if is_tower else read_pairs

    def unpack_request_package(self, request: Any) -> tuple[dict[str, Any], int, Any, str]:
        """Return (rows of a request in a dict, the request's id in logs, error number or None, error text)."""
        message = messages().PipelineRequest(key=request.key, value=request.value)
        try:
            if len(request.tensors):
                raise Fault(INVALID, "is not taken: send texts as values", field="tensors")
            rows = self._read(message, Limits())
        except Fault as fault:
            return {}, request.logid, error_number(fault.kind), str(fault)
        profile = {key: value for key, value in zip(request.key, request.value) if key == "pipeline.profile"}
        return {_REQUEST: rows, **profile}, request.logid, None, ""


class ModelOp(Op):
    """An op that encodes pairs or texts, runs the vendor's local predictor, and formats its outputs as text.

    Args:
        config: names the model's folder and the service.
    """

    def __init__(self, config: PipelineConfig, **arguments: Any):
        self._config, self._limits = config, Limits()
        super().__init__(name=config.service, **arguments)

    def set_dynamic_shape_info(self) -> None:
        """Set the input shapes for which TensorRT compiles the graph. Does nothing if the device is not TensorRT."""
        if self._config.op["local_service_conf"]["device_type"] == TENSORRT:
            names = "min_input_shape", "max_input_shape", "opt_input_shape"
            self.dynamic_shape_info = dict(zip(names, tensorrt_shapes(open_exported(self._config.model, MODEL))))
            self._limits = Limits(pairs=max(1, TENSORRT_ROWS // self._config.op["batch_size"]))

    def init_op(self) -> None:
        """Load the tokenizer. Called in the process that computes."""
        self._encode = _encoder(open_exported(self._config.model, MODEL))

    def preprocess(self, input_dicts: dict[str, Any], data_id: int, log_id: int) -> tuple[Any, bool, Any, str]:
        """Return (the model's inputs, False since the model is not skipped, error number or None, error text)."""
        ((_, content),) = input_dicts.items()
        rows = content[_REQUEST]
        fields = {"text": rows} if isinstance(rows[0], str) else dict(zip(("query", "title"), map(list, zip(*rows))))
        try:
            self._limits.check_pairs(len(rows), "value")
            for name, texts in fields.items():
                self._limits.check_texts(texts, name)
        except Fault as fault:
            return None, False, error_number(fault.kind), str(fault)
        columns, longest, pad_id = self._encode(*fields.values())
        arrays = tuple(columns.pad(np.arange(len(rows))).values())
        if self._batch_size > 1:  # the vendor joins requests, which must have equal lengths
            missing = longest - arrays[0].shape[1]
            ids, types = (np.pad(array, ((0, 0), (0, missing))) for array in arrays)
            ids[:, ids.shape[1] - missing :] = pad_id
            arrays = ids, types
        return dict(zip(INPUTS, arrays)), False, None, ""

    def postprocess(
        self, input_dicts: dict[str, Any], fetch_dict: dict[str, Any], data_id: int, log_id: int
    ) -> tuple[dict[str, str], None, str]:
        """Return (values for the client, None, ""). The last two mean that there was no error.

        The values are a printed list for each output: `{"predict": "[[0.85], [0.79]]"}`.
        """
        return {name: str(values.tolist()) for name, values in fetch_dict.items()}, None, ""


def _encoder(folder: ExportedFolder) -> Callable[..., tuple[Columns, int, int]]:
    """Return a function that encodes texts, one list for each field.

    It returns (columns, maximum length of rows, the pad token's id).
    """
    encoder = folder.row_encoder()
    if isinstance(encoder, TextEncoder):
        tokens = encoder.tokens
        return lambda texts: (encoder.encode(texts), tokens.max_seq_length, tokens.pad_id)
    ranker = cast(PairRowEncoder, encoder)
    most, pad_id = ranker.max_seq_length, ranker.members[0].pad_id
    return lambda queries, titles: (ranker.encode(queries, titles), most, pad_id)


class VendorModelService(WebService):
    """The vendor's pipeline server with three ops: request, model, response."""

    def __init__(self, config: PipelineConfig):
        super().__init__(name=config.service)
        self._config = config

    def get_pipeline_response(self, read_op: Any) -> ModelOp:
        """Return the last op before the response."""
        return ModelOp(self._config, input_ops=[read_op])

    def prepare(self) -> None:
        """Check the model and build the pipeline, with `TextRequestOp` as the first op.

        The method replaces the vendor's `prepare_pipeline_config`.

        Raises `CheckpointError` for a model that the vendor's local predictor does not run.
        """
        self.is_tower = check_model(self._config).info.kind == TOWER
        request_op = TextRequestOp(self.is_tower)
        response = vendor.ResponseOp(input_ops=[self.get_pipeline_response(request_op)])
        self._server.set_response_op(response)
        self._server.prepare_server(yml_dict=self._config.values)


def check_model(config: PipelineConfig) -> ExportedFolder:
    """Open the exported model that a configuration names.

    Raises `CheckpointError` if the vendor's local predictor would fail or crash with this model.
    """
    folder = open_exported(config.model, MODEL)
    if folder.program.suffix != ".pdmodel" or not folder.is_for_serving:
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
    return folder


def run(config: PipelineConfig) -> None:
    """Serve until SIGINT or SIGTERM comes. The processes that the vendor starts end with this process.

    This process does not import Paddle, which starts CUDA: the vendor's processes are forked, and CUDA does not survive
    a fork. Raises `CheckpointError` for a precision or a model that the vendor's server cannot compute.
    """
    config.require_vendors_precision()
    _enable_loggers()
    os.register_at_fork(after_in_child=_end_with_the_parent)
    service = VendorModelService(config)
    service.prepare()
    # A separate process, started before gRPC: a process with gRPC's threads must not fork, as the vendor's server does.
    multiprocessing.get_context("fork").Process(target=_announce, args=(config, service.is_tower), daemon=True).start()
    try:
        service.run_service()
    except KeyboardInterrupt:
        for process in multiprocessing.active_children():
            process.kill()


def _enable_loggers() -> None:
    """Enable all loggers again: importing paddle_serving_server configures logging, which disables existing loggers."""
    for logger in [*logging.root.manager.loggerDict.values()]:
        if isinstance(logger, logging.Logger):
            logger.disabled = False


def _announce(config: PipelineConfig, is_tower: bool) -> None:
    """Wait until every port answers, then print the model and the addresses."""
    from paddle_ranker.paddle_serving.clients import PipelineClient
    from paddle_ranker.serving.clients.client_errors import ServerError

    names, places = PipelineNames(config.service), []
    for protocol, port in config.ports.items():
        with PipelineClient(port=port, protocol=protocol, names=names, timeout=_PATIENCE, retries=0) as client:
            while True:
                try:
                    client.vectors(["a"]) if is_tower else client.score(["a"], ["b"])
                    break
                except ServerError:  # the server does not listen yet, or the gateway does not reach it
                    time.sleep(_PAUSE)
        way = "gRPC" if protocol == "grpc" else f"HTTP, POST /{names.service}/{names.method}"
        places.append(f"http://{EVERY_ADDRESS}:{port} ({way})")
    print(f"serving {config.model} on {' and '.join(places)}", flush=True)


def _end_with_the_parent() -> None:
    """Make a new process ignore Ctrl-C, which its parent handles, and die when its parent ends in any way."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_DIE_WITH_THE_PARENT, signal.SIGKILL, 0, 0, 0)
