"""Train towers with one option changed, and compare their recall on queries that they have not seen.

    python -m benchmarks.tower_options --data kuake --seeds 1,2,3 --pairs 3000 --systems all

A seed holds out its own share of the queries, and trains on the titles of the others with label 1 or more, from random
parameters. The held-out queries search all titles of the file.

| system | training |
| --- | --- |
| in_batch | `train-batch-neg` |
| refreshed | `--refresh_negatives 1` |
| longer | as many epochs as take the time of `refreshed`, whose batches have six texts a pair, not two |
| hardest, with_hardest | `--loss hardest`, `--loss in_batch+hardest` |
| augmented | each query once more, changed by `paddle-ranker augment` |
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.quality import compare, measures_table
from benchmarks.harness.runs import FILES, NEVER, QualityOptions, System, grouped_folds, small_starter
from benchmarks.inputs import chosen, real_data_file
from paddle_ranker.data.rows.records import LabeledPair, Pair, read_records, write_records
from paddle_ranker.data.rows.trec import Scores
from paddle_ranker.errors import RankerError
from paddle_ranker.evaluation.pairs import judged_runs
from paddle_ranker.evaluation.retrieval import vector_run
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.options import main_of, option
from paddle_ranker.retrieval.vectors.text_vectors import Tower

REFERENCE = "in_batch"
SYSTEMS: dict[str, tuple[str, ...]] = {
    REFERENCE: (),
    "longer": (),
    "refreshed": ("--refresh_negatives=1",),
    "hardest": ("--loss=hardest",),
    "with_hardest": ("--loss=in_batch+hardest",),
    "augmented": (),
}
MEASURES = ("r@10", "ndcg@10", "mrr@10")
TOP_K = 100


@dataclass(frozen=True)
class TowerOptionsOptions(QualityOptions):
    data: str = option("qbqtc", help="labelled pairs", choices=tuple(FILES))
    systems: str = option("all", help="which rows, comma-separated")
    pairs: int = option(0, help="number of pairs to train on, from the first; 0: all", minimum=0)
    epochs: int = option(4, help="epochs of a training", minimum=2)
    batch_size: int = option(64, help="pairs a batch", minimum=2)
    learning_rate: float = option(5e-4, help="maximum learning rate", above=0)
    layers: int = option(2, help="layers of the encoder", minimum=1)
    hidden_size: int = option(128, help="its width", minimum=8)
    rate: float = option(0.1, help="--rate of augment", above=0, maximum=1)


class Split:
    """The files and towers of a seed: pairs to learn, held-out queries, all titles of the data."""

    def __init__(self, folder: Path, options: TowerOptionsOptions, rows: Sequence[LabeledPair], seed: int, folds: int):
        self.folder, self.options, self.seed = folder, options, seed
        parts = list(grouped_folds([row.query for row in rows], folds))
        learn, held_out = parts[seed % folds]
        self.pairs = folder / "pairs.tsv"
        relevant = [Pair(rows[n].query, rows[n].title) for n in learn if rows[n].label >= 1]
        write_records(self.pairs, relevant[: options.pairs or None])
        self.queries = {rows[n].query: rows[n].query for n in held_out}
        self.starter = small_starter(self.pairs, folder / "starter", options.layers, options.hidden_size, 64, seed)

    def train(self, name: str) -> tuple[Path, float]:
        """Return the tower of a system, and the seconds of its training with its data."""
        began, train, epochs = time.perf_counter(), self.pairs, self.options.epochs
        if name == "augmented":  # twice the rows in half the epochs: as many steps
            train, epochs = self._augmented(), epochs // 2
        if name == "longer":
            epochs = 1 + 3 * (epochs - 1)
        o, output = self.options, self.folder / name
        given = {"train": train, "model": self.starter, "output": output, "seed": self.seed, "epochs": epochs}
        given.update(batch_size=o.batch_size, learning_rate=o.learning_rate, cpu_threads=o.threads, max_seq_length=32)
        given.update(margin=0.3 if name == "hardest" else 0, warmup_proportion=0.1, device="cpu", weight_decay=0.01)
        given.update(save_step=NEVER, logging_steps=NEVER, pooling="mean")
        _run("train-batch-neg", *(f"--{key}={value}" for key, value in given.items()), *SYSTEMS[name])
        return output / "last", time.perf_counter() - began

    def _augmented(self) -> Path:
        made = self.folder / "augmented.tsv"
        _run(
            "augment", f"--input={self.pairs}", f"--output={made}", f"--rate={self.options.rate}", f"--seed={self.seed}"
        )
        return made


def _run(command: str, *typed: str) -> None:
    from paddle_ranker.__main__ import main

    if main([command, *typed]):
        raise RankerError(f"{command} failed: see above")


def run(options: TowerOptionsOptions) -> None:
    names = chosen("systems", options.systems, list(SYSTEMS), REFERENCE)
    seeds = options.begin()
    rows = read_records(real_data_file(options.data_dir, FILES[options.data]), LabeledPair)
    documents = {title: title for title in dict.fromkeys(row.title for row in rows)}
    runs: dict[str, Scores] = {name: {} for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    held_out: set[str] = set()
    load = LoadOptions(device="cpu", threads=options.threads)
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            split = Split(Path(folder), options, rows, seed, max(2, len(seeds)))
            held_out |= {*split.queries}
            for name in names:
                tower, took = split.train(name)
                opened = Tower.open(tower, load, 64, for_search=True)
                runs[name].update(vector_run(opened, list(documents.items()), split.queries, TOP_K))
                seconds[name].append(took)
                print(f"{options.data}, {name}, seed {seed}: {took:.0f} s", flush=True)
    qrels: dict[str, dict[str, int]] = {}
    for row in rows:
        if row.query in held_out:
            qrels.setdefault(row.query, {})[row.title] = int(row.label)
    pairs = judged_runs(options.data, qrels, runs)
    systems = [System(name, (pairs.of_run(runs[name], name)[0],), tuple(seconds[name])) for name in names]
    measured = compare(
        pairs.query_ids, pairs.labels, systems, REFERENCE, measures=MEASURES, resamples=options.resamples
    )
    print(f"\n{options.data}, {len(held_out)} held-out queries, seeds {options.seeds}; 95% intervals over queries\n")
    print(measures_table(systems, measured, REFERENCE))


main = main_of(run, TowerOptionsOptions, __doc__)


if __name__ == "__main__":
    sys.exit(main())
