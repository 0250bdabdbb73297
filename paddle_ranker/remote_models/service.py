"""Ask services behind URLs, for towers and rankers: the key, texts that are too long, and services that fail."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Callable, Optional, TypeVar

from paddle_ranker.errors import UsageError
from paddle_ranker.notes import note_once
from paddle_ranker.retrieval.index.model_urls import ServiceFailed, key_variable
from paddle_ranker.retrieval.work.turns import seconds_left
from paddle_ranker.serving.clients.client_errors import RefusedError, ServerError

R = TypeVar("R")
CHARACTERS = 8_000  # code points of a text that are sent, unless an index says otherwise
TIMEOUT = 60.0  # seconds for an answer without a deadline: of a request of a build
RETRIES = 3
_PAUSE = 5.0  # seconds for which a service that failed is not asked again by searches, which would wait for it in vain
_TOO_LONG = (400, 413, 422)  # statuses by which services refuse texts that are too long
_SHORTEST = 64  # code points; a text that is refused at this length is refused for another reason
_SHARE = 0.5  # of the time until a search's deadline: the rest is for the searches without the model
_LEAST_SECONDS = 0.05
_LOG = logging.getLogger(__name__)


def key_of(option: str) -> Optional[str]:
    """Return the API key for the model of an option, from the environment alone, or None."""
    key = os.environ.get(key_variable(option), "").strip()
    if not all("!" <= sign <= "~" for sign in key):
        raise UsageError(f"{key_variable(option)} holds a space or another sign that no header can hold")
    return key or None


class Service:
    """A service at a URL: whether it answers, and how long the texts are that it takes. Thread-safe.

    Args:
        where: its URL, for messages.
        characters: code points of a text that are sent.
    """

    def __init__(self, where: str, characters: int = CHARACTERS):
        self.where, self.characters = where, characters
        self._failed_until, self._problem = 0.0, ""
        self._lock = threading.Lock()

    @contextmanager
    def asking(self, longest: Optional[float] = None) -> Iterator[Optional[float]]:
        """Within the block, ask the service; the value is the time for an answer, None: as long as the client waits.

        longest: time for an answer if there is no deadline

        Raises `ServiceFailed` for the errors of clients. Under a deadline, it does so at once while the service is left
        alone after a failure.
        """
        left = seconds_left()
        if left is not None and time.monotonic() < self._failed_until:
            raise ServiceFailed(self._problem)
        try:
            yield longest if left is None else max(_LEAST_SECONDS, _SHARE * left)
        except ServerError as error:
            if not self._problem:
                _LOG.warning("%s", error)  # once, until it answers again
            self._problem = str(error)
            if not isinstance(error, RefusedError):
                self._failed_until = time.monotonic() + _PAUSE
            raise ServiceFailed(str(error)) from error
        self._failed_until, self._problem = 0.0, ""

    def cut(self, texts: Sequence[str]) -> list[str]:
        """Cut texts to the code points that are sent."""
        return [text[: self.characters] for text in texts]

    def ask_cut(self, ask: Callable[[list[str]], R], texts: Sequence[str]) -> R:
        """Return `ask(texts)`, with texts cut to what the service takes; raises the last error of `ask`.

        If the service refuses the request as too long, its longest texts are cut by a quarter until it does not, and
        later texts from then on before they are sent. A request that is refused with short texts, too, is wrong.
        """
        sent = self.cut(texts)
        most = self.characters
        while True:
            try:
                answer = ask(sent)
            except RefusedError as error:
                longest = max(map(len, sent), default=0)
                if error.code not in _TOO_LONG or longest <= _SHORTEST:
                    raise
                most = max(_SHORTEST, longest * 3 // 4)
                sent = [text[:most] for text in sent]
            else:
                break
        if most < self.characters:
            with self._lock:
                self.characters = min(self.characters, most)
            note_once(f"{self.where}: refuses long texts; those of more than {most:,} characters are cut from now on")
        return answer
