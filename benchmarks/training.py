"""Time pairwise training in triples per second: this toolkit, and the same loop in PyTorch.

python -m benchmarks.training [--shapes nano,medium] [--threads 1] [--rounds 3] [--steps 4] [--systems ours,torch]
python -m benchmarks.training --device gpu --shapes medium --batch_size 128 --steps 40

Every system trains on the same triples in a separate process. The systems take turns in rounds, so that a busy moment
affects all of them. A round is one pass over a few batches that represent a whole window of training batches.
Encoding, start-up and a warm-up round are not timed. Beside the speed by the clock the table shows triples per second
of processor time, which hardly changes on a shared machine. With several threads it says little, because threads may
busy-wait.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from benchmarks.harness.rankers import SHAPES
from benchmarks.harness.report import Speeds, print_speeds
from benchmarks.harness.workers import Worker, Workers, require_some
from benchmarks.inputs import DEVICES, GradedPairsOptions, chosen, graded_pairs_and_vocabulary
from paddle_ranker.errors import UsageError
from paddle_ranker.options import main_of, option

PUBLISHED_LENGTH, SEED = 128, 1000
TORCH_INSTALL = "python -m pip install -r requirements/peers.in"


@dataclass(frozen=True)
class System:
    """A row of the table."""

    name: str
    title: str
    on_gpu_alone: bool = False


SYSTEMS = [
    System("ours", "this toolkit: train_pairwise.py"),
    System("ours_bf16", "this toolkit, --use_amp", on_gpu_alone=True),  # a CPU would only simulate it
    System("torch", "PyTorch fp32, dynamic padding"),
    System("torch_fused", "PyTorch fp32, AdamW(fused=True)"),
    System("torch_bf16", "PyTorch bf16 autocast"),
]


@dataclass(frozen=True)
class TrainingBenchmarkOptions(GradedPairsOptions):
    shapes: str = option("nano,medium", help=f"encoders, comma-separated, from {', '.join(SHAPES)}")
    systems: str = option("all", help=f"rows, comma-separated, from {', '.join(s.name for s in SYSTEMS)}")
    device: str = option("cpu", help="device of every system", choices=DEVICES)
    threads: int = option(1, help="threads of every system", minimum=1)
    rounds: int = option(3, help="timed rounds", minimum=1)
    steps: int = option(4, help="batches a round", minimum=1)
    batch_size: int = option(32, help="triples a batch", minimum=1)


def run(options: TrainingBenchmarkOptions) -> None:
    shapes = chosen("shapes", options.shapes, list(SHAPES))
    names = chosen("systems", options.systems, [system.name for system in SYSTEMS])
    systems = [s for s in SYSTEMS if s.name in names and (options.device == "gpu" or not s.on_gpu_alone)]
    if find_spec("torch") is None and any(system.name.startswith("torch") for system in systems):
        print(f"PyTorch is not installed, so its rows are left out; to have them: {TORCH_INSTALL}")
        systems = [system for system in systems if not system.name.startswith("torch")]
    require_some(systems)
    for shape in shapes:
        with tempfile.TemporaryDirectory() as folder:
            work = prepare(options, shape, Path(folder))
            print(
                f"{shape}: {work}, {options.device}, threads: {options.threads}, rounds: {options.rounds}", flush=True
            )
            speeds = measure(systems, options, Path(folder))
            print_speeds(speeds, "triples", width=40, digits=1)


def prepare(options: TrainingBenchmarkOptions, shape: str, folder: Path) -> str:
    """Write the workers' triples and settings into `folder`; return a line that describes them."""
    from benchmarks.peers.work import BenchmarkTriples, TrainingWork, save_work, typical_batches
    from paddle_ranker.commands.make_triples import group_by_query, make_triples
    from paddle_ranker.data.rows.records import LabeledPair, RecordFile
    from paddle_ranker.encoding.pair_encoder import PairEncoder, never_match_ids
    from paddle_ranker.encoding.vocabulary import train_wordpiece_vocabulary, write_vocabulary

    path, vocab = graded_pairs_and_vocabulary(options.file, options.vocab)
    graded = list(RecordFile(path, LabeledPair))
    triples = [t for pairs in group_by_query(graded).values() for t in make_triples(pairs, 4, SEED)]
    if len(triples) < options.batch_size:
        raise UsageError(f"{path} gives {len(triples)} triples, fewer than --batch_size {options.batch_size}")
    if vocab is None:
        texts = [text for pair in graded for text in (pair.query, pair.title)]
        write_vocabulary(folder, train_wordpiece_vocabulary(texts, 12_000))
    else:
        (folder / "vocab.txt").write_bytes(vocab.read_bytes())
    encoder = PairEncoder.from_folder(folder, PUBLISHED_LENGTH)
    queries = [triple.query for triple in triples]
    positives = encoder.encode(queries, [triple.title for triple in triples])
    negatives = encoder.encode(queries, [triple.neg_title for triple in triples])
    rows = typical_batches(BenchmarkTriples(positives, negatives).lengths, options.batch_size, options.steps, SEED)
    chosen = BenchmarkTriples(positives.take(rows), negatives.take(rows))
    work = TrainingWork(
        shape=SHAPES[shape],
        pad_id=encoder.pad_id,
        never_match=never_match_ids(encoder),
        batch_size=options.batch_size,
        threads=options.threads,
        seed=SEED,
        device=options.device,
    )
    save_work(folder, work, chosen)
    tokens = (positives.lengths[rows].mean() + negatives.lengths[rows].mean()) / 2
    return (
        f"{len(chosen.lengths) // options.batch_size} batches of {options.batch_size} triples of {path.name}, "
        f"{tokens:.1f} tokens a pair"
    )


def measure(systems: Sequence[System], options: TrainingBenchmarkOptions, folder: Path) -> dict[str, Speeds]:
    """Return a dict from title to a system's speeds on the work in `folder`; `RankerError` if a process ends."""
    by_name = {system.name: system for system in systems}
    speeds = {system.title: Speeds() for system in systems}
    with Workers() as workers:
        for system in systems:
            line = [sys.executable, "-m", "benchmarks.peers.training_worker", system.name, str(folder)]
            log, hint = folder / f"{system.name}.log", "leave it out with --systems, or free some memory"
            workers.add(Worker(system.name, line, options.threads, log, hint=hint))
        for number in range(options.rounds + 1):  # the first round is the warm-up
            for name, answer in workers.take_turns(lambda name: options.steps):
                if number:
                    speeds[by_name[name].title].add(answer, "triples")
    return speeds


main = main_of(run, TrainingBenchmarkOptions, (__doc__ or "").split("\n")[0])


if __name__ == "__main__":
    sys.exit(main())
