"""Run a command of the toolkit: `python -m paddle_ranker doctor`, or `paddle-ranker doctor` where it is installed."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import Optional

# The name of each command, which is that of its module in `paddle_ranker.commands`, and one line of help.
COMMANDS = {
    "doctor": "say what is installed, which fast paths are on, and what to install",
    "rank": "rank the titles of each query of a file, best first",
    "blend": "average a ranker with the linear lexical model, or with another ranker",
    "make-triples": "make training triples from a file of labelled pairs",
    "convert": "bring a checkpoint from Hugging Face's transformers, or take one there",
    "starter": "make the starter encoder, which needs no download",
    "mine": "mine hard negatives with BM25, and with a trained ranker",
    "distill": "write a large ranker's scores into training data for a small one",
    "compare": "compare rankers, score files and baselines: intervals, significance tests, a report",
    "calibrate": "make a ranker's scores probabilities that can be believed",
    "export": "write a ranker as a static model, and as ONNX, for engines and servers",
    "export-serving": "write an exported ranker as the two folders of Paddle Serving",
    "quantize": "compute an exported ranker's matrix products in 8-bit integers, where that costs little",
    "cascade": "measure a small ranker before a large one: what it costs and how much faster it is",
    "serve": "serve a ranker: baidu_std, HTTP and gRPC of Paddle Serving, /rerank of today's clients, on one port",
    "curve": "draw the learning curves of one training or several into one picture",
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
    sys.argv[0] = f"paddle-ranker {name}"  # the name that the command's own help and errors show
    command = importlib.import_module(f"paddle_ranker.commands.{name.replace('-', '_')}")
    status: int = command.main(arguments[1:])
    return status


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}} {text}" for name, text in COMMANDS.items()]
    return "\n".join(["usage: paddle-ranker COMMAND [options]   (COMMAND --help shows its options)", "", *lines])


if __name__ == "__main__":
    sys.exit(main())
