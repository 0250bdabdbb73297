"""The static model of an entailment model: its inputs, how it is written, and that it is the model.

| input | is |
| --- | --- |
| `input_ids`, `token_type_ids` | int64 `[batch, length]`; of models that look at texts |
| `image_1`, `image_2` | uint8 `[batch, 3, size, size]`, RGB as decoded; of models that look at images |
| `present` | float32 `[batch, 2]`, 1 where there is an image |

It returns `probabilities` and `logits`, float32 `[batch, 3]`. Scaling and normalising pixels is part of the graph.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn
from paddle.static import InputSpec

from multimodal_entailment.data import LABELS
from multimodal_entailment.examples import Batch
from multimodal_entailment.folder import INFO_FILE, EntailmentInfo, EntailmentParts, write_descriptions
from multimodal_entailment.model import EntailmentNetwork
from paddle_ranker.errors import CheckpointError, RankerError
from paddle_ranker.export.parity import PAIRS, TOLERANCES, parity_batches
from paddle_ranker.export.static_graph import program_file, write_static_model
from paddle_ranker.export.static_model import StaticModel
from paddle_ranker.storage.atomic import UNFINISHED, make_folder, new_folder, remove_unfinished

TEXT_INPUTS = ("input_ids", "token_type_ids")
IMAGE_INPUTS = ("image_1", "image_2", "present")
OUTPUTS = ("probabilities", "logits")
PREFIX = "inference"
_ROWS = 6  # pairs of a batch of images to compare on


class _Static(nn.Layer):
    """What is exported: the network from pixels to probabilities."""

    def __init__(self, network: EntailmentNetwork):
        super().__init__()
        self.network = network

    def _outputs(
        self, ids: Optional[Tensor], types: Optional[Tensor], images: Optional[tuple[Tensor, Tensor]],
        present: Optional[Tensor],
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        regions = None if images is None else (self.network.regions(images[0]), self.network.regions(images[1]))
        logits = self.network(ids, types, regions, present)
        return F.softmax(logits, axis=-1), logits


class _OfBoth(_Static):
    def forward(
        self, input_ids: Tensor, token_type_ids: Tensor, image_1: Tensor, image_2: Tensor, present: Tensor
    ) -> tuple[Tensor, Tensor]:
        return self._outputs(input_ids, token_type_ids, (image_1, image_2), present)


class _OfTexts(_Static):
    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> tuple[Tensor, Tensor]:
        return self._outputs(input_ids, token_type_ids, None, None)


class _OfImages(_Static):
    def forward(self, image_1: Tensor, image_2: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        return self._outputs(None, None, (image_1, image_2), present)


def inputs_of(info: EntailmentInfo) -> tuple[str, ...]:
    """Return the names of the static model's inputs, in order."""
    return (TEXT_INPUTS if info.max_seq_length else ()) + (IMAGE_INPUTS if info.vision else ())


def arrays_of(batch: Batch) -> list[np.ndarray]:
    """Return a batch of pixels as the static model takes it."""
    arrays = [] if batch.input_ids is None else [batch.input_ids, batch.token_type_ids]
    if batch.images is not None and batch.present is not None:
        half = len(batch.present)
        arrays += [batch.images[:half], batch.images[half:], batch.present]
    return arrays  # type: ignore[return-value]


@dataclass(frozen=True)
class StaticParity:
    """The largest absolute differences of the static model from the network over `pairs` pairs."""

    pairs: int
    probabilities: float
    logits: float


def export_entailment(parts: EntailmentParts, output: Path) -> tuple[list[Path], StaticParity]:
    """Write a model's static model into the folder `output`, which appears whole or not at all.

    Returns its files, and how far it was from the network. Raises `RankerError` where it differs, or `output` holds
    anything but an older export.
    """
    output = output.resolve()
    _require_replaceable(output)
    remove_unfinished(make_folder(output.parent))
    kind = _OfBoth if parts.info.vision and parts.info.max_seq_length else _OfImages if parts.info.vision else _OfTexts
    parts.network.eval()
    batches = list(_parity_batches(parts))
    with new_folder(output, replace=True) as temporary:
        expected = _network_outputs(kind(parts.network), batches)
        # Another one: what Paddle has made static once computes by its graph ever after.
        write_static_model(kind(parts.network), temporary / PREFIX, _specs(parts.info), OUTPUTS)
        write_descriptions(temporary, parts)
        model = open_static(temporary, parts.info)
        parity = _compare(expected, batches, model)
        facts: dict[str, Any] = {
            "prefix": PREFIX,
            "paddle": paddle.__version__,
            "inputs": list(inputs_of(parts.info)),
            "outputs": list(OUTPUTS),
            "parity": asdict(parity),
        }
        dataclasses.replace(parts.info, export=facts).write(temporary)
    return [program_file(output, PREFIX), output / f"{PREFIX}.pdiparams"], parity


def open_static(folder: Path, info: EntailmentInfo, threads: int = 1) -> StaticModel:
    """Load the static model of a folder; raises `CheckpointError` where its files are missing or not readable here."""
    parameters = folder / f"{PREFIX}.pdiparams"
    if not parameters.is_file() or not any(folder.glob(f"{PREFIX}.*[ln]")):
        raise CheckpointError(f"{folder}: the static model's files are missing; export the model again")
    return StaticModel(program_file(folder, PREFIX), parameters, inputs_of(info), threads)


def _specs(info: EntailmentInfo) -> list[InputSpec]:
    pixels = [None, 3, info.image_size, info.image_size]
    kinds = {
        **{name: ([None, None], "int64") for name in TEXT_INPUTS},
        "image_1": (pixels, "uint8"),
        "image_2": (pixels, "uint8"),
        "present": ([None, 2], "float32"),
    }
    return [InputSpec(*kinds[name], name) for name in inputs_of(info)]


def _parity_batches(parts: EntailmentParts) -> Iterator[list[np.ndarray]]:
    """Yield inputs of many lengths and images, some of them missing."""
    random = np.random.default_rng(0)
    texts: list[Sequence[np.ndarray]]
    if parts.pair_encoder is not None:
        texts = [*parity_batches(parts.pair_encoder)]
    else:
        texts = [()] * (PAIRS // _ROWS)
    for batch in texts:
        arrays, rows = list(batch), len(batch[0]) if batch else _ROWS
        if parts.info.image_size:
            shape = (2, rows, 3, parts.info.image_size, parts.info.image_size)
            # Of many contrasts: plain noise looks the same to a network everywhere.
            levels = random.integers(0, 256, (2, rows, 3, 1, 1)) + random.normal(0, 40, shape)
            present = random.integers(0, 2, (rows, 2)).astype(np.float32)
            arrays += [*levels.clip(0, 255).astype(np.uint8), present]
        yield arrays


@paddle.no_grad()
def _network_outputs(network: nn.Layer, batches: Sequence[list[np.ndarray]]) -> list[list[np.ndarray]]:
    network.eval()
    return [[tensor.numpy() for tensor in network(*map(paddle.to_tensor, batch))] for batch in batches]


def _compare(
    expected: Sequence[list[np.ndarray]], batches: Sequence[list[np.ndarray]], model: StaticModel
) -> StaticParity:
    """Compare the outputs of all batches, and of the first pair of each alone."""
    largest = dict.fromkeys(OUTPUTS, 0.0)
    for batch, wanted in zip(batches, expected):
        for rows in (len(batch[0]), 1):
            found = model.outputs(*(array[:rows] for array in batch))
            for name, tolerance, ours, theirs in zip(OUTPUTS, TOLERANCES.values(), wanted, found):
                gap = np.abs(ours[:rows].astype(np.float64) - theirs)
                largest[name] = max(largest[name], float(gap.max()))
                if (
                    theirs.shape != (rows, len(LABELS))
                    or not (gap <= tolerance * np.maximum(1.0, np.abs(ours[:rows]))).all()
                ):
                    raise RankerError(
                        f"the static model's {name} differ from the network's by {gap.max():.2g} (allowed: "
                        f"{tolerance:g}); nothing was written. Run python -m paddle_ranker doctor, and report it with "
                        "its output"
                    )
    return StaticParity(sum(len(batch[0]) for batch in batches), *largest.values())


_OWN_FILES = {"README.md", INFO_FILE, "config.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json"}


def _require_replaceable(output: Path) -> None:
    if not output.exists():
        return
    if not output.is_dir():
        raise RankerError(f"{output}: is a file; choose another --output_dir")
    own = {*_OWN_FILES, *(f"{PREFIX}.{ending}" for ending in ("json", "pdmodel", "pdiparams"))}
    foreign = sorted(path.name for path in output.iterdir() if path.name not in own and UNFINISHED not in path.name)
    if foreign:
        raise RankerError(
            f"{output}: holds {foreign[0]}, which is not of an export and would be lost; choose another --output_dir, "
            "or move it away"
        )
