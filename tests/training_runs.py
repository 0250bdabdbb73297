"""A tiny network, trained on tiny triples for the tests of the trainer."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any, Callable

import numpy as np

from ernie_matching.data import join_triples
from ernie_matching.model import PairwiseExamples
from paddle_ranker.distributed import ProcessGroup
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.model.network import RankerNetwork
from paddle_ranker.model.parameters import PARAMETERS_FILE, save_arrays
from paddle_ranker.training.losses.expression import RankingLoss
from paddle_ranker.training.state import find_state
from paddle_ranker.training.task import FitResult, Task
from paddle_ranker.training.trainer import fit
from paddle_ranker.training.training_options import TrainingOptions
from tests.tiny import PAIRS, make_network, write_tokenizer


def make_examples(folder: Path) -> PairwiseExamples:
    """Return 24 triples, with their tokenizer in `folder`."""
    write_tokenizer(folder)
    encoder = PairEncoder.from_folder(folder, 32)
    queries = [query for query, _ in PAIRS] * 4
    titles = [title for _, title in PAIRS] * 4
    triples = join_triples(encoder.encode(queries, titles), encoder.encode(queries, titles[1:] + titles[:1]))
    return PairwiseExamples(triples, RankingLoss("margin_logit"))


class Altered:
    """Examples with another loss: `alter(call, loss, means)` returns the replacement, calls counted from 1."""

    def __init__(self, examples: PairwiseExamples, alter: Callable[[int, Any, Any], Any], groups: Any = None):
        self.examples, self.alter, self.calls = examples, alter, 0
        self.rows_each, self.lengths, self.weight = examples.rows_each, examples.lengths, examples.weight
        self.groups = groups or examples.groups

    def __len__(self) -> int:
        return len(self.examples)

    def loss(self, network: Any, indices: np.ndarray) -> Any:
        self.calls += 1
        self.indices = indices
        return self.alter(self.calls, *self.examples.loss(network, indices))


def at(step: int, act: Callable[[], object]) -> Callable[[int, Any, Any], Any]:
    """Return a function that does something in a step and alters nothing."""
    return lambda call, loss, means: (loss, means) if call != step else (act(), (loss, means))[1]


def run(
    tmp_path: Path,
    examples: Any,
    network: Any = None,
    aucs: Any = (),
    part_factors: Any = None,
    lower_is_better: bool = False,
    hooks: Any = types.MappingProxyType({}),
    **changes: Any,
) -> tuple[FitResult, Any]:
    """Train a tiny network; the evaluations return `aucs` in turn, then 0.5."""
    network = network or make_network()

    def write(folder: Path, results: dict[str, Any]) -> None:
        (folder / "results").write_text(str(results))
        save_arrays(network.state_dict(), folder / PARAMETERS_FILE)

    values = {"batch_size": 8, "epochs": 2, "learning_rate": 1e-3, "eval_step": 2, "logging_steps": 2}
    options = TrainingOptions(save_dir=str(tmp_path / "checkpoint"), **{**values, **changes})
    answers = iter(aucs)
    task = Task(
        network,
        examples,
        evaluate=lambda: {"auc": next(answers, 0.5)},
        save=write,
        metric="auc",
        lower_is_better=lower_is_better,
        part_factors={"head": 10.0} if part_factors is None else part_factors,
        identity={"learning_rate": options.learning_rate},
        **hooks,
    )
    result = fit(task, options, ProcessGroup(), find_state(options.save_dir) if options.resume else None)
    return result, network


def names(folder: Path) -> list[str]:
    """Return the checkpoints and pointers in a folder."""
    return sorted(path.name for path in folder.iterdir() if path.name.startswith(("best", "last", "model")))


def parameters(network: RankerNetwork) -> np.ndarray:
    return np.concatenate([p.numpy().ravel() for p in network.parameters()])


def typed_training(save_dir: object, *more: object, **changes: object) -> list[str]:
    """Return the options of a short pairwise training, for a folder with `train.csv`, `dev.csv`, `encoder`.

    Of options with the same name the last counts.
    """
    values = {
        "train_file": "train.csv",
        "test_file": "dev.csv",
        "model_name_or_path": "./encoder",
        "save_dir": save_dir,
        "device": "cpu",
        "cpu_threads": 1,
        "batch_size": 8,
        "epochs": 4,
        "learning_rate": 1e-3,
        "keep": 2,
        "logging_steps": 1,
        **changes,
    }
    return [*(str(part) for name, value in values.items() for part in (f"--{name}", value)), *map(str, more)]
