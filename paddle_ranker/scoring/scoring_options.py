"""Options of commands that score with a ranker; this module is imported before Paddle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

from paddle_ranker.encoding.window_options import WINDOWS, WindowOptions
from paddle_ranker.errors import UsageError, quoted
from paddle_ranker.model.load_options import POOLINGS as TOWER_POOLINGS
from paddle_ranker.model.model_options import CheckpointOptions, HeadOptions
from paddle_ranker.options import DeviceOptions, Options, RayOptions, RowOptions, given_of, note_without_effect, option
from paddle_ranker.options.declare import FETCHED, FETCHED_FOLDER, TAKEN, shown_name
from paddle_ranker.registry import Registry
from paddle_ranker.scoring.engines.engine_registry import ENGINES, exported_engines
from paddle_ranker.scoring.engines.precisions import PRECISIONS

if TYPE_CHECKING:
    from paddle_ranker.data.rows.records import Pair

# Options that have no effect without a model.
OF_MODEL = ("engine", "precision", "tensorrt", "max_seq_length", "model_name_or_path", "positive_label", *WINDOWS)


def engine_help() -> str:
    exported = ", ".join(f"{name} ({ENGINES[name].runs})" for name in exported_engines())
    return (
        f"runtime of the model: dygraph, {ENGINES['dygraph'].runs}; {exported}, of an exported one; auto, "
        f"{ENGINES['auto'].runs} (default: dygraph for a trained ranker, inference for an exported one)"
    )


@dataclass(frozen=True)
class BatchOptions(Options):
    """Options of every command that scores pairs in batches."""

    batch_size: int = option(
        256, help="most pairs or texts of maximum length per batch; a CPU takes fewer", minimum=1, shared=True
    )


@dataclass(frozen=True)
class EngineOptions(BatchOptions, DeviceOptions):
    """Options of commands that compute with a model in a chosen engine."""

    engine: Optional[str] = option(None, help=engine_help, choices=ENGINES)
    precision: str = option(
        "fp32",
        help="precision of the matrix products; other than fp32 needs an exported model, or a GPU",
        choices=PRECISIONS,
    )


@dataclass(frozen=True)
class RankerOptions(WindowOptions, BatchOptions, CheckpointOptions, HeadOptions, RowOptions, DeviceOptions):
    """Options of every command that scores with a ranker, in any engine."""


@dataclass(frozen=True)
class ScoringOptions(EngineOptions, RankerOptions):
    """Options of evaluation and prediction."""

    tensorrt: bool = option(
        False,
        help="compile an exported ranker with TensorRT, in Paddle Inference on a GPU",
        aliases=("--use_tensorrt",),
    )


@dataclass(frozen=True)
class PoolingOptions(Options):
    """Options of every command that opens an encoder as a tower."""

    pooling: Optional[str] = option(
        None,
        help="pooling, if the encoder's folder does not state it (default: printed at the start)",
        choices=TOWER_POOLINGS,
    )
    normalize: Optional[bool] = option(None, help="scale vectors to length 1 (default: as the folder states)")


@dataclass(frozen=True)
class TowerOptions(PoolingOptions, CheckpointOptions, EngineOptions, RowOptions):
    """Options of every command that makes vectors of texts."""


@dataclass(frozen=True)
class PublishedEngineOptions(Options):
    """Options of the published scripts for static models that have no effect here."""

    enable_mkldnn: Optional[bool] = option(None, help="accepted without effect: oneDNN is used wherever it is faster")
    benchmark: Optional[bool] = option(None, help="accepted without effect: python -m benchmarks measures speed")
    save_log_path: Optional[str] = option(None, help="accepted without effect, likewise")

    def note_unused(self) -> None:
        """Note which of these options are given."""
        note_without_effect(
            self, ("enable_mkldnn", "benchmark", "save_log_path"), "the engine decides, and logs nothing"
        )


@dataclass(frozen=True)
class FileOptions(ScoringOptions):
    """Options of commands that score a file."""

    input_file: str = option(
        help="pairs to score: query, title; - for standard input",
        name="input",
        aliases=("--test_set",),
        files=True,
    )
    min_probability: Optional[float] = option(
        None, help="leave out titles below this probability, and report their number", minimum=0, maximum=1
    )


@dataclass(frozen=True)
class PredictOptions(FileOptions):
    """Options of prediction."""

    params_path: str = option(
        help="the ranker: a model folder, its model_state.pdparams, the folder of an exported ranker, or a name, "
        "OWNER/MODEL, of the Hugging Face hub",
        name="model",
        leads=True,
        addresses=FETCHED_FOLDER,
    )


CASCADE_HELP = (
    "SMALL_RANKER:20, a small ranker ranks all titles of a query, and the ranker scores only the first 20; the "
    "others stay below these, in the small ranker's order"
)


TITLES = "titles"
# What scores pairs by the folder that `--store` names: yields each pair of the input file with its probability.
BY_STORE: Registry[Callable[[PredictOptions, str], Iterator[tuple[Pair, float]]]] = Registry(
    "store of titles", "--store", recipes="stores"
)


@dataclass(frozen=True)
class RankingOptions(PredictOptions):
    """Options of commands that rank the titles of each query."""

    cascade: Optional[str] = option(None, help=CASCADE_HELP)
    store: Optional[str] = option(
        None,
        help="folder that `paddle-ranker store` made with this ranker: stored titles are not computed again, and other "
        "titles as ever",
        addresses=FETCHED,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.store is not None and TITLES not in BY_STORE:
            raise UsageError(f"--store {quoted(self.store)}: this installation has no stored titles; leave it out")
        for field in given_of(self, ("cascade", *WINDOWS)) if self.store is not None else ():
            raise UsageError(
                f"--store {self.store}: leave out {shown_name(field)}, which reads whole pairs, or --store"
            )


@dataclass(frozen=True)
class PrintingOptions(RankingOptions, RayOptions):
    """Options of commands that print a line for each scored pair."""

    output_file: Optional[str] = option(
        None,
        help="with --ray: folder to write the lines to, in parts; a killed run goes on there",
        name="output",
        addresses=TAKEN,
    )
    topk: Optional[int] = option(
        None,
        help="print at most this many titles of each query, best first (default: every pair, in the order of the file)",
        minimum=1,
        name="top_k",
    )
    format: str = option("dict", help="format of a line: dict, as in the tutorial, or json", choices=("dict", "json"))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cascade is not None and self.topk is None:
            raise UsageError("--cascade ranks the titles of each query: add --top_k 10")
        if self.ray is None and self.output_file is not None:
            raise UsageError(
                f"--output {self.output_file}: is for --ray; without it, write `> FILE` behind the command"
            )
        if self.ray is not None:
            if self.output_file is None:
                raise UsageError(f"--ray {self.ray}: the lines go into a folder; name it with --output")
            if self.input_file == "-":
                raise UsageError("--input -: actors cannot read this process's input; name files")
            if self.cascade is not None:
                raise UsageError("--cascade holds all titles of a query: leave it out, or leave out --ray")
            if self.store is not None:
                raise UsageError(f"--store {self.store}: actors score whole pairs: leave it out, or leave out --ray")
