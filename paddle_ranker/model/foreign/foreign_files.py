"""Files of static models of other programs, Paddle's or ONNX files.

    find_graph(folder)  # the files of such a model, or None; reads names alone

`as_export` of `foreign_export.py` writes such a model as an export of this toolkit.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Optional, Union

from paddle_ranker.errors import CheckpointError, UsageError, listed

NAME_TOKENIZER = (
    "name the model whose tokenizer its texts were read with: --model_name_or_path NAME, a folder, or the vocabulary's "
    "file"
)
OLD_PROGRAM = "__model__"
ONNX = ".onnx"
_MAIN_ONNX = "model.onnx"  # of the files that optimum writes beside each other
_WEIGHTS = ("*.safetensors", "*/*.safetensors", "pytorch_model*.bin", "*/pytorch_model*.bin", "*.pdparams")
_OLD_PARAMETERS = ("__params__", "params")
TOKENIZER_FILES = ("vocab.txt", "tokenizer.json")


class GraphFiles(NamedTuple):
    """Files of a static model; `parameters` is None if each parameter has a file, and for an ONNX file."""

    program: Path
    parameters: Optional[Path]

    @property
    def is_onnx(self) -> bool:
        return self.program.suffix == ONNX

    @property
    def home(self) -> Path:
        """Folder of the tokenizer; that of an ONNX file in the subfolder `onnx`, as on the hub, is the one above."""
        folder = self.program.parent
        is_inner = self.is_onnx and folder.name == "onnx" and not has_tokenizer(folder)
        return folder.parent if is_inner and has_tokenizer(folder.parent) else folder


def find_graph(path: Path) -> Optional[GraphFiles]:
    """Return the files of a static model of another program at a path, a folder or its graph's file; None without.

    Raises `CheckpointError` for a folder of several graphs.
    """
    folder = path if path.is_dir() else path.parent
    if not path.exists() or _is_described(folder):
        return None
    if path.is_file():
        stem = path.with_suffix("") if path.suffix == ".pdiparams" else path
        return next((each for each in _graphs(folder) if stem in (each.program, each.program.with_suffix(""))), None)
    graphs = _graphs(folder)
    if not graphs and (folder / "onnx").is_dir():
        graphs = _graphs(folder / "onnx")
    if has_weights(folder):  # ONNX files beside them are copies
        graphs = [graph for graph in graphs if not graph.is_onnx]
    main = [graph for graph in graphs if graph.program.name == _MAIN_ONNX]
    graphs = main or graphs
    if len(graphs) > 1:
        raise CheckpointError(
            f"{folder}: has several static models, {listed(each.program.name for each in graphs)}: give the path of one"
        )
    return graphs[0] if graphs else None


def _graphs(folder: Path) -> list[GraphFiles]:
    names = sorted({path.name for path in folder.iterdir()})
    found = []
    for name in names:
        stem, _, ending = name.rpartition(".")
        if ending in ("json", "pdmodel") and f"{stem}.pdiparams" in names:
            found.append(GraphFiles(folder / name, folder / f"{stem}.pdiparams"))
    if OLD_PROGRAM in names:
        combined = next((folder / name for name in _OLD_PARAMETERS if name in names), None)
        found.append(GraphFiles(folder / OLD_PROGRAM, combined))
    # A file that was made of the graph beside it is the same model.
    return found or [GraphFiles(folder / name, None) for name in names if name.endswith(ONNX)]


def _is_described(folder: Path) -> bool:
    """Return whether a folder has an info file, and so is one of this toolkit, or a plugin's."""
    from paddle_ranker.model.builtin_kinds import KINDS

    def described() -> bool:
        return any((folder / kind.info_file).is_file() for kind in KINDS.values())

    if described():
        return True
    if any(path.name != "config.json" for path in folder.glob("*.json")):
        KINDS.load_plugins()
    return described()


def has_weights(folder: Path) -> bool:
    """Return whether a folder, or one in it, has files of parameters that a network is made of."""
    return any(next(folder.glob(pattern), None) for pattern in _WEIGHTS)


def has_tokenizer(folder: Path) -> bool:
    """Return whether a folder has the files of a tokenizer."""
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def require_static(tokenizer: Optional[str], *models: Union[str, Path, None]) -> None:
    """Raise `UsageError` if a tokenizer is named, and no model is a static one of another program, which needs it."""
    given = [str(model) for model in models if model is not None]
    if tokenizer is not None and not any(find_graph(Path(model)) for model in given):
        raise UsageError(
            f"--model_name_or_path belongs to static models of other programs, and {listed(given) or 'none'} is "
            f"{'none' if given else 'given'}: leave it out"
        )
