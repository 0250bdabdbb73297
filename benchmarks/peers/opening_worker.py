"""Open a ranker and score a pair: `... opening_worker FOLDER ENGINE`; each line of input asks for the memory."""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path

from benchmarks.peers.answers import answer_commands, take_stdout


def main() -> int:
    """Print the seconds of imports, of opening and of the first score; then, for each line of input, the memory."""
    folder, engine = sys.argv[1:]
    answers = take_stdout()
    began = time.perf_counter()
    ranker = importlib.import_module("paddle_ranker").Ranker
    importlib.import_module({"onnx": "onnxruntime", "openvino": "openvino"}.get(engine, "paddle"))
    imported = time.perf_counter()
    opened = ranker.load(folder, engine=None if engine == "dygraph" else engine, threads=1)
    loaded = time.perf_counter()
    opened.score(["what is rice"], ["rice is a grain"])
    seconds = [imported - began, loaded - imported, time.perf_counter() - loaded]
    answer_commands(answers, lambda command: {"mb": memory_mb()}, sys.stdin, ready=seconds)
    return 0


def memory_mb() -> tuple[float, float]:
    """Return the process's private megabytes, and those shared with other processes or the page cache."""
    found = dict.fromkeys(("Rss", "Private_Dirty"), 0.0)
    for line in Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]:
        name, size = line.split()[:2]
        if name.rstrip(":") in found:
            found[name.rstrip(":")] = int(size) / 1024
    return found["Private_Dirty"], found["Rss"] - found["Private_Dirty"]


if __name__ == "__main__":
    sys.exit(main())
