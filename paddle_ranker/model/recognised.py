"""Recognise a folder: what kind of model is in it, and which commands take that; read without Paddle.

Kinds of folders are in the registry `FOLDERS`; recipes add theirs. The errors about a folder that is not of the kind
that a command takes are made here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional

from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.hugging_face.read import find_encoder
from paddle_ranker.model.info import BLEND, INFO_FILE, RankerInfo
from paddle_ranker.model.parameters import PARAMETERS_FILE
from paddle_ranker.registry import Registry

STATIC_PARAMETERS = ".pdiparams"
RANKER_WANTED = "a trained ranker"
_ENCODER = "an encoder without a ranking head (a starter, or a pretrained model)"
_TRAIN = (
    "train a ranker from it: ernie_matching/train_pairwise.py or cross_encoder/train_ce.py --model_name_or_path FOLDER"
)
_SCORE = "prediction, evaluation, rank, compare and serve take it"
_BEST_FIRST = ("best", "last")


@dataclass(frozen=True)
class FolderKind:
    """A kind of folder.

    is_in: says of a folder that is there whether it is of this kind
    what: what it is, after "is": "a trained ranker"
    use: what to do with it, or which commands take it; FOLDER stands for its path
    """

    is_in: Callable[[Path], bool]
    what: str
    use: str


# From the general to the particular: the last one is asked first, so that what plugins add comes before all of these.
FOLDERS: Registry[FolderKind] = Registry("kind of folder", recipes="kind")


@dataclass(frozen=True)
class Recognised:
    """What a folder is: its kind's name in `FOLDERS`, "" where it is none of them, and what there is to say of it."""

    name: str
    what: str
    use: str


def recognise(folder: Path) -> Recognised:
    """Return what a folder is, also where it is empty, holds no model or is not there."""
    if not folder.is_dir():
        found = "a file" if folder.exists() else "not there"
        return Recognised("", found, "give the path of a folder" if folder.exists() else "check the path")
    FOLDERS.load_plugins()  # an installed package may know it
    for name, kind in reversed(list(FOLDERS.items())):
        if kind.is_in(folder):
            return Recognised(name, kind.what, kind.use.replace("FOLDER", str(folder)))
    inside = _inner_model(folder)
    if inside is not None:
        return Recognised("", "a folder of several models", f"did you mean {inside}?")
    return Recognised("", "a folder without a model" if any(folder.iterdir()) else "an empty folder", "check the path")


def refusal(folder: Path, wanted: str, why: str = "") -> CheckpointError:
    """Return the error about a folder that is not `wanted` ("a trained ranker"): what it is, and what takes that.

    `why` says what it lacks.
    """
    found = recognise(folder)
    if not folder.exists():
        return CheckpointError(f"{folder}: is {found.what}; {found.use}")
    return CheckpointError(f"{folder}: is {found.what}, not {wanted}{f' ({why})' if why else ''}; {found.use}")


def headless_refusal(folder: Path) -> CheckpointError:
    """Return the error about a folder whose parameters have no ranking head, which only reading them shows."""
    found = recognise(folder)
    if found.name == "parameters":
        found = Recognised(found.name, _ENCODER, _TRAIN.replace("FOLDER", str(folder)))
    return CheckpointError(f"{folder}: is {found.what}, not {RANKER_WANTED}; {found.use}")


def require_parameters(folder: Path, wanted: str) -> None:
    """Raise `CheckpointError` where a folder has no `model_state.pdparams`; `wanted` says what it should be."""
    if not (folder / PARAMETERS_FILE).is_file():
        raise refusal(folder, wanted, f"there is no {PARAMETERS_FILE} in it")


def is_exported(folder: Path) -> bool:
    """Return whether there is a static model in `folder`."""
    return folder.is_dir() and any(folder.glob(f"*{STATIC_PARAMETERS}"))


def _inner_model(folder: Path) -> Optional[Path]:
    """Return the one to take of several models in a folder, as trainings leave them: the best, else the last one."""
    inside = {path.parent.name for name in (PARAMETERS_FILE, INFO_FILE) for path in folder.glob(f"*/{name}")}
    if not inside:
        return None
    numbered = max(inside, key=lambda name: (len(name), name))  # model_10 comes after model_7
    return folder / next((name for name in _BEST_FIRST if name in inside), numbered)


def _has(*names: str) -> Callable[[Path], bool]:
    return lambda folder: all((folder / name).is_file() for name in names)


def _is_blend(folder: Path) -> bool:
    info = RankerInfo.read(folder)
    return info is not None and info.kind == BLEND


for _name, _kind in {
    "tokenizer": FolderKind(
        _has("vocab.txt"),
        "a tokenizer without a model",
        "pretraining/train_mlm.py --tokenizer FOLDER trains an encoder with it",
    ),
    "transformers": FolderKind(
        lambda folder: find_encoder(folder) is not None,
        "a model folder of Hugging Face's transformers",
        "training takes it as --model_name_or_path FOLDER; for all else, bring it here: python -m paddle_ranker "
        "convert FOLDER TARGET",
    ),
    "parameters": FolderKind(
        _has(PARAMETERS_FILE),
        "an encoder, or a checkpoint of the published scripts",
        "training takes it as --model_name_or_path FOLDER",
    ),
    "pretraining": FolderKind(
        _has(PARAMETERS_FILE, "pretraining.json"),
        "a pretrained encoder with the head of a masked language model",
        f"pretraining/fill_mask.py takes it; {_TRAIN}",
    ),
    "ranker": FolderKind(_has(PARAMETERS_FILE, INFO_FILE), RANKER_WANTED, f"{_SCORE}, and export and quantize"),
    "blend": FolderKind(_is_blend, "a blend of rankers", f"{_SCORE}, and export"),
    "export": FolderKind(
        is_exported,
        "an exported ranker",
        f"{_SCORE}; to train or to export, give the folder that it was exported from",
    ),
    "server": FolderKind(
        _has("serving_server_conf.prototxt"),
        "a server's folder of Paddle Serving",
        "serve, prediction and evaluation take it; else give the folder that it was made from",
    ),
    "client": FolderKind(
        _has("serving_client_conf.prototxt"), "a client's folder of Paddle Serving", "the clients in deploy/ take it"
    ),
}.items():
    FOLDERS.add(_name, _kind)
