"""Measure many pictures: time and memory of an index's build, of a search, and of an epoch of training.

python -m benchmarks.many_pictures [--pictures 100000] [--work_dir FOLDER]

The commands index pictures of noise with generated names, and train on them, in separate processes: first a tenth of
the pictures, then all, which shows whether memory grows with the data. Memory is the largest anonymous memory of a
process, without pages of files. The tower is the starter's, 256 numbers a vector, with random parameters; pixels are
kept in a file. Searches, by texts and by pictures, are exact and include the query's vector.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np
from PIL import Image

from benchmarks.harness.report import format_table
from benchmarks.harness.workers import process_environment
from benchmarks.indexes import milliseconds
from paddle_ranker import runtime
from paddle_ranker.commands.starter import StarterOptions, make_starter
from paddle_ranker.errors import RankerError
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.retrieval.stages.search import SearchSettings
from paddle_ranker.retrieval.stages.search_engine import SearchEngine
from paddle_ranker.storage.atomic import make_folder

_SIDE, _STEP = 16, 0.05  # pixels of a picture's side; seconds between looks at a process's memory
_WORDS = ("red", "green", "blue", "grey", "old", "new", "small", "large", "cat", "dog", "tree", "house", "ship", "star")


@dataclass(frozen=True)
class ManyPicturesOptions(Options):
    pictures: int = option(100_000, help="pictures", minimum=1000)
    queries: int = option(200, help="queries of each kind", minimum=10)
    threads: int = option(1, help="threads of each process", minimum=1)
    work_dir: Optional[str] = option(None, help="folder for all files (default: a temporary folder)")


def write_data(folder: Path, options: ManyPicturesOptions) -> None:
    """Write pictures, and files of documents and of pairs that name them: all, and a tenth."""
    draw = np.random.default_rng(0)
    (folder / "files").mkdir(exist_ok=True)
    names = [" ".join(draw.choice(_WORDS, 3)) + f" {number}" for number in range(options.pictures)]
    for number in range(options.pictures):
        stream = io.BytesIO()
        Image.fromarray(draw.integers(0, 256, (_SIDE, _SIDE, 3), np.uint8)).save(stream, "PNG", compress_level=1)
        (folder / "files" / f"{number}.png").write_bytes(stream.getvalue())
    for count in (options.pictures // 10, options.pictures):
        rows = [(f"files/{number}.png", name) for number, name in enumerate(names[:count])]
        documents = (json.dumps({"id": f"d{n}", "title": name, "picture": path}) for n, (path, name) in enumerate(rows))
        (folder / f"documents-{count}.jsonl").write_text("".join(f"{line}\n" for line in documents))
        (folder / f"pairs-{count}.tsv").write_text("".join(f"{name}\t{path}\n" for path, name in rows))
    (folder / "names.txt").write_text("".join(f"{name}\n" for name in names[:1000]))


def measured(command: list[str], threads: int) -> tuple[float, float]:
    """Run a command of the toolkit; return its seconds, and the megabytes of its largest anonymous memory."""
    began, most = time.perf_counter(), 0
    process = subprocess.Popen(
        [sys.executable, "-m", "paddle_ranker", *command], env=process_environment(threads),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        most = max(most, int(status.partition("RssAnon:")[2].split()[0]) if "RssAnon" in status else 0)
        time.sleep(_STEP)
    if process.returncode:
        raise RankerError(f"paddle-ranker {' '.join(command)}: ended with status {process.returncode}; run it alone")
    return time.perf_counter() - began, most / 1024


def run(options: ManyPicturesOptions) -> None:
    runtime.prepare_command(options.threads)
    with ExitStack() as stack:
        folder = (
            make_folder(options.work_dir)
            if options.work_dir
            else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        )
        write_data(folder, options)
        start = make_starter(
            StarterOptions(
                corpus=str(folder / "names.txt"), output_dir=str(folder / "start"), picture_size=32,
                num_hidden_layers=1, dropout=0.0,
            )
        )  # fmt: skip
        rows = []
        for count in (options.pictures // 10, options.pictures):
            build = ["index", "build", "--corpus", str(folder / f"documents-{count}.jsonl"), "--field",
                     "picture:picture", "--field_tower", f"picture={start}", "--output", str(folder / f"index-{count}"),
                     "--cpu_threads", str(options.threads)]  # fmt: skip
            train = ["train-batch-neg", "--train", str(folder / f"pairs-{count}.tsv"), "--model", str(start),
                     "--output", str(folder / f"tower-{count}"), "--epochs", "1", "--batch_size", "128",
                     "--data_memory_mb", "0", "--cpu_threads", str(options.threads)]  # fmt: skip
            for what, command in (("index build", build), ("train-batch-neg, one epoch", train)):
                seconds, megabytes = measured(command, options.threads)
                rows.append([what, f"{count:,}", f"{seconds:,.0f}", f"{count / seconds:,.0f}", f"{megabytes:,.0f}"])
        print(format_table(["command", "pictures", "seconds", "pictures a second", "MiB"], rows))
        draw = np.random.default_rng(1)
        texts = [" ".join(draw.choice(_WORDS, 2)) for _ in range(options.queries)]
        files = [folder / "files" / f"{number}.png" for number in draw.choice(options.pictures, options.queries)]
        with SearchEngine.open(folder / f"index-{options.pictures}", SearchSettings(("picture",))) as engine:
            print(f"a search by a text: {milliseconds(lambda text: engine.search(text, 10), texts)}")
            pictures = [file.read_bytes() for file in files]
            by_picture = milliseconds(lambda data: engine.search("", 10, like=data), pictures)
            print(f"a search by a picture: {by_picture}")


main = main_of(run, ManyPicturesOptions, __doc__, prog="benchmarks.many_pictures")


if __name__ == "__main__":
    raise SystemExit(main())
