"""The registry of commands, `paddle-ranker NAME`. Recipes and plugins add commands."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Optional

from paddle_ranker.errors import RankerError
from paddle_ranker.model.role_names import (
    CONVERTIBLE,
    MEMBER,
    QUANTIZABLE,
    RANKER,
    TOWER,
    TRAINED_MODEL,
    TRAINED_RANKER,
)
from paddle_ranker.registry import Registry, load_named_plugins

if TYPE_CHECKING:
    from paddle_ranker.options import Options

START, DATA, TRAIN, SCORE, FIND = "start", "training data", "train", "score and measure", "search"
IMPROVE, SERVE, ENCODERS = "improve a ranker", "export and serve", "encoders"
GROUPS = (START, DATA, TRAIN, SCORE, FIND, IMPROVE, SERVE, ENCODERS)  # in the order in which people come to need them


@dataclass(frozen=True)
class Command:
    """A command.

    module: name of the module with the function `main(argv)`; imported when the command runs
    help: one line of description
    options: for a training command, the name of its options class in that module; the module then has a function
        `train(options, on_evaluation)`
    takes: names of the roles of models that the command accepts, such as `role_names.RANKER`; `doctor --model` lists
        the commands that accept a model
    group: title under which `paddle-ranker help` lists the command: one of `GROUPS`, or a new title, listed after them
    """

    module: str
    help: str
    options: Optional[str] = None
    group: str = "more"
    takes: tuple[str, ...] = ()

    def load(self) -> Any:
        return importlib.import_module(self.module)


COMMANDS: Registry[Command] = Registry("command", recipes="commands")
# Modules whose `main(argv)` runs a command for one kind of model, keyed by both names: "evaluate pairwise". A command
# without such a module treats all kinds alike, or refuses the kinds that it cannot take.
OF_KIND: Registry[str] = Registry("command of a kind of model", recipes="commands")
_MODEL_OPTIONS = ("--model", "--init_from_ckpt", "--params_path", "--model_dir")

_TAKES = {
    **dict.fromkeys(("evaluate", "compare", "predict", "rank", "cascade", "distill"), (RANKER,)),
    **dict.fromkeys(("search", "search-serve", "evaluate-recall", "improve"), (RANKER,)),
    "mine": (RANKER, TOWER),
    "calibrate": (TRAINED_RANKER,),
    "blend": (MEMBER,),
    "quantize": (QUANTIZABLE,),
    "index": (TOWER,),
    "export": (TRAINED_MODEL,),
    "convert": (CONVERTIBLE,),
}
for _group, _commands in {
    START: {
        "doctor": "report what is installed, which fast paths are on, and what to install",
        "starter": "make the starter encoder, which needs no download",
        "info": "describe a folder: its kind, inputs and outputs, training and export",
    },
    DATA: {
        "make-triples": "make training triples from a file of labelled pairs",
        "mine": "mine hard negatives with BM25, and with a trained ranker",
        "augment": "repeat training rows with changed queries: words inserted, substituted, deleted, swapped",
        "distill": "write a large ranker's scores into training data for a small one",
        "judgments": "turn a search server's log of clicks and judgments into training data and qrels",
    },
    SCORE: {
        "evaluate": "measure a model of any kind on labelled pairs",
        "compare": "compare rankers, score files and baselines: intervals, significance tests, a report",
        "curve": "draw the learning curves of one or more trainings into one picture",
        "predict": "score the pairs of a file with a model of any kind",
        "rank": "rank the titles of each query of a file, best first",
    },
    FIND: {
        "index": "build, extend and check an index: documents, their words and their vectors",
        "search": "search an index by words and vectors, and order the results by a ranker",
        "evaluate-recall": "measure the searches of an index, with baselines, intervals and a picture",
        "report-searches": "report the queries of a search server's log: frequent, without results, without clicks",
    },
    IMPROVE: {
        "improve": "learn from a log of searches or from judgments, and recommend what is better than today's search",
        "calibrate": "calibrate a ranker: make its scores probabilities",
        "blend": "average rankers, towers' cosines, BM25 and the linear lexical model in one folder",
        "cascade": "measure a small ranker before a large one: its cost in quality, its gain in speed",
    },
    SERVE: {
        "export": "write a model as a static model, and as ONNX, for engines and servers",
        "quantize": "compute an exported ranker's matrix products in 8-bit integers, if that costs little quality",
        "serve": "serve a ranker: baidu_std, HTTP and gRPC of Paddle Serving, /rerank of today's clients, on one port",
        "search-serve": "serve searches of an index: words and vectors, a ranker, a page",
    },
    ENCODERS: {
        "convert": "bring a checkpoint from Hugging Face's transformers, or take one there",
    },
}.items():
    for _name, _help in _commands.items():
        _module = f"paddle_ranker.commands.{_name.replace('-', '_')}"
        COMMANDS.add(_name, Command(_module, _help, group=_group, takes=_TAKES.get(_name, ())))


def list_commands() -> str:
    """Return the list of all commands by group, including those of recipes and plugins."""
    COMMANDS.load_plugins()
    width = max(map(len, COMMANDS))
    groups: dict[str, list[str]] = {group: [] for group in GROUPS}
    for name, command in COMMANDS.items():
        groups.setdefault(command.group, []).append(f"  {name:<{width}} {command.help}")
    return "\n\n".join("\n".join([f"{group}:", *lines]) for group, lines in groups.items() if lines)


def main_for_kinds(command: str, main: Callable[..., int]) -> Callable[..., int]:
    """Return a `main(argv=None)` that runs the version of a command that belongs to the model's kind.

    main: runs the command for models whose kind has no version
    """

    def main_of_kind(argv: Optional[Sequence[str]] = None) -> int:
        status = _run_for_kind(command, argv)
        return main(argv) if status is None else status

    return main_of_kind


def _run_for_kind(command: str, argv: Optional[Sequence[str]]) -> Optional[int]:
    """Find the kind of the model that `argv` names, run the kind's version of a command, and return the exit status.

    If the kind has no version, return None without running anything. The kind is read from the model's folder without
    importing Paddle or loading the model. If `argv` names a model of the Hugging Face hub, it is fetched first.
    """
    from paddle_ranker.model.model_folder import identify
    from paddle_ranker.model.pretrained import find_model
    from paddle_ranker.options import Options, run_command

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument(*_MODEL_OPTIONS, dest="model")
    try:
        arguments = sys.argv[1:] if argv is None else argv
        is_first = bool(arguments) and not arguments[0].startswith("-")
        source = arguments[0] if is_first else parser.parse_known_args(arguments)[0].model
        load_named_plugins()
        try:
            folder = find_model(source) if source is not None else None
        except RankerError as error:
            if {"-h", "--help"}.isdisjoint(arguments):
                return run_command(partial(_fail, error), Options, [], "")
            return None
        kind = identify(folder).kind if folder is not None else None
    except (RankerError, argparse.ArgumentError):  # reported by the command that parses all arguments
        return None
    name = f"{command} {'' if kind is None else kind.name}"
    return int(importlib.import_module(OF_KIND[name]).main(argv)) if name in OF_KIND else None


def _fail(error: RankerError, options: Options) -> None:
    raise error
