"""Small cross-encoders from nothing, trained through the toolkit's own commands on QBQTC's folds: what the benchmarks
of mining and of distillation share."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Optional

import numpy as np

from benchmarks.harness.figures import write_report
from benchmarks.harness.quality import print_comparison, report
from benchmarks.harness.runs import QualityOptions, Run, RunStore, Split, System, file_digest, make_splits
from benchmarks.inputs import parse_numbers, real_data_file
from paddle_ranker import runtime
from paddle_ranker.data.records import LabeledPair, write_records
from paddle_ranker.errors import RankerError, UsageError
from paddle_ranker.options import option, parse_options
from paddle_ranker.storage.atomic import check_writable

_NEVER = 10**9


@dataclass(frozen=True)
class FoldsOptions(QualityOptions):
    """What both benchmarks accept."""

    folds: int = option(
        3, help="folds of QBQTC's train queries; each is measured by runs that have not seen it", minimum=2
    )
    systems: Optional[str] = option(None, help="comma-separated rows of the table (default: all)")
    layers: int = option(1, help="layers of the ranker that is measured (the student)", minimum=1)
    hidden_size: int = option(64, help="its width", minimum=8)
    learning_rate: float = option(1e-3, help="its peak learning rate", above=0)
    epochs: int = option(2, help="passes over the training pairs", minimum=1)
    max_seq_length: int = option(64, help="longest pair in tokens", minimum=16)
    max_steps: int = option(0, help="stop every training after so many steps; 0: after the epochs", minimum=0)
    mine_options: str = option("", help="further options of every mining, as one argument")


@dataclass(frozen=True)
class Recipe:
    """An encoder from nothing, and how it is trained; `more` are further options of train_ce.py."""

    layers: int
    hidden_size: int
    learning_rate: float
    epochs: int
    more: tuple[str, ...] = ()


class Harness:
    """A folder in which the files and rankers of one split and seed are made, each once."""

    def __init__(
        self, folder: Path, measured: Sequence[LabeledPair], split: Split, seed: int, options: FoldsOptions
    ) -> None:
        self.folder, self.seed, self._options = folder, seed, options
        self.learn, self.held_out = folder / "learn.tsv", folder / "held_out.tsv"
        write_records(self.learn, split.pairs)
        write_records(self.held_out, (measured[row] for row in split.rows))
        self._runs: dict[str, Run] = {}

    def train(self, name: str, file: Path, recipe: Recipe) -> Run:
        """Train the ranker `name` on `file`; return how its last checkpoint scores what is held out, and the seconds.

        All of its rows are scored, those that contradict each other too. Not the best checkpoint: that is the one that
        did best on the very file that is measured. Word pieces are trained on the texts learned from.
        """
        if name not in self._runs:
            self._runs[name] = self._train(name, file, recipe)
        return self._runs[name]

    def _train(self, name: str, file: Path, recipe: Recipe) -> Run:
        from cross_encoder.train_ce import TrainCeOptions, train
        from paddle_ranker.commands.starter import StarterOptions, make_starter
        from paddle_ranker.evaluation.evaluate import EvaluationSet
        from paddle_ranker.model.kinds import load_ranker
        from paddle_ranker.scoring.engines.dygraph import DygraphEngine

        starter = self.folder / f"{name}_starter"
        make_starter(
            StarterOptions(
                corpus=str(self.learn),
                output_dir=str(starter),
                num_hidden_layers=recipe.layers,
                hidden_size=recipe.hidden_size,
                num_attention_heads=max(recipe.hidden_size // 32, 1),
                max_position_embeddings=self._options.max_seq_length,
                seed=self.seed,
            )
        )
        typed = [
            f"--train_set={file}",
            f"--test_file={self.held_out}",
            f"--save_dir={self.folder / name}",
            f"--model_name_or_path={starter}",
            f"--max_seq_length={self._options.max_seq_length}",
            f"--learning_rate={recipe.learning_rate}",
            f"--epochs={recipe.epochs}",
            f"--max_steps={self._options.max_steps}",
            f"--seed={self.seed}",
            *(f"--{step}={_NEVER}" for step in ("eval_step", "save_step", "logging_steps")),
            *(
                "--skip_bad_rows",
                "--device=cpu",
                "--new_parts_factor=1",
                "--weight_decay=0.01",
                "--warmup_proportion=0.06",
            ),
            *recipe.more,
        ]
        began = time.perf_counter()
        train(parse_options(TrainCeOptions, typed, "train_ce.py", ""))
        seconds = time.perf_counter() - began
        parts = load_ranker(self.ranker(name))
        return EvaluationSet(self.held_out, parts.pair_encoder, 64).logits(DygraphEngine(parts.network)), seconds

    def ranker(self, name: str) -> Path:
        """Return the folder of a trained ranker."""
        return self.folder / name / "last"

    def file(self, name: str, command: Callable[[Sequence[str]], int], *arguments: str) -> Path:
        """Return the file that a command writes; `{out}` in its arguments is where."""
        path = self.folder / name
        if not path.exists() and command([argument.replace("{out}", str(path)) for argument in arguments]):
            raise RankerError(f"{name} could not be made: see above")
        return path


Systems = Mapping[str, Callable[[Harness], Run]]


def run_systems(options: FoldsOptions, systems: Systems, reference: str, head: str) -> None:
    """Train every system on every fold and seed, and print the table and how far `reference` is ahead of each.

    `head` is what stands above the table. A run is a function of the harness of a split and a seed.
    """
    if options.json:
        check_writable(options.json)
    seeds = parse_numbers(options.seeds, "seeds")
    names = options.systems.split(",") if options.systems else list(systems)
    if not set(names) <= set(systems) or len(set(names)) < len(names) or reference not in names:
        raise UsageError(
            f"--systems {options.systems}: choose from {', '.join(systems)}, each once, {reference} among them"
        )
    runtime.prepare_command(options.threads)
    measured, splits = make_splits(options.data_dir, "qbqtc", "cv", options.folds)
    digest = file_digest(real_data_file(options.data_dir, "qbqtc/train.tsv"))
    store = RunStore(options.scores_dir)
    scores = {(name, seed): np.empty(len(measured)) for name in names for seed in seeds}
    seconds = dict.fromkeys(scores, 0.0)
    for seed in seeds:
        for split in splits:
            with tempfile.TemporaryDirectory() as folder:
                harness = Harness(Path(folder), measured, split, seed, options)
                for name in names:
                    facts = {**options.facts(), "benchmark": head, "system": name, "split": split.name, "seed": seed}
                    found, took = store.get({**facts, "data": digest}, partial(systems[name], harness))
                    scores[name, seed][split.rows] = found
                    seconds[name, seed] += took / len(splits)
                    print(f"{name}, {split.name}, seed {seed}: trained in {took:.0f} s", flush=True)
    done = [System(n, tuple(scores[n, s] for s in seeds), tuple(seconds[n, s] for s in seeds)) for n in names]
    queries, labels = [pair.query for pair in measured], [pair.label for pair in measured]
    measured_on = (
        f"measured on {len(measured):,} pairs of {len(set(queries)):,} queries, each by runs that have not seen it"
    )
    figures = print_comparison(options, queries, labels, done, reference, f"{head}; {measured_on}")
    counts = {"pairs": len(measured), "queries": len(set(queries))}
    write_report(options.json, report(options, done, figures, [], reference=reference, **counts))
