"""A trained ranker, here or behind a URL, as the teacher of a tower: its scores of the pairs that the data lack."""

from __future__ import annotations

from dataclasses import replace

from paddle_ranker.scoring.options import ScoringOptions
from paddle_ranker.training.run import Run
from paddle_ranker.training.teachers import Teacher, Teachers
from recall.data import TextPairs
from recall.options import TaughtTowerOptions


def with_teacher(pairs: TextPairs, options: TaughtTowerOptions, run: Run) -> TextPairs:
    """Return the pairs with the teacher's logits of every pair of a query that has none yet.

    Where several processes train, the first one asks a URL and the others find its answers kept.

    Args:
        options: name the teacher, if any.

    Raises `CheckpointError` if the ranker cannot be loaded, `ServerError` if the URL does not answer with scores.
    """
    if options.teacher is not None:
        own = ScoringOptions(device=options.device, cpu_threads=options.cpu_threads)
        return _taught(pairs, Teachers(options.teacher, own))
    if options.teacher_url is None:
        return pairs
    from paddle_ranker.serving.clients.teacher import HttpTeacher

    if not run.processes.is_first:
        run.processes.wait()
    with HttpTeacher(options, run.report) as teacher:
        taught = _taught(pairs, teacher)
    if run.processes.is_first:
        run.processes.wait()
    return taught


def _taught(pairs: TextPairs, teacher: Teacher) -> TextPairs:
    queries, titles = pairs.listed()
    lacking = [pair for pair in zip(queries.tolist(), titles.tolist()) if pair not in pairs.teacher]
    logits = teacher.logits([pairs.texts[0][q] for q, _ in lacking], [pairs.texts[1][t] for _, t in lacking])
    teacher.report()
    return replace(pairs, teacher={**pairs.teacher, **dict(zip(lacking, logits.tolist()))})
