"""Vectors of pictures from a server, in the shapes of Jina's, vLLM's and Cohere's clients; bad ones are refused."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paddle_ranker.retrieval.vectors.text_vectors import Tower
from paddle_ranker.retrieval.work.turns import check
from paddle_ranker.serving.slots.picture_work import PictureWork
from tests.pictures.test_picture_fields import BAD, data_url, picture
from tests.pictures.test_pictures import published
from tests.serving.test_embeddings import Site, vectors_in
from tests.tiny import write_tower

pytestmark = pytest.mark.parity
RED, BLUE = picture((200, 0, 0)), picture((0, 0, 200), "JPEG", (9, 70))
CAT = "a photo of a cat"
KEYS = {"image": data_url(RED)}, {"text": CAT}, {"image": base64.b64encode(BLUE).decode()}, CAT


class PictureSite(Site):
    """A server of a tower of a folder, with room for pictures."""

    def __init__(self, folder: Path, **changes: Any):
        super().__init__(None, folder, request_bytes=1 << 20, **changes)
        self.slot.switch(self.slot.load())


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("towers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        write_tower(folder / "texts")
        for name in ("clip", "vit"):
            published(name, folder / name)
        yield folder


@pytest.fixture(scope="module")
def clip(folders: Path) -> Iterator[PictureSite]:
    site = PictureSite(folders / "clip")
    yield site
    model = site.slot.switch(None)
    assert model is not None and model.close(10)


def message(*parts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [*parts]}], **fields}


def image_url(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def test_pictures_and_texts_have_the_tower_s_vectors_in_their_order(folders: Path, clip: PictureSite) -> None:
    tower = Tower.open(folders / "clip")
    (red, blue), (cat,) = tower.encode_pictures([RED, BLUE]), tower.query_vectors([CAT])
    for kind in ("query", "document"):
        answer = clip.post("/v1/embeddings", {"model": "jina-clip-v2", "input": KEYS, "input_type": kind})
        np.testing.assert_allclose(vectors_in(answer), [red, cat, blue, cat], atol=1e-5)
        assert answer.json()["usage"]["total_tokens"] > 2
    for asked, expected in (
        (message(image_url(data_url(RED)), {"type": "text", "text": ""}, encoding_format="base64"), red),
        (message({"type": "image_url", "image_url": data_url(BLUE)}), blue),
        (message({"type": "text", "text": CAT}), cat),
        ({"messages": [{"role": "user", "content": CAT}]}, cat),
        ({"input": [{"image": data_url(RED)}], "normalize": True}, red / np.linalg.norm(red)),
    ):
        np.testing.assert_allclose(vectors_in(clip.post("/v1/embeddings", asked)), [expected], atol=1e-5)
    np.testing.assert_allclose(clip.post("/embed", {"inputs": CAT, "truncate": True}).json(), [cat], atol=1e-5)
    facts = clip.slot.describe()
    assert (facts["reads"], facts["size"]) == (["picture", "text"], len(red))


def cohere(kind: str = "image", **fields: Any) -> dict[str, Any]:
    """Return a request as Cohere's clients send it."""
    return {"model": "embed-v4.0", "input_type": kind, **fields}


def parts(*contents: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"content": [content]} for content in contents]


def test_cohere_s_clients_get_vectors_by_type(folders: Path, clip: PictureSite) -> None:
    tower = Tower.open(folders / "clip")
    (red, blue), (cat,) = tower.encode_pictures([RED, BLUE]), tower.query_vectors([CAT])
    for asked, expected in (
        (cohere(images=[data_url(RED), data_url(BLUE)]), [red, blue]),
        (cohere("search_query", texts=[CAT], embedding_types=["float", "base64"], truncate="END"), [cat]),
        (cohere("search_document", inputs=parts({"type": "text", "text": CAT}, image_url(data_url(RED)))), [cat, red]),
    ):
        answer = clip.post("/v2/embed", asked)
        assert answer.status_code == 200, answer.text
        found = answer.json()
        np.testing.assert_allclose(found["embeddings"]["float"], expected, atol=1e-5)
        for numbers in found["embeddings"].get("base64", ()):
            np.testing.assert_allclose(np.frombuffer(base64.b64decode(numbers), "<f4"), cat, atol=1e-5)
        assert found["id"] == answer.headers["x-request-id"] and found["texts"] == asked.get("texts", [])
        assert found["response_type"] == "embeddings_by_type" and found["meta"]["billed_units"]["input_tokens"] > 1


def test_cohere_s_first_version_answers_lists_unless_types_are_named(clip: PictureSite) -> None:
    asked = {"texts": [CAT, "red"], "model": "embed-english-v2.0"}
    by_type = clip.post("/v2/embed", cohere("search_document", texts=asked["texts"])).json()
    answer = clip.post("/v1/embed", asked)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["embeddings"] == by_type["embeddings"]["float"] and found["response_type"] == "embeddings_floats"
    assert found["meta"]["api_version"] == {"version": "1"} and found["texts"] == asked["texts"]
    named = clip.post("/v1/embed", {**asked, "embedding_types": ["float"]}).json()
    assert named["embeddings"] == by_type["embeddings"] and named["response_type"] == "embeddings_by_type"
    assert clip.post("/v1/embed", {**asked, "embedding_types": []}).status_code == 422


COHERE_REFUSED: list[tuple[dict[str, Any], str, str]] = [
    (cohere(), "texts", "is required"),
    (cohere(texts=["a"], images=[data_url(RED)]), "images", "leave one out"),
    (cohere(images=["https://example.org/cat.png"]), "images[0]", "addresses are not fetched"),
    (cohere(images=[data_url(RED), data_url(RED[:-20])]), "images[1]", "damaged"),
    (cohere(inputs=[{"content": [*parts(image_url(data_url(RED)))[0]["content"], {"type": "text", "text": "a"}]}]),
     "inputs[0].content", "made of one"),
    (cohere("clustering", texts=["a"]), "input_type", "search_query"),
    ({"texts": ["a"]}, "input_type", "required"),
    (cohere(texts=["a"], embedding_types=["int8"]), "embedding_types[0]", "base64"),
    (cohere(texts=["a"], output_dimension=7), "dimensions", "numbers"),
    (cohere(texts=["xyzq" * 15], truncate="NONE"), "texts[0]", "tokens"),
    (cohere(texts=["xyzq" * 15], truncate="START"), "truncate", "more tokens"),
    (cohere(texts=["a"] * 9), "texts", "at most 8"),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "field", "words"), COHERE_REFUSED)
def test_what_cohere_has_and_a_tower_has_not_is_refused_by_name(
    clip: PictureSite, asked: dict[str, Any], field: str, words: str
) -> None:
    answer = clip.post("/v2/embed", asked)
    assert answer.status_code in (400, 413, 422), answer.text
    assert answer.json()["field"] == field and words in answer.json()["message"], answer.text


def refusals() -> Iterator[tuple[dict[str, Any], str, str]]:
    """Yield requests, the field that is refused, and words of the reason."""
    for data, words in BAD.values():
        yield {"input": [{"image": data_url(RED)}, {"image": data_url(data)}]}, "input[1].image", words
    yield {"input": [{"image": "https://example.org/cat.png"}]}, "input[0].image", "addresses are not fetched"
    yield message(image_url("file:///etc/passwd")), "messages[0].content[0].image_url", "addresses are not fetched"
    yield {"input": [{"image": "no base64!"}]}, "input[0].image", "damaged base64"
    yield {"input": ["a", {"image": data_url(RED), "text": "a"}]}, "input[1]", "give one of them"
    yield {"input": [{}]}, "input[0]", "give one of them"
    yield {"input": [{"pdf": "data:application/pdf;base64,"}]}, "input[0].pdf", "not permitted"
    yield message(image_url(data_url(RED)), {"type": "text", "text": CAT}), "messages[0].content", "made of one"
    yield message({"type": "image_url"}), "messages[0].content[0].image_url", "required"
    yield message({"type": "input_audio"}), "messages[0].content[0].type", "image_url"
    yield {"messages": [{"content": "a"}, {"content": "b"}]}, "messages", "at most 1"
    yield message({"type": "text", "text": CAT}, input="a"), "input", "leave one out"
    yield {"input": [{"image": data_url(RED)}] * 9}, "input", "at most 8"


@pytest.mark.parametrize(("asked", "field", "words"), refusals())
def test_a_bad_picture_is_refused_by_its_place(
    clip: PictureSite, asked: dict[str, Any], field: str, words: str
) -> None:
    answer = clip.post("/v1/embeddings", asked)
    assert answer.status_code in (400, 413), answer.text
    error = answer.json()["error"]
    assert error["param"] == field and any(word in error["message"] for word in words.split("|")), error


def test_towers_of_one_kind_refuse_the_other_by_name(folders: Path, clip: PictureSite) -> None:
    vit, texts = PictureSite(folders / "vit"), PictureSite(folders / "texts")
    for path, of in (("/v1/embeddings", "input"), ("/embed", "inputs")):
        for site, item, words in (
            (vit, CAT, "this tower reads pictures"),
            (texts, {"image": data_url(RED)}, "this tower reads texts" if of == "input" else "POST /v1/embeddings"),
            (clip, {"image": data_url(RED)}, "" if of == "input" else "POST /v1/embeddings"),
        ):
            answer = site.post(path, {of: [item]})
            assert words in answer.text and (answer.status_code == 200) == (not words), answer.text
    red = Tower.open(folders / "vit").encode_pictures([RED])
    asked = {"input": [{"image": data_url(RED)}]}
    np.testing.assert_allclose(vectors_in(vit.post("/v1/embeddings", asked)), red, atol=1e-5)
    assert "max_input_length" not in vit.slot.describe()


def test_pictures_are_decoded_apart_and_bounded_before(
    folders: Path, clip: PictureSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = list[str]()

    def counted() -> None:
        calls.append("check")
        check()

    monkeypatch.setattr("paddle_ranker.retrieval.work.turns.check", counted)
    asked = {"input": [{"image": data_url(RED)}] * 3}
    assert clip.post("/v1/embeddings", asked).status_code == 200
    assert len(calls) >= 3
    monkeypatch.setattr(PictureWork, "read", None)
    monkeypatch.setattr(clip.budget, "most", 20_000)  # room for the files of 8 pictures, not for their pixels
    answer = clip.post("/v1/embeddings", {"input": [{"image": data_url(RED)}] * 8})
    assert answer.status_code == 413 and "until it is answered" in answer.text
