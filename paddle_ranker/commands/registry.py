"""The commands there are: `paddle-ranker NAME`. Those of recipes are added by the recipes."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from paddle_ranker.errors import RankerError
from paddle_ranker.registry import Registry

_RECIPES = "paddle_ranker.recipes.commands"


@dataclass(frozen=True)
class Command:
    """A command.

    module: has `main(argv)`; imported when the command runs
    help: what it does, in a line
    options: of a training, the class of its options in that module, which has `train(options, on_evaluation)`, too
    """

    module: str
    help: str
    options: Optional[str] = None

    def load(self) -> Any:
        """Return the module."""
        return importlib.import_module(self.module)


COMMANDS: Registry[Command] = Registry("command", recipes=_RECIPES)
# One command for all kinds of models, with what is particular to a kind in a module of the recipe's: by kind.
BY_KIND: dict[str, Registry[str]] = {
    name: Registry("kind of model", recipes=_RECIPES) for name in ("evaluate", "predict", "export")
}
OTHER_NAMES = {"export-to-serving": "export-serving"}
_MODEL_OPTIONS = ("--model", "--init_from_ckpt", "--params_path", "--model_dir")

for _name, _help in {
    "doctor": "say what is installed, which fast paths are on, and what to install",
    "starter": "make the starter encoder, which needs no download",
    "evaluate": "measure a model on labelled pairs, whatever kind it is of",
    "compare": "compare rankers, score files and baselines: intervals, significance tests, a report",
    "predict": "score the pairs of a file with a model, whatever kind it is of",
    "rank": "rank the titles of each query of a file, best first",
    "calibrate": "make a ranker's scores probabilities that can be believed",
    "blend": "average a ranker with the linear lexical model, or with another ranker",
    "make-triples": "make training triples from a file of labelled pairs",
    "mine": "mine hard negatives with BM25, and with a trained ranker",
    "distill": "write a large ranker's scores into training data for a small one",
    "convert": "bring a checkpoint from Hugging Face's transformers, or take one there",
    "export": "write a model as a static model, and as ONNX, for engines and servers",
    "export-serving": "write an exported ranker as the two folders of Paddle Serving",
    "quantize": "compute an exported ranker's matrix products in 8-bit integers, where that costs little",
    "cascade": "measure a small ranker before a large one: what it costs and how much faster it is",
    "serve": "serve a ranker: baidu_std, HTTP and gRPC of Paddle Serving, /rerank of today's clients, on one port",
    "curve": "draw the learning curves of one training or several into one picture",
}.items():
    COMMANDS.add(_name, Command(f"paddle_ranker.commands.{_name.replace('-', '_')}", _help))


def module_for(command: str, argv: Optional[Sequence[str]]) -> Optional[Any]:
    """Return the recipe's module for the kind of the model that `argv` names; None where it has none.

    Neither Paddle nor the model is loaded. `argv` is the process's own by default.
    """
    from paddle_ranker.model.kinds import stated_kind

    source = _model_in(sys.argv[1:] if argv is None else argv)
    try:
        kind = stated_kind(Path(source)) if source is not None else None
        is_known = kind is not None and kind in BY_KIND[command]
    except RankerError:  # of a damaged folder: whoever loads it says so
        return None
    return importlib.import_module(BY_KIND[command][kind]) if kind is not None and is_known else None


def _model_in(argv: Sequence[str]) -> Optional[str]:
    found = None
    for place, text in enumerate(argv):
        name, separator, value = text.partition("=")
        if name in _MODEL_OPTIONS:
            found = value if separator else next(iter(argv[place + 1 : place + 2]), None)
    return found
