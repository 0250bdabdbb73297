"""Gates, which measure whether a model in 8-bit integers is good enough; and the options of `quantize`.

Importing this module does not import Paddle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional, Protocol, runtime_checkable

from paddle_ranker.array_types import Arrays
from paddle_ranker.model.model_options import CheckpointOptions
from paddle_ranker.options import LabelOptions, ThreadOptions, option, redeclare
from paddle_ranker.options.input_files import base_names
from paddle_ranker.scoring.scoring_options import BatchOptions
from paddle_ranker.storage.digest import content_digest

if TYPE_CHECKING:
    from paddle_ranker.metrics.intervals import Interval
    from paddle_ranker.model.exported import ExportedFolder
    from paddle_ranker.scoring.engines.engine import Engine


@dataclass(frozen=True)
class QuantizeOptions(BatchOptions, LabelOptions, ThreadOptions):
    """Options of the command `quantize`."""

    batch_size: int = redeclare(BatchOptions, "batch_size", 32)
    model_dir: str = option(
        help="folder of an exported ranker; the int8 file is written into it", name="model", leads=True
    )
    calibration_file: str = option(
        help="pairs (query, title) like those to score, from which the activations' ranges are taken", files=True
    )
    eval_file: str = option(
        help="labelled pairs (query, title, label) for measuring the loss; for a tower also pairs without labels",
        name="test",
        files=True,
    )
    max_loss: float = option(
        0.005,
        help="maximum loss of AUC, nDCG@10 or a tower's Recall@10; if it is exceeded, nothing is written",
        minimum=0.0,
        maximum=1.0,
    )
    calibration_pairs: int = option(512, help="number of pairs to draw from the calibration file", minimum=1)
    weight_bits: Optional[int] = option(
        None,
        help="bits of a weight: 8, or 7 for processors without VNNI (default: by this processor)",
        choices=(7, 8),
    )
    seconds: float = option(10.0, help="seconds for measuring the speed, shared among engines and precisions", above=0)
    max_seq_length: Optional[int] = redeclare(CheckpointOptions, "max_seq_length")
    seed: int = option(1000, help="seed of the draws", minimum=0)


@dataclass(frozen=True)
class Quality:
    """Value of a measure of a model in fp32, and of the same model in int8 on one engine.

    engine: name of the engine that computed in int8
    measure: name of the measure
    before, after: value of the measure in fp32, and in int8
    difference: `after` minus `before`, with its confidence interval
    moved: root mean square of the outputs' changes from fp32 to int8, divided by the outputs' standard deviation
    """

    engine: str
    measure: str
    before: float
    after: float
    difference: Interval
    moved: float


class Gate(Protocol):
    """Test of whether a model in integers is good enough; the option `max_loss` limits its loss of quality.

    Attributes:
        calibration: batches from which the activations' ranges are taken.
        rows: the word for one row in messages, such as "pair".
        outputs: the word in messages for the outputs that `Quality.moved` compares, such as "logits".
        draws: the word in messages for what is resampled to compute the intervals, such as "queries".
        facts: the facts to store with the measures: the files, the longest row.
    """

    @property
    def calibration(self) -> Sequence[Arrays]: ...

    @property
    def rows(self) -> str: ...

    @property
    def outputs(self) -> str: ...

    @property
    def draws(self) -> str: ...

    @property
    def facts(self) -> dict[str, object]: ...

    def judge(self, fp32: Engine, int8: Engine) -> list[Quality]:
        """Return the measures of an engine in integers, compared with an engine in fp32."""
        ...


@runtime_checkable
class Gated(Protocol):
    """Kind of model with a gate; `paddle-ranker quantize` takes its folders."""

    def gate(self, folder: ExportedFolder, options: QuantizeOptions) -> Gate: ...


def file_facts(path: str, pairs: int) -> dict[str, object]:
    """Return facts about a file that was used to quantize a model; they are stored in the model's folder.

    pairs: number of the file's pairs that were used
    """
    return {"file": base_names(path), "sha256": content_digest(path), "pairs": pairs}
