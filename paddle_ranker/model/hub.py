"""Find a model of the Hugging Face hub by its name in the hub's cache, and fetch it if missing.

    BAAI/bge-reranker-base            the branch main
    BAAI/bge-reranker-base@2cfc18c    another branch, a tag, or a commit

Only files that a model needs are fetched: configuration, tokenizer, weights, and settings of sentence-transformers;
never code. Weights are safetensors; pickles are fetched only if `PADDLE_RANKER_PICKLES` is set. The hub's environment
variables apply: `HF_HOME` and `HF_HUB_CACHE` (place of the cache), `HF_ENDPOINT` (a mirror),
`HF_HUB_OFFLINE=1` (no requests), `HF_TOKEN`, `HF_HUB_ETAG_TIMEOUT` (seconds to wait for an answer).
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Optional
from urllib.parse import urlsplit

from paddle_ranker.encoding.tokenizers.tokenizer_folder import (
    ADDED_TOKENS_FILE,
    CONFIG_FILE,
    SPECIAL_TOKENS_FILE,
    TOKENIZER_FILE,
    VOCABULARY_FILE,
)
from paddle_ranker.errors import CheckpointError, RankerError, brief, package_for
from paddle_ranker.libraries import ensure_home, switch_off_telemetry
from paddle_ranker.model.families import known_to_transformers
from paddle_ranker.model.hugging_face.adapter_folders import find_encoder
from paddle_ranker.model.hugging_face.adapters import ADAPTER_FILE, ADAPTER_WEIGHTS, PeftAdapter, weights_of
from paddle_ranker.model.hugging_face.chat import TEMPLATE_FILE
from paddle_ranker.model.hugging_face.folder import read_encoder_config
from paddle_ranker.model.hugging_face.library_tokenizer import MODULES_FILE, SENTENCEPIECE_FILES
from paddle_ranker.model.hugging_face.sentences import SENTENCES_FILES, list_modules
from paddle_ranker.model.hugging_face.weights import (
    SAFETENSORS_FILE,
    WEIGHT_FILES,
    missing_shards,
)
from paddle_ranker.model.info import INFO_FILE
from paddle_ranker.model.parameters import PARAMETERS_FILE
from paddle_ranker.model.tower import INFO_FILE as TOWER_FILE
from paddle_ranker.model.tower import QUERY_FOLDER
from paddle_ranker.options import note
from paddle_ranker.storage.atomic import locked, new_file
from paddle_ranker.storage.foreign_config import PREPROCESSOR_FILE, PROCESSOR_FILE

PICKLES_VARIABLE = "PADDLE_RANKER_PICKLES"
_MAIN = "main"
_PREFIX, _SNAPSHOTS = "models--", "snapshots"  # in the cache: begins a model's folder; holds a folder per commit
_NAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9_][A-Za-z0-9._-]*)(?:@([A-Za-z0-9][A-Za-z0-9._/-]*))?")
# A text with such an ending is a path, not a name on the hub.
_MODEL_FILES = (".pdparams", ".pdmodel", ".pdiparams", ".json", ".onnx", ".safetensors", ".bin", ".git")
_FILES = (*_MODEL_FILES, ".tsv", ".csv", ".jsonl", ".txt", ".trec", ".run", ".parquet", ".gz")
_VOCABULARIES = (TOKENIZER_FILE, *SENTENCEPIECE_FILES, VOCABULARY_FILE, "vocab.json", "merges.txt")
_SMALL_FILES = ("config.json", CONFIG_FILE, SPECIAL_TOKENS_FILE, ADDED_TOKENS_FILE, *SENTENCES_FILES, INFO_FILE,
                TOWER_FILE, *_VOCABULARIES, PREPROCESSOR_FILE, PROCESSOR_FILE, TEMPLATE_FILE)  # fmt: skip
# Folders of a model's files in a repository: the root, steps of sentence-transformers, and the query tower.
_PLACE = rf"(?:{QUERY_FOLDER}/)?(?:\d+_\w+/)?"
_SMALL = re.compile(rf"{_PLACE}(?:{'|'.join(map(re.escape, _SMALL_FILES))})")
_WEIGHTS = re.compile(rf"{_PLACE}model(?:-\d+-of-\d+)?\.safetensors(?:\.index\.json)?")
# A repository has an adapter as it has a model, or several adapters in folders by their names.
_OF_ADAPTERS = re.compile(
    rf"(?:{_PLACE}|(?!checkpoint-)[\w.-]+/)(?:{'|'.join(map(re.escape, (ADAPTER_FILE, ADAPTER_WEIGHTS[0])))})"
)
_PICKLES = re.compile(rf"{_PLACE}(?:pytorch_model(?:-\d+-of-\d+)?\.bin(?:\.index\.json)?|{PARAMETERS_FILE})")
_CONNECT_SECONDS = 1.5  # for looking up the host and connecting; HF_HUB_ETAG_TIMEOUT overrides it


@dataclass(frozen=True)
class HubName:
    """Name of a model on the hub: repository (`owner/model`) and revision (a branch, a tag or a commit)."""

    repository: str
    revision: str = _MAIN

    @classmethod
    def parse(cls, text: str) -> Optional[HubName]:
        """Parse a name; return None for a path, and for a name without an owner."""
        match = _NAME.fullmatch(text)
        if match is None or ".." in text or "--" in match[1] or text.endswith(_FILES):
            return None
        return cls(match[1], match[2] or _MAIN)

    @property
    def folder(self) -> Path:
        """Folder of the repository in the cache."""
        return _cache() / f"{_PREFIX}{self.repository.replace('/', '--')}"

    @classmethod
    def of_snapshot(cls, folder: Path) -> Optional[HubName]:
        """Return the name of the model in a snapshot folder of the cache; None for other folders."""
        if folder.parent.name != _SNAPSHOTS:
            return None
        return cls(folder.parents[1].name.replace(_PREFIX, "", 1).replace("--", "/"), folder.name)

    def cached(self) -> Optional[Path]:
        """Return the snapshot folder in the cache, complete or not; None if this revision was never fetched."""
        reference = self.folder / "refs" / self.revision
        commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else self.revision
        snapshot = self.folder / _SNAPSHOTS / commit
        return snapshot if snapshot.is_dir() else None


def find_cached(name: HubName) -> Optional[Path]:
    """Return the folder of a model that is complete in the cache, or None; sends no requests."""
    snapshot = name.cached()
    return snapshot if snapshot is not None and not missing_file(snapshot) else None


def fetch_model(name: HubName) -> Path:
    """Fetch a model's missing files into the cache, and return its folder.

    Raises `CheckpointError` if the model cannot be fetched, `RankerError` if the disk lacks space. The error says where
    the model was looked for and what to do. If the hub cannot be reached, the error comes after about two seconds.
    """
    _cache()  # first, since it checks that the library is installed
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise CheckpointError(f"{_not_here(name)}, and HF_HUB_OFFLINE keeps it from being fetched; {_by_hand(name)}")
    _require_reachable(name, constants.ENDPOINT)
    with locked(_cache() / ".locks" / f"{name.folder.name}.lock", wait=True):
        return find_cached(name) or _fetch(name)  # another process may have fetched it meanwhile


def _fetch(name: HubName) -> Path:
    from huggingface_hub import HfApi, constants

    where = f"{_endpoint()}/{name.repository}"
    with _explained(name):
        model = HfApi().model_info(
            name.repository, revision=name.revision, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT
        )
        commit, sizes = str(model.sha), {file.rfilename: file.size or 0 for file in model.siblings or []}
    small, weights = list(filter(_SMALL.fullmatch, sizes)), list(filter(_WEIGHTS.fullmatch, sizes))
    adapters = list(filter(_OF_ADAPTERS.fullmatch, sizes))
    has_adapter = any(re.fullmatch(_PLACE + re.escape(ADAPTER_FILE), file) for file in adapters)
    if adapters and (has_adapter or not any("/" not in file for file in weights)):
        return _fetch_adapters(name, commit, [*small, *adapters])
    folders = {os.path.dirname(file) for file in weights}
    pickles = [file for file in filter(_PICKLES.fullmatch, sizes) if os.path.dirname(file) not in folders]
    if pickles and not os.environ.get(PICKLES_VARIABLE):
        raise CheckpointError(
            f"{where}: has its weights as {pickles[0]} alone, a pickle; {PICKLES_VARIABLE}=1 fetches it (what reads it "
            "here builds arrays and nothing else), or ask its owner for safetensors"
        )
    weights += pickles
    configurations = [file for file in sorted(small, key=os.path.dirname) if os.path.basename(file) == "config.json"]
    if not weights or not configurations:
        raise CheckpointError(
            f"{where}: has no {'config.json' if weights else SAFETENSORS_FILE}, so that it is no model that is read "
            f"here; choose a model of transformers, of the types {', '.join(known_to_transformers())}"
        )
    folder = name.folder / _SNAPSHOTS / commit
    new = [sizes[file] for file in (*small, *weights) if not (folder / file).is_file()]
    if sum(new) > shutil.disk_usage(_cache()).free:
        raise RankerError(f"{_cache()}: no space for {sum(new):,} bytes; free some, or set HF_HOME to another disk")
    if new:
        size = f"{len(new)} files, {sum(new) / 1e6:,.1f} MB"
        note(f"{name.repository}: fetching {size}, from {_endpoint()} into {_cache()}")
    # Xet cannot resume a transfer, and contacts hosts other than the endpoint.
    constants.HF_HUB_DISABLE_XET = constants.HF_HUB_DISABLE_XET or "HF_HUB_DISABLE_XET" not in os.environ
    _download(name, commit, small)
    encoder = (folder / configurations[0]).parent
    if PARAMETERS_FILE not in weights and not _needed_of_contents(encoder):
        read_encoder_config(encoder / "config.json")  # refuse an unsupported family before fetching its weights
    _download(name, commit, weights)
    return _complete(name, commit)


def _fetch_adapters(name: HubName, commit: str, files: list[str]) -> Path:
    """Fetch a repository of adapters; their settings first, so that no weights come of an adapter that is refused."""
    folder = name.folder / _SNAPSHOTS / commit
    settings = [file for file in files if os.path.basename(file) == ADAPTER_FILE]
    _download(name, commit, settings)
    for file in settings:
        PeftAdapter.read((folder / file).parent)
    _download(name, commit, files)
    return _complete(name, commit)


def _complete(name: HubName, commit: str) -> Path:
    """Return the folder of a fetched commit, and let the revision name it; raises `CheckpointError` if a file lacks."""
    folder = name.folder / _SNAPSHOTS / commit
    if missing_file(folder):
        raise CheckpointError(f"{_not_here(HubName(name.repository, commit))}; run again, or give another model")
    if name.revision != commit:  # last, so that an interrupted transfer does not count as a model
        reference = name.folder / "refs" / name.revision
        reference.parent.mkdir(parents=True, exist_ok=True)
        with new_file(reference) as stream:
            stream.write(commit)
    return folder


def missing_file(folder: Path) -> str:
    """Return the first missing file of a model's folder, relative to the folder; "" if it is complete."""
    if (folder / PARAMETERS_FILE).is_file():
        return "" if (folder / "config.json").is_file() else "config.json"
    adapters = [path.parent for path in (folder / ADAPTER_FILE, *sorted(folder.glob(f"*/{ADAPTER_FILE}")))
                if path.is_file()]  # fmt: skip
    if adapters and not any((folder / file).is_file() for file in WEIGHT_FILES):
        lacking_weights = [adapter for adapter in adapters if weights_of(adapter) is None]
        return str((lacking_weights[0] / ADAPTER_WEIGHTS[0]).relative_to(folder)) if lacking_weights else ""
    encoder = find_encoder(folder)
    if encoder is None:
        return SAFETENSORS_FILE
    lacking = ["config.json"] if not (encoder / "config.json").is_file() else []
    lacking += missing_shards(encoder)
    for files in _needed_of_contents(encoder) or [_VOCABULARIES]:
        lacking += [] if any((encoder / file).is_file() for file in files) else [files[0]]
    missing = [(encoder / file).relative_to(folder) for file in lacking]
    for kind, module in list_modules(folder):
        if kind != "Normalize" and not (module / "config.json").is_file():
            missing.append((module / "config.json").relative_to(folder))
        if kind in ("Dense", "LayerNorm") and not any((module / file).is_file() for file in WEIGHT_FILES):
            missing.append((module / SAFETENSORS_FILE).relative_to(folder))
    if not missing and (folder / QUERY_FOLDER / MODULES_FILE).is_file():
        lacks = missing_file(folder / QUERY_FOLDER)
        return f"{QUERY_FOLDER}/{lacks}" if lacks else ""
    return str(missing[0]) if missing else ""


def _needed_of_contents(encoder: Path) -> list[tuple[str, ...]]:
    """Return the files that a published model of pictures or sounds needs beside its weights; [] for other models.

    One file of each tuple is enough.
    """
    from paddle_ranker.model.hugging_face.published_towers import is_published, reads_texts

    if not is_published(encoder):
        return []
    return [(PREPROCESSOR_FILE, PROCESSOR_FILE), *([_VOCABULARIES] if reads_texts(encoder) else [])]


def _download(name: HubName, commit: str, files: list[str]) -> None:
    """Download files of a commit into the cache; resumes interrupted transfers."""
    from huggingface_hub import snapshot_download
    from tenacity import Retrying, retry_if_exception, stop_after_attempt

    with _explained(name):
        again = Retrying(stop=stop_after_attempt(3), retry=retry_if_exception(_is_cut), reraise=True)
        again(snapshot_download, name.repository, revision=commit, allow_patterns=files)


def _is_cut(error: BaseException) -> bool:
    """Return whether an error shows that a transfer ended early."""
    is_short = type(error) is OSError and "Consistency check failed" in str(error)
    # Errors of requests and of httpx: each version of huggingface_hub has an HTTP library of its own.
    names = (kind.__name__ for kind in type(error).__mro__)
    return is_short or not {"ChunkedEncodingError", "RemoteProtocolError"}.isdisjoint(names)


@contextmanager
def _explained(name: HubName) -> Iterator[None]:
    """Convert exceptions of huggingface_hub in the block to a `CheckpointError` that says what to do."""
    from huggingface_hub.errors import HTTPError  # the base of its HTTP library's: of httpx, these are no `OSError`

    try:
        yield
    except (OSError, HTTPError, ValueError, LookupError, TypeError) as error:  # an odd answer raises the last three
        # Errors of the disk have an errno, those of HTTP libraries and huggingface_hub have none.
        if getattr(error, "errno", None) is not None:
            raise
        raise CheckpointError(_explain(name, error)) from error


def _explain(name: HubName, error: BaseException) -> str:
    from huggingface_hub import constants, errors
    from huggingface_hub.utils import get_token

    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    where = f"{_endpoint()}/{name.repository}"
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    variable = "HF_TOKEN (https://huggingface.co/settings/tokens)"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{where}: has no revision {brief(name.revision)}; give a branch, a tag or a commit of it after the @"
    if isinstance(error, errors.GatedRepoError):
        return f"{where}: is gated; accept its conditions on that page, and set {variable} to a token of yours"
    if status in (401, 403) and get_token():
        return f"{where}: the token in HF_TOKEN is not accepted ({status}); check it, and that it may read this model"
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 403, 404):
        return (
            f"{_not_here(name)}, and not at {_endpoint()} ({status}); check the spelling, or if it is private, set "
            f"{variable} to a token that may read it"
        )
    if status == 429:
        wait = str(response.headers.get("Retry-After") or "")  # type: ignore[union-attr]
        after = f"in {brief(wait, 20)} seconds" if wait.isdigit() else "later"
        return f"{where}: the hub asks for fewer requests (429); run again {after}, or set {variable}"
    if status is not None:
        return f"{where}: answered {status}; run again later, or set HF_ENDPOINT to a mirror"
    if _is_cut(error):
        return f"{where}: the transfer stopped; run again to go on from there ({_reason(error)})"
    if isinstance(error, (errors.FileMetadataError, ValueError, LookupError, TypeError)):
        return f"{where}: did not answer as the hub does ({_reason(error)}); check HF_ENDPOINT={constants.ENDPOINT}"
    return f"{_not_here(name)}, and {_endpoint()} cannot be reached ({_reason(error)}); {_by_hand(name)}"


def _reason(error: BaseException) -> str:
    """Return type and message of the innermost error; HTTP libraries wrap an error in several others."""
    while error.__context__ is not None:
        error = error.__context__
    return brief(f"{type(error).__name__}: {' '.join(str(error).split())}", 160)


def _not_here(name: HubName) -> str:
    """Return the beginning of a message about a model that is not complete in the cache."""
    folder = name.cached()
    lacking = missing_file(folder) if folder is not None else ""
    if lacking:
        return f"{name.repository}: is no folder here, {folder} lacks {lacking}"
    at = "" if name.revision == _MAIN else f" (revision {brief(name.revision)})"
    others = sorted(path.name for path in (name.folder / "snapshots").glob("*"))
    alternative = f" (which has {name.repository}@{others[0]})" if others else ""
    return f"{name.repository}{at}: is no folder here and not in Hugging Face's cache {_cache()}{alternative}"


def _by_hand(name: HubName) -> str:
    return (
        f"give a folder that holds the model, or run where there is a network, hf download {name.repository}, and copy "
        "the cache (HF_HOME names it); HF_ENDPOINT names a mirror"
    )


def _require_reachable(name: HubName, endpoint: str) -> None:
    """Raise `CheckpointError` unless the hub's host, or its proxy, accepts a connection within `_CONNECT_SECONDS`.

    endpoint: URL of the hub

    The variable `HF_HUB_ETAG_TIMEOUT` sets another number of seconds. The connection is tried in a thread, since it
    takes long to look up a host without a network, and the look-up cannot be interrupted.
    """
    from requests.utils import get_environ_proxies, select_proxy

    address = urlsplit(select_proxy(endpoint, get_environ_proxies(endpoint)) or endpoint)
    failed: list[str] = []
    timeout = os.environ.get("HF_HUB_ETAG_TIMEOUT", "")
    seconds = float(timeout) if timeout.isdigit() else _CONNECT_SECONDS

    def connect() -> None:
        try:
            port = address.port or (443 if address.scheme == "https" else 80)
            socket.create_connection((address.hostname or "", port), timeout=seconds).close()
        except (OSError, ValueError) as error:
            failed.append(_reason(error))

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        failed.append(f"no answer in {seconds:g} seconds; HF_HUB_ETAG_TIMEOUT sets more")
    if failed:
        raise CheckpointError(f"{_not_here(name)}, and {endpoint} cannot be reached ({failed[0]}); {_by_hand(name)}")


def _cache() -> Path:
    switch_off_telemetry()
    ensure_home()  # huggingface_hub reads HOME when it is imported
    with package_for("a model by name", "huggingface-hub"):
        from huggingface_hub import constants
    return Path(constants.HF_HUB_CACHE)


def _endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)
