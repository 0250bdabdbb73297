"""The slot of a server's ranker: loads it, warms it up and checks its scores; pairs go through the shared queue."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.array_types import Array, Arrays
from paddle_ranker.data.files.placed_text import PlacedText
from paddle_ranker.encoding.columns import Columns
from paddle_ranker.encoding.file_pairs import FilePairEncoder, FileTitle
from paddle_ranker.encoding.pair_encoder import PairEncoder, shortest
from paddle_ranker.errors import CheckpointError, DataError
from paddle_ranker.metrics.calibration import sigmoid
from paddle_ranker.model.info import RankerInfo
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import RANKER
from paddle_ranker.model.model_kind import LOGIT, ExportFacts
from paddle_ranker.scoring.loading import ScoringRanker, open_model
from paddle_ranker.scoring.scorer import Scorer
from paddle_ranker.serving.core.batcher import Batcher, BatchObserver
from paddle_ranker.serving.core.faults import INVALID, NOT_FOUND, UNPROCESSABLE, Fault
from paddle_ranker.serving.core.jobs import Check, Job
from paddle_ranker.serving.core.server_config import RANKER_SLOT, ServeConfig
from paddle_ranker.serving.slots.picture_work import PictureWork
from paddle_ranker.serving.slots.self_check import check_rows, token_rows, tolerance_of, warm_up
from paddle_ranker.serving.slots.services import Scores
from paddle_ranker.serving.slots.slots import ServedModel, Slot, computed
from paddle_ranker.version import __version__

QUERIES = ("a", "search engine", "深度学习", "文化差异研究")
TITLES = ("b", "how search engines rank documents", "深度学习在水稻病害诊断中的研究", "语言与文化差异的比较研究" * 8)


@dataclass(frozen=True)
class ServedRanker(ServedModel):
    """A loaded ranker.

    model: the opened ranker
    scorer: computes batches of its pairs
    """

    model: ScoringRanker
    scorer: RankerRunner


class RankerRunner(Scorer):
    """Scorer of a ranker's pairs, and of other kinds of rows that go through the same queue.

    others: dict from a class of columns to the function that computes a batch of such rows; the function has the
        arguments and the result of `compute`
    """

    others: Mapping[type[Columns], Callable[[Columns, NDArray[np.int64]], Arrays]] = {}

    def compute(self, columns: Columns, rows: NDArray[np.int64]) -> Arrays:
        return self.others.get(type(columns), super().compute)(columns, rows)


class RankerSlot(Slot[ServedRanker]):
    """The `ScoringService` of a ranker: checks limits and texts, then puts the pairs into the queue.

    Args:
        config: the server's options; `model` is the ranker's folder. If that is None, requests are refused.
    """

    def __init__(self, config: ServeConfig):
        super().__init__(config, RANKER_SLOT, config.model)
        self._config, self._pictures = config, PictureWork()

    def load(self, observer: Optional[BatchObserver] = None) -> ServedRanker:
        """Load the ranker, warm it up and check its scores.

        Raises `CheckpointError` if scores are not finite, depend on a pair's neighbours in the batch or, in fp32,
        differ from those recorded at export. Also raises the errors of `open_model`.
        """
        config = self._config
        assert config.model is not None
        folder = config.model.resolve()  # once: a link may be moved while the model is opened
        model = open_model(folder, RANKER, LoadOptions.of(config))
        scorer = RankerRunner(model.engine, model.row_encoder, config.batch_size, calibration=model.info.calibration)
        check(scorer, model, config.model)
        batcher = Batcher(
            scorer,
            scorer.encode,
            queue_rows=config.queue_pairs,
            streams=config.streams,
            max_wait_us=config.max_wait_us,
            observer=observer,
        )
        name = config.name_of(RANKER_SLOT, config.model)
        return ServedRanker(name, folder, batcher, time.time(), model, scorer)

    def ready(self) -> ServedRanker:
        """Return the loaded ranker. Raises `Fault` if this server has none or has not loaded it yet."""
        if self.folder is None:
            raise Fault(NOT_FOUND, "this server has no ranker: start it with --model")
        return super().ready()

    @property
    def info(self) -> RankerInfo:
        """The ranker's description. Raises `Fault` as `ready` does."""
        return self.ready().model.info

    @property
    def encoders(self) -> tuple[PairEncoder, ...]:
        """Encoders of the ranker's pairs, one for each member of a blend. Raises `Fault` as `ready` does."""
        return self.ready().model.row_encoder.members

    @property
    def pair_encoder(self) -> Optional[PairEncoder]:
        """The encoder that limits how much of a pair is read, or None if windows let the ranker read all.

        Raises `Fault` as `ready` does.
        """
        served = self.ready()
        return shortest(served.model.row_encoder) if served.scorer.windows is None else None

    def describe(self) -> dict[str, object]:
        """Return the ranker's description for `/info`. The first keys are those of Text Embeddings Inference."""
        served = self.ready()
        model, scorer = served.model, served.scorer
        calibration = model.info.calibration
        return {
            "model_id": served.name,
            "model_type": {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}},
            "max_input_length": model.row_encoder.max_seq_length,
            "max_client_batch_size": self.limits.pairs,
            "auto_truncate": self.limits.auto_truncate,
            "version": __version__,
            "kind": model.info.kind,
            "calibrated": None if calibration is None else calibration.method,
            "loaded_at": served.loaded_at,
            "engine": model.engine.name,
            "precision": model.engine.precision,
            "tokenizer": model.row_encoder.backend,
            "batch_tokens": scorer.max_tokens,
            "batch_pairs": scorer.max_rows,
        }

    async def score_pairs(
        self,
        queries: Sequence[str],
        titles: Sequence[str],
        *,
        deadline: Optional[float] = None,
        check_lengths: Optional[Check] = None,
    ) -> Scores:
        """Score the pairs (queries[i], titles[i]). See `ScoringService`.

        check_lengths: called while the pairs are encoded: with the index of a pair, the token counts `[n]` of this pair
            and the next ones, and the length to which pairs are truncated; may raise a `Fault`
        """
        served = self.ready()
        if len(queries) != len(titles):
            raise Fault(INVALID, f"{len(queries)} queries and {len(titles)} titles: there must be one for each")
        self.limits.check_pairs(len(titles), "title")
        self._check_kinds(titles)
        texts = self.limits.scored_texts(queries, "query"), self.limits.scored_texts(titles, "title")
        end = self.deadline(deadline)
        try:
            return _scores(served, await computed(served.batcher, len(titles), end, texts=texts, check=check_lengths))
        except DataError as error:  # of a text's encoding, such as places in another form
            raise Fault(UNPROCESSABLE, str(error), field="title") from error

    def check_places(self, title: PlacedText, field: str) -> int:
        """Return how many places of a title are changed to fit. Raises `Fault` if they have another form.

        field: name of the places in errors
        """
        try:
            return max(encoder.check_places(title) for encoder in self.encoders)
        except DataError as error:
            raise Fault(UNPROCESSABLE, str(error), field=field) from error

    def _check_kinds(self, titles: Sequence[str]) -> None:
        """Raise `Fault` for the first title that is not of the kind that the ranker reads: texts or pictures."""
        reads_pictures = self.reads_pictures
        for number, title in enumerate(titles):
            if isinstance(title, FileTitle) != reads_pictures:
                kinds = "text, and this ranker reads pictures", "picture, and this ranker reads texts"
                remedy = 'POST /v1/rerank {"image": "data:..."}' if reads_pictures else "serve a ViLT"
                problem = f"is a {kinds[not reads_pictures]}: {remedy}"
                raise Fault(UNPROCESSABLE, problem, field=f"title[{number}]")

    @property
    def reads_pictures(self) -> bool:
        """Whether titles are pictures. Raises `Fault` as `ready` does."""
        return isinstance(self.ready().model.row_encoder, FilePairEncoder)

    def picture_bytes(self) -> int:
        """Return the maximum size in bytes of one encoded picture, for a reservation."""
        encoder = self.ready().model.row_encoder.members[0]
        return 2 * encoder.max_seq_length * encoder.place_size

    async def picture_titles(
        self, pictures: Sequence[bytes], fields: Sequence[str], *, deadline: Optional[float] = None
    ) -> list[FileTitle]:
        """Decode pictures to titles that `score_pairs` takes.

        pictures: bytes of the pictures' files
        fields: names of the pictures in errors

        Raises `Fault` for the first picture that is damaged, too large or no picture.
        """
        encoder = self.ready().model.row_encoder
        assert isinstance(encoder, FilePairEncoder)
        return await self._pictures.read(pictures, fields, self.deadline(deadline), encoder.title)

    async def score_encoded(self, pairs: Columns, *, deadline: Optional[float] = None) -> Scores:
        """Score encoded pairs. Raises `Fault` as `score_pairs` does."""
        served = self.ready()
        self.limits.check_pairs(len(pairs), "title")
        return _scores(served, await computed(served.batcher, len(pairs), self.deadline(deadline), columns=pairs))

    async def score_tokens(
        self, input_ids: Array, token_type_ids: Array, *, deadline: Optional[float] = None
    ) -> Scores:
        """Score `[n, length]` arrays. See `ScoringService`."""
        model = self.ready().model
        self.limits.check_pairs(len(input_ids), "input_ids")
        rows = token_rows(model.engine.limits, model.row_encoder.given, input_ids, token_type_ids)
        return await self.score_encoded(rows, deadline=deadline)


def _scores(served: ServedRanker, job: Job) -> Scores:
    logits = served.scorer.logits_in(job.outputs)
    # Texts are encoded while they wait: other batches are computed meanwhile.
    spans = ("queue", job.arrived, job.begun), ("rank", job.begun, time.monotonic())
    return Scores(sigmoid(logits), logits, job.tokens, job.outputs, spans)


def check(scorer: Scorer, model: ScoringRanker, folder: Path) -> None:
    """Score pairs of several lengths, each alone and all in one batch, and the pairs recorded at export.

    Raises `CheckpointError` if a score is not finite, depends on the batch or, in fp32, differs from the recorded one.
    """

    def probabilities(outputs: Arrays) -> Array:
        return sigmoid(scorer.logits_in(outputs))

    truncated = scorer.row_encoder.truncated
    export: ExportFacts = model.info.export or {}
    # Another device rounds as differently as the exported graph did: 4 times the logit's difference, at a slope of 1/4.
    rounding = max(
        (float(differences.get(LOGIT, 0.0)) for differences in export.get("parity", {}).values()), default=0.0
    )
    tolerance = max(tolerance_of(model.engine.precision), rounding)
    sample, random = scorer.row_encoder.members[0].sample, np.random.default_rng(0)
    titles = [sample(title, random) for title in (*TITLES, TITLES[-1] * 12)]
    check_rows(scorer, scorer.encode(QUERIES, titles[:-1]), probabilities, folder, "pair's probability", tolerance)
    longest = scorer.encode([TITLES[-1] * 12], titles[-1:])
    warm_up(scorer, longest, scorer.encode(QUERIES[:1], titles[:1]))
    scorer.row_encoder.truncated = truncated  # count only users' pairs
    checks = export.get("checks", []) if model.engine.precision == "fp32" else []
    for number, noted in enumerate(checks):
        try:
            ids, types = np.array([noted["input_ids"]], np.int64), np.array([noted["token_type_ids"]], np.int64)
            if len(model.signature.inputs[1].shape) > 2:
                types = types.reshape((*ids.shape, -1))
            expected = float(noted["probability"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{folder}: ranker.json is damaged (export.checks[{number}])") from error
        outputs = model.engine.run({"input_ids": ids, "token_type_ids": types})
        gap = abs(float(sigmoid(scorer.logits_in(outputs))[0]) - expected)
        if not gap <= tolerance:
            raise CheckpointError(
                f"{folder}: a pair's probability is {gap:.2g} from the {expected:.6f} that was noted at its export "
                f"(allowed: {tolerance:g}): the files are not of one export; copy the folder again"
            )
