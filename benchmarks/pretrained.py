"""Measure rankers that start from pretrained weights, beside sentence-transformers' CrossEncoder from the same weights.

python -m benchmarks.pretrained --model FOLDER --protocol cv --seeds 1,2,3 --peer_python PATH --scores_dir FOLDER

The weights are m3e-small's (`python -m benchmarks.convert_real` fetches them); they are converted for this toolkit,
and the peer loads them unchanged. Our rankers are trained with `cross_encoder/train_ce.py`, and the peer in a process
of `--peer_python`, which has sentence-transformers. All are trained on the same rows of the same folds. A run takes a
few minutes to some tens of minutes; with `--scores_dir` an interrupted benchmark keeps its finished runs.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Optional

import numpy as np

from benchmarks.harness.quality import print_comparison
from benchmarks.harness.runs import (
    FILES,
    LEXICAL,
    Harness,
    QualityOptions,
    Run,
    Split,
    System,
    converted_encoder,
    data_file,
    file_digest,
    resembling,
    score_file,
    texts_of,
    train_cross_encoder,
)
from benchmarks.harness.workers import process_environment, run_program
from benchmarks.inputs import chosen
from paddle_ranker import runtime
from paddle_ranker.data.rows.records import LabeledPair, read_records, write_records
from paddle_ranker.errors import UsageError
from paddle_ranker.metrics.ranking import standardised
from paddle_ranker.model.parameters import PARAMETERS_FILE
from paddle_ranker.options import main_of, option

NOTHING = "nothing"  # value of --model for random parameters
LINEAR = "linear_on_ids"
# A logistic regression on lexical features and the cosines of the untuned encoder, and the cosine of the vectors alone.
SIMILAR, COSINE = "linear_with_similarity", "cosine"
# Rows that equal another row with `--model nothing`: they learn word pieces from the texts, whatever `--model` is.
FROM_NOTHING = {"linear_on_own_pieces": LINEAR, "small": "match_ranknet_lexical"}
BLENDED = {
    "ranker_and_linear": ("match", LINEAR),
    "all_and_small": ("match_ranknet_lexical", "small"),
    "peer_and_linear": ("peer_2_epochs", SIMILAR),
    "peer_and_words": ("peer_2_epochs", LINEAR),
    "all_and_words": ("match_ranknet_lexical", LINEAR),
    "similarity_and_linear": ("similarity", SIMILAR),
    "similarity_and_peer": ("similarity", "peer_2_epochs"),
}
_WORKER = Path(__file__).resolve().parent / "peers" / "sentence_transformers_worker.py"
_MAX_SEQ_LENGTH, _BATCH_SIZE = 64, 32  # longest pair in tokens; pairs per batch, unless a system sets its own
_SMALL_FILE = 400  # number of rows for the training's last evaluation; the measures use all rows

_WHOLE_QUERIES = ["--loss", "ranknet_bce", "--batch_size", "38"]
_LEXICAL, _SIMILARITY = ["--lexical_features", "true"], ["--similarity", "start"]
_PEERS_RECIPE = ["--new_parts_factor", "1", "--match_embeddings", "false"]
# Options of train_ce.py for each system; `_ours` adds the shared options.
OURS = {
    "plain": [*_PEERS_RECIPE, "--epochs", "1"],
    "plain_2_epochs": [*_PEERS_RECIPE, "--epochs", "2"],
    "match": ["--epochs", "1"],
    "match_lexical": ["--epochs", "1", "--lexical_features", "true"],
    "match_ranknet": ["--epochs", "1", *_WHOLE_QUERIES],
    "match_ranknet_lexical": ["--epochs", "1", *_WHOLE_QUERIES, *_LEXICAL],
    "similarity": ["--epochs", "1", *_WHOLE_QUERIES, *_LEXICAL, *_SIMILARITY],
    "stored_2": ["--epochs", "1", *_WHOLE_QUERIES, *_LEXICAL, "--stored_titles", "2"],
    "stored_3": ["--epochs", "1", *_WHOLE_QUERIES, *_LEXICAL, "--stored_titles", "3"],
    "similarity_stored_3": ["--epochs", "1", *_WHOLE_QUERIES, *_LEXICAL, *_SIMILARITY, "--stored_titles", "3"],
}
# The stages of the peer's training, (data, epochs) each; "train" is the fold's training data.
PEERS = {
    "peer_2_epochs": [("train", 2)],
    "peer_graded": [("train", 2)],
    "peer_after_kuake": [("kuake", 1), ("train", 1)],
}
SYSTEMS = (*LEXICAL, LINEAR, SIMILAR, COSINE, *PEERS, *OURS, *FROM_NOTHING, *BLENDED)


@dataclass(frozen=True)
class FoldRunOptions(QualityOptions):
    """Options shared with `benchmarks.ablation`."""

    model: str = option(
        help="folder of an encoder, from transformers (benchmarks.convert_real fetches m3e-small) or from "
        f"pretraining, or {NOTHING}: 2 layers, 128 wide, random, with word pieces of the texts learned from"
    )
    data: str = option(
        "qbqtc", help=f"data to learn from and to measure on: {', '.join(FILES)}, or a file of labelled pairs"
    )
    protocol: str = option(
        "cv",
        help="cv: every query of the training file, by a run that has not seen it; dev: qbqtc/dev.tsv, once",
        choices=("cv", "dev"),
    )
    folds: int = option(3, help="folds of --protocol cv", minimum=2)
    peer_python: str = option(sys.executable, help="Python interpreter of an environment with requirements/peers.in")
    max_steps: int = option(0, help="maximum number of steps of our trainings; 0: all steps of the epochs", minimum=0)
    threads: int = option(1, help="threads of training", minimum=1)

    @property
    def rates(self) -> tuple[float, float]:
        """Return the maximum learning rate, and the factor of that of the parts that are not pretrained."""
        return (5e-4, 1.0) if self.model == NOTHING else (1e-4, 10.0)

    @property
    def model_name(self) -> str:
        """Return an identifier of the model: its folder's name, and the digest of this toolkit's parameters."""
        parameters = Path(self.model) / PARAMETERS_FILE
        name = Path(self.model).name
        return f"{name} {file_digest(parameters)}" if parameters.is_file() else name


@dataclass(frozen=True)
class PretrainedOptions(FoldRunOptions):
    systems: str = option(
        "bm25_words,features,peer_2_epochs,plain_2_epochs,match_ranknet_lexical",
        help=f"comma-separated: {', '.join(SYSTEMS)}",
    )
    queries: str = option(
        "all",
        help="queries that are measured; unrelated: those that share no title and few characters with a query that "
        "the run was trained on",
        choices=("all", "unrelated"),
    )
    draw: int = option(
        0, help="queries in a bootstrap draw, to see what a test of so few queries could say; 0: all", minimum=0
    )
    reference: Optional[str] = option(None, help="system with which the others are compared (default: the last)")


class Systems:
    """The rows of both benchmarks, over splits and seeds: our rankers, the peer, lexical baselines, and averages."""

    def __init__(self, options: FoldRunOptions, work: Path) -> None:
        self.options, self.work = options, work
        scores_dir = options.scores_dir or str(work / "scores")
        self.harness = Harness(options, options.data, options.protocol, options.folds, scores_dir)

    def run(self, name: str, seeds: Sequence[int]) -> System:
        """Return a system's scores of all measured pairs, joined over the splits, a run per seed."""
        if name in BLENDED:
            return self._blended(name, [self.run(member, seeds) for member in BLENDED[name]])
        if name in FROM_NOTHING:
            options = dataclasses.replace(self.options, model=NOTHING)
            return dataclasses.replace(Systems(options, self.work).run(FROM_NOTHING[name], seeds), name=name)
        if name in LEXICAL:
            return self.harness.baseline(name)
        if name in (LINEAR, SIMILAR, COSINE):  # they use no random numbers
            return self.harness.run(name, [0], self._facts(name), partial(self._linear, name))
        train = partial(self._peer if name in PEERS else self._ours, name)
        return self.harness.run(name, seeds, self._facts(name), train)

    def _blended(self, name: str, members: Sequence[System]) -> System:
        """Average the members' scores, which are standardised on each split; standardise the average as well."""
        runs = []
        for number in range(max(len(member.runs) for member in members)):
            scores = np.empty(len(self.harness.measured))
            for split in self.harness.splits:
                own = [member.runs[min(number, len(member.runs) - 1)][split.rows] for member in members]
                scores[split.rows] = standardised(np.sum(own, axis=0))
            runs.append(scores)
        return System(name, tuple(runs), tuple(map(sum, zip(*(_repeated(m.seconds, len(runs)) for m in members)))))

    def _facts(self, name: str) -> dict[str, Any]:
        values = {key: getattr(self.options, key) for key in ("data", "protocol", "folds", "max_steps")}
        how: Any = OURS.get(name) or PEERS.get(name)
        return {**values, "system": name, "how": how, "model": self.options.model_name}

    def _linear(self, name: str, split: Split, seed: int) -> Run:
        """Fit the linear model on the features of a ranker's head, and score the split; `COSINE` is one feature."""
        from paddle_ranker.encoding.pair_encoder import PairEncoder, never_match_ids
        from paddle_ranker.lexical.head import FeatureHead, LexicalHead, learn_heads
        from paddle_ranker.metrics.logistic import fit_logistic
        from paddle_ranker.model.load_options import LoadOptions
        from paddle_ranker.model.similarity import SimilarityHead
        from paddle_ranker.model.tower_network import load_tower

        if name != LINEAR and self.options.model == NOTHING:
            raise UsageError(f"--model {NOTHING}: {name} needs a pretrained encoder; name its folder")
        with tempfile.TemporaryDirectory(dir=self.work) as temporary:
            folder = Path(temporary)
            write_records(folder / "train.jsonl", split.pairs)
            start = self._start(folder, seed)
            pair_encoder = PairEncoder.from_folder(start, _MAX_SEQ_LENGTH)
            heads: list[FeatureHead] = []
            if name != COSINE:
                heads.append(LexicalHead(pair_encoder.vocab_size, never_match_ids(pair_encoder)))
            if name != LINEAR:
                heads.append(SimilarityHead(load_tower(start, LoadOptions()), pair_encoder))
        began = time.perf_counter()
        learn, score = (pair_encoder.encode(*texts_of(pairs)) for pairs in (split.pairs, self.harness.of(split)))
        learn_heads(heads, learn)
        inputs, measured = (
            np.concatenate([head.of_pairs(pairs, np.arange(len(pairs)), standardise=True) for head in heads], axis=1)
            for pairs in (learn, score)
        )
        if name == COSINE:
            return measured[:, 0].astype(np.float64), time.perf_counter() - began
        linear = fit_logistic(inputs, np.array([pair.label for pair in split.pairs]))
        return linear.logits(measured), time.perf_counter() - began

    def _peer(self, name: str, split: Split, seed: int) -> Run:
        options = self.options
        if options.model == NOTHING:
            raise UsageError(f"--model {NOTHING}: {name} starts from pretrained weights; name their folder")
        with tempfile.TemporaryDirectory(dir=self.work) as temporary:
            folder = Path(temporary)
            write_records(folder / "train.jsonl", split.pairs)
            write_records(folder / "score.jsonl", self.harness.of(split))
            if any(data == "kuake" for data, _ in PEERS[name]):
                write_records(folder / "kuake.jsonl", read_records(data_file(options.data_dir, "kuake"), LabeledPair))
            work = {
                "model": str(Path(options.model).resolve()),
                "stages": [
                    {
                        "pairs": str(folder / f"{data}.jsonl"),
                        "epochs": epochs,
                        "learning_rate": options.rates[0],
                        "graded": name == "peer_graded",
                    }
                    for data, epochs in PEERS[name]
                ],
                "score": str(folder / "score.jsonl"),
                "output": str(folder / "output.npz"),
                "threads": options.threads,
                "seed": seed,
                "max_seq_length": _MAX_SEQ_LENGTH,
                "batch_size": _BATCH_SIZE,
            }
            (folder / "work.json").write_text(json.dumps(work), encoding="utf-8")
            command = [options.peer_python, str(_WORKER), str(folder / "work.json")]
            run_program(command, f"{_WORKER.name} failed", process_environment(options.threads))
            with np.load(folder / "output.npz", allow_pickle=False) as output:
                return output["scores"], float(output["seconds"])

    def _ours(self, name: str, split: Split, seed: int) -> Run:
        options = self.options
        values = {
            "max_seq_length": _MAX_SEQ_LENGTH,
            "batch_size": _BATCH_SIZE,
            "learning_rate": options.rates[0],
            "new_parts_factor": options.rates[1],
            "max_steps": options.max_steps,
            "weight_decay": 0.01,
            "seed": seed,
            "cpu_threads": options.threads,
        }
        with tempfile.TemporaryDirectory(dir=self.work) as temporary:
            folder, held_out = Path(temporary), self.harness.of(split)
            train_file, few, all_of_it = (folder / f"{part}.jsonl" for part in ("train", "few", "all"))
            for file, pairs in ((train_file, split.pairs), (few, held_out[:_SMALL_FILE]), (all_of_it, held_out)):
                write_records(file, pairs)
            start = self._start(folder, seed)
            seconds = train_cross_encoder(train_file, few, start, folder / "run", values, *OURS[name])
            return score_file(folder / "run" / "last", all_of_it), seconds

    def _start(self, folder: Path, seed: int) -> Path:
        """Return the folder of the initial encoder: that of `--model`, converted if necessary, or a random encoder."""
        from paddle_ranker.commands.starter import StarterOptions, make_starter

        if self.options.model == NOTHING:
            starter = StarterOptions(
                corpus=str(folder / "train.jsonl"),
                output_dir=str(folder / "starter"),
                dropout=0.2,
                max_position_embeddings=_MAX_SEQ_LENGTH,
                seed=seed,
            )
            return make_starter(starter)
        return converted_encoder(Path(self.options.model), self.work / "converted")


def _repeated(seconds: tuple[float, ...], count: int) -> tuple[float, ...]:
    return seconds if len(seconds) == count else seconds * count


def run(options: PretrainedOptions) -> None:
    names = chosen("systems", options.systems, SYSTEMS, options.reference)
    seeds = options.begin()
    runtime.select_device("cpu")
    with tempfile.TemporaryDirectory() as work:
        rows = Systems(options, Path(work))
        systems = [rows.run(name, seeds) for name in names]
    queries, labels = rows.harness.queries, rows.harness.labels
    if options.queries == "unrelated":
        related = set().union(*(resembling(rows.harness.of(split), split.pairs) for split in rows.harness.splits))
        kept = np.array([query not in related for query in queries])
        queries, labels = [query for query in queries if query not in related], labels[kept]
        systems = [
            dataclasses.replace(system, runs=tuple(scores[kept] for scores in system.runs)) for system in systems
        ]
    head = f"{options.data}, {options.protocol}: {len(queries):,} pairs of {len(set(queries)):,} queries"
    print_comparison(options, queries, labels, systems, options.reference or names[-1], head, draw=options.draw or None)


main = main_of(run, PretrainedOptions, (__doc__ or "").split("\n")[0], prog="benchmarks.pretrained")


if __name__ == "__main__":
    raise SystemExit(main())
