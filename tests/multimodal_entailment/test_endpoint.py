"""`POST /v1/entailment`: the model's probabilities, by JSON and by form, and every refusal with its place."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import io
import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Optional

import httpx
import numpy as np
import pytest
from PIL import Image

from benchmarks.harness import servers
from multimodal_entailment import served
from multimodal_entailment.entailment_scorer import Entailment
from multimodal_entailment.folder import load_entailment
from multimodal_entailment.plugin import PATH
from multimodal_entailment.serve_options import PostLimits
from multimodal_entailment.served import EntailmentSlot, Post, ServedEntailment
from paddle_ranker.array_types import Arrays
from paddle_ranker.errors import CheckpointError, UsageError
from paddle_ranker.export.static_graph import export_model
from paddle_ranker.scoring.ranker import Ranker
from paddle_ranker.serving.core.faults import OVERLOADED, TIMED_OUT, Fault
from paddle_ranker.serving.core.metrics import Metrics
from paddle_ranker.serving.core.server_config import ServeConfig
from paddle_ranker.serving.process.worker import make_app
from paddle_ranker.serving.slots.ranker_slot import RankerSlot
from paddle_ranker.serving.slots.slot_kinds import served_by
from paddle_ranker.serving.slots.slots import Slots
from tests.checkout import ONCE
from tests.conftest import REPOSITORY
from tests.entailment_cases import make_parts, write_data, write_model
from tests.export_cases import write_case
from tests.serving_cases import SECONDS, Application
from tests.started import children, get, post, started, until

LIMITS = PostLimits(
    request_bytes=200_000, posts=4, queue_posts=6, characters=60, image_bytes=20_000, image_pixels=90_000
)
TEXTS = ("a b c", "z d e")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    data = write_data(tmp_path_factory.mktemp("posts"), 10)
    return {path.stem: path.read_bytes() for path in data.parent.glob("*.png")}


@pytest.fixture(scope="module")
def model(folder: Path) -> Iterator[ServedEntailment]:
    loaded = EntailmentSlot(ServeConfig(), limits_of(folder)).load()
    yield loaded
    assert loaded.batcher.close(SECONDS)


@dataclasses.dataclass(frozen=True)
class PostsConfig(PostLimits, ServeConfig):
    """The options that `serve` makes."""


def limits_of(folder: Path) -> PostLimits:
    return dataclasses.replace(LIMITS, entailment_model=str(folder))


class Site(Application):
    """The server, which has no ranker."""

    def __init__(self, model: Optional[ServedEntailment], **options: Any):
        self.service = EntailmentSlot(ServeConfig(), LIMITS)
        self.service.switch(model)
        config = PostsConfig(**vars(limits_of(Path("posts"))), **options)
        self.app = make_app(Slots({"entailment": self.service}), config, Metrics())

    def judge(self, body: Any, **headers: str) -> httpx.Response:
        return self.post(PATH, body, **headers)

    def form(self, files: Any = None, **fields: str) -> httpx.Response:
        return self.ask("POST", PATH, form=fields, files=files or {"image_1": b""})


@pytest.fixture
def site(model: ServedEntailment) -> Site:
    return Site(model)


def packed(image: bytes) -> str:
    return base64.b64encode(image).decode()


def rows(answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    for result in results:
        assert list(result["probabilities"]) == list(Entailment.labels)
        assert result["label"] == max(result["probabilities"], key=result["probabilities"].__getitem__)
    return np.array([list(result["probabilities"].values()) for result in results])


@pytest.mark.parity
def test_pairs_come_back_in_order_with_the_probabilities_of_the_model(
    site: Site, folder: Path, images: dict[str, bytes]
) -> None:
    red, green = images["r"], images["g"]
    pairs: list[dict[str, Any]] = [
        {"text_1": "a b c", "image_1": packed(red), "text_2": "z d e", "image_2": packed(green)},
        {"text_1": "a b", "text_2": "d e", "image_2": "data:image/png;base64," + packed(red)},
        {"text_1": "", "image_1": None, "text_2": "z z z z z z z z"},
    ]
    answer = site.judge({"pairs": pairs}, **{"X-Request-Id": "mine"})
    wanted = Entailment.load(folder).predict(
        ["a b c", "a b", ""], [red, None, None], ["z d e", "d e", "z z z z z z z z"], [green, red, None]
    )
    np.testing.assert_allclose(rows(answer), wanted, atol=1e-5)
    assert (answer.json()["id"], answer.json()["model"]) == ("mine", "posts")
    for pair, expected in zip(pairs, wanted):  # alone, not in a list
        np.testing.assert_allclose(rows(site.judge(pair)), [expected], atol=1e-5)
    swapped = {**pairs[0], "image_1": pairs[0]["image_2"], "image_2": pairs[0]["image_1"]}
    assert np.abs(rows(site.judge(swapped)) - wanted[0]).max() > 1e-4


@pytest.mark.parity
def test_a_form_with_image_files_is_answered_alike(site: Site, images: dict[str, bytes]) -> None:
    red, green = images["r"], images["g"]
    asked = {"text_1": "a", "text_2": "深度学习", "image_1": packed(red), "image_2": packed(green)}
    files = {"image_1": ("one.png", red, "image/png"), "image_2": ("two.png", green)}
    found, wanted = site.form(files, text_1="a", text_2="深度学习"), site.judge(asked)
    np.testing.assert_allclose(rows(found), rows(wanted), atol=1e-6)
    del asked["image_1"]
    without = {"image_1": ("", b""), "image_2": ("two.png", green)}
    found, wanted = site.form(without, text_1="a", text_2="深度学习"), site.judge(asked)
    np.testing.assert_allclose(rows(found), rows(wanted), atol=1e-6)


@pytest.mark.parity
def test_a_browser_sends_an_empty_file_where_none_was_chosen(site: Site) -> None:
    parts = [f'name="{name}"\r\n\r\nab' for name in ("text_1", "text_2")]
    parts += [f'name="{name}"; filename=""\r\nContent-Type: application/octet-stream\r\n\r\n' for name in
              ("image_1", "image_2")]  # fmt: skip
    body = "".join(f"--x\r\nContent-Disposition: form-data; {part}\r\n" for part in parts) + "--x--\r\n"
    answer = site.judge(body.encode(), **{"Content-Type": "multipart/form-data; boundary=x"})
    np.testing.assert_allclose(rows(answer), rows(site.judge({"text_1": "ab", "text_2": "ab"})), atol=1e-6)


def noise(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    Image.effect_noise((width, height), 90.0).save(stream, "PNG")
    return stream.getvalue()


def bomb() -> bytes:
    stream = io.BytesIO()
    Image.new("L", (1000, 1000)).save(stream, "PNG")
    return stream.getvalue()


def damaged_png() -> bytes:
    """Return a PNG whose last rows are damaged."""
    data = bytearray(noise(60, 60))
    data[-30] ^= 1
    return bytes(data)


BAD_JSON: dict[str, tuple[Any, int, str]] = {
    "no JSON": (b"{", 400, "body: is not JSON"),
    "a constant of Python's": (b'{"text_1": NaN}', 400, "body: is not JSON"),
    "a byte order mark": (b"\xef\xbb\xbf{}", 400, "body: is not JSON"),
    "UTF-16": ("{}".encode("utf-16"), 400, "body: is not JSON"),
    "deep": (b"[" * 1000, 400, "body: is not JSON"),
    "a list": ([1], 422, "body: is list"),
    "no pairs": ({"pairs": []}, 400, "pairs: is empty"),
    "too many": ({"pairs": [{"text_1": "a", "text_2": "b"}] * 5}, 413, "pairs: holds 5, at most 4"),
    "a typo": ({"text_1": "a", "text_2": "b", "image1": ""}, 422, "image1: "),
    "no text": ({"pairs": [{"text_1": "a", "text_2": "b"}, {"text_1": "a"}]}, 422, r"pairs\[1\]\.text_2: is missing"),
    "a number": ({"pairs": [{"text_1": 3, "text_2": "b"}]}, 422, r"pairs\[0\]\.text_1: .*string"),
    "long": ({"text_1": "a" * 61, "text_2": "b"}, 413, "text_1: has 61 characters"),
    "an address": ({"text_1": "", "text_2": "", "image_1": "http://a.b/c.png"}, 422, "image_1: .*not fetched"),
    "no base64": ({"text_1": "", "text_2": "", "image_2": "äö"}, 422, "image_2: is not base64"),
    "data, not packed": ({"text_1": "", "text_2": "", "image_2": "data:image/png,abc"}, 422, "image_2: is a data URI"),
    "no image": (
        {"pairs": [{"text_1": "", "text_2": ""}, {"text_1": "", "text_2": "", "image_2": packed(b"GIF89a" * 9)}]},
        422, r"pairs\[1\]\.image_2: ",
    ),
    "empty image": ({"text_1": "", "text_2": "", "image_1": ""}, 422, "image_1: "),
    "cut short": ({"text_1": "", "text_2": "", "image_1": packed(noise(60, 60)[:900])}, 422, "image_1: .*damaged"),
    "damaged": ({"text_1": "", "text_2": "", "image_2": packed(damaged_png())}, 422, "image_2: .*damaged"),
    "cut by its end": ({"text_1": "", "text_2": "", "image_1": packed(noise(9, 9)[:-3])}, 422, "image_1: .*damaged"),
    "half a character": (
        {"pairs": [{"text_1": "a", "text_2": "b"}, {"text_1": "a", "text_2": "b\ud800"}]},
        400, "body: is not JSON",
    ),
    "many bytes": ({"text_1": "", "text_2": "", "image_1": packed(noise(200, 200))}, 413, "image_1: .*20,000 bytes"),
    "many pixels": ({"text_1": "", "text_2": "", "image_1": packed(bomb())}, 413, "image_1: .*1,000 x 1,000 pixels"),
    "a large request": (b" " * 200_001, 413, "body: "),
}  # fmt: skip


@pytest.mark.parity
@pytest.mark.parametrize("name", BAD_JSON)
def test_what_cannot_be_answered_is_refused_with_its_place(site: Site, name: str) -> None:
    body, status, words = BAD_JSON[name]
    answer = site.judge(body)
    assert answer.status_code == status, answer.text
    assert re.match(words, answer.json()["error"]), answer.text
    assert rows(site.judge({"text_1": "a", "text_2": "b"})).shape == (1, 3)


BAD_FORMS: dict[str, tuple[Callable[[Site], httpx.Response], int, str]] = {
    "no boundary": (lambda site: site.judge(b"abc", **{"Content-Type": "multipart/form-data"}), 400, "not a form"),
    "damaged": (
        lambda site: site.judge(b"abc", **{"Content-Type": "multipart/form-data; boundary=x"}), 400, "not a form"
    ),
    "another field": (lambda site: site.form(text_1="a", text_2="b", text_3="c"), 422, "text_3: expected no field"),
    "another name": (lambda site: site.form(text_1="a", text="b"), 422, "text: expected no field of this name"),
    "a text as a file": (lambda site: site.form({"text_1": b"a"}, text_2="b"), 422, "text_1: expected a text"),
    "an image as a text": (lambda site: site.form(text_1="a", image_2="b"), 422, "image_2: expected a file"),
    "twice": (
        lambda site: site.form([("image_1", noise(9, 9)), ("image_1", noise(9, 9))], text_1="a"), 422,
        "image_1: is there twice",
    ),
    "no text": (lambda site: site.form(text_1="a"), 422, "text_2: is missing"),
    "no image": (lambda site: site.form({"image_2": b"abc"}, text_1="a", text_2="b"), 422, "image_2: .*not an image"),
}  # fmt: skip


@pytest.mark.parity
@pytest.mark.parametrize("name", BAD_FORMS)
def test_a_form_that_cannot_be_answered_is_refused_with_its_place(site: Site, name: str) -> None:
    send, status, words = BAD_FORMS[name]
    answer = send(site)
    assert answer.status_code == status, answer.text
    assert re.search(words, answer.json()["error"]), answer.text


@pytest.mark.parity
def test_a_model_of_images_alone_needs_no_text(tmp_path: Path, images: dict[str, bytes]) -> None:
    export_model(load_entailment(write_model(tmp_path, texts=False)), tmp_path / "output")
    model = EntailmentSlot(ServeConfig(), limits_of(tmp_path / "output")).load()
    asked = [{"image_1": packed(images[one]), "image_2": packed(images[two])} for one, two in zip("rgr", "gbr")]
    found = rows(Site(model).judge({"pairs": asked}))
    wanted = Entailment.load(tmp_path / "output").predict(
        [""] * 3, [images[name] for name in "rgr"], [""] * 3, [images[name] for name in "gbr"]
    )
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert model.batcher.close(SECONDS)


@pytest.mark.parity
def test_requests_share_batches_and_get_what_they_would_get_alone(
    model: ServedEntailment, folder: Path, images: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = EntailmentSlot(ServeConfig(), dataclasses.replace(LIMITS, queue_posts=64))
    service.switch(model)
    posts = [
        Post(
            (f"a {'b ' * (number % 5)}", "z d e"), (images["rgb"[number % 3]], None if number % 2 else images["r"]), ""
        )
        for number in range(6)
    ]
    sizes: list[int] = []
    honest = model.model.compute

    def slow(pairs: Any, rows: np.ndarray) -> Arrays:
        sizes.append(len(rows))
        if len(sizes) == 1:  # the others arrive meanwhile
            until(lambda: model.batcher.queued_rows == len(posts) - len(rows))
        return honest(pairs, rows)

    monkeypatch.setattr(model.model, "compute", slow)

    async def all_at_once() -> list[np.ndarray]:
        return await asyncio.gather(*(service.probabilities([one]) for one in posts))

    found = np.concatenate(asyncio.run(all_at_once()))
    wanted = Entailment.load(folder).predict(
        [str(one.texts[0]) for one in posts], [one.images[0] for one in posts],
        [str(one.texts[1]) for one in posts], [one.images[1] for one in posts],
    )  # fmt: skip
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert sum(sizes) == len(posts) and max(sizes) > 1


@pytest.mark.parity
def test_too_much_at_once_and_too_late_are_said(model: ServedEntailment, monkeypatch: pytest.MonkeyPatch) -> None:
    service = EntailmentSlot(ServeConfig(), LIMITS)
    service.switch(model)
    one, goes_on, encode = Post(TEXTS, (None, None), ""), threading.Event(), served._encoded

    def held(*given: Any) -> Any:
        goes_on.wait(SECONDS)
        return encode(*given)

    async def outcomes(*work: Any) -> list[Any]:
        asked = [asyncio.ensure_future(one) for one in work]
        await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)  # one request is refused while two are held
        goes_on.set()
        return await asyncio.gather(*asked, return_exceptions=True)

    monkeypatch.setattr(served, "_encoded", held)
    found = asyncio.run(outcomes(*(service.probabilities([one] * 3) for _ in range(3))))
    faults = [error for error in found if isinstance(error, Fault)]
    assert [fault.kind for fault in faults] == [OVERLOADED] and faults[0].retry_after
    (late,) = asyncio.run(outcomes(service.probabilities([one], deadline=time.monotonic() - 1)))
    assert isinstance(late, Fault) and late.kind is TIMED_OUT
    assert service.decoding_pairs == 0 and model.batcher.queued_rows == 0


@pytest.mark.parity
def test_a_model_that_cannot_be_believed_is_not_served(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Entailment.compute
    for factor, words in (
        (lambda rows: np.nan, "not numbers"),
        (lambda rows: 1 + 0.1 * (len(rows) > 1), "alone and in a batch"),
    ):

        def computed(model: Entailment, pairs: Any, rows: np.ndarray, factor: Any = factor) -> Arrays:
            return {"logits": honest(model, pairs, rows)["logits"] * factor(rows)}

        monkeypatch.setattr(Entailment, "compute", computed)
        with pytest.raises(CheckpointError, match=words):
            EntailmentSlot(ServeConfig(), limits_of(folder)).load()


@pytest.mark.parity
def test_the_server_says_what_it_has(site: Site, model: ServedEntailment) -> None:
    assert site.judge({"text_1": "a", "text_2": "b"}).status_code == 200
    info = site.ask("GET", "/info").json()
    assert info["entailment"]["model_id"] == "posts" and info["limits"]["posts"] == LIMITS.posts
    assert "model_type" not in info
    assert site.ask("GET", "/ready").json() == {"status": "ready", "model": "posts"}
    refused = site.ask("POST", "/v1/rerank", {"query": "a", "documents": ["b"]})
    assert refused.status_code == 404 and "--model" in refused.json()["error"]
    figures = site.ask("GET", "/metrics").text
    assert 'ranker_requests_total{outcome="ok",protocol="entailment"} 1.0' in figures
    paths = site.ask("GET", "/openapi.json").json()["paths"]
    assert "/v1/entailment" in paths and "/v1/rerank" not in paths
    empty = Site(None)
    for path, method in (("/ready", "GET"), ("/info", "GET"), ("/v1/entailment", "POST")):
        assert empty.ask(method, path).status_code == 503, path
    ranker_alone = make_app(Slots({"ranker": RankerSlot(ServeConfig(model=Path("ranker")))}), ServeConfig(), Metrics())
    empty.app = ranker_alone
    missing = empty.judge({"text_1": "a", "text_2": "b"})
    assert missing.status_code == 404 and "--entailment_model" in missing.json()["error"]
    with pytest.raises(UsageError, match="nothing to serve"):
        served_by(ServeConfig())


def processor_seconds(pid: int) -> float:
    """Return the processor seconds of a server's workers."""
    return sum(map(servers.processor_seconds, children(pid)))


def ends_images_that_nobody_waits_for(pid: int, port: int) -> None:
    """Send 80 large images in vain: the server must not decode them all. The cost of one image is the unit."""
    stream = io.BytesIO()
    Image.new("RGB", (4000, 4000)).save(stream, "PNG", compress_level=6)
    large = packed(stream.getvalue())
    one = {"text_1": "a", "text_2": "z", "image_1": large}
    before = processor_seconds(pid)
    assert post(port, "/v1/entailment", one)[0] == 200
    cost = processor_seconds(pid) - before
    body = json.dumps({"pairs": [{**one, "image_2": large}] * 8}).encode()
    head = f"POST /v1/entailment HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    late = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
    gone = [socket.create_connection(("127.0.0.1", port), timeout=SECONDS) for _ in range(4)]
    late.sendall(f"{head}X-Request-Timeout-Ms: {max(50, int(2000 * cost))}\r\n\r\n".encode() + body)
    before = processor_seconds(pid)
    for connection in gone:
        connection.sendall(f"{head}\r\n".encode() + body)
    while processor_seconds(pid) < before + 2 * cost:  # some are being decoded
        time.sleep(0.02)
    for connection in gone:
        connection.close()
    with late:
        assert late.recv(65536).startswith(b"HTTP/1.1 504 ")
    assert post(port, "/v1/entailment", {"text_1": "a", "text_2": "z", "image_1": packed(noise(9, 9))})[0] == 200
    while True:  # until the workers rest
        done = processor_seconds(pid)
        time.sleep(0.5)
        if processor_seconds(pid) - done < 0.1:
            break
    assert processor_seconds(pid) - before < 16 * cost, (before, processor_seconds(pid), cost)


@ONCE
@pytest.mark.server
def test_one_server_ranks_and_judges_and_takes_new_models(
    folder: Path, images: dict[str, bytes], tmp_path: Path
) -> None:
    ranker, posts = write_case(tmp_path / "ranker"), tmp_path / "exported"
    export_model(load_entailment(folder), posts)
    command = [sys.executable, "-m", "paddle_ranker", "serve", "--model", str(ranker), "--entailment_model", str(posts),
               "--port", "0", "--workers", "2"]  # fmt: skip
    asked = {"text_1": "a b", "text_2": "z", "image_1": packed(images["r"]), "image_2": packed(images["b"])}
    pairs = ["a b"], [images["r"]], ["z"], [images["b"]]
    with started(command, tmp_path / "run", PYTHONPATH=str(REPOSITORY)) as process:
        process.until(lambda: "serving " in process.output)
        port = int(process.output.split("http://127.0.0.1:")[1].split()[0])

        def judged() -> list[float]:
            status, answer = post(port, "/v1/entailment", asked)
            assert status == 200, answer
            return list(answer["results"][0]["probabilities"].values())

        before = Entailment.load(posts).predict(*pairs)[0]
        np.testing.assert_allclose(judged(), before, atol=1e-5)
        status, ranked = post(port, "/v1/rerank", {"query": "a", "documents": ["a b"]})
        wanted = Ranker.load(ranker).score(["a"], ["a b"])[0]
        assert status == 200 and abs(ranked["results"][0]["relevance_score"] - wanted) < 1e-5

        ends_images_that_nobody_waits_for(process.process.pid, port)
        export_model(make_parts(tmp_path / "other", seed=9), posts)
        after = Entailment.load(posts).predict(*pairs)[0]
        assert np.abs(after - before).max() > 1e-3
        os.kill(process.process.pid, signal.SIGHUP)
        process.until(lambda: process.output.count('"switched"') == 2)
        np.testing.assert_allclose(judged(), after, atol=1e-5)
        figures = str(get(port, "/metrics")[1])
        assert "entailment_pairs_total 4.0" in figures and "ranker_pairs_total 1.0" in figures
        process.process.send_signal(signal.SIGTERM)
        assert process.process.wait(SECONDS) == 0, process.output[-2000:]
