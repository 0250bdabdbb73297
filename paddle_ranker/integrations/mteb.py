"""mteb: a tower as an encoder, a ranker as a cross-encoder, for its benchmarks such as C-MTEB.

import mteb
from paddle_ranker.integrations.mteb import PaddleRankerCrossEncoder, PaddleRankerEncoder

mteb.evaluate(PaddleRankerEncoder("checkpoint/tower"), mteb.get_tasks(tasks=["T2Retrieval"]))
mteb.evaluate(PaddleRankerCrossEncoder("checkpoint/best"), mteb.get_tasks(tasks=["T2Reranking"]))
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Optional, Union

import numpy as np

from paddle_ranker.array_types import Floats, Vectors
from paddle_ranker.errors import UsageError, listed, package_for
from paddle_ranker.integrations.sources import RankSource, VectorSource

with package_for(__name__, "mteb"):
    from mteb.models.abs_encoder import AbsEncoder
    from mteb.models.model_meta import ModelMeta, ScoringFunction
    from mteb.types import PromptType

if TYPE_CHECKING:
    from paddle_ranker.retrieval.vectors.text_vectors import Tower
    from paddle_ranker.scoring.ranker import Ranker

_SIMILARITIES = {"cosine": ScoringFunction.COSINE, "dot": ScoringFunction.DOT_PRODUCT}


class PaddleRankerEncoder(AbsEncoder):
    """An encoder of texts by a tower: queries with the tower's network and prompt of queries, all else as documents.

    Args:
        tower, url, key, timeout, model: as of `VectorSource`.
        similarity: how vectors are compared (default: `dot`, since a tower's vectors have length 1 here if it compares
            by cosine; of a server `cosine`).
        name: name in mteb's results (default: `paddle-ranker/` and the folder's or model's name).
        revision: version of the model in mteb's results.
    """

    def __init__(
        self,
        tower: Union[Tower, str, Path, None] = None,
        *,
        url: Optional[str] = None,
        key: Optional[str] = None,
        timeout: Optional[float] = None,
        model: Optional[str] = None,
        similarity: Optional[Literal["cosine", "dot"]] = None,
        name: Optional[str] = None,
        revision: Optional[str] = None,
    ) -> None:
        self.model = VectorSource(tower, url, key, timeout, model)
        similarity = similarity or ("dot" if url is None else "cosine")
        if similarity not in _SIMILARITIES:
            raise UsageError(f"similarity {similarity!r}: choose from {listed(_SIMILARITIES)}")
        self.mteb_model_meta = _meta(
            type(self), name, tower, model, revision, similarity_fn_name=_SIMILARITIES[similarity]
        )

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: Optional[PromptType] = None,
        **kwargs: Any,
    ) -> Vectors:
        """Return the vectors of all texts, `[n, size]`.

        task_metadata, hf_split, hf_subset, kwargs: of mteb's interface; a tower's vectors do not depend on them
        """
        vectors_of = self.model.query_vectors if prompt_type == PromptType.query else self.model.vectors
        return np.concatenate([vectors_of(texts) for texts in _batches(inputs)])


class PaddleRankerCrossEncoder:
    """A cross-encoder that scores pairs by a ranker.

    Args:
        ranker, url, key, timeout, model: as of `RankSource`.
        name, revision: as of `PaddleRankerEncoder`.
    """

    def __init__(
        self,
        ranker: Union[Ranker, str, Path, None] = None,
        *,
        url: Optional[str] = None,
        key: Optional[str] = None,
        timeout: Optional[float] = None,
        model: Optional[str] = None,
        name: Optional[str] = None,
        revision: Optional[str] = None,
    ) -> None:
        self.model = RankSource(ranker, url, key, timeout, model)
        self.mteb_model_meta = _meta(type(self), name, ranker, model, revision, model_type=["cross-encoder"])

    def predict(
        self,
        inputs1: Iterable[Mapping[str, Any]],
        inputs2: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: Optional[PromptType] = None,
        **kwargs: Any,
    ) -> Floats:
        """Return the probability of each pair of a query in `inputs1` and a text in `inputs2`, `[n] float64`.

        task_metadata, hf_split, hf_subset, prompt_type, kwargs: of mteb's interface; scores do not depend on them
        """
        queries, texts = ([text for batch in _batches(inputs) for text in batch] for inputs in (inputs1, inputs2))
        return self.model.score(queries, texts)


def _batches(inputs: Iterable[Mapping[str, Any]]) -> Iterator[list[str]]:
    for batch in inputs:
        if "text" not in batch:
            raise UsageError(f"inputs: have {listed(batch)}, and no text; choose tasks of texts")
        yield list(batch["text"])


def _meta(
    kind: type, name: Optional[str], source: object, model: Optional[str], revision: Optional[str], **more: Any
) -> ModelMeta:
    of_source = Path(source).resolve().name if isinstance(source, (str, Path)) else "model"
    return ModelMeta.create_empty(
        overwrites={
            "loader": kind,
            "name": name or f"paddle-ranker/{model or of_source}",
            "revision": revision or "unknown",
            "modalities": ["text"],
            **more,
        }
    )
