"""Negatives that a tower mines for itself between the epochs of its training (ANCE)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from paddle_ranker.data.rows.records import LabeledPair, Record, RecordFile, Triple, write_records
from paddle_ranker.errors import DataError, UsageError, quoted
from paddle_ranker.model.tower import TextEncoder
from paddle_ranker.retrieval.stored.candidate_indexes import Document, IndexOptions, TowerIndex
from paddle_ranker.training.mining import SCORE_RATIO, Choice, Miner, group_judgments, report_of
from recall.data import Negatives, TextPairs
from recall.model import InBatchExamples
from recall.teacher import with_teacher
from recall.training import TowerStart, towers_in_training

if TYPE_CHECKING:
    from recall.train_batch_neg import TrainBatchNegOptions


class RefreshedNegatives:
    """Negatives that are mined anew, by the tower in training, before every n-th epoch.

    Xiong et al., 2021, "Approximate nearest neighbor negative contrastive learning for dense text retrieval", mine
    beside the training, with a network that is some thousand steps old. Here training waits for the mining, so that
    the negatives are those of the present network. Candidates, their ranks and what is left out as a probable answer
    are the defaults of `paddle-ranker mine --tower`. Mined negatives join those of the training file.

    Args:
        start: the training, whose networks mine.
        examples: the examples that get the negatives; candidates are all their titles.

    Each mining writes its triples to `negatives_<epoch>.jsonl` in the training's folder, where a resumed training reads
    them again. Raises `UsageError` for a tower that reads pictures or sounds.
    """

    def __init__(self, start: TowerStart, examples: InBatchExamples, options: TrainBatchNegOptions):
        for tower in towers_in_training(start, 1):
            if not isinstance(tower.encoder, TextEncoder):
                raise UsageError(
                    f"--refresh_negatives mines texts, and this tower reads {tower.encoder.reads}s: leave it out, and "
                    "let paddle-ranker mine --tower find negatives"
                )
        self._start, self._examples, self._options = start, examples, options
        self._of_file, self._resumes = examples.pairs, start.run.resumed is not None

    def begin_epoch(self, epoch: int) -> None:
        """Mine before an epoch if it is time, and draw each example's negatives for the epoch."""
        latest = next((past for past in range(epoch, 0, -1) if self._options.refreshes_before(past)), None)
        if latest is not None and (latest == epoch or self._resumes):
            file = Path(self._options.save_dir) / f"negatives_{latest}.jsonl"
            if not self._resumes:
                self._mine(file, latest)
            elif not file.is_file():
                raise DataError(
                    f"{file}: is not there; epoch {epoch} began with its negatives, which the network would no longer "
                    "find: begin anew, without --resume"
                )
            self._examples.learn_from(self._with_mined(file))
        self._resumes = False
        self._examples.begin_epoch(epoch)

    def _mine(self, file: Path, epoch: int) -> None:
        """Let the first process mine and write the triples; the others wait."""
        processes = self._start.run.processes
        if processes.is_first:
            began, counts = time.monotonic(), Counter[str]()
            triples = list(self._mined(epoch, counts))
            if triples:
                write_records(file, triples)
            else:
                file.write_bytes(b"")
            self._start.run.report(
                f"before epoch {epoch}: {counts['negatives']:,} negatives of {counts['queries']:,} queries among "
                f"{len(self._of_file.texts[1]):,} titles, in {time.monotonic() - began:.0f} s; left out or not found: "
                f"{report_of(counts)}"
            )
        processes.wait()

    def _mined(self, epoch: int, counts: Counter[str]) -> Iterator[Record]:
        pairs, options = self._of_file, self._options
        queries, titles = pairs.texts
        tower, _ = towers_in_training(self._start, options.batch_size)
        index = TowerIndex(
            (Document(str(number), title) for number, title in enumerate(titles)), IndexOptions(tower=tower)
        )
        answers = zip(pairs.query_of.tolist(), pairs.title_of.tolist())
        judged = group_judgments(LabeledPair(queries[query], titles[title], 1.0) for query, title in answers)
        choice = Choice(options.negatives, seed=options.seed + epoch, max_score_ratio=SCORE_RATIO)
        miner = Miner(index, choice, index, options.train_set_file)
        yield from miner.mine_part(judged)
        counts.update(miner.counts)

    def _with_mined(self, file: Path) -> TextPairs:
        """Return the pairs with the negatives of the training file and of a file of triples."""
        pairs = self._of_file
        numbers, others = [dict(zip(texts, range(len(texts)))) for texts in pairs.texts], dict[object, list[int]]()
        keys = pairs.query_keys.tolist(), pairs.title_keys.tolist()
        for row in RecordFile(str(file), Triple) if file.stat().st_size else ():
            try:
                query, title, other = numbers[0][row.query], numbers[1][row.title], numbers[1][row.neg_title]
            except KeyError as error:
                text = quoted(error.args[0])
                raise DataError(f"{file}: {text} is no text of the training; begin anew, without --resume") from None
            others.setdefault((keys[0][query], keys[1][title]), []).append(other)
        given, rows = pairs.negatives, list[list[int]]()
        for number, (query, title) in enumerate(zip(pairs.query_of.tolist(), pairs.title_of.tolist())):
            own = [] if given is None else given.titles[given.offsets[number] : given.offsets[number + 1]].tolist()
            rows.append([*dict.fromkeys([*own, *others.get((keys[0][query], keys[1][title]), ())])])
        known = 0 if given is None else given.known_answers
        mined = replace(pairs, negatives=replace(Negatives.of(rows), known_answers=known))
        if self._options.terms.of_teacher:
            mined = with_teacher(mined, self._options, self._start.run)
            self._of_file = replace(pairs, teacher=mined.teacher)  # no pair is scored twice
        return mined
