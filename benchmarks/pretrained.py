"""Measure rankers that start from pretrained weights, beside sentence-transformers' CrossEncoder from the same weights.

python -m benchmarks.pretrained --protocol cv --seeds 1,2,3 --peer_python PATH --scores_dir FOLDER

The weights are m3e-small's (`python -m benchmarks.convert_real` fetches them), converted for this toolkit and as they
are for the peer. Ours train through `cross_encoder/train_ce.py`; the peer in a process of `--peer_python`, which has
sentence-transformers. All train on the same rows of the same folds. A run takes minutes to tens of them: with
`--scores_dir` a stopped benchmark goes on where it was.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np

from benchmarks.inputs import ROOT
from benchmarks.qbqtc import LEXICAL
from benchmarks.qbqtc_splits import Split, grouped_folds
from benchmarks.report import System, compare, figures_table, parse_numbers, real_data_file, report, write_report
from benchmarks.run_store import Run, RunStore, file_digest
from paddle_ranker import runtime
from paddle_ranker.errors import RankerError, UsageError
from paddle_ranker.options import Options, option, run_command
from paddle_ranker.records import LabeledPair, read_records, write_records

_WORKER = Path(__file__).resolve().parent / "peers" / "sentence_transformers_worker.py"
_SMALL_FILE = 400  # rows that training evaluates on at its end; the figures come from all

_PEERS_RECIPE = ["--learning_rate", "1e-4", "--new_parts_factor", "1", "--match_embeddings", "false"]
# Options of train_ce.py; what all have in common is in `_train`.
OURS = {
    "plain": [*_PEERS_RECIPE, "--epochs", "1"],
    "plain_2_epochs": [*_PEERS_RECIPE, "--epochs", "2"],
    "match": ["--learning_rate", "1e-4", "--epochs", "1"],
    "match_ranknet": ["--learning_rate", "1e-4", "--epochs", "1", "--loss", "ranknet_bce", "--batch_size", "38"],
    "match_ranknet_lexical": ["--learning_rate", "1e-4", "--epochs", "1", "--loss", "ranknet_bce", "--batch_size", "38",
                              "--lexical_features", "true"],
}  # fmt: skip
# The stages of the peer's training: (data, epochs); "train" is the fold's own.
PEERS = {
    "peer_1_epoch": [("train", 1)],
    "peer_2_epochs": [("train", 2)],
    "peer_after_kuake": [("kuake", 1), ("train", 1)],
}
FILES = {"qbqtc": "qbqtc/train.tsv", "kuake": "kuake_qtr/train.tsv"}


@dataclass(frozen=True)
class PretrainedOptions(Options):
    """Options of `python -m benchmarks.pretrained`."""

    model: str = option(help="folder of m3e-small as transformers has it (benchmarks.convert_real fetches it)")
    data: str = option("qbqtc", help="what to learn and to measure", choices=tuple(FILES))
    protocol: str = option(
        "cv",
        help="cv: every query of the training file, by a run that has not seen it; dev: qbqtc/dev.tsv, once",
        choices=("cv", "dev"),
    )
    folds: int = option(3, help="folds of --protocol cv", minimum=2)
    systems: str = option(
        "bm25_words,features,peer_2_epochs,plain_2_epochs,match_ranknet",
        help=f"comma-separated: {', '.join([*LEXICAL, *PEERS, *OURS])}",
    )
    reference: Optional[str] = option(None, help="system the others are compared to (default: the last)")
    peer_python: str = option(sys.executable, help="a Python whose environment has sentence-transformers")
    peer_bf16: bool = option(True, help="train the peer in bfloat16, which is faster where the processor has it")
    max_seq_length: int = option(64, help="longest pair in tokens", minimum=5)
    batch_size: int = option(32, help="pairs a batch, where a system does not say otherwise", minimum=1)
    seeds: str = option("1", help="comma-separated random seeds")
    threads: int = option(1, help="threads of training", minimum=1)
    resamples: int = option(2000, help="bootstrap draws", minimum=10)
    data_dir: Optional[str] = option(
        None, help="folder of the real data (default: PADDLE_RANKER_REAL_DATA, else beside us)"
    )
    scores_dir: Optional[str] = option(
        None, help="keep finished runs there and go on from them (another folder after a change of the code)"
    )
    json: Optional[str] = option(None, help="file for the results as JSON")


def make_splits(options: PretrainedOptions) -> tuple[list[LabeledPair], list[Split]]:
    """Return the measured pairs, and the splits that together score each of them once."""
    train = read_records(real_data_file(options.data_dir, FILES[options.data]), LabeledPair)
    if options.protocol == "dev":
        if options.data != "qbqtc":
            raise UsageError(f"--protocol dev: {options.data} has no dev file; take cv")
        dev = read_records(real_data_file(options.data_dir, "qbqtc/dev.tsv"), LabeledPair)
        return dev, [Split("train", train, np.arange(len(dev)))]
    folds = grouped_folds([pair.query for pair in train], options.folds)
    return train, [
        Split(f"fold {number} of {options.folds}", [train[row] for row in learn], score)
        for number, (learn, score) in enumerate(folds, 1)
    ]


class Bench:
    """Run systems over splits and seeds, with one line a finished run."""

    def __init__(self, options: PretrainedOptions, work: Path) -> None:
        self.options, self.work = options, work
        self.measured, self.splits = make_splits(options)
        self.store = RunStore(options.scores_dir)
        self.digest = file_digest(real_data_file(options.data_dir, FILES[options.data]))

    def run(self, name: str, seeds: Sequence[int]) -> System:
        """Return the scores of all measured pairs, joined over the splits, once for each seed."""
        runs, seconds = [], []
        for seed in [0] if name in LEXICAL else seeds:  # a lexical baseline draws nothing
            scores, spent = np.empty(len(self.measured)), 0.0
            for split in self.splits:
                scores[split.rows], took = self.store.get(self._facts(name, split, seed), self._job(name, split, seed))
                spent += took
                print(f"{name}, {split.name}, seed {seed}: {took:.0f} s of training", flush=True)
            runs.append(scores)
            seconds.append(spent / len(self.splits))
        return System(name, tuple(runs), tuple(seconds))

    def _facts(self, name: str, split: Split, seed: int) -> dict[str, Any]:
        how: Any = OURS.get(name) or PEERS.get(name)
        told = ("data", "protocol", "folds", "max_seq_length", "batch_size", "peer_bf16")
        values = dataclasses.asdict(self.options)
        return {**{key: values[key] for key in told}, "system": name, "how": how, "split": split.name, "seed": seed,
                "file": self.digest, "model": Path(self.options.model).name}  # fmt: skip

    def _job(self, name: str, split: Split, seed: int) -> Callable[[], Run]:
        held_out = [self.measured[row] for row in split.rows]
        if name in LEXICAL:
            return lambda: self._lexical(name, split, held_out)
        if name in PEERS:
            return lambda: self._peer(name, split, held_out, seed)
        return lambda: self._ours(name, split, held_out, seed)

    def _lexical(self, name: str, split: Split, held_out: list[LabeledPair]) -> Run:
        baseline, began = LEXICAL[name](), time.perf_counter()
        baseline.fit(*_texts(split.pairs), [pair.label for pair in split.pairs])
        seconds = time.perf_counter() - began
        return baseline.score(*_texts(held_out)), seconds

    def _peer(self, name: str, split: Split, held_out: list[LabeledPair], seed: int) -> Run:
        options = self.options
        with tempfile.TemporaryDirectory(dir=self.work) as temporary:
            folder = Path(temporary)
            write_records(folder / "train.jsonl", split.pairs)
            write_records(folder / "score.jsonl", held_out)
            kuake = real_data_file(options.data_dir, FILES["kuake"])
            write_records(folder / "kuake.jsonl", read_records(kuake, LabeledPair))
            work = {
                "model": str(Path(options.model).resolve()),
                "stages": [
                    {"pairs": str(folder / f"{data}.jsonl"), "epochs": epochs, "learning_rate": 1e-4}
                    for data, epochs in PEERS[name]
                ],
                "score": str(folder / "score.jsonl"),
                "output": str(folder / "output.npz"),
                "threads": options.threads,
                "seed": seed,
                "max_seq_length": options.max_seq_length,
                "batch_size": options.batch_size,
                "bf16": options.peer_bf16,
            }
            (folder / "work.json").write_text(json.dumps(work), encoding="utf-8")
            _call([options.peer_python, str(_WORKER), str(folder / "work.json")], "the peer's training")
            with np.load(folder / "output.npz", allow_pickle=False) as output:
                return output["scores"], float(output["seconds"])

    def _ours(self, name: str, split: Split, held_out: list[LabeledPair], seed: int) -> Run:
        from paddle_ranker.engines.dygraph import DygraphEngine
        from paddle_ranker.model_folder import load_ranker
        from paddle_ranker.scorer import Scorer

        options = self.options
        with tempfile.TemporaryDirectory(dir=self.work) as temporary:
            folder = Path(temporary)
            write_records(folder / "train.jsonl", split.pairs)
            write_records(folder / "few.jsonl", held_out[:_SMALL_FILE])
            values = {
                "train_set": folder / "train.jsonl",
                "test_file": folder / "few.jsonl",
                "model_name_or_path": self._converted(),
                "save_dir": folder / "run",
                "max_seq_length": options.max_seq_length,
                "batch_size": options.batch_size,
                "warmup_proportion": 0.06,
                "weight_decay": 0.01,
                "eval_step": 10**9,
                "save_step": 10**9,
                "logging_steps": 100,
                "seed": seed,
                "cpu_threads": options.threads,
                "device": "cpu",
            }
            typed = [str(part) for name_, value in values.items() for part in (f"--{name_}", value)]
            _call([sys.executable, str(ROOT / "cross_encoder" / "train_ce.py"), *typed, *OURS[name]], name)
            state = json.loads(next((folder / "run").glob("state_*/state.json")).read_text(encoding="utf-8"))
            parts = load_ranker(folder / "run" / "last")
            encoded = parts.pair_encoder.encode(*_texts(held_out))
            logits = Scorer(DygraphEngine(parts.network), parts.pair_encoder, 64).logits(encoded)
        return logits, float(state["progress"]["seconds"])

    def _converted(self) -> Path:
        from paddle_ranker.convert import ConvertOptions, convert

        target = self.work / "converted"
        if not target.exists():
            convert(ConvertOptions(source=self.options.model, target=str(target)))
        return target


def _call(command: Sequence[str], what: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise RankerError(f"{what} failed ({last}): {' '.join(command[:2])}")


def _texts(pairs: Sequence[LabeledPair]) -> tuple[list[str], list[str]]:
    return [pair.query for pair in pairs], [pair.title for pair in pairs]


def run(options: PretrainedOptions) -> None:
    """Print the table of all systems."""
    names = options.systems.split(",")
    for name in names:
        if name not in {*LEXICAL, *PEERS, *OURS}:
            raise UsageError(f"--systems {name}: choose from {', '.join([*LEXICAL, *PEERS, *OURS])}")
    reference = options.reference or names[-1]
    if reference not in names:
        raise UsageError(f"--reference {reference}: is not among the systems {', '.join(names)}")
    seeds = parse_numbers(options.seeds, "seeds")
    runtime.prepare_command(options.threads)
    runtime.select_device("cpu")
    with tempfile.TemporaryDirectory() as work:
        bench = Bench(options, Path(work))
        systems = [bench.run(name, seeds) for name in names]
    queries, labels = [pair.query for pair in bench.measured], [pair.label for pair in bench.measured]
    figures = compare(queries, labels, systems, reference, resamples=options.resamples)
    print(f"\n{options.data}, {options.protocol}: {len(queries):,} pairs of {len(set(queries)):,} queries; means over "
          f"seeds {options.seeds}, 95% bootstrap intervals over queries\n")  # fmt: skip
    print(figures_table(systems, figures, reference))
    write_report(options.json, report(options, systems, figures, [], pairs=len(queries), reference=reference))


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; return its exit status."""
    return run_command(run, PretrainedOptions, argv, (__doc__ or "").split("\n")[0], prog="benchmarks.pretrained")


if __name__ == "__main__":
    raise SystemExit(main())
