"""Contents of `ranker.json` and of the model card: facts about a ranker and its training. Needs no Paddle."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Optional, TypedDict

from paddle_ranker.array_types import Array
from paddle_ranker.errors import CheckpointError, brief
from paddle_ranker.metrics.calibration import FEW_QUERIES, Calibration
from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.model_kind import ExportFacts
from paddle_ranker.storage.atomic import new_file
from paddle_ranker.storage.declared import Between, Count, Length, OneOf, WidthOrNone, read_declared
from paddle_ranker.storage.untrusted import read_versioned

FORMAT_VERSION = 1
INFO_FILE = "ranker.json"
BLEND = "blend"  # the kind of a folder that holds several rankers: `paddle_ranker.model.blend`
_MOST_STEPS = Between(0, 100)


class BlendFacts(TypedDict):
    """Entry `blend` of `ranker.json`: the names of the members' folders, the members' weights, and the bias."""

    members: list[str]
    weights: list[float]
    bias: float


@dataclass(frozen=True)
class RankerInfo:
    """Contents of `ranker.json`: facts about a ranker, and how it scores."""

    kind: str  # pairwise | cross_encoder | blend
    max_seq_length: Length
    match_embeddings: bool
    training: dict[str, object] = field(default_factory=dict)
    results: dict[str, object] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    calibration: Optional[Calibration] = None  # probability = sigmoid(logit) without one
    format_version: Count = FORMAT_VERSION
    lexical_features: bool = False
    similarity: bool = False
    blend: Optional[BlendFacts] = None
    export: Optional[ExportFacts] = None  # of a static model: `paddle_ranker.model.exported`
    query_prompt: str = ""  # precedes every query
    pooling: Annotated[str, OneOf("", "first", "mean", "max", "last")] = ""  # "": the encoder's own pooling
    # Steps from the pooled vector to the logit: ("norm", width), ("normalize", 0), or the activation and the width of a
    # linear layer; the last is the head.
    steps: Annotated[tuple[tuple[str, WidthOrNone], ...], _MOST_STEPS] = ()
    stored_titles: Count = 0  # number of the encoder's first layers in which a text attends only to itself; 0: none
    stored_width: WidthOrNone = 0  # width of the states after these layers; 0: the encoder's width

    @classmethod
    def read(cls, folder: Path) -> Optional[RankerInfo]:
        """Return the contents of the folder's `ranker.json`; None without this file, as in published checkpoints.

        Raises `CheckpointError` if the file is damaged, or another version of the toolkit wrote it.
        """
        path = folder / INFO_FILE
        if not path.is_file():
            return None
        return read_declared(cls, path, read_versioned(path, FORMAT_VERSION))

    def to_json(self) -> str:
        """Return the text of `ranker.json`."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False, indent=2) + "\n"

    def write(self, folder: Path, config: EncoderConfig) -> None:
        """Write `ranker.json` and the model card into `folder`, each atomically."""
        with new_file(folder / INFO_FILE) as stream:
            stream.write(self.to_json())
        with new_file(folder / "README.md") as stream:
            stream.write(model_card(self, config))


# Names of the heads in checkpoints of the published scripts, which state their kind in no other way.
PUBLISHED_HEADS = {
    "similarity.weight": "pairwise",
    "classifier.weight": "cross_encoder",
    "classifier.out_proj.weight": "cross_encoder",  # of PaddleNLP's RoBERTa
}
# Prefix of the names in checkpoints of the published recall scripts, which have none of these heads.
PUBLISHED_TOWER = "ptm."


def heads_of_many_classes(arrays: Mapping[str, Array]) -> list[str]:
    """Return the names of the weights of published heads that tell more than two classes apart, and so cannot rank."""
    return [name for name in PUBLISHED_HEADS if name in arrays and max(arrays[name].shape[1:], default=0) > 2]


def blend_of(folder: Path, info: RankerInfo) -> BlendFacts:
    """Return the facts of a blend; raises `CheckpointError` if its `ranker.json` is damaged."""
    names, weights = (info.blend["members"], info.blend["weights"]) if info.blend else ([], [])
    # Names, not paths: a foreign folder must not reach outside itself.
    if info.blend is None or not len(names) == len(weights) > 0 or any(Path(name).name != name for name in names):
        raise CheckpointError(f"{folder / INFO_FILE}: damaged (blend is {brief(str(info.blend))})")
    return info.blend


def model_card(info: RankerInfo, config: EncoderConfig) -> str:
    """Return a ranker's model card: description, usage, training, data and results."""
    kind = info.kind.replace("_", "-")
    lines = [
        f"# {kind} ranker",
        "",
        f"Scores how well a title answers a query. {config.num_hidden_layers} layers, {config.hidden_size} wide, "
        f"{config.vocab_size:,} word pieces, pairs of up to {info.max_seq_length} tokens"
        f"{', exact-match embeddings' if info.match_embeddings else ''}"
        f"{', the cosine of both texts by a frozen encoder' if info.similarity else ''}.",
        "",
        "```python",
        "from paddle_ranker import Ranker",
        "",
        'Ranker.load("this folder").rank("a query", ["a title", "another title"], top_k=1)',
        "```",
        "",
        _probability(info.calibration),
    ]
    lines += card_tables(Results=info.results, Training=info.training, Versions=info.versions)
    return "\n".join(lines) + "\n"


def card_tables(**sections: Mapping[str, object]) -> list[str]:
    """Return the lines of a model card's sections, each a table of names and values; empty sections are left out."""
    lines = []
    for title, values in sections.items():
        if values:
            lines += ["", f"## {title}", "", "| | |", "| --- | --- |"]
            lines += [f"| {name} | {_cell(value)} |" for name, value in values.items()]
    return lines


def _probability(calibration: Optional[Calibration]) -> str:
    """Return the sentence of a model card that says what a score means."""
    if calibration is None:
        return (
            "Not calibrated: a score orders titles, and need not be the share of relevant ones among titles that score "
            "like it. `paddle-ranker calibrate` makes it so."
        )
    data, figures = calibration.fitted_on, calibration.figures
    text = f"Calibrated ({calibration.method}): probability = {calibration}"
    if {"pairs", "queries"} <= set(data):
        text += f", fitted on {data['pairs']:,} pairs of {data['queries']:,} queries"
    if {"as_trained", "out_of_fold"} <= set(figures):
        before, after = figures["as_trained"], figures["out_of_fold"]
        text += (
            f". Expected calibration error {before['calibration_error']:.4f} as trained, "
            f"{after['calibration_error']:.4f} on queries that the fit has not seen"
        )
        if "error_interval" in figures:
            low, high = figures["error_interval"]
            text += f" (95% over queries: {low:.4f} to {high:.4f})"
    if data.get("queries", FEW_QUERIES) < FEW_QUERIES:
        text += f". So few queries do not tell whether that helps on others: calibrate on {FEW_QUERIES} or more"
    return text + "."


def _cell(value: object) -> str:
    text = f"{value:.5g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|")
