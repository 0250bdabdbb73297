"""The network of own_kind.py and its training: the texts of a row should be nearer than those of other rows.

paddle-ranker train-vectors --train pairs.tsv --model_name_or_path encoder --output checkpoint
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Optional

import numpy as np

from paddle_ranker import runtime
from paddle_ranker.options import main_of, option
from paddle_ranker.training.training_options import TrainingOptions
from tests.extensions.own_kind import VectorInfo, VectorKind, VectorModel, signature_of

if TYPE_CHECKING:
    from paddle import Tensor, nn

    from paddle_ranker.encoding.batching import Groups
    from paddle_ranker.encoding.columns import EncodedTexts
    from paddle_ranker.encoding.pair_encoder import PairEncoder
    from paddle_ranker.model.networks.bert import Encoder
    from paddle_ranker.training.run import Start, TrainingRun
    from paddle_ranker.training.task import FitResult


def vector_network(encoder: Encoder) -> nn.Layer:
    """Return the first token's output of an encoder, scaled to length 1."""
    import paddle
    from paddle import nn

    class VectorNetwork(nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.config, self.configs = encoder.config, (encoder.config,)
            self.encoder = encoder

        def forward(self, input_ids: Tensor) -> Tensor:
            """Return the vectors, `[batch, size]` float32, of `[batch, length]` int64 ids."""
            # The code that Paddle 2 exports finds `paddle`, but no other name around this class.
            pooled = self.encoder.pooled(input_ids, paddle.zeros_like(input_ids))
            return paddle.nn.functional.normalize(pooled, axis=-1)

    return VectorNetwork()


def save_vectors(folder: Path, model: VectorModel, info: VectorInfo) -> None:
    """Write a model, which `info` describes, into an existing folder."""
    from paddle_ranker.model.parameters import PARAMETERS_FILE, save_arrays

    save_arrays(model.network.state_dict(), folder / PARAMETERS_FILE)
    VectorKind().write_descriptions(folder, model)
    VectorKind().write_info(folder, info)


def load_vectors(folder: Path, info: VectorInfo, encoder: PairEncoder) -> VectorModel:
    """Load a model; the toolkit finds its encoder's folder as for its own models."""
    from paddle_ranker.model.model_folder import load_encoder

    return VectorModel(info, encoder, signature_of(info), vector_network(load_encoder(folder).network))


class TextPairs:
    """n rows of two texts with the same meaning; `texts` holds the two of each row side by side."""

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
        """Return the cross-entropy over the rows of the batch, with cosines times 20 as logits."""
        import paddle
        import paddle.nn.functional as F

        batch = self._texts.pad(np.concatenate([2 * indices, 2 * indices + 1]))
        first, second = paddle.split(network(paddle.to_tensor(batch["input_ids"])), 2)
        cosines = 20.0 * paddle.matmul(first, second, transpose_y=True)
        return F.cross_entropy(cosines, paddle.arange(len(indices))), {}


@dataclass(frozen=True)
class TrainVectorsOptions(TrainingOptions):
    train_file: str = option(help="pairs of texts that mean the same", name="train", files=True)
    model_name_or_path: str = option(help="the encoder to start from, as load_encoder takes it", name="model")
    max_seq_length: int = option(24, help="longest text in tokens", minimum=3)


def start_vectors(run: TrainingRun, options: TrainVectorsOptions) -> Start[VectorModel]:
    """Load the encoder, or the interrupted run, to start from."""
    from paddle_ranker.model.load_options import LoadOptions
    from paddle_ranker.model.model_folder import load_encoder
    from paddle_ranker.training.run import Start

    if run.resumed:
        return Start(run, VectorKind().load(run.resumed.model, LoadOptions()), run.resumed.part_factors)
    loaded = load_encoder(options.model_name_or_path)
    info = VectorInfo(options.max_seq_length, loaded.config.hidden_size)
    encoder, network = loaded.pair_encoder(info.max_seq_length), vector_network(loaded.network)
    return Start(run, VectorModel(info, encoder, signature_of(info), network), {})


def train(options: TrainVectorsOptions) -> FitResult:
    """Train; checkpoints go to `options.save_dir`."""
    from paddle_ranker.data.rows.records import Pair, read_records
    from paddle_ranker.storage.digest import content_digest
    from paddle_ranker.training.run import start_run
    from paddle_ranker.training.task import Task

    run = start_run(options)
    start = start_vectors(run, options)
    model = start.model
    pairs = read_records(options.train_file, Pair)
    examples = TextPairs(model.row_encoder.encode_single([text for pair in pairs for text in (pair.query, pair.title)]))

    def evaluate() -> dict[str, float]:
        model.network.eval()
        loss = float(examples.loss(model.network, np.arange(len(examples)))[0])
        model.network.train()
        return {"loss": loss}

    def save(folder: Path, results: dict[str, float]) -> None:
        described = run.describe({}, results)["training"]
        save_vectors(folder, model, dataclasses.replace(model.info, training=described))

    task = Task(
        model.network,
        examples,
        evaluate,
        save,
        metric="loss",
        lower_is_better=True,
        part_factors=start.part_factors,
        identity={"options": options.identity(), "content": content_digest(options.train_file)},
    )
    return run.train(task)


def run(options: TrainVectorsOptions) -> None:
    runtime.prepare_command(options.cpu_threads)
    train(options)


main = main_of(run, TrainVectorsOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
