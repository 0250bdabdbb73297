"""Measure the demo's ranker on the demo's dev file, beside baselines that use words alone.

python -m benchmarks.demo --seeds 1,2,3
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness.quality import Measure, print_comparison
from benchmarks.harness.report import Goal
from benchmarks.harness.runs import (
    LEXICAL,
    QualityOptions,
    Run,
    RunStore,
    System,
    file_digest,
    fit_baseline,
    run_seeds,
    score_file,
)
from benchmarks.inputs import ROOT, chosen
from benchmarks.script_commands import arguments_after, script_commands
from paddle_ranker.data.rows.records import LabeledPair, Triple, read_records
from paddle_ranker.options import main_of, option, parse_options

SCRIPT = ROOT / "scripts" / "train_pairwise.sh"
TRAIN, DEV = "sort/train_pairwise.csv", "sort/dev_pairwise.csv"
BASELINES = tuple(LEXICAL)
SYSTEMS = ",".join([*BASELINES, "ranker"])
GOAL_AUC, GOAL_AHEAD = 0.90, 0.15


@dataclass(frozen=True)
class DemoOptions(QualityOptions):
    size: int = option(6000, help="number of training triples to make", minimum=100)
    queries: int = option(300, help="number of dev queries to make", minimum=20)
    systems: str = option(SYSTEMS, help=f"comma-separated: {SYSTEMS.replace(',', ', ')}")
    seeds: str = option("1,2,3", help="comma-separated random seeds, one run of the rankers each")
    recipe: str = option("", help="options of train_pairwise.py that override the script's, as one argument")
    threads: int = option(0, help="threads of training; 0: one per core", minimum=0)


def train_as_the_script(data: Path, seed: int, recipe: str, folder: Path) -> Run:
    """Train with the options of `scripts/train_pairwise.sh` and score the dev file with the last checkpoint.

    The starter encoder gets the same seed. The best checkpoint is not used, because it is chosen on the dev file.
    """
    from ernie_matching.train_pairwise import TrainPairwiseOptions, train
    from paddle_ranker.commands.starter import StarterOptions, make_starter

    commands = [
        [argument.replace(str(ROOT / "datasets"), str(data)) for argument in command]
        for command in script_commands(SCRIPT)
    ]
    starter = [*arguments_after(commands, "starter"), f"--output_dir={folder / 'starter'}", f"--seed={seed}"]
    make_starter(parse_options(StarterOptions, starter, "starter", ""))
    # The last value of an option counts.
    arguments = [
        *arguments_after(commands, "train_pairwise.py"),
        *recipe.split(),
        f"--train_file={data / TRAIN}",
        f"--save_dir={folder / 'ranker'}",
        f"--model_name_or_path={folder / 'starter'}",
        f"--seed={seed}",
        "--device=cpu",
    ]
    began = time.perf_counter()
    train(parse_options(TrainPairwiseOptions, arguments, "train_pairwise.py", ""))
    seconds = time.perf_counter() - began
    return score_file(folder / "ranker" / "last", data / DEV), seconds


def train_baseline(name: str, data: Path) -> Run:
    """Fit a lexical baseline on the pairs of the training triples, and score the dev file."""
    triples, dev = read_records(data / TRAIN, Triple), read_records(data / DEV, LabeledPair)
    pairs = [
        LabeledPair(t.query, title, label) for t in triples for title, label in ((t.title, 1.0), (t.neg_title, 0.0))
    ]
    return fit_baseline(name, pairs, dev)


def run_system(name: str, data: Path, options: DemoOptions, seeds: Sequence[int]) -> System:
    """Return a system's scores of the dev file: a run per seed, or a single run if it uses no random numbers."""
    store = RunStore(options.scores_dir)
    digests = [file_digest(data / TRAIN), file_digest(data / DEV)]
    facts: dict[str, object] = {"benchmark": "demo", "data": digests}
    if name not in BASELINES:
        facts.update(recipe=options.recipe, script=file_digest(SCRIPT))

    def train(seed: int) -> Run:
        if name in BASELINES:
            return train_baseline(name, data)
        with tempfile.TemporaryDirectory() as folder:
            return train_as_the_script(data, seed, options.recipe, Path(folder))

    return run_seeds(store, name, [0] if name in BASELINES else seeds, facts, train)


def goals_of(measured: Mapping[str, Mapping[str, Measure]]) -> list[Goal]:
    """Return the goals for the AUCs of the systems that were measured."""
    auc = {name: own["auc"].interval.estimate for name, own in measured.items()}
    if "ranker" not in auc:
        return []
    goals = [Goal("ranker's AUC", auc["ranker"], GOAL_AUC)]
    bm25 = [value for name, value in auc.items() if name.startswith("bm25")]
    if bm25:
        goals.append(Goal("ranker's AUC above the better BM25's", auc["ranker"] - max(bm25), GOAL_AHEAD))
    return goals


def run(options: DemoOptions) -> None:
    names = chosen("systems", options.systems, SYSTEMS.split(","))
    seeds = options.begin()
    from demo_world.files import write_demo

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        write_demo(data, 7, options.size, options.queries)
        dev = read_records(data / DEV, LabeledPair)
        systems = [run_system(name, data, options, seeds) for name in names]
    queries, labels = [pair.query for pair in dev], np.array([pair.label for pair in dev])
    reference = "ranker" if "ranker" in names else names[-1]
    head = f"{len(dev):,} pairs of {len(set(queries)):,} dev queries"
    measured = print_comparison(options, queries, labels, systems, reference, head, measures=("auc",))
    print("", *goals_of(measured), sep="\n")


main = main_of(run, DemoOptions, (__doc__ or "").split("\n")[0], prog="benchmarks.demo")


if __name__ == "__main__":
    raise SystemExit(main())
