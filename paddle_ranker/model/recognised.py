"""Recognise the kind of a folder, and the commands that take it. Needs no Paddle.

Kinds of models from recipes and plugins come first, then the kinds of folders below. This module also makes the errors
about folders of the wrong kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional

from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.info import BLEND, INFO_FILE, RankerInfo
from paddle_ranker.model.opened import KINDS
from paddle_ranker.model.parameters import PARAMETERS_FILE

STATIC_PARAMETERS = ".pdiparams"
RANKER_WANTED = "a trained ranker"
_ENCODER = "an encoder without a ranking head (a starter, or a pretrained model)"
_TRAIN = "train a ranker from it: paddle-ranker train-pairwise or train-ce --model FOLDER"
_SCORE = "prediction, evaluation, rank, compare and serve take it"
_BEST_FIRST = ("best", "last")


@dataclass(frozen=True)
class FolderKind:
    """Kind of folder.

    is_in: returns whether an existing folder is of this kind
    what: the name of such a folder in messages, after "is": "a trained ranker"
    use: advice on the folder, or the commands that take it; FOLDER stands for its path
    refused: returns why nothing takes a folder of this kind, "" if something does
    """

    is_in: Callable[[Path], bool]
    what: str
    use: str
    refused: Callable[[Path], str] = lambda folder: ""


@dataclass(frozen=True)
class Recognised:
    """Kind of a recognised folder: its name ("" if no kind matches), and `what` and `use` as in `FolderKind`."""

    name: str
    what: str
    use: str


def recognise(folder: Path) -> Recognised:
    """Return the kind of a folder; also describes a path that is empty, holds no model or does not exist."""
    if not folder.is_dir():
        found = "a file" if folder.exists() else "not there"
        return Recognised("", found, "give the path of a folder" if folder.exists() else "check the path")
    KINDS.load_plugins()  # an installed package may know it
    of_models = {name: FolderKind(kind.is_in, kind.what, kind.use) for name, kind in KINDS.items() if kind.what}
    for name, kind in reversed([*_FOLDERS.items(), *of_models.items()]):
        if kind.is_in(folder):
            return Recognised(name, kind.what, kind.refused(folder) or kind.use.replace("FOLDER", str(folder)))
    inside = _inner_model(folder)
    if inside is not None:
        return Recognised("", "a folder of several models", f"did you mean {inside}?")
    return Recognised("", "a folder without a model" if any(folder.iterdir()) else "an empty folder", "check the path")


def refusal(folder: Path, wanted: str, why: str = "") -> CheckpointError:
    """Return the error about a folder that is not `wanted` ("a trained ranker"), with its kind and advice.

    `why`: the folder's shortcoming, in parentheses in the message.
    """
    found = recognise(folder)
    if not folder.exists():
        return CheckpointError(f"{folder}: is {found.what}; {found.use}")
    return CheckpointError(f"{folder}: is {found.what}, not {wanted}{f' ({why})' if why else ''}; {found.use}")


def headless_refusal(folder: Path) -> CheckpointError:
    """Return the error about a folder whose parameters have no ranking head."""
    found = recognise(folder)
    if found.name == "parameters":
        found = Recognised(found.name, _ENCODER, _TRAIN.replace("FOLDER", str(folder)))
    return CheckpointError(f"{folder}: is {found.what}, not {RANKER_WANTED}; {found.use}")


def require_parameters(folder: Path, wanted: str) -> None:
    """Raise `CheckpointError` if a folder has no `model_state.pdparams`; `wanted`: the expected kind, for messages."""
    if not (folder / PARAMETERS_FILE).is_file():
        raise refusal(folder, wanted, _lacks(folder))


def _lacks(folder: Path) -> str:
    """Return why a folder without Paddle's parameters is no ranker's, for messages."""
    from paddle_ranker.model.hugging_face.folder import why_no_ranker  # lazily, since every command imports this module

    return why_no_ranker(folder) or f"there is no {PARAMETERS_FILE} in it"


def is_exported(folder: Path) -> bool:
    """Return whether there is a static model in `folder`."""
    return folder.is_dir() and any(folder.glob(f"*{STATIC_PARAMETERS}"))


def _inner_model(folder: Path) -> Optional[Path]:
    """Return the subfolder with the best, or else the last model that a training saved in a folder; None without."""
    inside = {path.parent.name for name in (PARAMETERS_FILE, INFO_FILE) for path in folder.glob(f"*/{name}")}
    if not inside:
        return None
    numbered = max(inside, key=lambda name: (len(name), name))  # model_10 comes after model_7
    return folder / next((name for name in _BEST_FIRST if name in inside), numbered)


def _has(*names: str) -> Callable[[Path], bool]:
    return lambda folder: all((folder / name).is_file() for name in names)


def _is_transformers(folder: Path) -> bool:
    from paddle_ranker.model.hugging_face.folder import find_encoder  # lazily, since every command imports this module

    return find_encoder(folder) is not None


def _unsupported(folder: Path) -> str:
    """Return why a transformers model is not read here, such as one whose weights are quantised."""
    from paddle_ranker.model.hugging_face.folder import find_encoder, read_encoder_config

    encoder = find_encoder(folder)
    assert encoder is not None
    try:
        read_encoder_config(encoder / "config.json")
    except CheckpointError as error:
        return f"which is not read here: {error}"
    return ""


def _has_graph_alone(folder: Path) -> bool:
    return any((folder / name / "model.onnx").is_file() for name in ("", "onnx")) and not is_exported(folder)


def _is_blend(folder: Path) -> bool:
    info = RankerInfo.read(folder)
    return info is not None and info.kind == BLEND


# From general to special: the last is tried first.
_FOLDERS = {
    "tokenizer": FolderKind(
        _has("vocab.txt"),
        "a tokenizer without a model",
        "paddle-ranker pretrain --tokenizer FOLDER trains an encoder with it",
    ),
    "graph": FolderKind(
        _has_graph_alone,
        "a model's ONNX graph without its weights (model.onnx)",
        "add its model.safetensors, config.json and tokenizer (hf download brings them); paddle-ranker export makes "
        "graphs of them",
    ),
    "transformers": FolderKind(
        _is_transformers,
        "a model folder of Hugging Face's transformers",
        "training takes it as --model FOLDER, and where it has a head of one or two classes, prediction, "
        "evaluation, export and serve do; for all else, bring it here: paddle-ranker convert FOLDER TARGET",
        _unsupported,
    ),
    "adapter": FolderKind(
        _has("adapter_config.json"),
        "an adapter (LoRA), which changes the weights of another model",
        "merge it into that (peft's merge_and_unload), save the result, and give that folder",
    ),
    "parameters": FolderKind(
        _has(PARAMETERS_FILE),
        "an encoder, or a checkpoint of the published scripts",
        "training takes it as --model FOLDER",
    ),
    "pretraining": FolderKind(
        _has(PARAMETERS_FILE, "pretraining.json"),
        "a pretrained encoder with the head of a masked language model",
        f"fill-mask takes it; {_TRAIN}",
    ),
    "ranker": FolderKind(_has(PARAMETERS_FILE, INFO_FILE), RANKER_WANTED, f"{_SCORE}, and export and quantize"),
    "blend": FolderKind(_is_blend, "a blend of rankers", f"{_SCORE}, and export"),
    "export": FolderKind(
        is_exported,
        "an exported ranker",
        f"{_SCORE}; to train or to export, give the folder that it was exported from",
    ),
    "index": FolderKind(
        lambda folder: _has("index.json")(folder) or _has("shards.json")(folder),
        "a search index",
        "search, evaluate-recall, search-serve and mine take it as --index FOLDER; its tower is a folder in it",
    ),
    "server": FolderKind(
        _has("serving_server_conf.prototxt"),
        "a server's folder of Paddle Serving",
        "serve, prediction and evaluation take it; else give the folder that it was made from",
    ),
    "client": FolderKind(
        _has("serving_client_conf.prototxt"), "a client's folder of Paddle Serving", "the tutorial's clients take it"
    ),
}
