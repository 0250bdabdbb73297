"""Functions shared by the commands that score a file with a ranker."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Optional, TypeVar

import numpy as np

from paddle_ranker.array_types import Floats
from paddle_ranker.data.rows.records import Pair, RecordFile
from paddle_ranker.encoding.columns import Columns
from paddle_ranker.encoding.pair_encoder import PairRowEncoder
from paddle_ranker.encoding.windows import Windows, make_windows
from paddle_ranker.metrics.calibration import sigmoid
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import RANKER
from paddle_ranker.options import json_text, note
from paddle_ranker.options.input_files import folder_of
from paddle_ranker.progress import Progress
from paddle_ranker.scoring.loading import ScoringRanker, open_model
from paddle_ranker.scoring.scorer import Scorer
from paddle_ranker.scoring.scoring_options import FileOptions, PredictOptions, ScoringOptions
from paddle_ranker.storage.prefetch import CHUNK, chunks, prefetch

T = TypeVar("T")
STANDARD_INPUT = "/dev/stdin"  # sys.stdin would block the end of the process if a thread still reads it


def scorer_for(ranker: ScoringRanker, options: ScoringOptions, pairs_file: Optional[str] = None) -> Scorer:
    """Return a scorer with the ranker's calibration and the windows of the options.

    pairs_file: file of the pairs, whose titles may be paths of pictures
    """
    if pairs_file is not None:
        ranker.row_encoder.set_title_folder(folder_of(pairs_file))
    return Scorer(
        ranker.engine,
        ranker.row_encoder,
        options.batch_size,
        calibration=ranker.info.calibration,
        windows=windows_for(ranker, options),
    )


def windows_for(ranker: ScoringRanker, options: ScoringOptions) -> Optional[Windows]:
    """Create the windows that the options ask for, or None; log a note if the calibration has other settings."""
    encoder = ranker.row_encoder
    shape = encoder.max_seq_length, options.windows, options.window_overlap, options.window_top_k
    windows = make_windows(*shape, encoder.members[0].template)
    if ranker.info.calibration:
        fitted, now = ranker.info.calibration.fitted_on.get("scored"), scored_with(ranker.row_encoder, windows)
        if fitted and fitted != now:
            note(
                f"note: the ranker was calibrated with {_shown(fitted)}; with {_shown(now)} its probabilities are less "
                "sure (calibrate with the same options)"
            )
    return windows


def scored_with(pair_encoder: PairRowEncoder, windows: Optional[Windows]) -> dict[str, object]:
    """Return, as JSON values, the settings that a pair's logit depends on besides the ranker."""
    return {"max_seq_length": pair_encoder.max_seq_length, "windows": windows.facts() if windows else None}


def _shown(scored: dict[str, object]) -> str:
    windows = scored["windows"]
    length = f"pairs of up to {scored['max_seq_length']} tokens"
    return f"{length}, cut" if windows is None else f"{length}, windows of {json.dumps(windows)}"


def predict_pairs(options: PredictOptions) -> Iterator[tuple[Pair, float]]:
    """Yield each pair of the input file with its probability, in order; memory does not grow with the file.

    Pairs below `options.min_probability` are omitted, and their number is noted at the end.
    """
    yield from predict_with(open_model(options.params_path, RANKER, LoadOptions.of(options)), options)


def predict_with(ranker: ScoringRanker, options: FileOptions) -> Iterator[tuple[Pair, float]]:
    """Score the pairs as `predict_pairs` does, with a ranker that is already loaded."""
    yield from above(options.min_probability, score_pairs(ranker, options))


def above(minimum: Optional[float], scored: Iterable[tuple[Pair, float]]) -> Iterator[tuple[Pair, float]]:
    """Yield the scored pairs with a probability of at least `minimum`; then log how many pairs were left out.

    If `minimum` is None, all pairs are yielded.
    """
    cut = CutOff(minimum)
    for pair, probability in scored:
        if cut.keeps(probability):
            yield pair, probability
    cut.report()


def score_pairs(ranker: ScoringRanker, options: FileOptions) -> Iterator[tuple[Pair, float]]:
    """Yield each pair of the input file with its probability; note skipped rows at the end."""
    scorer = scorer_for(ranker, options, options.input_file)

    def encode(part: list[Pair]) -> Columns:
        return scorer.encode([pair.query for pair in part], [pair.title for pair in part])

    yield from score_file(options, encode, scorer.logits)


def score_file(
    options: FileOptions, encode: Callable[[list[Pair]], T], logits: Callable[[T], Floats], size: int = CHUNK
) -> Iterator[tuple[Pair, float]]:
    """Yield each pair of the input file with its probability, `size` pairs at a time.

    A second thread reads and encodes the next pairs meanwhile. Skipped rows are noted at the end.

    encode: called with pairs; returns them encoded, for `logits`
    logits: called with encoded pairs; returns their logits, `[n]`
    """
    path = STANDARD_INPUT if options.input_file == "-" else options.input_file
    source = RecordFile(path, Pair, options)

    def encoded() -> Iterator[tuple[list[Pair], T]]:
        for part in chunks(source, size):
            yield part, encode(part)

    # The engine releases Python's lock while it computes.
    with prefetch(encoded()) as waiting, Progress(desc="score", unit="pair") as progress:
        for part, pairs in waiting:
            probabilities = sigmoid(logits(pairs))
            progress.update(len(part))
            yield from zip(part, probabilities.tolist())
    if source.skipped:
        note(f"{options.input_file}: {source.report()}")


class CutOff:
    """Filter that drops and counts probabilities below `minimum`. If `minimum` is None, it drops none."""

    SEEN, LEFT_OUT = "seen", "left out"  # names of the counts, where several filters are added up

    def __init__(self, minimum: Optional[float]):
        self.minimum = minimum
        self.seen = self.left_out = 0

    def keeps(self, probability: float) -> bool:
        self.seen += 1
        is_kept = self.minimum is None or probability >= self.minimum
        self.left_out += not is_kept
        return is_kept

    def report(self) -> None:
        self.note(self.minimum, self.seen, self.left_out)

    @staticmethod
    def note(minimum: Optional[float], seen: int, left_out: int) -> None:
        """Log how many of the `seen` pairs were left out, unless the number is 0."""
        if left_out:
            note(f"{left_out:,} of {seen:,} pairs are below --min_probability {minimum:g} and left out")


def truncations(pair_encoder: PairRowEncoder, windows: Optional[Windows] = None) -> dict[str, int]:
    """Return the numbers of texts that were truncated or scored in windows so far, in a dict by message."""
    return {**pair_encoder.counts(), **({} if windows is None else windows.counts())}


def shown_probability(probability: float) -> float:
    """Return the probability rounded to the digits of single precision: 0.89284337, not 0.8928433656692505."""
    return float(str(np.float32(probability)))


def printed_pair(
    query: str, title: str, probability: float, recall_score: Optional[float], names: tuple[str, str], form: str
) -> str:
    """Return the line that prediction prints for a pair.

    names: keys of the query and of the title
    form: format, dict or json
    """
    recalled = {} if recall_score is None else {"recall_score": recall_score}
    shown = {names[0]: query, names[1]: title, **recalled, "pred_prob": shown_probability(probability)}
    return json_text(shown) if form == "json" else str(shown)
