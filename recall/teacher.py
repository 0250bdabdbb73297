"""Teacher of a tower: a trained ranker, here or behind a URL, scores the pairs that have no teacher's score yet."""

from __future__ import annotations

from dataclasses import replace

from paddle_ranker.scoring.options import ScoringOptions
from paddle_ranker.training.run import Run
from paddle_ranker.training.teachers import Teacher, Teachers
from recall.data import TextPairs
from recall.options import TaughtTowerOptions


def with_teacher(pairs: TextPairs, options: TaughtTowerOptions, run: Run) -> TextPairs:
    """Return the pairs, with the teacher's logits added wherever they are missing.

    With several training processes, the first one requests the scores from a URL, and the others read them from its
    cache.

    Args:
        options: the options that name the teacher, if any.

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
