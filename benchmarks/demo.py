"""Measure the demo's ranker on the demo's dev file, beside baselines that see words and no meaning.

python -m benchmarks.demo --seeds 1,2,3
"""

from __future__ import annotations

import dataclasses
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

from benchmarks.harness.figures import Goal, format_table, write_report
from benchmarks.harness.quality import mean_auc, print_comparison, report
from benchmarks.harness.runs import (
    LEXICAL,
    QualityOptions,
    Run,
    RunStore,
    System,
    chosen_systems,
    file_digest,
    fit_baseline,
    score_file,
)
from benchmarks.inputs import ROOT
from benchmarks.script_commands import arguments_after, script_commands
from paddle_ranker.data.records import LabeledPair, Triple, read_records, write_records
from paddle_ranker.errors import DataError
from paddle_ranker.options import option, parse_options, run_command

SCRIPT = ROOT / "scripts" / "train_pairwise.sh"
TRAIN, DEV, KINDS = "sort/train_pairwise.csv", "sort/dev_pairwise.csv", "sort/dev_kinds.csv"
BASELINES = tuple(LEXICAL)
SHUFFLES = ("shuffled", "shuffled, mirrored")
SYSTEMS = ",".join([*BASELINES, "shuffled", "ranker"])
GOAL_AUC, GOAL_AHEAD = 0.90, 0.15
# What rankers that can have learned nothing may stray from 0.5 in the mean over a shuffle and its mirror image.
GOAL_STRAY = 0.05


@dataclass(frozen=True)
class DemoOptions(QualityOptions):
    """Options of `python -m benchmarks.demo`."""

    data_dir: Optional[str] = option(None, help="folder of the demo data (default: made anew in a temporary folder)")
    size: int = option(6000, help="training triples, where the data is made", minimum=100)
    queries: int = option(300, help="dev queries, where the data is made", minimum=20)
    data_seed: int = option(7, help="seed of the data, where it is made", minimum=0)
    systems: str = option(SYSTEMS, help=f"comma-separated: {SYSTEMS.replace(',', ', ')}")
    seeds: str = option("1,2,3", help="comma-separated random seeds, one run of the rankers each")
    shuffles: int = option(1, help="of how many seeds labels are shuffled; two runs each, one mirrored", minimum=1)
    recipe: str = option("", help="options of train_pairwise.py that win over the script's, as one argument")
    threads: int = option(0, help="threads of training; 0: one a core", minimum=0)


@contextmanager
def demo_data(options: DemoOptions) -> Iterator[Path]:
    """Yield the folder of the demo data, made where none was named."""
    if options.data_dir is not None:
        for name in (TRAIN, DEV):
            if not (Path(options.data_dir) / name).is_file():
                raise DataError(f"{options.data_dir}/{name}: not there; make the data with datasets/make_demo.py")
        yield Path(options.data_dir)
        return
    from paddle_ranker.data.demo.files import write_demo

    with tempfile.TemporaryDirectory() as folder:
        write_demo(Path(folder), options.data_seed, options.size, options.queries)
        yield Path(folder)


def shuffle_labels(triples: Sequence[Triple], seed: int, mirrored: bool) -> list[Triple]:
    """Swap the two titles of each triple or not, by a fair coin: nothing is left to learn from which is which.

    The coins never fall quite evenly on titles with many words of the query, and AUC sees any leaning, however slight:
    one shuffle strays far from 0.5, to either side. `mirrored` swaps just the triples that the same seed otherwise
    leaves alone. The two lean oppositely, and their mean stays at 0.5 unless labels of the measured file get in.
    """
    coin = random.Random(seed)
    return [
        dataclasses.replace(triple, title=triple.neg_title, neg_title=triple.title)
        if (coin.random() < 0.5) != mirrored
        else triple
        for triple in triples
    ]


def train_as_the_script(data: Path, system: str, seed: int, recipe: str, folder: Path) -> Run:
    """Train with the options of `scripts/train_pairwise.sh` and score the dev file with the last checkpoint.

    The starter encoder gets the seed too. The last checkpoint, since the best is the one that did best on this file.
    """
    from ernie_matching.train_pairwise import TrainPairwiseOptions, train
    from paddle_ranker.commands.starter import StarterOptions, make_starter

    commands = [
        [argument.replace(str(ROOT / "datasets"), str(data)) for argument in command]
        for command in script_commands(SCRIPT)
    ]
    starter = [*arguments_after(commands, "starter"), f"--output_dir={folder / 'starter'}", f"--seed={seed}"]
    make_starter(parse_options(StarterOptions, starter, "starter", ""))
    train_file = data / TRAIN
    if system in SHUFFLES:
        train_file = folder / "shuffled.tsv"
        write_records(train_file, shuffle_labels(read_records(data / TRAIN, Triple), seed, system == SHUFFLES[1]))
    # The last value of an option counts.
    arguments = [
        *arguments_after(commands, "train_pairwise.py"),
        *recipe.split(),
        f"--train_file={train_file}",
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
    """Return a system's scores of the dev file, for each seed where it draws anything."""
    store = RunStore(options.scores_dir)
    digests = [file_digest(data / TRAIN), file_digest(data / DEV)]
    plan: list[tuple[str, int]] = [(name, seed) for seed in ([0] if name in BASELINES else seeds)]
    if name == "shuffled":
        plan = [(shuffle, seed) for seed in seeds[: options.shuffles] for shuffle in SHUFFLES]
    runs, seconds = [], []
    for system, seed in plan:
        facts = {"benchmark": "demo", "data": digests, "system": system, "seed": seed}
        if name not in BASELINES:
            facts.update(recipe=options.recipe, script=file_digest(SCRIPT))

        def job(system: str = system, seed: int = seed) -> Run:
            if name in BASELINES:
                return train_baseline(name, data)
            with tempfile.TemporaryDirectory() as folder:
                return train_as_the_script(data, system, seed, options.recipe, Path(folder))

        scores, took = store.get(facts, job)
        runs.append(scores)
        seconds.append(took)
        print(f"{system}{'' if name in BASELINES else f', seed {seed}'}: trained in {took:.0f} s", flush=True)
    return System(name, tuple(runs), tuple(seconds))


def auc_by_kind(
    kinds: Sequence[str], labels: np.ndarray, queries: Sequence[str], systems: Sequence[System]
) -> dict[str, dict[str, float]]:
    """Return, for each kind of relevance, `queries` (how many) and each system's mean AUC over its seeds."""
    found: dict[str, dict[str, float]] = {}
    for kind in sorted(set(kinds)):
        rows = np.flatnonzero(np.array(kinds) == kind)
        found[kind] = {"queries": len({queries[row] for row in rows})}
        for system in systems:
            found[kind][system.name] = mean_auc(labels[rows], [scores[rows] for scores in system.runs])
    return found


def read_kinds(path: Path, rows: int) -> list[str]:
    """Return the kind of each row of the dev file; none where the data has no such file."""
    if not path.is_file():
        return []
    kinds = path.read_text(encoding="utf-8").splitlines()[1:]
    if len(kinds) != rows:
        raise DataError(f"{path}: {len(kinds):,} kinds for the {rows:,} rows of {DEV}: make the data again")
    return kinds


def goals_of(systems: dict[str, dict[str, float]]) -> list[Goal]:
    """Return the goals that can be told from mean AUCs (`systems[name]["auc"]`)."""
    auc = {name: values["auc"] for name, values in systems.items()}
    goals = []
    if "ranker" in auc:
        goals.append(Goal("ranker's AUC", auc["ranker"], GOAL_AUC))
        bm25 = [value for name, value in auc.items() if name.startswith("bm25")]
        if bm25:
            goals.append(Goal("ranker's AUC above the better BM25's", auc["ranker"] - max(bm25), GOAL_AHEAD))
    if "shuffled" in auc:
        goals.append(Goal("AUC after shuffled labels, from 0.5", abs(auc["shuffled"] - 0.5), GOAL_STRAY, at_most=True))
    return goals


def run(options: DemoOptions) -> None:
    """Print the table of all systems, the AUC by kind, and what was reached."""
    names = chosen_systems(options.systems, SYSTEMS.split(","))
    seeds = options.begin()
    with demo_data(options) as data:
        dev = read_records(data / DEV, LabeledPair)
        systems = [run_system(name, data, options, seeds) for name in names]
        kinds = read_kinds(data / KINDS, len(dev))
    queries, labels = [pair.query for pair in dev], np.array([pair.label for pair in dev])

    reference = "ranker" if "ranker" in names else names[-1]
    head = f"{len(dev):,} pairs of {len(set(queries)):,} dev queries"
    figures = print_comparison(options, queries, labels, systems, reference, head, measures=("auc",))
    by_kind = auc_by_kind(kinds, labels, queries, systems)
    if by_kind:
        rows = [[kind, f"{v['queries']:.0f}", *(f"{v[name]:.3f}" for name in names)] for kind, v in by_kind.items()]
        print("\nAUC by kind of relevance\n\n" + format_table(["kind", "queries", *names], rows))
    goals = goals_of({name: {"auc": figures[name]["auc"].interval.estimate} for name in names})
    if goals:
        print("\n" + "\n".join(map(str, goals)))
    facts = {"pairs": len(dev), "queries": len(set(queries)), "reference": reference, "auc_by_kind": by_kind}
    write_report(options.json, report(options, systems, figures, goals, **facts))


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; return its exit status."""
    return run_command(run, DemoOptions, argv, (__doc__ or "").split("\n")[0], prog="benchmarks.demo")


if __name__ == "__main__":
    raise SystemExit(main())
