"""This toolkit in the pretraining benchmark: `python -m benchmarks.peers.mlm_worker FOLDER`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np

from benchmarks.peers.answers import Pace, take_stdout


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Train with `trainer.fit` as `train_mlm.py` does, one round of steps per line of standard input."""
    (folder,) = map(Path, sys.argv[1:] if argv is None else argv)
    answers = take_stdout()
    from paddle_ranker import runtime

    runtime.prepare_command(threads=0)  # keeps MKL_NUM_THREADS, which is set
    from paddle_ranker.training.task import Task
    from paddle_ranker.training.trainer import fit
    from pretraining.examples import HeldOut, MaskedExamples
    from pretraining.mlm_options import TrainMlmOptions
    from pretraining.mlm_start import make_masking, open_data, start_mlm

    values: dict[str, Any] = json.loads((folder / "options.json").read_text(encoding="utf-8"))
    given: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
    options = TrainMlmOptions(**given)
    start = start_mlm(options)
    data, masking = open_data(options, start.model.tokenizer), make_masking(options, start.model.tokenizer)
    held_out = HeldOut(data.held_out, masking, options.batch_size)
    pace, losses = Pace(sys.stdin, answers, "tokens"), []  # type: Pace, list[float]

    class Paced(MaskedExamples):
        def loss(self, network: Any, indices: np.ndarray) -> Any:
            pace.tick(int(self.masked(indices).ids.size))
            return super().loss(network, indices)

    def evaluate() -> dict[str, float]:
        took = pace.took()
        measures = held_out.measure(start.model.network, start.run.processes)
        pace.answer({**took, "losses": losses, "eval_loss": measures["loss"]})
        losses.clear()
        return measures

    def note(measures: dict[str, float]) -> dict[str, float]:
        losses.append(measures["loss"])
        return measures

    examples = Paced(data.train, masking)
    task = Task(
        start.model.network,
        examples,
        evaluate,
        save=lambda path, results: None,
        metric="loss",
        lower_is_better=True,
        begin_epoch=examples.begin_epoch,
        describe=note,
    )
    fit(task, options, start.run.processes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
