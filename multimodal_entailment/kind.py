"""Pairs of posts as a kind of model: what the core needs to open, export, run and serve one.

| input | is |
| --- | --- |
| `input_ids`, `token_type_ids` | int64 `[batch, length]`; of models that look at texts |
| `image_1`, `image_2` | uint8 `[batch, 3, size, size]`, RGB as decoded; of models that look at images |
| `present` | float32 `[batch, 2]`, 1 where there is an image |

It returns `probabilities` and `logits`, float32 `[batch, 3]`. Scaling and normalising pixels is part of the graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np

from multimodal_entailment.info import INFO_FILE, KIND, LABELS, EntailmentInfo
from paddle_ranker.encoding.columns import Arrays
from paddle_ranker.encoding.samples import PAIRS, sample_batches
from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.kinds import KINDS, ModelKind
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.recognised import FOLDERS, FolderKind
from paddle_ranker.model.signature import TOKENS, ArraySpec, Signature

_ROWS = 6  # pairs of a batch of images to compare on


class EntailmentKind(ModelKind):
    """Models of pairs of posts: texts, images or both in, a logit for each class out."""

    name = KIND
    info_file = INFO_FILE

    def read_info(self, folder: Path) -> EntailmentInfo:
        """Read `entailment.json`."""
        return EntailmentInfo.read(folder)

    def signature(self, info: EntailmentInfo) -> Signature:
        """Return the inputs that a model looks at, and its outputs."""
        pixels = (None, 3, info.image_size, info.image_size)
        images = (
            ArraySpec("image_1", "uint8", pixels),
            ArraySpec("image_2", "uint8", pixels),
            ArraySpec("present", "float32", (None, 2)),
        )
        outputs = (
            ArraySpec("probabilities", "float32", (None, len(LABELS)), tolerance=1e-5),
            ArraySpec("logits", "float32", (None, len(LABELS))),
        )
        return Signature((TOKENS if info.max_seq_length else ()) + (images if info.vision else ()), outputs, "logits")

    def configs(self, folder: Path, info: EntailmentInfo) -> tuple[EncoderConfig, ...]:
        """Return the text encoder's shape, where there is one."""
        return super().configs(folder, info) if info.max_seq_length else ()

    def encoder(self, folder: Path, info: EntailmentInfo, options: LoadOptions) -> Optional[Any]:
        """Return the pair encoder of a model that looks at texts."""
        return super().encoder(folder, info, options) if info.max_seq_length else None

    def load(self, source: Path, options: LoadOptions) -> Any:
        """Load a trained model, an `EntailmentParts`."""
        from multimodal_entailment.folder import load_entailment

        return load_entailment(source, tokenizer=options.tokenizer)

    def scoring_network(self, parts: Any) -> tuple[Any, tuple[str, ...]]:
        """Return the network from pixels to probabilities."""
        return self.static_network(parts), self.signature(parts.info).output_names

    def static_network(self, parts: Any) -> Any:
        """Return the network from pixels to probabilities, of the inputs that it looks at."""
        from multimodal_entailment.model import pixels_to_probabilities

        return pixels_to_probabilities(parts.network)

    def sample_inputs(self, parts: Any) -> Iterator[Arrays]:
        """Yield texts of many lengths and images, some of them missing."""
        texts = [{}] * (PAIRS // _ROWS) if parts.pair_encoder is None else sample_batches(parts.pair_encoder)
        random = np.random.default_rng(0)
        for batch in texts:
            rows = len(batch["input_ids"]) if batch else _ROWS
            yield {**batch, **(_drawn_images(random, rows, parts.info.image_size) if parts.info.image_size else {})}

    def timing_inputs(self, folder: Path, info: EntailmentInfo, shapes: Sequence[tuple[int, int]]) -> Iterator[Arrays]:
        """Yield made-up texts and images."""
        random = np.random.default_rng(0)
        texts = super().timing_inputs(folder, info, shapes) if info.max_seq_length else iter([{}] * len(shapes))
        for (rows, _), batch in zip(shapes, texts):
            yield {**batch, **(_drawn_images(random, rows, info.image_size) if info.image_size else {})}

    def write_descriptions(self, folder: Path, parts: Any) -> None:
        """Write the text encoder's shape and tokenizer, where the model has one."""
        from multimodal_entailment.folder import write_descriptions

        write_descriptions(folder, parts)

    def write_info(self, folder: Path, parts: Any, info: EntailmentInfo) -> None:
        """Write `entailment.json` and the card."""
        info.write(folder)


def _drawn_images(random: np.random.Generator, rows: int, size: int) -> Arrays:
    shape = (2, rows, 3, size, size)
    # Of many contrasts: plain noise looks the same to a network everywhere.
    levels = random.integers(0, 256, (2, rows, 3, 1, 1)) + random.normal(0, 40, shape)
    present = random.integers(0, 2, (rows, 2)).astype(np.float32)
    first, second = levels.clip(0, 255).astype(np.uint8)
    return {"image_1": first, "image_2": second, "present": present}


ENTAILMENT = KINDS.add(KIND, EntailmentKind())
FOLDERS.add(
    KIND,
    FolderKind(
        ENTAILMENT.is_in,
        "a model of pairs of posts (entailment)",
        "multimodal_entailment/predict.py, evaluate.py and export_model.py take it as --model, and serve as "
        "--entailment_model",
    ),
)
