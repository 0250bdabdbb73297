"""Progress: a bar on a terminal after two seconds, elsewhere a line every ten."""

from __future__ import annotations

import asyncio
import io

import pytest

from paddle_ranker.progress import Progress
from paddle_ranker.serving.process.worker import report_loading

pytestmark = pytest.mark.unit


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "seconds", "shown"),
    [
        (io.StringIO(), 9, []),
        (io.StringIO(), 25, ["40%", "80%", "100%"]),
        (Terminal(), 1, []),
        (Terminal(), 9, ["33%", "100%"]),
    ],
)
def test_long_work_shows_how_far_it_is(
    stream: io.StringIO, seconds: int, shown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    with Progress(desc="index", unit="text", total=seconds, file=stream, miniters=1) as progress:
        progress._time = lambda: now[0]
        progress.start_t = progress.last_print_t = 0.0
        for _ in range(seconds):
            now[0] += 1
            progress.update()
    text = stream.getvalue()
    assert ("\r" in text) == (bool(shown) and stream.isatty())
    assert all(share in text and f"/{seconds}" in text for share in shown) and bool(text) == bool(shown)
    if not stream.isatty():
        assert len(text.splitlines()) == len(shown)


def test_a_server_says_that_it_still_loads(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        if len(waited) == 2:
            raise asyncio.CancelledError
        waited.append(seconds)

    monkeypatch.setattr("asyncio.sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(report_loading("index"))
    assert waited == [10.0, 10.0]
    assert capsys.readouterr().err.splitlines() == ["loading index: 0 s so far"] * 2
