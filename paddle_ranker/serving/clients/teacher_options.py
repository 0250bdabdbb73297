"""The options of commands that ask a teacher over HTTP."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import ClassVar, Optional
from urllib.parse import parse_qsl, urlsplit

from paddle_ranker.errors import UsageError, brief
from paddle_ranker.metrics.calibration import AUTO, SCORE_KINDS
from paddle_ranker.options import Options, option, refuse_given
from paddle_ranker.options.declare import ANY_TEXT, fields_of
from paddle_ranker.serving.http.rerank_formats import RERANK_FORMATS

KEY_VARIABLE = "PADDLE_RANKER_TEACHER_KEY"
_SECRET = re.compile("key|token|secret|password|signature", re.I)


@dataclass(frozen=True)
class TeacherOptions(Options):
    """Options of a teacher: its URL and format, and the file of its answers."""

    OF_ASKING: ClassVar[frozenset[str]] = frozenset({  # options that do not change scores
        "teacher_key_variable", "teacher_batch", "teacher_concurrency", "teacher_timeout", "teacher_retries",
        "teacher_deadline", "teacher_answers",
    })  # fmt: skip

    OF_FILES: ClassVar[frozenset[str]] = frozenset()  # options that are about scores in the command's files, too

    teacher_url: Optional[str] = option(
        None, help="URL of a reranker, http://127.0.0.1:8600/rerank, in place of a model folder", addresses=ANY_TEXT
    )
    teacher_format: str = option(
        AUTO,
        help="format of its requests and answers; auto: by the URL's host and the end of its path",
        choices=(AUTO, *RERANK_FORMATS),
    )
    teacher_model: Optional[str] = option(None, help="the model's name in the requests", addresses=ANY_TEXT)
    teacher_scores: str = option(
        AUTO, help="kind of the answers' scores; auto: logits if they were asked for, or if some are not within 0 to 1",
        choices=SCORE_KINDS,
    )  # fmt: skip
    teacher_key_variable: Optional[str] = option(
        None, help=f"the environment variable that holds the API key (default: {KEY_VARIABLE}, if it is set)"
    )
    teacher_batch: Optional[int] = option(
        None, help="most titles of a request (default: 32 as tei, else 100)", minimum=1, maximum=1000
    )
    teacher_concurrency: int = option(4, help="requests that are sent at the same time", minimum=1, maximum=256)
    teacher_timeout: float = option(60.0, help="seconds for an answer, from connecting to its last byte", above=0)
    teacher_retries: int = option(8, help="further attempts of a request", minimum=0)
    teacher_deadline: float = option(
        900.0, help="seconds for a request with all its attempts, and the waits between them", above=0
    )
    teacher_answers: Optional[str] = option(
        None, help="file that keeps answers, so that no pair is asked for twice (default: a file in the cache folder)"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.teacher_url is None:
            names = (field.name for field in fields_of(TeacherOptions) if field.name.startswith("teacher_"))
            of_http = (name for name in names if name not in self.OF_FILES)
            refuse_given(self, of_http, "is about a teacher over HTTP: add --teacher_url")
            return
        _check_url(self.teacher_url)

    def teacher_key(self) -> Optional[str]:
        """Return the API key from the environment, which no message shows, or None if there is none."""
        key = os.environ.get(self.teacher_key_variable or KEY_VARIABLE, "").strip()
        if self.teacher_key_variable is not None and not key:
            raise UsageError(
                "--teacher_key_variable names no variable of the environment: it takes a name, not the key itself"
            )
        if not all("!" <= sign <= "~" for sign in key):
            raise UsageError("the teacher's API key holds a space or another sign that no header can hold")
        return key or None


def _check_url(url: str) -> None:
    shown = brief(url.partition("?")[0])
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"--teacher_url {shown}: {error}") from error
    # The URL is printed, and saved in a training's output folder.
    if "@" in parts.netloc or any(_SECRET.search(name) for name, _ in parse_qsl(parts.query)):
        raise UsageError(f"--teacher_url must hold no password and no key: put the key into {KEY_VARIABLE}")
    if parts.scheme not in ("http", "https") or not host:
        raise UsageError(f"--teacher_url {shown}: expected http://HOST/PATH or https://HOST/PATH")
