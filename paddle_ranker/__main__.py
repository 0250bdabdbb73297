"""Run a command of the toolkit: `python -m paddle_ranker doctor`, or `paddle-ranker doctor` where it is installed."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import Optional

# name: module, function (argv -> exit status), one line of help
COMMANDS = {
    "doctor": (
        "paddle_ranker.commands.doctor",
        "main",
        "say what is installed, which fast paths are on, and what to install",
    ),
    "rank": ("paddle_ranker.commands.rank", "main", "rank the titles of each query of a file, best first"),
    "blend": (
        "paddle_ranker.commands.blend",
        "main",
        "average a ranker with the linear lexical model, or with another ranker",
    ),
    "make-triples": (
        "paddle_ranker.commands.make_triples",
        "main",
        "make training triples from a file of labelled pairs",
    ),
    "convert": (
        "paddle_ranker.commands.convert",
        "main",
        "bring a checkpoint from Hugging Face's transformers, or take one there",
    ),
    "starter": ("paddle_ranker.commands.starter", "main", "make the starter encoder, which needs no download"),
    "mine": ("paddle_ranker.commands.mine", "main", "mine hard negatives with BM25, and with a trained ranker"),
    "distill": (
        "paddle_ranker.commands.distill",
        "main",
        "write a large ranker's scores into training data for a small one",
    ),
    "compare": (
        "paddle_ranker.commands.compare",
        "main",
        "compare rankers, score files and baselines: intervals, significance tests, a report",
    ),
    "calibrate": (
        "paddle_ranker.commands.calibrate",
        "main",
        "make a ranker's scores probabilities that can be believed",
    ),
    "export": (
        "paddle_ranker.commands.export",
        "main",
        "write a ranker as a static model, and as ONNX, for engines and servers",
    ),
    "export-serving": (
        "paddle_ranker.commands.export_serving",
        "main",
        "write an exported ranker as the two folders of Paddle Serving",
    ),
    "quantize": (
        "paddle_ranker.commands.quantize",
        "main",
        "compute an exported ranker's matrix products in 8-bit integers, where that costs little",
    ),
    "cascade": (
        "paddle_ranker.commands.cascade",
        "main",
        "measure a small ranker before a large one: what it costs and how much faster it is",
    ),
    "serve": (
        "paddle_ranker.commands.serve",
        "main",
        "serve a ranker: baidu_std, HTTP and gRPC of Paddle Serving, /rerank of today's clients, on one port",
    ),
    "curve": (
        "paddle_ranker.commands.curve",
        "main",
        "draw the learning curves of one training or several into one picture",
    ),
}


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command that `argv` (default: the process's own arguments) names; return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0
    name = arguments[0]
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"choose from {', '.join(COMMANDS)}"
        print(f"paddle-ranker: error: unknown command {name!r} ({hint}); see paddle-ranker --help", file=sys.stderr)
        return 2
    module, function, _ = COMMANDS[name]
    sys.argv[0] = f"paddle-ranker {name}"  # the name that the command's own help and errors show
    status: int = getattr(importlib.import_module(module), function)(arguments[1:])
    return status


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}} {text}" for name, (_, _, text) in COMMANDS.items()]
    return "\n".join(["usage: paddle-ranker COMMAND [options]   (COMMAND --help shows its options)", "", *lines])


if __name__ == "__main__":
    sys.exit(main())
