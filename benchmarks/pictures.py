"""Train towers of emoji and their names on two drawing styles; measure the search of pictures in a third style.

    python datasets/make_emoji.py && python -m benchmarks.pictures [--seeds 1,2,3]

It prints R@10 of names in English and Chinese: of all names and of the learned names among all pictures, and of unseen
names among their own pictures. R@1 of pictures: a picture of a learned style finds the same emoji in the third. With
`--texts`, nDCG@10 of English names by the last tower's pictures alone, and by pictures and words of a text field, at
equal and at learned weights, which other queries learned: the texts are keywords without the name, and wrong names.
"""

from __future__ import annotations

import io
import json
import tempfile
import time
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.report import format_table
from benchmarks.inputs import parse_numbers
from paddle_ranker import runtime
from paddle_ranker.array_types import Booleans, Floats
from paddle_ranker.commands.evaluate_recall import LEARNED, EvaluateRecallOptions, evaluate
from paddle_ranker.commands.starter import StarterOptions, make_starter
from paddle_ranker.data.rows.trec import read_qrels
from paddle_ranker.errors import DataError
from paddle_ranker.evaluation.retrieval import HYBRID
from paddle_ranker.metrics.intervals import Interval, bootstrap_interval
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.tower import QUERY_FOLDER
from paddle_ranker.notebook import Index
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.retrieval.vectors.text_vectors import Tower, nearest
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
    alike_epochs: int = option(60, help="epochs of training on pairs of pictures", minimum=1)
    epochs: int = option(9, help="epochs of training on names and pictures", minimum=1)
    threads: int = option(0, help="threads of training; 0: one per core", minimum=0)
    texts: bool = option(False, help="measure words beside the pictures of the last tower, too")


def train_tower(options: PicturesOptions, seed: int) -> Path:
    """Train a tower from random parameters, unless it exists; return its folder.

    Its network of pictures first learns from pictures of the same emoji in both styles, then from names.
    """
    data, folder = Path(options.data), Path(options.output) / f"tower-{seed}"
    if not (folder / "last").exists():
        start = make_starter(StarterOptions(corpus=str(data / "names.txt"), seed=seed, **STARTER))
        common: dict[str, Any] = {"seed": seed, "cpu_threads": options.threads, "resume": True, **TRAINING}
        alike = TrainBatchNegOptions(
            train_set_file=str(data / "alike.tsv"), model_name_or_path=str(start), towers=1,
            epochs=options.alike_epochs, save_dir=str(folder / "alike"), **common,
        )  # fmt: skip
        names = TrainBatchNegOptions(
            train_set_file=str(data / "train.tsv"), model_name_or_path=str(folder / "alike" / "last"),
            query_model=str(start / QUERY_FOLDER), epochs=options.epochs, save_dir=str(folder), **common,
        )  # fmt: skip
        train(alike)
        train(names)
    return folder / "last"


def documents_of(data: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (data / "documents.jsonl").read_text(encoding="utf-8").splitlines()]


def measure(folder: Path, data: Path, threads: int) -> dict[str, Booleans]:
    """Return, by measure, whether each query found its picture, `[queries]`."""
    tower, documents = Tower.open(folder, LoadOptions(threads=threads), for_search=True), documents_of(data)
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


def beside_texts(tower: Path, data: Path) -> list[list[str]]:
    """Return a row of nDCG@10 for each kind of texts: pictures alone, and with texts at equal and at learned weights.

    A cell with texts also has the difference to pictures alone.
    """
    documents, rows = documents_of(data), list[list[str]]()
    wrong = np.random.default_rng(0).permutation(len(documents)).tolist()
    texts = {
        "keywords without the name": [
            "; ".join(part for part in document["text"].split("; ") if part not in (document["title"], document["zh"]))
            or "none"
            for document in documents
        ],
        "wrong names": [documents[number]["title"] for number in wrong],
    }
    for what, titles in texts.items():
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
            fields = [{"id": one["id"], "title": title, "picture": data / one["picture"]}
                      for one, title in zip(documents, titles)]  # fmt: skip
            field = {"field": "picture:picture", "field_tower": f"picture={tower}"}
            Index.build(fields, Path(folder) / "index", title="title", **field).close()
            judged = {"queries": str(data / "queries.en.tsv"), "qrels": str(data / "qrels.txt")}
            settings: dict[str, Any] = {"baselines": False, "learn_weights": f"{folder}/weights.json", **judged}
            found = evaluate(EvaluateRecallOptions(index=f"{folder}/index", **settings)).by_query
        alone, *both = (found[system]["ndcg@10"] for system in ("picture", HYBRID, LEARNED))
        shown = [f"{each.mean():.3f}, {interval_of(each - alone):+.3f}" for each in both]
        rows.append([what, f"{interval_of(alone):.3f}", *shown])
    return rows


def interval_of(values: Floats) -> Interval:
    """Return the mean of values of queries, `[queries]`, with its interval."""
    return bootstrap_interval(lambda counts: counts @ values / counts.sum(1), len(values))


def run(options: PicturesOptions) -> None:
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
    rows = []
    for name in runs[0]:
        shares = np.mean([hits[name] for hits in runs], axis=0)
        rows.append([name, f"{len(shares):,}", f"{interval_of(shares):.3f}"])
    print(f"\nmeans over seeds {options.seeds}, 95% intervals over queries\n")
    print(format_table(["measure", "queries", "found"], rows))
    if options.texts:
        header = ["texts", "nDCG@10, pictures alone", "words beside, difference", "at learned weights, difference"]
        print(f"\n{format_table(header, beside_texts(folder, data))}")


main = main_of(run, PicturesOptions, __doc__, prog="benchmarks.pictures")


if __name__ == "__main__":
    raise SystemExit(main())
