"""Measure the effect of each option of the entailment model on the demo posts, beside the best possible accuracy.

python -m benchmarks.entailment --work_dir FOLDER [--seeds 1,2,3] [--systems multimodal,text_only,...]

Every row is a training with the options of scripts/train_entailment.sh and one change. It is measured on posts whose
scenes and phrasings are in no training pair.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.harness.quality import mean_statistic
from benchmarks.harness.report import Goal, format_table
from benchmarks.harness.runs import Run, RunStore, file_digest
from benchmarks.inputs import ROOT, chosen, parse_numbers
from benchmarks.script_commands import arguments_after, script_commands
from paddle_ranker import runtime
from paddle_ranker.commands.starter import StarterOptions, make_starter
from paddle_ranker.metrics.intervals import Interval, Statistic, bootstrap_intervals, difference
from paddle_ranker.options import Options, main_of, option, parse_options
from paddle_ranker.storage.atomic import make_folder

SCRIPT = ROOT / "scripts" / "train_entailment.sh"
REFERENCE = "multimodal"
# These options are added to the script's.
SYSTEMS: dict[str, tuple[str, ...]] = {
    REFERENCE: (),
    "text_only": ("--modalities", "text", "--fusion", "concat"),
    "image_only": ("--modalities", "image", "--fusion", "concat"),
    "concat": ("--fusion", "concat"),
    "multihead": ("--fusion", "multihead"),
    "modality_dropout": ("--modality_dropout", "0.2"),
    "class_weights": ("--class_weights", "balanced"),
    "focal": ("--loss", "focal"),
    "no_joint_layer": ("--joint", "false"),
    "no_image_comparison": ("--compare_images", "false"),
    "no_match_embeddings": ("--match_embeddings", "false"),
    "frozen_vision": ("--freeze_vision", "true"),
    "frozen_text": ("--freeze_text", "true"),
}
# Rows that measure the same models on test pairs without image two.
WITHOUT_IMAGE_2 = {f"{name}, image two missing": name for name in (REFERENCE, "modality_dropout")}
_SEES = {"text_only": "text_1+text_2", "image_only": "image_1+image_2"}
_PLACES = {"--train_file", "--validation_file", "--save_dir", "--model_name_or_path", "--device"}
_DATA_SEED = 7
_OVERALL = ("accuracy", "macro_f1", "auc")


@dataclass(frozen=True)
class EntailmentBenchmarkOptions(Options):
    work_dir: str = option(help="folder for the demo posts and finished runs")
    systems: str = option(",".join(SYSTEMS), help="which rows, of these")
    seeds: str = option("1,2,3", help="comma-separated random seeds of the trainings")
    size: int = option(8000, help="number of training pairs of the demo posts; half as many are measured", minimum=100)
    recipe: str = option(
        "", help="options of train.py that override the script's, as one argument; a row's options override these"
    )
    threads: int = option(1, help="threads of training", minimum=1)


class Harness:
    """The demo posts, and the trainings of the rows on them."""

    def __init__(self, options: EntailmentBenchmarkOptions):
        from multimodal_entailment.data import read_posts
        from multimodal_entailment.demo_posts import make_demo_posts

        self.options, self.work = options, make_folder(options.work_dir)
        self.data = self.work / f"posts_{options.size}_{_DATA_SEED}"
        if not self.data.exists():
            make_demo_posts(self.data, options.size, _DATA_SEED)
        self.truth = json.loads((self.data / "truth.json").read_text(encoding="utf-8"))
        self.test = read_posts(self.data / "test.csv")
        self.labels = np.array([pair.label for pair in self.test])
        self.store = RunStore(str(self.work / "runs"))
        self.recipe = script_recipe()

    def runs(self, name: str, seeds: Sequence[int]) -> list[Run]:
        """Return for each seed a row's probabilities of the test pairs, `[n, 3]`, and its seconds of training."""
        system, missing = WITHOUT_IMAGE_2.get(name, name), name in WITHOUT_IMAGE_2
        found = []
        for seed in seeds:
            facts = {
                "data": [file_digest(self.data / "train.csv"), file_digest(SCRIPT)],
                "options": self._options(system),
                "seed": seed,
                "threads": self.options.threads,
            }
            both, seconds = self.store.get(facts, lambda system=system, seed=seed: self._train(system, seed))  # type: ignore[misc]
            found.append((both[int(missing)], seconds))
            if not missing:
                right = (both[0].argmax(axis=1) == self.labels).mean()
                print(f"{name}, seed {seed}: accuracy {right:.3f}, {seconds:.0f} s", flush=True)
        return found

    def _options(self, system: str) -> list[str]:
        """Return the options of a row that override the script's; later options override earlier ones."""
        return [*self.options.recipe.split(), *SYSTEMS[system]]

    def _train(self, system: str, seed: int) -> Run:
        """Train a row; return its probabilities of the test pairs, with and without image two, `[2, n, 3]`."""
        import dataclasses

        from multimodal_entailment.entailment_scorer import Entailment
        from multimodal_entailment.options import TrainEntailmentOptions
        from multimodal_entailment.train import train

        starter = make_starter(StarterOptions(corpus=str(self.data / "train.csv"), vocab_size=1000, seed=seed))
        with tempfile.TemporaryDirectory() as folder:
            typed = [*self.recipe, "--train_file", self.data / "train.csv", "--validation_file",
                     self.data / "validation.csv", "--model_name_or_path", starter, "--save_dir", folder,
                     "--cache_dir", self.work / "images", "--device", "cpu", "--cpu_threads", self.options.threads,
                     "--seed", seed, *self._options(system)]  # fmt: skip
            result = train(parse_options(TrainEntailmentOptions, [*map(str, typed)], "benchmarks.entailment", ""))
            assert result.best_checkpoint is not None
            model = Entailment.load(result.best_checkpoint, batch_size=128)
            without = [dataclasses.replace(pair, image_2=None) for pair in self.test]
            return np.stack([model.predict_posts(pairs) for pairs in (self.test, without)]), result.seconds


def script_recipe() -> list[str]:
    """Return the options of the script's training, without files, folders and the device."""
    typed = arguments_after(script_commands(SCRIPT), "train.py")
    return [word for before, word in zip(["", *typed], typed) if not {before, word} & _PLACES]


def measure(
    labels: np.ndarray, runs: dict[str, list[Run]], reference: str, resamples: int
) -> tuple[dict[str, dict[str, Interval]], dict[str, Interval]]:
    """Return every row's measures, as means over seeds with intervals over pairs, and the lead of `reference`.

    The lead is the paired difference in accuracy to each other row: both rows are measured on the same draws of test
    pairs.
    """
    from multimodal_entailment.measures import class_statistics

    means: dict[str, dict[str, Statistic]] = {}
    for name, found in runs.items():
        of_seeds = [class_statistics(labels, probabilities) for probabilities, _ in found]
        means[name] = {which: mean_statistic([run[which] for run in of_seeds]) for which in of_seeds[0]}
    measures = {
        name: bootstrap_intervals(statistics, len(labels), resamples=resamples) for name, statistics in means.items()
    }
    ahead = {
        name: difference(means[reference]["accuracy"], statistics["accuracy"])
        for name, statistics in means.items()
        if name != reference
    }
    return measures, bootstrap_intervals(ahead, len(labels), resamples=resamples) if ahead else {}


def overall_table(
    harness: Harness, runs: dict[str, list[Run]], measures: dict[str, dict[str, Interval]], ahead: dict[str, Interval]
) -> str:
    """Return the table of overall measures, with one row per system."""
    header = ["system", "options", "best possible", "accuracy", "macro-F1", "AUC", "multimodal ahead, accuracy",
              "accuracy of each seed", "training, s"]  # fmt: skip
    rows = []
    for name, found in runs.items():
        possible = harness.truth["best_accuracy"][_SEES.get(name, "text_1+image_1+text_2+image_2")]["accuracy"]
        if name in WITHOUT_IMAGE_2:
            possible = harness.truth["best_accuracy"]["text_1+image_1+text_2"]["accuracy"]
        accuracies = [(probabilities.argmax(axis=1) == harness.labels).mean() for probabilities, _ in found]
        gap = ahead.get(name)
        rows.append([
            name,
            " ".join(SYSTEMS.get(name, ())),
            f"{possible:.3f}",
            *(str(measures[name][which]) for which in _OVERALL),
            "" if gap is None else f"{gap:+.3f}",
            " ".join(f"{value:.3f}" for value in accuracies),
            "" if name in WITHOUT_IMAGE_2 else " ".join(f"{seconds:.0f}" for _, seconds in found),
        ])  # fmt: skip
    return format_table(header, rows)


def class_table(measures: dict[str, dict[str, Interval]]) -> str:
    """Return the table of each class's precision, recall and AUC."""
    from multimodal_entailment.info import LABELS

    names = [f"{label} {which}" for label in LABELS for which in ("precision", "recall", "auc")]
    return format_table(["system", *names], [[name, *(str(own[f]) for f in names)] for name, own in measures.items()])


def run(options: EntailmentBenchmarkOptions) -> int:
    """Print the tables; return 1 if `multimodal` is not established to be ahead of `text_only` and `image_only`."""
    names = chosen("systems", options.systems, list(SYSTEMS), REFERENCE)
    names += [name for name, system in WITHOUT_IMAGE_2.items() if system in names]
    runtime.prepare_command(options.threads)
    harness, seeds = Harness(options), parse_numbers(options.seeds, "seeds")
    runs = {name: harness.runs(name, seeds) for name in names}
    measures, ahead = measure(harness.labels, runs, REFERENCE, 2000)
    print(f"\n{len(harness.test):,} test pairs; means over seeds {options.seeds}, 95% bootstrap intervals over pairs\n")
    print(overall_table(harness, runs, measures, ahead), class_table(measures), sep="\n\n")
    goals = [Goal(f"{REFERENCE} ahead of {name} in accuracy, lower bound", ahead[name].low, 0.0)
             for name in ("text_only", "image_only") if name in ahead]  # fmt: skip
    print(*goals, sep="\n")
    return 0 if all(goal.reached for goal in goals) else 1


main = main_of(run, EntailmentBenchmarkOptions, (__doc__ or "").split("\n")[0], prog="benchmarks.entailment")


if __name__ == "__main__":
    raise SystemExit(main())
