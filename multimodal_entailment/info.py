"""The contents of `entailment.json`: a model's inputs, its network and how it was trained."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Optional

from paddle_ranker.errors import CheckpointError, brief, listed
from paddle_ranker.model.info import card_tables
from paddle_ranker.model.opened import TOKENS, ArraySpec, ExportFacts, Signature
from paddle_ranker.model.recognised import recognise
from paddle_ranker.storage.atomic import new_file
from paddle_ranker.storage.untrusted import read_json

LABELS = ("Contradictory", "Implies", "NoEntailment")
FORMAT_VERSION = 1
INFO_FILE = "entailment.json"
KIND = "entailment"
_MOST_PIXELS = 4096  # maximum per side: an image of a batch has three bytes per pixel


@dataclass(frozen=True)
class Shape:
    """The options of the network above its two encoders, as stored in the model's folder."""

    fusion: str = "concat"
    joint: bool = True
    compare_images: bool = True
    match_embeddings: bool = True
    dropout: float = 0.1
    modality_dropout: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, JSON-ready."""
        return asdict(self)


@dataclass(frozen=True)
class EntailmentInfo:
    """The contents of `entailment.json`.

    max_seq_length: the maximum length of a pair of texts in tokens; None: the model does not take texts
    vision: the vision encoder's name; None: the model does not take images
    image_size: the size that images are scaled to, in pixels per side; None: the model does not take images
    """

    shape: Shape
    max_seq_length: Optional[int] = None
    vision: Optional[str] = None
    image_size: Optional[int] = None
    labels: tuple[str, ...] = LABELS
    training: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    export: Optional[ExportFacts] = None
    format_version: int = FORMAT_VERSION

    @property
    def kind(self) -> str:
        """Return the kind of model."""
        return KIND

    @property
    def calibration(self) -> None:
        """Return None, since these models have no calibration."""

    @classmethod
    def read(cls, folder: Path) -> EntailmentInfo:
        """Read a folder's `entailment.json`; raises `CheckpointError` if it is missing or not usable."""
        path = folder / INFO_FILE
        if not path.is_file():
            inside = sorted(found.parent.name for found in folder.glob(f"*/{INFO_FILE}"))
            if inside:
                hint = f"did you mean {folder / inside[-1]}?"
            else:
                there = recognise(folder)
                hint = f"it is {there.what}; {there.use}"
            raise CheckpointError(f"{folder}: holds no model of pairs of posts ({INFO_FILE}): {hint}")
        try:
            values = read_json(path)
            if values["format_version"] > FORMAT_VERSION:
                raise CheckpointError(f"{path}: a newer version of the toolkit wrote this: update the toolkit")
            if tuple(values["labels"]) != LABELS:
                raise CheckpointError(f"{path}: has the labels {listed(values['labels'])}, not {', '.join(LABELS)}")
            for name, kind in (("max_seq_length", int), ("image_size", int), ("vision", str), ("export", dict)):
                value = values.get(name)
                if value is not None and (isinstance(value, bool) or not isinstance(value, kind)):
                    raise ValueError(f"{name} is {brief(str(value))}")
            if values.get("export"):
                values["export"].setdefault("files", {})  # older versions did not record them
            values.update(shape=Shape(**values["shape"]), labels=LABELS)
            info = cls(**values)
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path}: damaged ({type(error).__name__}: {error}); copy the folder again"
            ) from error
        if info.max_seq_length is None and info.vision is None:
            raise CheckpointError(f"{path}: damaged (a model of neither texts nor images)")
        size = info.image_size
        if info.vision is not None and not (isinstance(size, int) and 1 <= size <= _MOST_PIXELS):
            raise CheckpointError(f"{path}: damaged (image_size is {brief(str(size))}, expected 1 to {_MOST_PIXELS})")
        return info

    def write(self, folder: Path) -> None:
        """Write `entailment.json` and the card made from it into an existing folder."""
        values = dataclasses.asdict(dataclasses.replace(self, format_version=FORMAT_VERSION))
        with new_file(folder / INFO_FILE) as stream:
            stream.write(json.dumps(values, ensure_ascii=False, indent=2) + "\n")
        with new_file(folder / "README.md") as stream:
            stream.write(_card(self))


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
