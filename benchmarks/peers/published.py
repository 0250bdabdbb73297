"""The published pairwise ranker as its users run it: PaddleNLP's ERNIE, with every pair padded to the same length."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from benchmarks.peers.answers import Pace
from benchmarks.peers.inference_work import BatchedSystem, Forward, InferenceWork, Pairs, System
from benchmarks.peers.work import BenchmarkTriples, TrainingWork, batches_forever
from paddle_ranker.encoding.columns import EncodedPairs
from paddle_ranker.model.parameters import PARAMETERS_FILE, load_arrays


class PublishedRanker(nn.Layer):
    """PaddleNLP's ERNIE under a linear head, as the published pairwise ranker is built.

    Its sigmoid is omitted; callers apply it to the logits if they need probabilities.
    """

    def __init__(self, shape: dict[str, object]):
        super().__init__()
        from paddlenlp.transformers import ErnieConfig, ErnieModel

        self.ptm = ErnieModel(ErnieConfig(**shape))
        self.dropout = nn.Dropout(0.1)
        self.similarity = nn.Linear(self.ptm.config.hidden_size, 1)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """Return the logits, `[batch, 1]`."""
        pooled = self.ptm(input_ids, token_type_ids)[1]
        return F.linear(self.dropout(pooled), self.similarity.weight, self.similarity.bias)


def train(work: TrainingWork, triples: BenchmarkTriples, pace: Pace) -> None:
    """Train as the published code does: padded to a fixed length, a forward pass per title, AdamW without clipping."""
    paddle.set_device("cpu")
    paddle.seed(work.seed)
    network = PublishedRanker(work.shape)
    network.train()
    optimizer = paddle.optimizer.AdamW(learning_rate=work.learning_rate, parameters=network.parameters())
    for indices in batches_forever(work, triples):
        pace.tick(len(indices))
        positive = F.sigmoid(network(*_padded(triples.positives, indices, work)))
        negative = F.sigmoid(network(*_padded(triples.negatives, indices, work)))
        loss = F.margin_ranking_loss(positive, negative, paddle.ones_like(positive), margin=0.2)
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        float(loss)


def _padded(pairs: EncodedPairs, indices: np.ndarray, work: TrainingWork) -> tuple[Tensor, Tensor]:
    ids, types = pairs.pad(indices).values()
    missing = ((0, 0), (0, work.padded_length - ids.shape[1]))
    return (
        paddle.to_tensor(np.pad(ids, missing, constant_values=work.pad_id)),
        paddle.to_tensor(np.pad(types, missing)),
    )


def open_system(system: str, folder: Path, work: InferenceWork, pairs: Pairs) -> System:
    """Return the system `published` (eager) or `published_inference` (its static graph in Paddle Inference)."""
    paddle.set_device("cpu")
    network = PublishedRanker(work.shape)
    network.set_state_dict(_published_names(load_arrays(folder / "ranker" / PARAMETERS_FILE)))
    network.eval()
    forward = _eager(network) if system == "published" else _static(network, work.threads)
    return BatchedSystem(forward, pairs, work, padded_length=work.padded_length)


def _published_names(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename a ranker's parameters to the published names: `encoder.` to `ptm.`, and `head.` to `similarity.`."""
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
