"""The kind of model for pairs of posts: functions that open, export, run and serve such a model.

| input | is |
| --- | --- |
| `input_ids`, `token_type_ids` | int64 `[batch, length]`; only for models that take texts |
| `image_1`, `image_2` | uint8 `[batch, 3, size, size]`, RGB as decoded; only for models that take images |
| `present` | float32 `[batch, 2]`, 1 where there is an image |

The model returns `probabilities` and `logits`, float32 `[batch, 3]`. The graph itself normalises the pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from multimodal_entailment.info import INFO_FILE, KIND, EntailmentInfo, signature_of
from multimodal_entailment.posts import PostEncoder
from paddle_ranker.array_types import Arrays
from paddle_ranker.encoding.samples import PAIRS, sample_batches, timing_batches
from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_kind import ModelKind, Signature, TrainedModel, add_kind

if TYPE_CHECKING:
    from paddle import nn

_ROWS = 6  # number of pairs of posts with images in a sample batch


class EntailmentKind(ModelKind[EntailmentInfo, PostEncoder]):
    """The kind of models that classify a pair of posts by texts, images or both."""

    name = KIND
    info_file = INFO_FILE
    what = "a model of pairs of posts (entailment)"
    use = "predict, evaluate and export take it as --model, and serve as --entailment_model"

    def read_info(self, folder: Path) -> EntailmentInfo:
        return EntailmentInfo.read(folder)

    def signature(self, info: EntailmentInfo) -> Signature:
        return signature_of(info)

    def configs(self, folder: Path, info: EntailmentInfo) -> tuple[EncoderConfig, ...]:
        return super().configs(folder, info) if info.max_seq_length else ()

    def row_encoder(self, folder: Path, info: EntailmentInfo, options: LoadOptions) -> PostEncoder:
        from multimodal_entailment.folder import post_encoder

        return post_encoder(folder, info)

    def load(self, source: Path, options: LoadOptions) -> TrainedModel[EntailmentInfo, PostEncoder]:
        from multimodal_entailment.folder import load_entailment

        return load_entailment(source)

    def scoring_network(self, model: TrainedModel[EntailmentInfo, PostEncoder]) -> tuple[nn.Layer, tuple[str, ...]]:
        return self.static_network(model), model.signature.output_names

    def static_network(self, model: TrainedModel[EntailmentInfo, PostEncoder]) -> nn.Layer:
        from multimodal_entailment.model import pixels_to_probabilities

        return pixels_to_probabilities(model.network)

    def sample_inputs(self, encoder: PostEncoder, info: EntailmentInfo) -> Iterator[Arrays]:
        """Yield batches of texts of many lengths and of random images, some of them missing."""
        texts = [{}] * (PAIRS // _ROWS) if encoder.texts is None else sample_batches(encoder.texts)
        random = np.random.default_rng(0)
        for batch in texts:
            rows = len(batch["input_ids"]) if batch else _ROWS
            yield {**batch, **(_drawn_images(random, rows, info.image_size) if info.image_size else {})}

    def timing_inputs(
        self, encoder: PostEncoder, info: EntailmentInfo, shapes: Sequence[tuple[int, int]]
    ) -> Iterator[Arrays]:
        """Yield a batch of made-up texts and images for each (rows, tokens) of `shapes`."""
        random = np.random.default_rng(0)
        texts = iter([{}] * len(shapes)) if encoder.texts is None else timing_batches(encoder.texts, shapes)
        for (rows, _), batch in zip(shapes, texts):
            yield {**batch, **(_drawn_images(random, rows, info.image_size) if info.image_size else {})}

    def write_descriptions(self, folder: Path, model: TrainedModel[EntailmentInfo, PostEncoder]) -> None:
        from multimodal_entailment.folder import write_descriptions

        write_descriptions(folder, model.network, model.row_encoder)

    def write_info(self, folder: Path, info: EntailmentInfo) -> None:
        info.write(folder)


def _drawn_images(random: np.random.Generator, rows: int, size: int) -> Arrays:
    shape = (2, rows, 3, size, size)
    # The images differ in contrast, since plain noise would look the same everywhere to a network.
    levels = random.integers(0, 256, (2, rows, 3, 1, 1)) + random.normal(0, 40, shape)
    present = random.integers(0, 2, (rows, 2)).astype(np.float32)
    first, second = levels.clip(0, 255).astype(np.uint8)
    return {"image_1": first, "image_2": second, "present": present}


add_kind(EntailmentKind())
