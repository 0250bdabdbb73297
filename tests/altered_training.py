"""The training command with one alteration: `python altered_training.py ALTERATION OPTIONS...`.

`sgd` trains with plain gradient descent, whose steps are proportional to the gradients; AdamW would turn rounding
errors of a zero gradient into whole steps. `raising` is a second process that fails in the middle of its third step.
`slow_disk` takes 35 s for its first checkpoint, longer than gloo's timeout. `held:STEP:FILE:MODULE` runs the command of
that module, but waits after the line of a step until the file exists, so that a test can act at that moment.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from paddle_ranker import runtime

sys.path[0] = str(Path(__file__).parents[1])  # `tests` has folders named like recipes, which imports would find first


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    runtime.prepare()
    import paddle

    from ernie_matching import model, train_pairwise
    from paddle_ranker.model import ranker_folder
    from paddle_ranker.training import log, trainer

    alteration, *options = arguments
    second = os.environ.get("PADDLE_TRAINER_ID") == "1"
    if alteration == "sgd":

        def make_sgd(network: Any, *, learning_rate: float, **_: Any) -> tuple[Any, Any]:
            schedule = paddle.optimizer.lr.LambdaDecay(learning_rate, lambda step: 1.0)
            return paddle.optimizer.SGD(learning_rate=schedule, parameters=network.parameters()), schedule

        patch.object(trainer, "make_optimizer", make_sgd).start()

    elif alteration == "raising" and second:
        loss, calls = model.PairwiseExamples.loss, [0]

        def raise_in_step_3(self: Any, network: Any, indices: Any) -> Any:
            calls[0] += 1
            if calls[0] == 3:
                raise ValueError("the second process fails here")
            return loss(self, network, indices)

        patch.object(model.PairwiseExamples, "loss", raise_in_step_3).start()
    elif alteration == "slow_disk":
        save, seconds = ranker_folder.save_ranker, [35, 0]

        def save_slowly(*arguments: Any) -> None:
            time.sleep(seconds.pop(0))
            save(*arguments)

        patch("paddle_ranker.training.ranker_training.save_ranker", save_slowly).start()
    elif alteration.startswith("held:"):
        _, step, file, module = alteration.split(":")
        report = log.TrainingLog.report

        def report_and_wait(self: Any, line: str) -> None:
            report(self, line)
            while line.startswith(f"global step {step},") and not os.path.exists(file):
                time.sleep(0.01)

        patch.object(log.TrainingLog, "report", report_and_wait).start()
        return int(importlib.import_module(module).main(options))
    return train_pairwise.main(options)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
