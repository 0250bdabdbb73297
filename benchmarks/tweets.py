"""Measure the entailment model on the texts of 1,260 real pairs of tweets, by cross-validation, beside baselines.

python -m benchmarks.tweets --model FOLDER --work_dir FOLDER

The tweets' images are no longer available. FOLDER is all-MiniLM-L6-v2 from transformers, which benchmarks.convert_real
fetches, or an encoder of this toolkit.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Optional

import numpy as np

from benchmarks.entailment import class_table, measure
from benchmarks.harness.report import format_table
from benchmarks.harness.runs import Run, RunStore, converted_encoder, file_digest
from benchmarks.inputs import parse_numbers, real_data_file
from paddle_ranker import runtime
from paddle_ranker.model.parameters import PARAMETERS_FILE
from paddle_ranker.options import Options, main_of, option, parse_options
from paddle_ranker.storage.atomic import make_folder

if TYPE_CHECKING:
    from multimodal_entailment.data import PostPair

FILES = ("tweets/train_df.csv", "tweets/val_df.csv")
RECIPE = (
    "--modalities text --epochs 3 --batch_size 16 --learning_rate 1e-4 --warmup_proportion 0.1 --max_seq_length 96 "
    "--class_weights balanced --test_share 0 --eval_step 1000 --save_step 1000 --logging_steps 50"
)
MODEL, MAJORITY, OVERLAP = "text model", "majority class", "word overlap"
_FOLDS_SEED = 42
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class TweetsBenchmarkOptions(Options):
    model: str = option(help="folder of an encoder, from transformers or of this toolkit")
    work_dir: str = option(help="folder for the converted encoder and finished runs")
    folds: int = option(5, help="folds, stratified by class", minimum=2)
    seeds: str = option("1", help="comma-separated random seeds of the trainings")
    threads: int = option(1, help="threads of training", minimum=1)
    data_dir: Optional[str] = option(
        None, help="folder of the real data (default: PADDLE_RANKER_REAL_DATA, else ../shared/data)"
    )


class Harness:
    """The tweets, their folds, and the trainings on them."""

    def __init__(self, options: TweetsBenchmarkOptions):
        from sklearn.model_selection import StratifiedKFold

        from multimodal_entailment.data import read_posts

        self.options, self.work = options, make_folder(options.work_dir)
        files = [real_data_file(options.data_dir, name) for name in FILES]
        self.pairs: list[PostPair] = [pair for path in files for pair in read_posts(path, images=False)]
        self.labels = np.array([pair.label for pair in self.pairs])
        self.digests = [file_digest(path) for path in files]
        splitter = StratifiedKFold(options.folds, shuffle=True, random_state=_FOLDS_SEED)
        self.folds = list(splitter.split(self.labels, self.labels))
        self.encoder = converted_encoder(Path(options.model), self.work / "encoder")
        self.store = RunStore(str(self.work / "runs"))

    def model(self, seed: int) -> Run:
        """Return each pair's probabilities, from a run that has not seen the pair, and the seconds of training."""
        probabilities, spent = np.zeros((len(self.pairs), 3)), 0.0
        for number, (learn, score) in enumerate(self.folds, 1):
            facts = {
                "data": self.digests,
                "encoder": file_digest(self.encoder / PARAMETERS_FILE),
                "options": RECIPE.split(),
                "fold": [number, self.options.folds],
                "seed": seed,
            }
            probabilities[score], seconds = self.store.get(
                facts,
                lambda learn=learn, score=score: self._train(learn, score, seed),  # type: ignore[misc]
            )
            spent += seconds
            right = (probabilities[score].argmax(axis=1) == self.labels[score]).mean()
            print(f"seed {seed}, fold {number}: accuracy {right:.3f}, {seconds:.0f} s", flush=True)
        return probabilities, spent

    def _train(self, learn: np.ndarray, score: np.ndarray, seed: int) -> Run:
        from multimodal_entailment.data import write_posts
        from multimodal_entailment.entailment_scorer import Entailment
        from multimodal_entailment.options import TrainEntailmentOptions
        from multimodal_entailment.train import train

        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "train.csv"
            write_posts(file, [self.pairs[row] for row in learn])
            typed = [*RECIPE.split(), "--train_file", file, "--model_name_or_path", self.encoder, "--device", "cpu"]
            typed += ["--save_dir", Path(folder) / "run", "--cpu_threads", self.options.threads, "--seed", seed]
            result = train(parse_options(TrainEntailmentOptions, [*map(str, typed)], "benchmarks.tweets", ""))
            assert result.last_checkpoint is not None
            # The last checkpoint, because too few pairs are held out in training to choose the best one.
            model = Entailment.load(result.last_checkpoint)
            return model.predict_posts([self.pairs[row] for row in score]), result.seconds

    def majority(self) -> Run:
        """Return for every pair the classes' shares among the training pairs of its fold."""
        probabilities = np.zeros((len(self.pairs), 3))
        for learn, score in self.folds:
            probabilities[score] = np.bincount(self.labels[learn], minlength=3) / len(learn)
        return probabilities, 0.0

    def overlap(self) -> Run:
        """Return each pair's probabilities by a class-balanced logistic regression on the overlap of its texts."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        features = np.array([overlap_features(pair.text_1, pair.text_2) for pair in self.pairs])
        probabilities = np.zeros((len(self.pairs), 3))
        for learn, score in self.folds:
            regression = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
            regression.fit(features[learn], self.labels[learn])
            probabilities[score] = regression.predict_proba(features[score])
        return probabilities, 0.0


def overlap_features(one: str, two: str) -> list[float]:
    """Return the Jaccard overlap of two texts' words, the share of each text's words in the other, and lengths."""
    first, second = (set(_WORD.findall(text.lower())) for text in (one, two))
    shared = len(first & second)
    of_each = [shared / max(1, len(words)) for words in (first, second)]
    return [shared / max(1, len(first | second)), *of_each, float(len(first)), float(len(second))]


def run(options: TweetsBenchmarkOptions) -> None:
    """Print the measures of the model and of the baselines, with intervals over pairs."""
    runtime.prepare_command(options.threads)
    harness = Harness(options)
    runs = {
        MODEL: [harness.model(seed) for seed in parse_numbers(options.seeds, "seeds")],
        OVERLAP: [harness.overlap()],
        MAJORITY: [harness.majority()],
    }
    measures, ahead = measure(harness.labels, runs, MODEL, 2000)
    counts = np.bincount(harness.labels, minlength=3).tolist()
    print(f"\n{len(harness.pairs):,} pairs of tweets {counts}, texts alone, {options.folds} folds; "
          f"seeds {options.seeds}; 95% bootstrap intervals over pairs\n")  # fmt: skip
    header = ["system", "accuracy", "macro-F1", "AUC", f"{MODEL} ahead, accuracy", "training, s"]
    rows = []
    for name, found in runs.items():
        gap, own = ahead.get(name), measures[name]
        shown = "" if gap is None else f"{gap:+.3f}"
        seconds = " ".join(f"{spent:.0f}" for _, spent in found)
        rows.append([name, *(str(own[which]) for which in ("accuracy", "macro_f1", "auc")), shown, seconds])
    print(format_table(header, rows), class_table(measures), sep="\n\n")


main = main_of(run, TweetsBenchmarkOptions, (__doc__ or "").split("\n")[0], prog="benchmarks.tweets")


if __name__ == "__main__":
    raise SystemExit(main())
