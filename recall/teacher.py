"""Teacher of a tower: a trained ranker, here or behind a URL, scores the pairs that have no teacher's score yet."""

from __future__ import annotations

from dataclasses import replace
from typing import Optional

import numpy as np

from paddle_ranker.distributed import ProcessGroup
from paddle_ranker.scoring.scoring_options import ScoringOptions
from paddle_ranker.training.examples import teacher_logits
from paddle_ranker.training.run import TrainingRun
from paddle_ranker.training.teachers import Teacher, Teachers
from recall.data import TextPairs
from recall.options import TaughtTowerOptions


def with_teacher(pairs: TextPairs, options: TaughtTowerOptions, run: TrainingRun) -> TextPairs:
    """Return the pairs with the teacher's logits, which are added where they are missing.

    With several training processes, each computes a share of a ranker's scores. If the teacher is a URL, the first
    process requests all scores, and the others read them from its cache.

    Args:
        options: the options that name the teacher, if any.

    Raises `CheckpointError` if the ranker cannot be loaded, `ServerError` if the URL does not answer with scores.
    """
    if options.teacher is not None:
        scoring = ScoringOptions(device=options.device, cpu_threads=options.cpu_threads)
        return _taught(pairs, Teachers(options.teacher, scoring), run.processes)
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


def with_file_logits(pairs: TextPairs, options: TaughtTowerOptions) -> TextPairs:
    """Return the pairs with the file's scores of a teacher as logits."""
    logits = teacher_logits(options.train_set_file, np.array([*pairs.teacher.values()]), options.teacher_scores)
    return replace(pairs, teacher=dict(zip(pairs.teacher, logits.tolist())))


def _taught(pairs: TextPairs, teacher: Teacher, processes: Optional[ProcessGroup] = None) -> TextPairs:
    queries, titles = pairs.listed()
    lacking = [pair for pair in zip(queries.tolist(), titles.tolist()) if pair not in pairs.teacher]
    share = slice(None) if processes is None else slice(processes.rank, None, processes.size)
    logits = np.zeros(len(lacking))
    logits[share] = teacher.logits(
        [pairs.texts[0][query] for query, _ in lacking[share]], [pairs.texts[1][title] for _, title in lacking[share]]
    )
    if processes is not None:
        processes.wait()  # shares may take minutes more or less
        logits = processes.sum(logits)
    teacher.report()
    return replace(pairs, teacher={**pairs.teacher, **dict(zip(lacking, logits.tolist()))})
