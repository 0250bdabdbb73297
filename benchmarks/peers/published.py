"""The published pairwise ranker as its users run it: PaddleNLP's ERNIE, with every pair padded to the same length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from benchmarks.peers.inference_work import BatchedSystem, InferenceWork, Pairs, System
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


def open_system(folder: Path, work: InferenceWork, pairs: Pairs) -> System:
    """Return the published ranker with the parameters of `ranker` in `folder`."""
    paddle.set_device(work.device)
    network = PublishedRanker(work.shape)
    network.set_state_dict(_published_names(load_arrays(folder / "ranker" / PARAMETERS_FILE)))
    network.eval()

    def forward(input_ids: np.ndarray, token_type_ids: np.ndarray) -> np.ndarray:
        with paddle.no_grad():
            logits: np.ndarray = network(paddle.to_tensor(input_ids), paddle.to_tensor(token_type_ids)).numpy()
            return logits

    return BatchedSystem(forward, pairs, work, padded_length=work.padded_length)


def _published_names(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename a ranker's parameters to the published names: `encoder.` to `ptm.`, and `head.` to `similarity.`."""
    renamed = {}
    for name, array in arrays.items():
        part, _, rest = name.partition(".")
        renamed[{"encoder": "ptm", "head": "similarity"}[part] + "." + rest] = array
    return renamed
