"""The network of own_kind.py and its training: texts of one row are to be nearer than those of others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from paddle_ranker.encoding.batching import Groups
from paddle_ranker.encoding.columns import EncodedTexts
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.model.config import EncoderConfig, read_config
from paddle_ranker.model.encoder import Encoder
from paddle_ranker.model.kinds import KINDS
from paddle_ranker.model.parameters import PARAMETERS_FILE, load_arrays, save_arrays
from paddle_ranker.training.options import TrainingOptions
from paddle_ranker.training.run import start_run
from paddle_ranker.training.task import Task
from tests.extensions.own_kind import VectorInfo


class VectorNetwork(nn.Layer):
    """The first token's output, made one long."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.config, self.configs = config, (config,)
        self.encoder = Encoder(config)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return the vectors, `[batch, size]` float32, of `[batch, length]` int64 ids."""
        return F.normalize(self.encoder.pooled(input_ids, paddle.zeros_like(input_ids)), axis=-1)


@dataclass(frozen=True)
class VectorParts:
    network: VectorNetwork
    pair_encoder: PairEncoder
    info: VectorInfo


def save_vectors(folder: Path, parts: VectorParts) -> None:
    """Write a model into an existing folder."""
    save_arrays(parts.network.state_dict(), folder / PARAMETERS_FILE)
    KINDS["vectors"].write_descriptions(folder, parts)
    KINDS["vectors"].write_info(folder, parts, parts.info)


def load_vectors(folder: Path, info: VectorInfo, encoder: PairEncoder) -> VectorParts:
    """Load a model for scoring."""
    config = read_config(folder)
    assert config is not None
    network = VectorNetwork(config)
    network.set_state_dict({name: paddle.to_tensor(a) for name, a in load_arrays(folder / PARAMETERS_FILE).items()})
    return VectorParts(network, encoder, info)


class TextPairs:
    """n rows of two texts that mean the same, `texts` holding both of each row side by side."""

    rows_each = 2
    groups: Optional[Groups] = None

    def __init__(self, texts: EncodedTexts):
        self._texts = texts

    def __len__(self) -> int:
        return len(self._texts) // 2

    def lengths(self, indices: np.ndarray) -> np.ndarray:
        longer: np.ndarray = self._texts.lengths_of(2 * indices[:, None] + [0, 1]).max(axis=1)
        return longer

    def weight(self, indices: np.ndarray) -> float:
        return float(len(indices))

    def loss(self, network: nn.Layer, indices: np.ndarray) -> tuple[Tensor, dict[str, float]]:
        """Return the cross-entropy over the rows of the batch, of cosines times 20."""
        batch = self._texts.pad(np.concatenate([2 * indices, 2 * indices + 1]))
        first, second = paddle.split(network(paddle.to_tensor(batch["input_ids"])), 2)
        cosines = 20.0 * paddle.matmul(first, second, transpose_y=True)
        return F.cross_entropy(cosines, paddle.arange(len(indices))), {}


def train_vectors(parts: VectorParts, texts: list[str], options: TrainingOptions) -> Any:
    """Train on texts, of which two neighbours mean the same; checkpoints go to `options.save_dir`."""
    run = start_run(options)
    examples = TextPairs(parts.pair_encoder.encode_single(texts))

    def evaluate() -> dict[str, float]:
        parts.network.eval()
        loss = float(examples.loss(parts.network, np.arange(len(examples)))[0])
        parts.network.train()
        return {"loss": loss}

    def save(folder: Path, results: dict[str, Any]) -> None:
        save_vectors(folder, parts)

    return run.train(Task(parts.network, examples, evaluate, save, metric="loss", lower_is_better=True))
