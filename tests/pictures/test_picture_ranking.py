"""A ranker of pictures on a server: `/v1/rerank` takes pictures, searches rank pictures; texts are refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paddle_ranker.__main__ import main
from paddle_ranker.commands.index import main as index
from paddle_ranker.commands.search import main as search
from paddle_ranker.metrics.calibration import sigmoid
from paddle_ranker.model.model_folder import RANKER
from paddle_ranker.pictures.picture_pairs import PictureTitle
from paddle_ranker.scoring.loading import open_model
from paddle_ranker.scoring.scorer import Scorer
from paddle_ranker.serving.core.metrics import Metrics
from paddle_ranker.serving.process.worker import make_app
from paddle_ranker.serving.slots.slot_kinds import SLOTS
from paddle_ranker.serving.slots.slots import Slots
from tests.pictures.test_picture_fields import BAD, COLOURS, corpus, data_url, picture
from tests.pictures.test_pictures import published
from tests.pictures.test_vilt import EXPECTED
from tests.pictures.vilt_cases import write
from tests.serving.test_embeddings import options
from tests.serving_cases import SECONDS, Application
from tests.tiny import write_ranker

pytestmark = pytest.mark.parity
FILES = {name: picture(colour) for name, colour in COLOURS.items()}
QUERY = "a cat"


class RankerSite(Application):
    """A server of a ranker."""

    def __init__(self, folder: Path):
        self.config = options(folder, request_bytes=1 << 20)
        self.slot = SLOTS["ranker"].make(self.config)
        self.slot.switch(self.slot.load())
        self.app = make_app(Slots({"ranker": self.slot}), self.config, Metrics())


@pytest.fixture(scope="module")
def vilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "vilt"
    folder.mkdir()
    write(folder, EXPECTED["shapes"])
    return folder


@pytest.fixture(scope="module")
def site(vilt: Path) -> Iterator[RankerSite]:
    made = RankerSite(vilt)
    yield made
    model = made.slot.switch(None)
    assert model is not None and model.close(SECONDS)


def logits(vilt: Path, query: str = QUERY) -> dict[str, float]:
    """Return the logits of a query and each picture, by the picture's name."""
    model = open_model(vilt, RANKER)
    scorer = Scorer(model.engine, model.row_encoder)
    pairs = scorer.encode([query] * len(FILES), [PictureTitle(data) for data in FILES.values()])
    return dict(zip(FILES, scorer.logits(pairs).tolist()))


def test_rerank_takes_documents_with_pictures(vilt: Path, site: RankerSite) -> None:
    documents = [{"image": data_url(data), "id": name} for name, data in FILES.items()]
    asked = {"query": QUERY, "documents": documents, "return_documents": True}
    answer = site.post("/v1/rerank", asked).json()
    expected = logits(vilt)
    assert [one["document"]["id"] for one in answer["results"]] == sorted(expected, key=lambda name: -expected[name])
    found = [one["relevance_score"] for one in answer["results"]]
    np.testing.assert_allclose(found, sorted(sigmoid(np.array([*expected.values()])))[::-1], atol=1e-5)


@pytest.mark.parametrize(("data", "words"), [*BAD.values()])
def test_a_bad_picture_is_refused_by_its_place(site: RankerSite, data: bytes, words: str) -> None:
    answer = site.post(
        "/v1/rerank", {"query": QUERY, "documents": [{"image": data_url(d)} for d in (FILES["red"], data)]}
    )
    assert answer.status_code == 422 and answer.json()["field"] == "documents[1].image"
    assert any(word in answer.json()["message"] for word in words.split("|"))


def test_rankers_of_one_kind_refuse_the_other_by_name(site: RankerSite, tmp_path: Path) -> None:
    texts = RankerSite(write_ranker(tmp_path / "texts"))
    image = [{"image": data_url(FILES["red"])}]
    for at, path, asked, words in (
        (site, "/v1/rerank", {"query": QUERY, "documents": ["a text"]}, "this ranker reads pictures"),
        (site, "/v1/score", {"text_1": QUERY, "text_2": "a text"}, "this ranker reads pictures"),
        (site, "/rerank", {"query": QUERY, "texts": ["a text"]}, "this ranker reads pictures"),
        (site, "/v1/rerank", {"query": QUERY, "documents": [{"id": 1}]}, "no text and no image"),
        (site, "/v1/rerank", {"query": QUERY, "documents": [{"image": "https://example.org/a.png"}]}, "not fetched"),
        (texts, "/v1/rerank", {"query": QUERY, "documents": image}, "this ranker reads texts"),
    ):
        answer = at.post(path, asked)
        assert answer.status_code == 422 and words in answer.text, answer.text


@pytest.mark.thorough(keep=2)
@pytest.mark.parametrize("command", ["predict", "rank", "evaluate", "calibrate", "cascade", "compare"])
def test_commands_read_pictures_beside_the_file(
    vilt: Path, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file, lines = tmp_path / "pairs.tsv", []
    scored = {query: logits(vilt, query) for query in (f"a {'c' * number}" for number in range(1, 21))}
    rng, middle = np.random.default_rng(3), np.median([list(own.values()) for own in scored.values()])
    for query, own in scored.items():
        for name in FILES:
            label = f"\t{(own[name] > middle) != (rng.random() < 0.25):d}" if command not in ("predict", "rank") else ""
            lines.append(f"{query}\t{name}{label}\n")
    file.write_text("".join(lines))
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    ranker = shutil.copytree(vilt, tmp_path / "ranker")
    given = {
        "predict": ["--model", str(ranker), "--input", str(file)],
        "rank": ["--model", str(ranker), "--input", str(file)],
        "evaluate": ["--model", str(ranker), "--test", str(file)],
        "calibrate": [str(ranker), str(file), "--output", str(tmp_path / "calibrated")],
        "cascade": [str(ranker), f"{ranker}:2", "--test", str(file)],
        "compare": [str(ranker), str(vilt), "--test", str(file)],
    }[command]
    assert main([command, *given]) == 0, capsys.readouterr().err


def test_a_search_is_ranked_by_its_pictures(
    vilt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    clip, path = published("clip", tmp_path / "clip"), corpus(tmp_path, FILES)
    build = ["build", "--corpus", str(path), "--output", str(tmp_path / "index"), "--field", "photo:picture"]
    assert index([*build, "--field_tower", f"photo={clip}"]) == 0, capsys.readouterr().err
    capsys.readouterr()
    asked: list[Any] = ["--index", str(tmp_path / "index"), QUERY, "--by", "photo", "--ranker", str(vilt)]
    assert search([*asked, "--format", "json", "--rank_top", "4"]) == 0, capsys.readouterr().err
    answer = json.loads(capsys.readouterr().out)
    expected = logits(vilt)
    found = {one["id"]: one for one in answer["results"]}
    assert [*found] == sorted(expected, key=lambda name: -expected[name]), found
