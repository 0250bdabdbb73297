"""Towers and rankers behind URLs, in place of models that are opened here: what searches need of them.

`http://HOST/v1#MODEL` names one; the guest `remote_models` asks it. An index that was built with such a tower holds
what tells its vectors from those of another model, and never a URL: whoever opens the index gives it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Callable, NamedTuple, Optional
from urllib.parse import urlsplit

from paddle_ranker.addresses import is_url
from paddle_ranker.array_types import Floats
from paddle_ranker.errors import RankerError, UsageError, brief
from paddle_ranker.registry import Registry
from paddle_ranker.retrieval.stored.manifest import URL_FOLDER, VECTORS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paddle_ranker.retrieval.index.collection import Collection
    from paddle_ranker.retrieval.stored.schema import FieldTower


class ServiceFailed(RankerError):
    """Error: the model behind a URL gave no answer that can be used; searches go on without it."""


class ModelUrl(NamedTuple):
    """The parts of `http://HOST/v1#MODEL`.

    base: URL of the service
    model: name of the model in requests; None: the service has one
    """

    base: str
    model: Optional[str]

    @classmethod
    def parse(cls, text: str, option: str) -> ModelUrl:
        """Split a URL; raises `UsageError`, naming the option, for one with a user, a password or settings in it."""
        base, _, model = text.partition("#")
        shown = brief(base.partition("?")[0].rpartition("@")[2])
        try:
            parts = urlsplit(base)
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            raise UsageError(f"{option} {shown}: {error}") from error
        if "@" in parts.netloc:
            raise UsageError(f"{option} {shown}: holds a user or a password; put the key into {key_variable(option)}")
        if parts.query:
            raise UsageError(f"{option} {shown}: has settings behind a ?; a key goes into {key_variable(option)}")
        if not is_url(base) or not host:
            raise UsageError(f"{option} {shown}: expected http://HOST/v1#MODEL or https://HOST/v1#MODEL")
        if HTTP not in MODEL_SERVICES:
            raise UsageError(f"{option} {shown}: this installation asks no models behind URLs; name a folder")
        return cls(base.rstrip("/"), model or None)

    @property
    def name(self) -> str:
        """Name of the model in answers: its own, or the host if requests name no model."""
        return self.model or urlsplit(self.base).netloc


def key_variable(option: str) -> str:
    """Return the environment variable with the API key of the model that an option names."""
    return f"PADDLE_RANKER_{option.strip('-').upper()}_KEY"


@dataclass(frozen=True)
class TowerSettings:
    """Settings of a tower behind a URL, as `index build` gets them.

    query_prompt, text_prompt: what is sent before each query, and before each text; the service adds nothing
    characters: how many code points of a text are sent; None: a default
    """

    query_prompt: Optional[str] = None
    text_prompt: Optional[str] = None
    characters: Optional[int] = None


class UrlRanker(ABC):
    """A ranker behind a URL."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the ranker in answers."""

    @abstractmethod
    def logits(self, queries: Sequence[str], texts: Sequence[str]) -> Floats:
        """Return the logit of each pair, `[n]`; raises `ServiceFailed`."""


class ModelService(NamedTuple):
    """How models behind URLs are asked.

    describe_tower: (URL, settings, empty folder) writes what an index keeps of a tower; returns its vectors' size
    open_tower: (URL, this folder, texts of a request) to the tower
    differing: (this folder, settings) to those that the index was built otherwise with: by name, (given, own)
    open_ranker: (URL, texts of a request) to the ranker
    """

    describe_tower: Callable[[ModelUrl, TowerSettings, Path], int]
    open_tower: Callable[[ModelUrl, Path, int], FieldTower]
    differing: Callable[[Path, TowerSettings], dict[str, tuple[str, str]]]
    open_ranker: Callable[[ModelUrl, int], UrlRanker]


MODEL_SERVICES: Registry[ModelService] = Registry("service of models", recipes="services")
HTTP = "http"  # the service's name in `MODEL_SERVICES`


def url_differences(index: Path, settings: TowerSettings) -> dict[str, tuple[str, str]]:
    """Return by option what is said otherwise than when the index was built: (given, own)."""
    return MODEL_SERVICES[HTTP].differing(index / URL_FOLDER, settings)


def lend_tower(collection: Collection, url: Optional[str], batch_size: int) -> None:
    """Let the tower behind a URL make the vectors of an index that was built with it; do nothing for a path or None.

    Raises `UsageError` if the index was not built with a tower behind a URL, `CheckpointError` if it was built with
    another model than answers there.
    """
    if not is_url(url):
        return
    parsed = ModelUrl.parse(str(url), "--tower")
    tower, models = collection.info.tower, collection.snapshot().models
    if tower is None or not tower.is_at_url:
        has = "has no tower" if tower is None else "has its own copy of its tower; leave --tower out"
        raise UsageError(f"--tower {url}: {collection.folder} {has}, or build another index with this one")
    models.lend_tower(VECTORS, MODEL_SERVICES[HTTP].open_tower(parsed, models.folder(tower.folder), batch_size))


def open_url_ranker(url: str, batch_size: int) -> UrlRanker:
    """Return the ranker behind a URL, which is asked when it first scores."""
    return MODEL_SERVICES[HTTP].open_ranker(ModelUrl.parse(url, "--ranker"), batch_size)
