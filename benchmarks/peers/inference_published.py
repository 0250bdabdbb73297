"""The published way to score: PaddleNLP's ERNIE, every pair padded to the same length."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import paddle
from paddle import nn

from benchmarks.peers.inference_work import BatchedSystem, Forward, InferenceWork, Pairs, System
from benchmarks.peers.published import PublishedRanker
from paddle_ranker.model.parameters import PARAMETERS_FILE, load_arrays


def open_system(system: str, folder: Path, work: InferenceWork, pairs: Pairs) -> System:
    """Return `published` (eager), or `published_inference`: its static graph in Paddle Inference."""
    paddle.set_device("cpu")
    network = PublishedRanker(work.shape)
    network.set_state_dict(_published_names(load_arrays(folder / "ranker" / PARAMETERS_FILE)))
    network.eval()
    forward = _eager(network) if system == "published" else _static(network, work.threads)
    return BatchedSystem(forward, pairs, work, padded_length=work.padded_length)


def _published_names(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename a ranker's parameters: `encoder.` becomes `ptm.`, and `head.` `similarity.`."""
    renamed = {}
    for name, array in arrays.items():
        part, _, rest = name.partition(".")
        renamed[{"encoder": "ptm", "head": "similarity"}[part] + "." + rest] = array
    return renamed


def _eager(network: nn.Layer) -> Forward:
    def forward(input_ids: np.ndarray, token_type_ids: np.ndarray) -> np.ndarray:
        with paddle.no_grad():
            logits: np.ndarray = network(paddle.to_tensor(input_ids), paddle.to_tensor(token_type_ids)).numpy()
            return logits

    return forward


def _static(network: nn.Layer, threads: int) -> Forward:
    from paddle.inference import Config, create_predictor

    names = ("input_ids", "token_type_ids")
    inputs = [paddle.static.InputSpec(shape=[None, None], dtype="int64", name=name) for name in names]
    with tempfile.TemporaryDirectory() as exported:
        paddle.jit.save(paddle.jit.to_static(network, input_spec=inputs), f"{exported}/model")
        program = next(path for path in Path(exported).iterdir() if path.suffix in (".json", ".pdmodel"))
        config = Config(str(program), f"{exported}/model.pdiparams")
        config.disable_glog_info()
        config.enable_mkldnn()
        config.set_cpu_math_library_num_threads(threads)
        predictor = create_predictor(config)
    handles = [predictor.get_input_handle(name) for name in names]
    output = predictor.get_output_handle(predictor.get_output_names()[0])

    def forward(input_ids: np.ndarray, token_type_ids: np.ndarray) -> np.ndarray:
        for handle, values in zip(handles, (input_ids, token_type_ids)):
            handle.reshape(values.shape)
            handle.copy_from_cpu(values)
        predictor.run()
        logits: np.ndarray = output.copy_to_cpu()
        return logits

    return forward
