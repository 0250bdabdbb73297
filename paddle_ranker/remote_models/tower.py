"""A tower behind a URL, which speaks OpenAI's embeddings; and what an index keeps to tell it from other models."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Callable, Optional

import numpy as np

from paddle_ranker.array_types import Vectors
from paddle_ranker.errors import CheckpointError, DataError, quoted, refuse_text
from paddle_ranker.notes import note
from paddle_ranker.remote_models.service import CHARACTERS, RETRIES, TIMEOUT, Service, key_of
from paddle_ranker.retrieval.index.model_urls import ModelUrl, ServiceFailed, TowerSettings
from paddle_ranker.retrieval.vectors.text_vectors import normalised
from paddle_ranker.serving.clients.embeddings_client import EmbeddingsClient
from paddle_ranker.storage.atomic import new_file
from paddle_ranker.storage.declared import WIDEST, Between, Positive, Width, read_declared
from paddle_ranker.storage.untrusted import inside, read_json

FILE = "tower_at_url.json"
_OPTION = "--tower"
_PROBE = "深度学习 search engine"  # a text whose vector tells models apart
_LEAST_COSINE = 0.99  # of the probe's vectors of one model, in whatever precision a service computes it
_MOST_TEXTS = 32  # texts of a request, the probe included: what Text Embeddings Inference takes by default
_QUERY_SECONDS = 20.0  # for the vectors of queries, without a deadline
_VERSION = re.compile(r"/v\d+$")
_Numbers = Annotated[tuple[float, ...], Between(1, WIDEST)]
_Ask = Callable[..., Vectors]


@dataclass(frozen=True)
class TowerDescription:
    """Description of a tower behind a URL in an index; it has no URL.

    model: the model's name in requests; None: the service has one
    size: components of its vectors
    query_prompt, text_prompt: what is sent before each query, and before each text
    characters: code points of a text that are sent
    query_probe, text_probe: vectors of a text as a query and as a text, `[size]`
    """

    model: Optional[str]
    size: Width
    query_prompt: str
    text_prompt: str
    characters: Positive
    query_probe: _Numbers
    text_probe: _Numbers

    @property
    def name(self) -> str:
        return "a model without a name" if self.model is None else self.model


def describe_tower(url: ModelUrl, settings: TowerSettings, folder: Path) -> int:
    """Ask a tower for the probe's vectors, write what an index keeps of it into `folder`, and return its size."""
    prompts = settings.query_prompt or "", settings.text_prompt or ""
    characters = settings.characters or CHARACTERS
    unknown = TowerDescription(url.model, 1, *prompts, characters, (), ())
    tower = UrlTower(url, unknown, _MOST_TEXTS)
    query, text = tower.probes()
    probes = (tuple(np.round(vector, 6).tolist()) for vector in (query, text))
    made = TowerDescription(url.model, len(text), *prompts, characters, *probes)
    with new_file(folder / FILE) as stream:
        json.dump(asdict(made), stream, ensure_ascii=False, indent=1)
    return made.size


def read_description(folder: Path) -> TowerDescription:
    """Read what an index keeps of its tower; raises `CheckpointError` if it is missing or damaged."""
    path = inside(folder, FILE)
    try:
        facts = read_json(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: missing or damaged ({error}); copy the index again") from error
    found = read_declared(TowerDescription, path, facts, "copy the index again", exact=True)
    if not len(found.query_probe) == len(found.text_probe) == found.size:
        raise CheckpointError(f"{path}: damaged (probes are not of {found.size} components); copy the index again")
    return found


def differing(folder: Path, settings: TowerSettings) -> dict[str, tuple[str, str]]:
    """Return by option what is said otherwise than when the index was built: (given, own)."""
    own = read_description(folder)
    both = {
        "query_prompt": (settings.query_prompt, own.query_prompt),
        "text_prompt": (settings.text_prompt, own.text_prompt),
        "tower_characters": (settings.characters, own.characters),
    }
    return {
        name: (quoted(given), quoted(known))
        for name, (given, known) in both.items()
        if given is not None and given != known
    }


class OtherModel(ServiceFailed):
    """Error: another model answers than the one with which an index was built."""


class UrlTower:
    """A tower behind a URL: makes vectors of length 1 of texts and queries, with the index's prompts before them.

    Every request has the probe beside its texts, so that no vector of another model gets into the index or a search,
    whenever the service is given another one.

    Args:
        url: where the service is, and the model's name there.
        description: what the index keeps of the tower.
        batch_size: texts of a request, at most.
    """

    def __init__(self, url: ModelUrl, description: TowerDescription, batch_size: int):
        base = url.base.removesuffix("/embeddings")
        prefix = _VERSION.search(base)
        self._description, self._service = description, Service(base, description.characters)
        self._texts = max(1, min(_MOST_TEXTS, batch_size) - 1)
        self._client = EmbeddingsClient(
            url=base if prefix is None else base[: prefix.start()],
            prefix="/v1" if prefix is None else prefix[0],
            model=url.model or description.model,
            timeout=TIMEOUT,
            retries=RETRIES,
            api_key=key_of(_OPTION),
            batch_size=_MOST_TEXTS,
        )

    @classmethod
    def open(cls, url: ModelUrl, folder: Path, batch_size: int) -> UrlTower:
        """Open the tower of an index; a service that does not answer now is asked again by each search.

        Raises `OtherModel` if another model answers than the index was built with.
        """
        description = read_description(folder)
        tower = cls(url, description, batch_size)
        try:
            for _ in tower.probes():
                pass
        except OtherModel:
            raise
        except ServiceFailed as error:
            note(f"{error}; searches go on by words until it answers")
        return tower

    def probes(self) -> tuple[Vectors, Vectors]:
        """Return the vectors of the probe, as a query and as a text, `[size]`; raises as `vectors` does."""
        return self.query_vectors([_PROBE])[0], self.vectors([_PROBE])[0]

    def vectors(self, values: Sequence[object]) -> Vectors:
        """Return the vectors of texts, `[n, size]`.

        Raises `ServiceFailed` if the service does not answer, `OtherModel` if another model does.
        """
        refuse_text(values, "texts")
        texts = [value if isinstance(value, str) else "" for value in values]
        if texts != [*values]:
            raise DataError("the tower behind a URL reads texts alone")
        own = self._description
        return self._all(self._client.vectors, own.text_prompt, texts, own.text_probe, None)

    def query_vectors(self, queries: Sequence[str]) -> Vectors:
        """Return the vectors of queries, `[n, size]`; raises as `vectors` does."""
        refuse_text(queries, "queries")
        own = self._description
        return self._all(self._client.query_vectors, own.query_prompt, queries, own.query_probe, _QUERY_SECONDS)

    def query_read(self, query: str) -> Optional[int]:
        """Return how many code points of a query are sent; None if all are, whose end the service may still cut."""
        most = self._service.characters - len(self._description.query_prompt)
        return most if len(query) > most else None

    def _all(
        self, ask: _Ask, prompt: str, texts: Sequence[str], probe: Sequence[float], longest: Optional[float]
    ) -> Vectors:
        size = self._description.size
        parts = [np.zeros((0, size), np.float32)]
        for start in range(0, len(texts), self._texts):
            sent = [prompt + text for text in (_PROBE, *texts[start : start + self._texts])]
            with self._service.asking(longest) as seconds:
                made = self._service.ask_cut(partial(ask, seconds=seconds), sent)
            made = normalised(made)
            if probe:
                self._check(made[0], np.array(probe, np.float32))
            parts.append(made[1:])
        return np.concatenate(parts if probe else parts[1:]).astype(np.float32)

    def _check(self, found: Vectors, probe: Vectors) -> None:
        """Raise `OtherModel` unless the probe's vector is that of the model with which the index was built."""
        own = self._description
        if found.shape == probe.shape and float(found @ probe) >= _LEAST_COSINE:
            return
        how = f"has {len(found):,} components, not {len(probe):,}"
        if found.shape == probe.shape:
            how = f"has a cosine of {float(found @ probe):.3f} to that of then"
        raise OtherModel(
            f"{self._service.where}: is not {own.name}, with which the index was built: the vector of the text "
            f"{quoted(_PROBE)} {how}. Vectors of two models cannot be compared: give the URL of {own.name}, or build "
            "another index"
        )
