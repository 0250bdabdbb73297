"""Train towers here and by sentence-transformers on the same pairs; compare their recall and their training speed.

    python -m benchmarks.towers --model M3E --peer_python PYTHON [--seeds 1,2,3] [--pairs 3000 --epochs 1]

The pairs are those of QBQTC's train file with label 1 or more. The searched texts are the 16,020 titles of train and
dev, the queries dev's 69. All systems start from the same encoder and take turns, one seed after another.

| system | training |
| --- | --- |
| untuned | nothing |
| sentence_transformers | MultipleNegativesRankingLoss, batches without duplicates |
| ours | `train-batch-neg` with the same loss, batches, schedule and length |
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from benchmarks.harness.quality import compare, measures_table
from benchmarks.harness.report import format_table, ratio
from benchmarks.harness.runs import NEVER, QualityOptions, System
from benchmarks.harness.workers import run_program
from benchmarks.inputs import chosen, real_data_file
from benchmarks.recall import qbqtc
from paddle_ranker.data.rows.records import LabeledPair, Pair, read_records, write_records
from paddle_ranker.data.rows.trec import Scores
from paddle_ranker.evaluation.pairs import judged_runs
from paddle_ranker.evaluation.retrieval import vector_run
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.options import main_of, option
from paddle_ranker.retrieval.vectors.text_vectors import Tower

SYSTEMS = ("untuned", "sentence_transformers", "ours")
REFERENCE, PEER = "ours", "sentence_transformers"
MEASURES = ("r@10", "r@50", "ndcg@10")
TOP_K = 100
WORKER = Path("benchmarks/peers/sentence_training_worker.py")


@dataclass(frozen=True)
class TowersOptions(QualityOptions):
    model: str = option(help="the encoder: a folder that is pooled by the mean; m3e-small of benchmarks.convert_real")
    work_dir: str = option(help="folder for files and trained towers; existing towers are measured, not trained again")
    peer_python: str = option(sys.executable, help="Python interpreter of an environment with sentence-transformers")
    systems: str = option(",".join(SYSTEMS), help="which rows, comma-separated")
    pairs: int = option(0, help="number of pairs to train on, from the first; 0: all", minimum=0)
    epochs: int = option(2, help="passes over the pairs", minimum=1)
    batch_size: int = option(64, help="pairs a batch", minimum=2)
    learning_rate: float = option(3e-5, help="maximum learning rate", above=0)


class Trainings:
    """The systems' trainings: files in `work_dir`, and a tower's folder per system and seed."""

    def __init__(self, options: TowersOptions) -> None:
        self.options, self.folder = options, Path(options.work_dir)
        self.folder.mkdir(parents=True, exist_ok=True)

    @cached_property
    def pairs(self) -> list[Pair]:
        """Return the relevant pairs, the first `--pairs` of them (0: all)."""
        rows = read_records(real_data_file(self.options.data_dir, "qbqtc/train.tsv"), LabeledPair)
        return [Pair(row.query, row.title) for row in rows if row.label >= 1][: self.options.pairs or None]

    def train(self, system: str, seed: int) -> tuple[Path, float]:
        """Return the folder of a system's tower, and the seconds of its training, 0 for an existing tower."""
        if system == "untuned":
            return Path(self.options.model), 0.0
        output = self.folder / f"{system}-{seed}"
        if output.exists():
            return output / "last" if (output / "last").exists() else output, 0.0
        return (output, self._peer(output, seed)) if system == PEER else (output / "last", self._ours(output, seed))

    def _peer(self, output: Path, seed: int) -> float:
        o, file = self.options, self.folder / "settings.json"
        names = ("model", "epochs", "batch_size", "learning_rate", "threads")
        settings = {name: getattr(o, name) for name in names}
        settings.update(scale=20.0, max_seq_length=64, warmup_proportion=0.1, seed=seed, output=str(output.resolve()))
        file.write_text(json.dumps({**settings, "pairs": [[p.query, p.title] for p in self.pairs]}), encoding="utf-8")
        # Exclude this project's folders, since one has the name of a package that the library imports.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = run_program([o.peer_python, str(WORKER), str(file.resolve())], f"{WORKER} failed", environment)
        return float(json.loads(done.stdout.splitlines()[-1])["seconds"])

    def _ours(self, output: Path, seed: int) -> float:
        o, file = self.options, self.folder / "pairs.tsv"
        write_records(file, self.pairs)
        given = {"train": file, "model": o.model, "output": output, "seed": seed, "epochs": o.epochs, "scale": 20.0}
        given.update(batch_size=o.batch_size, learning_rate=o.learning_rate, cpu_threads=o.threads)
        given.update(pooling="mean", margin=0, max_seq_length=64, warmup_proportion=0.1, device="cpu")
        given.update(save_step=NEVER, logging_steps=NEVER)
        # Use a separate process, like the peer: the memory of this process's searches would slow a training by a third.
        typed = [f"--{name}={value}" for name, value in given.items()]
        command = [sys.executable, "-m", "paddle_ranker", "train-batch-neg", *typed]
        done = run_program(command, "train-batch-neg failed")
        took = re.search(r"^trained [\d,]+ steps in ([\d,.]+) s", done.stdout + done.stderr, re.MULTILINE)
        assert took is not None
        return float(took[1].replace(",", ""))


def run(options: TowersOptions) -> None:
    names = chosen("systems", options.systems, SYSTEMS, REFERENCE)
    seeds = options.begin()
    trainings, real = Trainings(options), qbqtc(options.data_dir)
    runs: dict[str, list[Scores]] = {name: [] for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    load = LoadOptions(device="cpu", threads=options.threads)
    for seed in seeds:
        for name in names:
            if name == "untuned" and runs[name]:
                continue
            folder, took = trainings.train(name, seed)
            tower = Tower.open(folder, load, 64, for_search=True)
            runs[name].append(vector_run(tower, list(real.documents.items()), real.queries, TOP_K))
            seconds[name].append(took)
            print(f"{name}, seed {seed}: {took:.0f} s of training", flush=True)
    named = {f"{name} {number}": one for name in names for number, one in enumerate(runs[name])}
    pairs = judged_runs("qbqtc/dev.tsv", real.qrels, named)
    systems = [
        System(name, tuple(pairs.of_run(one, name)[0] for one in runs[name]), tuple(seconds[name])) for name in names
    ]
    measured = compare(
        pairs.query_ids, pairs.labels, systems, REFERENCE, measures=MEASURES, resamples=options.resamples
    )
    print(f"\nQBQTC dev, {len(real.queries)} queries; means over seeds {options.seeds}, 95% intervals over queries\n")
    print(measures_table(systems, measured, REFERENCE))
    if PEER in names and all(seconds[PEER]) and all(seconds[REFERENCE]):
        count = len(trainings.pairs) * options.epochs
        rows = [[name, f"{count / (sum(seconds[name]) / len(seeds)):.1f}"] for name in (REFERENCE, PEER)]
        print(format_table(["system", "pairs/s"], rows))
        print(f"ours / {PEER}, a seed at a time: {ratio(seconds[PEER], seconds[REFERENCE])}")


main = main_of(run, TowersOptions, __doc__)


if __name__ == "__main__":
    sys.exit(main())
