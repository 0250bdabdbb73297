"""Train towers of emoji and their names on two drawing styles; measure the search of pictures in a third style.

    python datasets/make_emoji.py && python -m benchmarks.pictures [--seeds 1,2,3]

It prints R@10 of names in English and Chinese: of all names and of the learned names among all pictures, and of unseen
names among their own pictures. R@1 of pictures: a picture of a learned style finds the same emoji in the third.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.report import format_table, write_report
from benchmarks.inputs import parse_numbers
from paddle_ranker import runtime
from paddle_ranker.array_types import Booleans
from paddle_ranker.commands.starter import StarterOptions, make_starter
from paddle_ranker.data.trec import read_qrels
from paddle_ranker.errors import DataError
from paddle_ranker.metrics.intervals import bootstrap_interval
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.retrieval.text_vectors import Tower, nearest
from recall.train_batch_neg import TrainBatchNegOptions, train

LANGUAGES = {"en": "English", "zh": "Chinese"}
LEARNED_STYLES = ("google", "twitter")
STARTER: dict[str, Any] = {"picture_size": 32, "num_hidden_layers": 1, "dropout": 0.0}
TRAINING: dict[str, Any] = {
    "batch_size": 128, "learning_rate": 1.5e-3, "new_parts_factor": 1.0, "warmup_proportion": 0.1, "margin": 0.0,
    "scale": 20.0,
}  # fmt: skip


@dataclass(frozen=True)
class PicturesOptions(Options):
    data: str = option("datasets/emoji", help="folder of datasets/make_emoji.py")
    output: str = option("checkpoint/pictures", help="folder for a tower of each seed, tower-1; a tower there is kept")
    seeds: str = option("1,2,3", help="comma-separated random seeds, one tower each")
    epochs: int = option(9, help="epochs of training", minimum=1)
    threads: int = option(0, help="threads of training; 0: one per core", minimum=0)
    json: str = option("", help="file for the figures")


def train_tower(options: PicturesOptions, seed: int) -> Path:
    """Train a tower from random parameters, unless it exists; return its folder."""
    data, folder = Path(options.data), Path(options.output) / f"tower-{seed}"
    if not (folder / "last").exists():
        corpus = str(data / "names.txt")
        start = make_starter(StarterOptions(corpus=corpus, seed=seed, **STARTER))
        settings = TrainBatchNegOptions(
            train_set_file=str(data / "train.tsv"), model_name_or_path=str(start), save_dir=str(folder), seed=seed,
            epochs=options.epochs, cpu_threads=options.threads, resume=True, **TRAINING,
        )  # fmt: skip
        train(settings)
    return folder / "last"


def measure(folder: Path, data: Path, threads: int) -> dict[str, Booleans]:
    """Return for each measure which of its queries found their picture."""
    tower = Tower.open(folder, LoadOptions(threads=threads), for_search=True)
    documents = [json.loads(line) for line in (data / "documents.jsonl").read_text(encoding="utf-8").splitlines()]
    number_of = {document["id"]: number for number, document in enumerate(documents)}
    pictures = tower.encode_pictures([data / document["picture"] for document in documents])
    unseen = np.array([number_of[query] for query in read_qrels(str(data / "qrels.unseen.txt")).qrels])
    is_seen = ~np.isin(np.arange(len(documents)), unseen)
    hits: dict[str, Booleans] = {}
    for language, title in LANGUAGES.items():
        lines = (data / f"queries.{language}.tsv").read_text(encoding="utf-8").splitlines()
        names = tower.query_vectors([line.split("\t")[1] for line in lines])
        every = (nearest(pictures, names, 10)[0] == np.arange(len(names))[:, None]).any(1)
        hits[f"{title} R@10"], hits[f"{title} R@10, learned names"] = every, every[is_seen]
        own = nearest(pictures[unseen], names[unseen], 10)[0] == np.arange(len(unseen))[:, None]
        hits[f"{title} R@10, unseen names among {len(unseen)}"] = own.any(1)
    likes = [
        nearest(pictures, tower.encode_pictures([data / style / Path(row["picture"]).name for row in documents]), 1)[0]
        for style in LEARNED_STYLES
    ]
    hits["picture to picture R@1"] = np.concatenate([found[:, 0] == np.arange(len(documents)) for found in likes])
    return hits


def run(options: PicturesOptions) -> None:
    """Train, measure and print."""
    seeds = parse_numbers(options.seeds, "seeds")
    runtime.prepare_command(options.threads)
    data = Path(options.data)
    if not (data / "documents.jsonl").is_file():
        raise DataError(f"{data / 'documents.jsonl'}: not there; make it with python datasets/make_emoji.py")
    runs = []
    for seed in seeds:
        began = time.perf_counter()
        folder = train_tower(options, seed)
        print(f"{folder}: {time.perf_counter() - began:.0f} s")
        runs.append(measure(folder, data, options.threads))
    rows, figures = [], {}
    for name in runs[0]:
        shares = np.mean([hits[name] for hits in runs], axis=0)
        interval = bootstrap_interval(lambda counts, of=shares: counts @ of / counts.sum(1), len(shares))  # type: ignore[misc]
        figures[name] = [interval.estimate, interval.low, interval.high]
        rows.append([name, f"{len(shares):,}", f"{interval:.3f}"])
    print(f"\nmeans over seeds {options.seeds}, 95% intervals over queries\n")
    print(format_table(["measure", "queries", "found"], rows))
    write_report(options.json or None, {"options": options.seeds, "figures": figures})


main = main_of(run, PicturesOptions, __doc__, prog="benchmarks.pictures")


if __name__ == "__main__":
    raise SystemExit(main())
