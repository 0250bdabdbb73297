"""The contents of `entailment.json`: a model's inputs, its network and how it was trained."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

from paddle_ranker.errors import CheckpointError, listed
from paddle_ranker.model.config import Share
from paddle_ranker.model.info import card_tables
from paddle_ranker.model.model_folder import Role
from paddle_ranker.model.model_kind import TOKENS, ArraySpec, ExportFacts, Signature
from paddle_ranker.storage.atomic import new_file
from paddle_ranker.storage.declared import Between, Count, Length, OneOf, read_declared
from paddle_ranker.storage.untrusted import read_versioned

if TYPE_CHECKING:
    from multimodal_entailment.posts import PostEncoder

KIND = "entailment"  # name of the kind of model
FUSIONS = ("concat", "dot_attention", "multihead")
LABELS = ("Contradictory", "Implies", "NoEntailment")
FORMAT_VERSION = 1
INFO_FILE = "entailment.json"
_MOST_PIXELS = 4096  # maximum per side: an image of a batch has three bytes per pixel


@dataclass(frozen=True)
class Shape:
    """The options of the network above its two encoders, as stored in the model's folder."""

    fusion: Annotated[str, OneOf(*FUSIONS)] = "concat"
    joint: bool = True
    compare_images: bool = True
    match_embeddings: bool = True
    dropout: Share = 0.1
    modality_dropout: Share = 0.0


@dataclass(frozen=True)
class EntailmentInfo:
    """The contents of `entailment.json`.

    max_seq_length: the maximum length of a pair of texts in tokens; None: the model does not take texts
    vision: the vision encoder's name; None: the model does not take images
    image_size: the size that images are scaled to, in pixels per side; None: the model does not take images
    """

    shape: Shape
    max_seq_length: Optional[Length] = None
    vision: Optional[str] = None
    image_size: Optional[Annotated[int, Between(1, _MOST_PIXELS)]] = None
    labels: tuple[str, ...] = LABELS
    training: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    export: Optional[ExportFacts] = None
    format_version: Count = FORMAT_VERSION

    @property
    def kind(self) -> str:
        return KIND

    @property
    def calibration(self) -> None:
        """Return None, since these models have no calibration."""

    @classmethod
    def read(cls, folder: Path) -> EntailmentInfo:
        """Read a folder's `entailment.json`; raises `CheckpointError` if it is missing or not usable."""
        path = folder / INFO_FILE
        if not path.is_file():
            raise CheckpointError(f"{folder}: has no {INFO_FILE}; copy the folder again")
        return read_declared(cls, path, read_versioned(path, FORMAT_VERSION))

    def __post_init__(self) -> None:
        if tuple(self.labels) != LABELS:
            raise CheckpointError(f"labels are {listed(self.labels)}, expected {', '.join(LABELS)}")
        if self.max_seq_length is None and self.vision is None:
            raise CheckpointError("a model of neither texts nor images")
        if (self.vision is None) != (self.image_size is None):
            raise CheckpointError(f"image_size is {self.image_size}, and vision is {self.vision}")

    def write(self, folder: Path) -> None:
        """Write `entailment.json` and the card made from it into an existing folder."""
        with new_file(folder / INFO_FILE) as stream:
            stream.write(json.dumps(dataclasses.asdict(self), ensure_ascii=False, indent=2) + "\n")
        with new_file(folder / "README.md") as stream:
            stream.write(_card(self))


ENTAILMENT: Role[EntailmentInfo, PostEncoder] = Role(
    KIND, "a model of pairs of posts", lambda model_type: model_type.name == KIND
)


def signature_of(info: EntailmentInfo) -> Signature:
    """Return the inputs that a model takes, and its outputs."""
    pixels = (None, 3, info.image_size, info.image_size)
    images = (
        ArraySpec("image_1", "uint8", pixels),
        ArraySpec("image_2", "uint8", pixels),
        ArraySpec("present", "float32", (None, 2)),
    )
    outputs = (
        ArraySpec("probabilities", "float32", (None, len(LABELS)), tolerance=1e-5),
        ArraySpec("logits", "float32", (None, len(LABELS)), may_round=True),
    )
    return Signature((TOKENS if info.max_seq_length else ()) + (images if info.vision else ()), outputs, ("logits",))


def _card(info: EntailmentInfo) -> str:
    sees = [f"texts of up to {info.max_seq_length} tokens"] if info.max_seq_length else []
    sees += [f"images of {info.image_size} x {info.image_size} pixels ({info.vision})"] if info.vision else []
    lines = [
        "# Entailment between two posts",
        "",
        f"Says whether the second post follows from the first ({', '.join(info.labels)}). Looks at "
        f"{' and '.join(sees)}.",
        "",
        "```python",
        "from multimodal_entailment.entailment_scorer import Entailment",
        "",
        'Entailment.load("this folder").predict(["text one"], ["one.jpg"], ["text two"], ["two.jpg"])',
        "```",
    ]
    lines += card_tables(Results=info.results, Training=info.training, Versions=info.versions)
    return "\n".join(lines) + "\n"
