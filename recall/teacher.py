"""A trained ranker as the teacher of a tower: its scores of the pairs that the training data lack scores of."""

from __future__ import annotations

from dataclasses import replace

from paddle_ranker.scoring.options import ScoringOptions
from paddle_ranker.training.options import TrainingOptions
from paddle_ranker.training.teachers import Teachers
from recall.data import TextPairs


def with_teacher(pairs: TextPairs, folder: str, options: TrainingOptions) -> TextPairs:
    """Return the pairs with the teacher's logits of every pair of a query that has none yet.

    Args:
        folder: the ranker's, as `Teachers` takes it.
        options: the training's, for its device.

    Raises `CheckpointError` if the ranker cannot be loaded.
    """
    queries, titles = pairs.listed()
    lacking = [pair for pair in zip(queries.tolist(), titles.tolist()) if pair not in pairs.teacher]
    teachers = Teachers(folder, ScoringOptions(device=options.device, cpu_threads=options.cpu_threads))
    logits = teachers.logits([pairs.texts[0][q] for q, _ in lacking], [pairs.texts[1][t] for _, t in lacking])
    teachers.report()
    return replace(pairs, teacher={**pairs.teacher, **dict(zip(lacking, logits.tolist()))})
