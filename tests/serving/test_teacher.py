"""Teachers over HTTP: each format's requests and answers, hostile servers, what is kept."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import subprocess
import sys
import threading
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

from paddle_ranker.errors import DataError, RankerError, UsageError
from paddle_ranker.serving.clients import teacher as module
from paddle_ranker.serving.clients.client_errors import ServerError
from paddle_ranker.serving.clients.teacher import AnswerCache, HttpTeacher
from paddle_ranker.serving.clients.teacher_options import KEY_VARIABLE, TeacherOptions
from tests.conftest import REPOSITORY
from tests.fake_teacher import Broken, Reply, Server, answered, http, score_of, tei
from tests.started import until

pytestmark = pytest.mark.unit  # no process is started
SECONDS = 60  # for what takes milliseconds
KEY = "s3cret-key"


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that teachers waited to ask again, in which no time passes."""
    found: list[float] = []

    async def sleep_until_failure(failed: asyncio.Event, seconds: float) -> None:
        found.append(seconds)

    monkeypatch.setattr(module, "sleep_until_failure", sleep_until_failure)
    return found


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def ask(tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a function that makes a teacher of a URL and options."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", KEY_VARIABLE):
        monkeypatch.delenv(name, raising=False)

    def made(url: str, **options: Any) -> HttpTeacher:
        named = {f"teacher_{name}": value for name, value in options.items()}
        named.setdefault("teacher_answers", str(tmp_path / "answers.sqlite"))
        given = TeacherOptions(teacher_url=url, **named)
        return HttpTeacher(given, lines.append)

    return made


QUERIES, TITLES = ["q", "q", "other"], ["水稻病害诊断", "a", "经济"]
LOGITS = [score_of(query, title) for query, title in zip(QUERIES, TITLES)]
_USAGE = {"usage": {"total_tokens": 7}}


def ranked(name: str, **more: Any) -> Reply:
    """Return the reply of those whose results have an index and a `relevance_score`, under `name`."""

    def reply(asked: dict[str, Any]) -> bytes:
        results = [
            {"index": i, "relevance_score": 1 / (1 + math.exp(-score_of(asked["query"], text)))}
            for i, text in enumerate(asked["documents"])
        ]
        return answered({name: results[::-1], **more})

    return reply


@pytest.mark.parametrize(
    "spoken, path, reply, said, cost",
    [
        ("cohere", "/v2/rerank", ranked("results", id="1", meta={"billed_units": {"search_units": 1}}), {},
         {"search units": 2}),
        ("jina", "/v1/rerank", ranked("results", model="m", **_USAGE), {"return_documents": False}, {"tokens": 14}),
        ("voyage", "/v1/rerank", ranked("data", object="list", **_USAGE), {"return_documents": False}, {"tokens": 14}),
        ("vllm", "/rerank", ranked("results", id="1", **_USAGE),
         {"truncate_prompt_tokens": -1, "use_activation": False}, {"tokens": 14}),
    ],
)  # fmt: skip
def test_each_format_is_asked_and_read_as_its_own_clients_do(
    ask: Any, lines: list[str], spoken: str, path: str, reply: Reply, said: dict[str, Any], cost: dict[str, int]
) -> None:
    with Server(reply) as server:
        url = server.url.replace("/rerank", path)
        with ask(url, format=spoken, model="large", concurrency=1) as teacher:
            np.testing.assert_allclose(teacher.logits(QUERIES, TITLES), LOGITS, atol=1e-12)
            teacher.report()
    assert server.bodies == [
        {"query": "q", "documents": TITLES[:2], "model": "large", **said},
        {"query": "other", "documents": TITLES[2:], "model": "large", **said},
    ]
    assert server.heads[0].startswith(f"POST {path} HTTP/1.1\r\n")
    assert {name: teacher.costs[name] for name in cost} == cost
    assert "the scores are within 0 to 1: probabilities (--teacher_scores says otherwise)" in lines


def test_text_embeddings_inference_gives_logits_as_they_are(ask: Any, lines: list[str]) -> None:
    def reply(asked: dict[str, Any]) -> bytes:
        return tei(asked).replace(b"X\r\n", b"X\r\nx-compute-tokens: 5\r\n", 1)

    with Server(reply) as server, ask(server.url) as teacher:
        assert teacher.logits(QUERIES, TITLES).tolist() == LOGITS
        assert teacher.costs["tokens"] == 10
    assert {"query": "q", "texts": TITLES[:2], "raw_scores": True, "truncate": True} in server.bodies
    assert lines == [
        f"asking {server.url} as clients of Text Embeddings Inference do (tei, by the URL; --teacher_format names "
        "another)"
    ]


def test_pairs_are_asked_once_by_query_in_batches(ask: Any) -> None:
    queries, titles = ["a", "b", "a", "a", "a"], ["1", "2", "33", "1", "444"]
    with Server(tei) as server, ask(server.url, batch=2, concurrency=1) as teacher:
        expected = [score_of(query, title) for query, title in zip(queries, titles)]
        assert teacher.logits(queries, titles).tolist() == expected
        assert teacher.logits([], []).tolist() == []
    assert [(body["query"], body["texts"]) for body in server.bodies] == [
        ("a", ["1", "33"]), ("a", ["444"]), ("b", ["2"])
    ]  # fmt: skip


def test_so_many_requests_at_a_time_and_no_more(ask: Any) -> None:
    together = threading.Barrier(3)

    def reply(asked: dict[str, Any]) -> bytes:
        together.wait(SECONDS)
        return tei(asked)

    queries = [f"q{number}" for number in range(12)]
    with Server(reply) as server, ask(server.url, concurrency=3) as teacher:
        teacher.logits(queries, ["t"] * 12)
    assert (server.most, len(server.bodies)) == (3, 12)


def test_answers_are_kept_and_another_model_is_another_teacher(ask: Any, lines: list[str]) -> None:
    with Server(tei) as server, Server(ranked("results")) as other:
        for asked in (2, 2):
            with ask(server.url) as teacher:
                assert teacher.logits(QUERIES, TITLES).tolist() == LOGITS
                teacher.report()
            assert len(server.bodies) == asked
        assert lines[-1].startswith("0 requests, 0 pairs answered; ") and "keeps answers and had 3 (" in lines[-1]
        for model, asked in (("one", 2), ("two", 4), ("one", 4)):
            with ask(other.url, format="cohere", model=model) as teacher:
                teacher.logits(QUERIES, TITLES)
            assert len(other.bodies) == asked


def test_a_run_that_fails_goes_on_from_what_was_answered(ask: Any, capsys: Any) -> None:
    queries = [f"q{number}" for number in range(6)]
    replies = [tei, tei, tei, lambda asked: http(b"no credit", 403), tei]
    with Server(*replies) as server:
        said = "status 403: no credit; run again to go on from what was answered"
        with pytest.raises(ServerError, match=said), ask(server.url, concurrency=1) as teacher:
            teacher.logits(queries, ["t"] * 6)
        with ask(server.url, concurrency=1) as teacher:
            expected = [score_of(query, "t") for query in queries]
            assert teacher.logits(queries, ["t"] * 6).tolist() == expected
    assert [body["query"] for body in server.bodies] == [*queries[:4], *queries[3:]]
    assert "4 requests, 3 pairs answered" in capsys.readouterr().err  # what was paid is said of a failed run, too


def test_what_was_kept_outlives_a_kill(tmp_path: Path) -> None:
    line = (
        "import os, sys; from pathlib import Path; from paddle_ranker.serving.clients.teacher import AnswerCache\n"
        "AnswerCache(Path(sys.argv[1]), ['t']).add({('q', 'a'): 0.25}); os._exit(9)"
    )
    path = tmp_path / "made" / "answers.sqlite"
    ended = subprocess.run([sys.executable, "-c", line, str(path)], cwd=REPOSITORY, timeout=SECONDS)
    kept = AnswerCache(path, ["t"])
    assert (ended.returncode, kept.find([("q", "a"), ("q", "b")])) == (9, {("q", "a"): 0.25})
    assert AnswerCache(path, ["u"]).find([("q", "a")]) == {}
    kept.add({("q", "a"): 1.0, ("", "qa"): 2.0})  # the first one stays
    assert kept.find([("q", "a"), ("", "qa")]) == {("q", "a"): 0.25, ("", "qa"): 2.0}


def test_a_file_of_something_else_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    path.write_bytes(b"query\ttitle\n" * 100)
    with pytest.raises(RankerError, match="name another file: --teacher_answers"):
        AnswerCache(path, ["t"])
    assert path.read_bytes() == b"query\ttitle\n" * 100


def _late(seconds: int) -> str:
    return format_datetime(datetime.now(timezone.utc) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    "trouble, least",
    [
        (lambda asked: http(b"oh", 529), 0),
        (lambda asked: http(b"", 429, retry_after="7"), 7),
        (lambda asked: http(b"", 503, retry_after=_late(100)), 90),
        (lambda asked: http(b"", 429, retry_after="soon"), 0),
        (lambda asked: Broken(), 0),
        (lambda asked: Broken(tei(asked)[:-5]), 0),
    ],
)
def test_what_may_be_over_is_asked_again(ask: Any, slept: list[float], trouble: Reply, least: float) -> None:
    with Server(trouble, trouble, tei) as server, ask(server.url, concurrency=1) as teacher:
        assert teacher.logits(QUERIES, TITLES).tolist() == LOGITS
        assert (teacher.costs["requests"], teacher.costs["retries"]) == (4, 2)
    assert len(server.bodies) == 4 and slept[0] >= least


@pytest.mark.parametrize(
    "options, attempts, said",
    [({"retries": 2}, 3, "attempt 3"), ({"deadline": 119.0}, 1, ""), ({"retries": 0}, 1, "")],
)
def test_patience_ends(ask: Any, slept: list[float], options: dict[str, Any], attempts: int, said: str) -> None:
    with (
        Server(lambda asked: http(b"busy", 503, retry_after="120")) as server,
        ask(server.url, concurrency=1, **options) as teacher,
        pytest.raises(ServerError) as raised,
    ):
        teacher.logits(["q"], ["t"])
    assert len(server.bodies) == attempts and said in str(raised.value)
    assert "status 503: busy (to be asked again after 120 seconds)" in str(raised.value)


def test_an_error_waits_for_nobody_who_waits_to_ask_again(ask: Any) -> None:
    def reply(asked: dict[str, Any]) -> bytes:
        until(lambda: len(server.bodies) == 2)
        return http(b"", 500, retry_after="800") if asked["query"] == "busy" else http(b"no", 400)

    with Server(reply) as server, ask(server.url) as asked, pytest.raises(ServerError, match="status 400: no"):
        asked.logits(["busy", "q"], ["t", "t"])


@pytest.mark.parametrize("status", [401, 413, 501])
def test_what_is_refused_is_not_asked_again(ask: Any, status: int, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    said = json.dumps({"message": f"the key {KEY} is\nwrong\x1b[2J"}).encode() + b"x" * 3000
    with (
        Server(lambda asked: http(said, status)) as server,
        ask(server.url, concurrency=1) as teacher,
        pytest.raises(ServerError) as raised,
    ):
        teacher.logits(QUERIES, TITLES)
    assert len(server.bodies) == 1 and f"authorization: bearer {KEY}" in server.heads[0].lower()
    message = str(raised.value)
    assert f"{server.url}: status {status}: " in message and "the key [key] is" in message and len(message) < 500
    assert ("--teacher_batch" in message) == (status == 413)
    assert "run again" not in message  # nothing was answered
    assert KEY not in message and all(KEY.encode() not in file.read_bytes() for file in tmp_path.iterdir())


def test_a_redirect_is_not_followed(ask: Any) -> None:
    with (
        Server(tei) as other,
        Server(lambda asked: http(b"", 307, location=other.url)) as server,
        ask(server.url) as teacher,
        pytest.raises(ServerError, match=f"status 307, it moved to {other.url}: give that"),
    ):
        teacher.logits(["q"], ["t"])
    assert (len(server.bodies), other.bodies) == (1, [])


def scored(*scores: tuple[object, object]) -> Reply:
    return lambda asked: answered([{"index": index, "score": score} for index, score in scores])


@pytest.mark.parametrize(
    "reply, said",
    [
        (scored((0, 0.5)), "1 results came for 2 titles"),
        (scored((0, 0.5), (0, 0.5)), "an index came twice for 2 titles"),
        (scored((0, 0.5), (-1, 0.5)), "index -1 came for 2 titles"),
        (scored((0, float("nan")), (1, 0.5)), r"\[0\].score"),
        (scored((0, 1e300), (1, 0.5)), r"\[0\].score"),
        (scored((0, None), (1, 0.5)), r"\[0\].score"),
        (lambda asked: http(b"<html>sign in</html>"), "<html>sign in</html>; --teacher_format"),
        (lambda asked: answered({"results": []}), "none of Text Embeddings Inference's"),
        (lambda asked: http(b"[" + b" " * 5_000_000), "answers more than 1,049,[0-9]+ bytes"),
        (lambda asked: http(b"\x1f\x8b..", content_encoding="gzip"), "no answer can be read"),
    ],
)
def test_an_answer_that_is_none_teaches_nothing(ask: Any, reply: Reply, said: str) -> None:
    with Server(reply) as server, ask(server.url, concurrency=1) as teacher:
        with pytest.raises(ServerError, match=said) as raised:
            teacher.logits(["q", "q"], ["a", "b"])
        assert str(raised.value).startswith(server.url) and len(server.bodies) == 1
        assert teacher._cache.find([("q", "a"), ("q", "b")]) == {}


def test_an_answer_that_does_not_end_is_given_up(ask: Any) -> None:
    """The time for an answer is short, and nothing depends on how short: the answer has no end."""

    class Trickling(Server):
        def _serve(self, connection: socket.socket) -> None:
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n[")
            while not self.over.wait(0.005):
                connection.sendall(b" ")

    late = pytest.raises(ServerError, match=r"no whole answer within 0.1 seconds \(attempt 2\)")
    with Trickling() as server, ask(server.url, timeout=0.1, retries=1) as teacher, late:
        teacher.logits(["q"], ["a"])
    assert teacher.costs["requests"] == 2


def test_where_something_has_answered_it_is_waited_for(ask: Any, slept: list[float]) -> None:
    with Server(tei) as server, ask(server.url, retries=3) as teacher:
        teacher.logits(["q"], ["a"])
        server.__exit__()
        with pytest.raises(ServerError, match="run again to go on"):
            teacher.logits(["q"], ["b"])
    assert (len(slept), teacher.costs["requests"], teacher.costs["retries"]) == (3, 5, 3)
    with ask(server.url) as teacher, pytest.raises(ServerError, match=f"{server.url}: nothing answers there"):
        teacher.logits(["q"], ["c"])
    assert len(slept) == 3


def test_a_proxy_that_cannot_be_used_is_named(ask: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("HTTP_PROXY", "gopher://h")
    with ask("https://far.example/rerank") as teacher, pytest.raises(UsageError, match="correct HTTPS_PROXY"):
        teacher.logits(["q"], ["t"])


def constant(*scores: float) -> Reply:
    return lambda asked: answered({"results": [{"index": i, "relevance_score": x} for i, x in enumerate(scores)]})


def test_scores_are_probabilities_where_they_can_be(ask: Any, lines: list[str]) -> None:
    with Server(constant(0.0, 0.25, 1.0), constant(-3.0, 0.5)) as server:
        url = server.url.replace("/rerank", "/v1/rerank")
        with ask(url, concurrency=1) as teacher:
            found = teacher.logits(["q"] * 3, ["a", "b", "c"])
            edge = math.log((1 - 2**-24) / 2**-24)
            np.testing.assert_allclose(found, [-edge, math.log(1 / 3), edge], rtol=1e-12)
            with pytest.raises(DataError, match=r"the score -3 is no probability.*--teacher_scores logits"):
                teacher.logits(["r"] * 2, ["a", "b"])
            teacher.report()
            assert "2 probabilities next to 0 or 1 became logits of -16.6 or 16.6" in lines
        with ask(url, scores="logits") as teacher:
            assert teacher.logits(["q", "r", "r"], ["b", "a", "b"]).tolist() == [0.25, -3.0, 0.5]
            np.testing.assert_allclose(teacher.score(["r"], ["a"]), 1 / (1 + math.exp(3)))
            assert teacher.costs["requests"] == 0
        with ask(url) as teacher:  # one of them shows what they all are
            assert teacher.logits(["q", "r"], ["b", "a"]).tolist() == [0.25, -3.0]
            assert lines[-1] == "the scores are not all within 0 to 1: logits (--teacher_scores says otherwise)"


@pytest.mark.parametrize(
    "url, spoken",
    [
        ("http://h/rerank", "tei"), ("https://api.cohere.com/v2/rerank", "cohere"), ("http://h:1/x/v1/rerank", "jina"),
        ("https://api.jina.ai/v1/rerank", "jina"), ("https://api.voyageai.com/v1/rerank", "voyage"),
        ("http://notvoyageai.com/v1/rerank", "jina"),
    ],
)  # fmt: skip
def test_the_url_shows_the_format(ask: Any, lines: list[str], url: str, spoken: str) -> None:
    ask(url).close()
    assert f"({spoken}, by the URL; " in lines[0]


@pytest.mark.parametrize(
    "options, said",
    [
        ({"teacher_url": "ftp://h/rerank"}, "expected http://HOST/PATH"),
        ({"teacher_url": "http://h:x/rerank"}, "--teacher_url http://h:x/rerank: "),
        ({"teacher_url": f"http://me:{KEY}@h/rerank"}, "must hold no password"),
        ({"teacher_url": f"http://h/rerank?version=2&Api-Key={KEY}"}, "and no key: put the key into"),
        ({"teacher_url": "http://h/"}, "the path / shows no format"),
        ({"teacher_url": "http://h/rerank", "teacher_format": "tai"}, r"did you mean tei\?"),
        ({"teacher_url": "http://h/rerank", "teacher_model": "m"}, "name no model"),
        ({"teacher_url": "http://h/rerank", "teacher_key_variable": KEY}, "it takes a name, not the key itself"),
        ({"teacher_batch": 3}, "--teacher_batch is about a teacher over HTTP: add --teacher_url"),
    ],
)
def test_wrong_options(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        HttpTeacher(TeacherOptions(**{"teacher_answers": str(tmp_path / "a"), **options}))
    assert KEY not in str(raised.value)


def test_the_key_is_the_variable_s_and_not_sent_in_the_open_unsaid(ask: Any, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setenv("JINA_API_KEY", KEY)
    with Server(tei) as server, ask(server.url, key_variable="JINA_API_KEY") as teacher:
        teacher.logits(["q"], ["a"])
    assert f"authorization: bearer {KEY}" in server.heads[0].lower()
    assert capsys.readouterr().err == ""  # it stays on this machine
    ask("http://far.away/rerank", key_variable="JINA_API_KEY").close()
    said = capsys.readouterr().err
    assert "unencrypted" in said and KEY not in said
    monkeypatch.setenv("JINA_API_KEY", "two words")
    with pytest.raises(UsageError, match="that no header can hold"):
        ask(server.url, key_variable="JINA_API_KEY")
