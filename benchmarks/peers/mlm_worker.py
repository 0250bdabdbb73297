"""This toolkit in the pretraining benchmark: `python -m benchmarks.peers.mlm_worker FOLDER`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional, TextIO

import numpy as np

from benchmarks.peers.work import take_stdout


class Turns:
    """Make a training wait for its turn before a round, and tell after it what it took."""

    def __init__(self, commands: TextIO, answers: TextIO):
        self._commands, self._answers = commands, answers
        self._left = 0
        self.tokens, self.losses = 0, []  # type: int, list[float]
        self._start = self._cpu_start = 0.0
        print(json.dumps({"ready": True}), file=answers, flush=True)

    def step(self, tokens: int) -> None:
        """Begin a step; the first one of a round waits."""
        if self._left == 0:
            self._left, self.tokens, self.losses = int(self._commands.readline() or 0), 0, []
            if self._left == 0:
                raise SystemExit(0)
            self._start, self._cpu_start = time.perf_counter(), time.process_time()
        self._left -= 1
        self.tokens += tokens

    def took(self) -> dict[str, Any]:
        """Stop the clock: what the round took."""
        return {
            "tokens": self.tokens,
            "seconds": time.perf_counter() - self._start,
            "cpu_seconds": time.process_time() - self._cpu_start,
            "losses": self.losses,
        }

    def answer(self, figures: dict[str, Any]) -> None:
        print(json.dumps(figures), file=self._answers, flush=True)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Train by `trainer.fit` as `train_mlm.py` does, a round of steps at a time."""
    (folder,) = map(Path, sys.argv[1:] if argv is None else argv)
    answers = take_stdout()
    from paddle_ranker import runtime

    runtime.prepare_command(threads=0)  # MKL_NUM_THREADS, which is set, stays
    from paddle_ranker.training.trainer import fit
    from pretraining.examples import HeldOut, MaskedExamples
    from pretraining.mlm_options import TrainMlmOptions
    from pretraining.mlm_start import make_masking, open_data, start_mlm

    values: dict[str, Any] = json.loads((folder / "options.json").read_text(encoding="utf-8"))
    given: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
    options = TrainMlmOptions(**given)
    start = start_mlm(options)
    data, masking = open_data(options, start.tokenizer), make_masking(options, start.tokenizer)
    held_out = HeldOut(data.held_out, masking, options.batch_size)
    turns = Turns(sys.stdin, answers)

    class Paced(MaskedExamples):
        def loss(self, network: Any, indices: np.ndarray) -> Any:
            turns.step(int(self.masked(indices).ids.size))
            return super().loss(network, indices)

    def evaluate() -> dict[str, float]:
        took = turns.took()
        figures = held_out.measure(start.network, start.processes)
        turns.answer({**took, "eval_loss": figures["loss"]})
        return figures

    def note(figures: dict[str, float]) -> dict[str, float]:
        turns.losses.append(figures["loss"])
        return figures

    examples = Paced(data.train, masking)
    fit(
        start.network,
        examples,
        options,
        save=lambda path, results: None,
        evaluate=evaluate,
        metric="loss",
        lower_is_better=True,
        part_factors={},
        processes=start.processes,
        begin_epoch=examples.begin_epoch,
        describe=note,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
