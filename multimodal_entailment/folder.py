"""A trained model's folder: everything that evaluation, prediction and export need, and nothing else.

| file | holds |
| --- | --- |
| `model_state.pdparams` | the parameters, of both encoders too |
| `entailment.json` | what the model looks at and how it is put together, how it was trained and with what result |
| `config.json`, `vocab.txt`, ... | the text encoder's shape and tokenizer, where it looks at texts |
| `README.md` | the same for people |
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from multimodal_entailment.data import LABELS
from multimodal_entailment.model import EntailmentNetwork, Shape, TextEncoder
from paddle_ranker.encoding.pair_encoder import PairEncoder, make_pair_encoder, never_match_ids
from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.config import read_config, write_config
from paddle_ranker.model.parameters import PARAMETERS_FILE, load_arrays, save_arrays
from paddle_ranker.storage.atomic import new_file

FORMAT_VERSION = 1
INFO_FILE = "entailment.json"


@dataclass(frozen=True)
class EntailmentInfo:
    """What `entailment.json` holds.

    max_seq_length: tokens of the pair of texts; None: the model does not look at texts
    vision: the vision encoder's name; None: it does not look at images
    image_size: what images are made, in pixels
    """

    shape: Shape
    max_seq_length: Optional[int] = None
    vision: Optional[str] = None
    image_size: Optional[int] = None
    labels: tuple[str, ...] = LABELS
    training: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    export: Optional[dict[str, Any]] = None
    format_version: int = FORMAT_VERSION

    @classmethod
    def read(cls, folder: Path) -> EntailmentInfo:
        """Read a folder's `entailment.json`; raises `CheckpointError` where there is none, or it is not usable."""
        path = folder / INFO_FILE
        if not path.is_file():
            inside = sorted(found.parent.name for found in folder.glob(f"*/{INFO_FILE}"))
            hint = f"; did you mean {folder / inside[-1]}?" if inside else "; train one with train.py"
            raise CheckpointError(f"{folder}: holds no model of pairs of posts ({INFO_FILE}){hint}")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values["format_version"] > FORMAT_VERSION:
                raise CheckpointError(f"{path}: a newer version of the toolkit wrote this: update the toolkit")
            if tuple(values["labels"]) != LABELS:
                raise CheckpointError(f"{path}: has the labels {', '.join(values['labels'])}, not {', '.join(LABELS)}")
            values.update(shape=Shape(**values["shape"]), labels=LABELS)
            info = cls(**values)
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path}: damaged ({type(error).__name__}: {error}); copy the folder again"
            ) from error
        if info.max_seq_length is None and info.vision is None:
            raise CheckpointError(f"{path}: damaged (a model of neither texts nor images)")
        return info

    def write(self, folder: Path) -> None:
        """Write `entailment.json` and the card made from it into an existing folder."""
        values = dataclasses.asdict(self)
        with new_file(folder / INFO_FILE) as stream:
            stream.write(json.dumps(values, ensure_ascii=False, indent=2) + "\n")
        with new_file(folder / "README.md") as stream:
            stream.write(_card(self))


@dataclass(frozen=True)
class EntailmentParts:
    """A model in memory; `pair_encoder` is None where it does not look at texts."""

    network: EntailmentNetwork
    pair_encoder: Optional[PairEncoder]
    info: EntailmentInfo


def save_entailment(folder: Path, parts: EntailmentParts) -> None:
    """Write a model into an existing folder; wrap it in `atomic.new_folder`."""
    save_arrays(parts.network.state_dict(), folder / PARAMETERS_FILE)
    write_descriptions(folder, parts)
    parts.info.write(folder)


def write_descriptions(folder: Path, parts: EntailmentParts) -> None:
    """Write the text encoder's shape and tokenizer into an existing folder, where the model has one."""
    if parts.network.text is not None and parts.pair_encoder is not None:
        write_config(folder, parts.network.text.config)
        parts.pair_encoder.save(folder)


def load_entailment(folder: Path, *, tokenizer: str = "auto") -> EntailmentParts:
    """Load a model; raises `CheckpointError` where anything that predictions depend on is missing or does not fit."""
    folder = Path(folder)
    info = EntailmentInfo.read(folder)
    if not (folder / PARAMETERS_FILE).is_file():
        remedy = "predict.py runs it" if info.export else "copy it again"
        raise CheckpointError(f"{folder}: there is no {PARAMETERS_FILE} in it; {remedy}")
    text = pair_encoder = vision = None
    if info.max_seq_length is not None:
        pair_encoder = load_pair_encoder(folder, info, tokenizer)
        config = read_config(folder)
        assert config is not None
        text = TextEncoder(config, never_match_ids(pair_encoder) if info.shape.match_embeddings else None)
    if info.vision is not None:
        from multimodal_entailment.vision import make_vision_encoder

        vision = make_vision_encoder(info.vision, None)
    network = EntailmentNetwork(text, vision, info.shape)
    _set(network, folder / PARAMETERS_FILE)
    return EntailmentParts(network, pair_encoder, info)


def load_pair_encoder(folder: Path, info: EntailmentInfo, tokenizer: str = "auto") -> PairEncoder:
    """Return the pair encoder of a model that looks at texts."""
    config = read_config(folder)
    if config is None:
        raise CheckpointError(f"{folder}: has no config.json; copy the folder again")
    assert info.max_seq_length is not None
    try:
        return make_pair_encoder(folder, config, info.max_seq_length, tokenizer)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from error


def _set(network: EntailmentNetwork, path: Path) -> None:
    arrays, state = load_arrays(path), network.state_dict()
    wrong = sorted(set(state) ^ set(arrays)) or [
        name for name in state if list(state[name].shape) != list(arrays[name].shape)
    ]
    if wrong:
        raise CheckpointError(f"{path}: {wrong[0]} is missing, left over or of another shape: copy the folder again")
    for name, tensor in state.items():
        tensor.set_value(arrays[name])


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
    for title, values in (("Results", info.results), ("Training", info.training), ("Versions", info.versions)):
        if values:
            lines += ["", f"## {title}", "", "| | |", "| --- | --- |"]
            lines += [f"| {name} | {_cell(value)} |" for name, value in values.items()]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    text = f"{value:.5g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|")
