"""Measure the peak memory of training: over ever larger training files, and over long texts with less kept of them.

python -m benchmarks.memory [--parts rows,checkpointing] [--rows 10000000] [--data_memory_mb 64]

Each figure is of a process of its own that runs `ernie_matching/train_pairwise.py` on generated triples with a new
encoder. The peak is the largest resident memory that the system saw of it (`ru_maxrss`), the figure that decides
whether a training fits a machine.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np

from benchmarks.inputs import ROOT
from benchmarks.training import SHAPES
from paddle_ranker.data.records import LabeledPair, Triple, write_records
from paddle_ranker.errors import RankerError, UsageError
from paddle_ranker.options import Options, option, run_command
from paddle_ranker.training.curve import METRICS_FILE, read_metrics

PARTS = ("rows", "checkpointing")
SMALLEST_FILE = 10_000
BLOCK = 10_000  # rows that are generated at once
CHARACTERS = [chr(code) for code in range(0x4E00, 0x4E00 + 3000)]
SPECIALS = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"]


@dataclass(frozen=True)
class MemoryOptions(Options):
    """Options of `python -m benchmarks.memory`."""

    parts: str = option("rows,checkpointing", help=f"what to measure, comma-separated, from {', '.join(PARTS)}")
    rows: int = option(10_000_000, help="triples of the largest file; the others are powers of ten", minimum=1)
    steps: int = option(30, help="steps over each file", minimum=1)
    data_memory_mb: int = option(64, help="encoded triples beyond so many MB go to the disk", minimum=0)
    batch_size: int = option(32, help="triples a batch, over files", minimum=1)
    shape: str = option("nano", help=f"encoder of the long texts: {', '.join(SHAPES)}")
    length: int = option(512, help="tokens of the long pairs", minimum=16)
    long_pairs: int = option(32, help="long pairs a batch: two of each triple", minimum=2)
    long_steps: int = option(4, help="steps over long pairs; the first is not timed", minimum=2)
    threads: int = option(1, help="threads of training", minimum=1)
    work_dir: Optional[str] = option(
        None, help="folder for the generated files, about 270 bytes a row (default: the system's for temporary files)"
    )
    seed: int = option(7, help="seed of the texts", minimum=0)


@dataclass(frozen=True)
class Measured:
    """What one training took: its peak resident memory, the seconds of the whole process, and of a step (median)."""

    peak_mb: float
    seconds: float
    seconds_a_step: float


def run(options: MemoryOptions) -> None:
    """Print a table for each part."""
    parts = [part.strip() for part in options.parts.split(",")]
    for part in parts:
        if part not in PARTS:
            raise UsageError(f"--parts {part}: choose from {', '.join(PARTS)}")
    if options.shape not in SHAPES:
        raise UsageError(f"--shape {options.shape}: choose from {', '.join(SHAPES)}")
    with tempfile.TemporaryDirectory(dir=options.work_dir) as name:
        folder = Path(name)
        write_records(folder / "dev.tsv", _dev_pairs(options.seed))
        if "rows" in parts:
            _print_rows(options, folder)
        if "checkpointing" in parts:
            _print_checkpointing(options, folder)


def _print_rows(options: MemoryOptions, folder: Path) -> None:
    encoder = make_encoder(folder / "tiny", SHAPES["tiny"])
    print(f"{options.steps} steps, batches of {options.batch_size} triples, --data_memory_mb {options.data_memory_mb}")
    print(f"{'triples':>12}{'file MB':>10}{'peak MB':>10}{'seconds':>10}")
    for rows in file_sizes(options.rows):
        file = folder / "train.tsv"
        write_records(file, triples(rows, options.seed))
        measured = train(
            file, encoder, folder, options, steps=options.steps, batch_size=options.batch_size, max_seq_length=64
        )
        file_mb = file.stat().st_size / 2**20
        print(f"{rows:>12,}{file_mb:>10.0f}{measured.peak_mb:>10.0f}{measured.seconds:>10.0f}", flush=True)


def _print_checkpointing(options: MemoryOptions, folder: Path) -> None:
    encoder = make_encoder(folder / "long", SHAPES[options.shape])
    file, batch_size = folder / "long.tsv", options.long_pairs // 2
    write_records(file, triples(options.long_steps * batch_size, options.seed, title_characters=options.length))
    print(f"{options.shape}, {2 * batch_size} pairs of {options.length} tokens a batch")
    print(f"{'--gradient_checkpointing':>26}{'peak MB':>10}{'seconds a step':>16}")
    for checkpointing in ("false", "true"):
        measured = train(
            file,
            encoder,
            folder,
            options,
            f"--gradient_checkpointing={checkpointing}",
            steps=options.long_steps,
            batch_size=batch_size,
            max_seq_length=options.length,
        )
        print(f"{checkpointing:>26}{measured.peak_mb:>10.0f}{measured.seconds_a_step:>16.2f}", flush=True)


def file_sizes(most: int) -> list[int]:
    """Return the numbers of rows to measure: 10,000, 100,000, ... up to `most`, and `most` itself."""
    sizes, size = [], SMALLEST_FILE
    while size < most:
        sizes.append(size)
        size *= 10
    return [*sizes, most]


def triples(rows: int, seed: int, title_characters: Optional[int] = None) -> Iterator[Triple]:
    """Yield `rows` triples of random Chinese characters; a shorter file is the beginning of a longer one.

    Queries have 2 to 6 characters, titles 6 to 15, or `title_characters`.
    """
    random = np.random.default_rng(seed)
    for start in range(0, rows, BLOCK):
        lengths = random.integers([2, 6, 6], [7, 16, 16], (BLOCK, 3))
        if title_characters is not None:
            lengths[:, 1:] = title_characters
        ends = np.cumsum(lengths, axis=1)
        characters = "".join(map(CHARACTERS.__getitem__, random.integers(0, len(CHARACTERS), ends[:, 2].sum())))
        place = 0
        for first, second, third in ends[: rows - start].tolist():
            text = characters[place : place + third]
            yield Triple(text[:first], text[first:second], text[second:])
            place += third


def _dev_pairs(seed: int) -> Iterator[LabeledPair]:
    for triple in triples(100, seed + 1):
        yield LabeledPair(triple.query, triple.title, 1.0)
        yield LabeledPair(triple.query, triple.neg_title, 0.0)


def make_encoder(folder: Path, shape: dict[str, Any]) -> Path:
    """Write an encoder of random parameters for the generated texts into `folder`, which is new; return it."""
    folder.mkdir()
    fill = (f"[unused{number}]" for number in range(shape["vocab_size"] - len(SPECIALS) - len(CHARACTERS)))
    (folder / "vocab.txt").write_text("\n".join([*SPECIALS, *CHARACTERS, *fill]) + "\n", encoding="utf-8")
    # In a process of its own: what this one has in memory would count as that of the processes it measures.
    process = multiprocessing.get_context("spawn").Process(target=_write_parameters, args=(folder, shape))
    process.start()
    process.join()
    if process.exitcode:
        raise RankerError(f"an encoder for the benchmark could not be made in {folder}: free some memory or disk")
    return folder


def _write_parameters(folder: Path, shape: dict[str, Any]) -> None:
    from paddle_ranker import runtime

    runtime.prepare()
    from paddle_ranker.model.config import EncoderConfig, write_config
    from paddle_ranker.model.encoder import Encoder
    from paddle_ranker.model.parameters import PARAMETERS_FILE, save_arrays

    runtime.select_device("cpu")
    runtime.set_seed(1)
    config = EncoderConfig(**shape)
    write_config(folder, config)
    save_arrays(Encoder(config).state_dict(), folder / PARAMETERS_FILE)


def train(
    file: Path,
    encoder: Path,
    folder: Path,
    options: MemoryOptions,
    *further: str,
    steps: int,
    batch_size: int,
    max_seq_length: int,
) -> Measured:
    """Run the training command on `file`; raise `RankerError` with its last words where it fails."""
    save_dir = folder / "checkpoint"
    values = {
        "train_file": file,
        "test_file": folder / "dev.tsv",
        "model_name_or_path": encoder,
        "save_dir": save_dir,
        "max_steps": steps,
        "batch_size": batch_size,
        "max_seq_length": max_seq_length,
        "data_memory_mb": options.data_memory_mb,
        "logging_steps": 1,
        "cpu_threads": options.threads,
        "device": "cpu",
    }
    arguments = [f"--{name}={value}" for name, value in values.items()]
    command = [sys.executable, str(ROOT / "ernie_matching" / "train_pairwise.py"), *arguments, *further]
    peak_mb, seconds = peak_and_seconds(command, folder / "output.txt")
    figures = [record["steps_per_second"] for record in read_metrics(save_dir / METRICS_FILE) if "loss" in record]
    return Measured(peak_mb, seconds, statistics.median(1 / figure for figure in figures[1:] or figures))


def peak_and_seconds(command: Sequence[str], output: Path) -> tuple[float, float]:
    """Run a command; return its peak resident memory in MB, with that of its own children, and its seconds.

    The peak is never below that of the process that calls this. What the command prints goes to the file `output`;
    raises `RankerError` with the last line of it where the status is not 0.
    """
    started = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with output.open("wb") as stream:
        process = subprocess.Popen(command, env=environment, stdout=stream, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)  # else Popen would wait for it once more
    if process.returncode:
        last = (output.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["it said nothing"])[-1]
        raise RankerError(f"{' '.join(command[:2])} ... ended with status {process.returncode}: {last}")
    return usage.ru_maxrss / 1024, time.perf_counter() - started  # Linux counts in KB


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; return its exit status."""
    return run_command(run, MemoryOptions, argv, description=(__doc__ or "").split("\n")[0])


if __name__ == "__main__":
    sys.exit(main())
