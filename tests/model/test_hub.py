"""Models by name: from the Hugging Face cache as it lies on the disk, and from a server that behaves like the hub."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from paddle_ranker import Ranker
from paddle_ranker.__main__ import main
from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.hub import PICKLES_VARIABLE, HubName
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import load_encoder
from paddle_ranker.model.pretrained import find_model, resolve_model
from paddle_ranker.model.tower import TowerInfo
from paddle_ranker.model.tower_network import read_tower, save_query_tower, save_tower, start_tower
from paddle_ranker.recordings.towers import encode_sounds
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from paddle_ranker.serving.core.server_config import ServeConfig
from paddle_ranker.serving.process import server
from tests.hub_server import COMMIT, LARGE, Hub, hub_environment, hub_server
from tests.model.reranker_cases import write
from tests.model.test_families import write_folder
from tests.pictures import picture_cases
from tests.recordings import sound_cases

pytestmark = pytest.mark.server

NAME = "BAAI/tiny-reranker"
FILES = {"config.json", "tokenizer.json", "sentencepiece.bpe.model", "model.safetensors"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a reranker, with what lies beside such ones on the hub."""
    found = write_folder(tmp_path_factory.mktemp("published") / "xlmr", "xlm-roberta")
    (found / "modeling_own.py").write_text("raise SystemExit('code of a repository has run')")
    (found / "README.md").write_text("# A model\n")
    (found / "pytorch_model.bin").write_bytes(b"\x80" * 2 * LARGE)
    (found / "onnx").mkdir()
    (found / "onnx" / "model.onnx").write_bytes(b"\0" * 2 * LARGE)
    (found / "sentencepiece.bpe.model").write_bytes(b"\0" * 10)
    return found


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with the model NAME, an empty cache in `tmp_path`, and an empty folder to work in."""
    with hub_server() as server, hub_environment(tmp_path, server.address, monkeypatch):
        server.folders[NAME] = folder
        (tmp_path / "work").mkdir()
        monkeypatch.chdir(tmp_path / "work")
        yield server


@contextmanager
def seen(tmp_path: Path, endpoint: str, **variables: str) -> Iterator[None]:
    """Let the block have the same cache, another endpoint and other variables."""
    with pytest.MonkeyPatch.context() as patch, hub_environment(tmp_path, endpoint, patch, **variables):
        yield


def cached(tmp_path: Path) -> Path:
    return tmp_path / "hf" / "hub" / "models--BAAI--tiny-reranker"


def refused(message: str) -> None:
    with pytest.raises(CheckpointError, match=re.escape(message)):
        Ranker.load(NAME)


def test_a_name_is_fetched_once_and_scores_as_its_folder(hub: Hub, folder: Path, tmp_path: Path) -> None:
    here = Ranker.load(folder).score(["w1 w2"], ["w9 w1"])
    assert Ranker.load(NAME).score(["w1 w2"], ["w9 w1"]) == here
    assert set(hub.sent) == FILES  # no code, no pickle, no other formats
    assert hub.sent[-1] == "model.safetensors"
    hub.asked.clear()
    hub.sent.clear()
    assert Ranker.load(NAME).score(["w1 w2"], ["w9 w1"]) == here
    assert hub.asked == []
    with seen(tmp_path, hub.address, HF_HUB_OFFLINE="1"):
        assert Ranker.load(Path(NAME)).score(["w1 w2"], ["w9 w1"]) == here


def test_commands_take_names(hub: Hub, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("pairs.tsv").write_text("w1 w2\tw9 w1\nw3\tw4\n")
    assert main(["predict", str(folder), "--input", "pairs.tsv"]) == 0
    here = capsys.readouterr().out
    assert main(["predict", "--model", f"{NAME}@v1", "--input", "pairs.tsv"]) == 0
    assert capsys.readouterr().out == here
    assert main(["distill", f"{NAME}@{COMMIT}", "pairs.tsv", "taught.tsv"]) == 0
    assert main(["compare", f"one={NAME}@v1", f"two={folder}", "--test", "taught.tsv"]) == 1  # too few labels
    assert "no such file" not in capsys.readouterr().err
    assert main(["convert", f"{NAME}@v1", "ours"]) == 0
    assert len(hub.sent) == len(FILES)


def test_many_at_a_time_fetch_each_file_once(hub: Hub) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(find_model, [NAME] * 4))) == 1
    assert sorted(hub.sent) == sorted(FILES)


def test_a_server_is_given_what_it_names(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[ServeConfig] = []

    def run(config: ServeConfig) -> int:
        given.append(config)
        return 0

    monkeypatch.setattr(server, "run", run)
    for arguments in ([NAME], ["--model", NAME], ["--ranker", f"{NAME}@main"]):
        assert main(["serve", *arguments]) == 0
        assert given.pop().model == find_model(NAME)
    assert main(["serve", "--model", "runs/none.json"]) == 2


def test_a_reranker_comes_with_its_steps(hub: Hub, tmp_path: Path) -> None:
    hub.folders[NAME] = write(tmp_path / "st", "first, two layers, norm, prompt")
    pairs = ["w1", "w2"], ["w1 w3", "w4"]
    np.testing.assert_array_equal(Ranker.load(NAME).score(*pairs), Ranker.load(tmp_path / "st").score(*pairs))


@pytest.mark.parametrize("name", ["clip", "siglip", "vit", "wav2vec2", "hubert"])
def test_models_of_pictures_and_sounds_come_with_their_processors(hub: Hub, tmp_path: Path, name: str) -> None:
    cases = sound_cases if name in sound_cases.CASES else picture_cases
    theirs = tmp_path / name
    theirs.mkdir()
    cases.write(theirs, name, json.loads(cases.FILE.read_text())[name]["shapes"])
    if name in ("vit", "hubert"):  # which have no tokenizer
        for file in ("tokenizer_config.json", "vocab.json"):
            (theirs / file).unlink(missing_ok=True)
    part = "feature_extractor" if cases is sound_cases else "image_processor"
    if name in ("siglip", "hubert"):  # as transformers 5 saves processors
        settings = json.loads((theirs / "preprocessor_config.json").read_text())
        (theirs / "processor_config.json").write_text(json.dumps({part: settings}))
        (theirs / "preprocessor_config.json").unlink()
    hub.folders[NAME] = theirs
    towers = [Tower.open(resolve_model(place)) for place in (NAME, str(theirs))]
    given = sound_cases.sounds() if cases is sound_cases else picture_cases.pictures()
    found, wanted = (encode_sounds(tower, given) if cases is sound_cases else tower.encode_pictures(given)
                     for tower in towers)  # fmt: skip
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("inside", ["", "0_Transformer/"])
def test_an_adapter_whose_base_is_missing_is_refused_from_the_hub_too(hub: Hub, tmp_path: Path, inside: str) -> None:
    theirs = write_folder(tmp_path / "st" / inside if inside else tmp_path / "st", "xlm-roberta")
    picture_cases.write_steps(tmp_path / "st", [("Transformer", inside.rstrip("/")), ("Pooling", "1_Pooling")])
    (tmp_path / "st" / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": "mean"}))
    hub.folders[NAME] = tmp_path / "st"
    Tower.open(NAME)
    config = {"peft_type": "LORA", "target_modules": ["query"], "base_model_name_or_path": "/not/here"}
    (theirs / "adapter_config.json").write_text(json.dumps(config))
    (theirs / "adapter_model.safetensors").write_bytes(b"")
    hub.commit = "adapter" + "0" * 33
    for place in (f"{NAME}@{hub.commit}", str(tmp_path / "st")):
        for load in (Tower.open, Ranker.load, load_encoder):
            with pytest.raises(CheckpointError, match="its base '/not/here' is not on this machine"):
                load(place)


def test_a_model_of_vectors_comes_with_its_steps(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = tmp_path / "theirs"
    encoder = write_folder(tmp_path / "encoder", "xlm-roberta")
    read = read_tower(encoder, LoadOptions(pooling="mean"))[0]
    info = TowerInfo(20, 8, pooling="mean", output_layer=True, query_prompt="w3 ", towers=2)
    network = start_tower(read, info)[0]
    (tmp_path / "ours").mkdir()
    save_tower(tmp_path / "ours", network, info)
    save_query_tower(tmp_path / "ours", network, info)
    assert main(["convert", str(tmp_path / "ours"), str(theirs), "--to", "sentence-transformers"]) == 0
    hub.folders[NAME] = theirs
    here, fetched = Tower.open(theirs), Tower.open(NAME)
    np.testing.assert_array_equal(fetched.vectors(["w1 w2"]), here.vectors(["w1 w2"]))
    np.testing.assert_array_equal(fetched.query_vectors(["w1 w2"]), here.query_vectors(["w1 w2"]))
    assert fetched.vectors(["w1"]).shape == (1, 8)
    files = {path.relative_to(theirs) for path in theirs.rglob("*") if path.is_file() and path.name != "README.md"}
    assert {path.relative_to(find_model(NAME)) for path in find_model(NAME).rglob("*") if path.is_file()} == files
    assert "does not say" not in capsys.readouterr().err
    snapshot = find_model(NAME)
    with seen(tmp_path, hub.address, HF_HUB_OFFLINE="1"):
        for lacking in ("query/2_Dense/model.safetensors", "2_Dense/model.safetensors"):
            (snapshot / lacking).unlink()
            refused(f"lacks {lacking}")
        shutil.rmtree(snapshot / "query")
        (snapshot / "modules.json").unlink()
        Tower.open(NAME)  # as a program leaves it that wants the encoder alone
    assert f"if the model has a modules.json on the hub, hf download {NAME} brings it" in capsys.readouterr().err


def test_a_local_folder_comes_first_and_a_misspelt_path_is_not_looked_up(hub: Hub, folder: Path) -> None:
    shutil.copytree(folder, NAME)
    assert find_model(NAME) == Path(NAME)
    missing = "BAAI/other"  # beside it
    assert find_model(missing) == Path(missing)
    with pytest.raises(CheckpointError, match="BAAI/other: there is no such model folder"):
        resolve_model(missing)
    for path in ("runs/best/model_state.pdparams", "runs/model_state.pdparams", "scores/run.tsv", "/BAAI/x", "../a/b"):
        assert find_model(path) == Path(path)
    assert hub.asked == []
    assert find_model(f"{NAME}@main") != Path(NAME)


@pytest.mark.parametrize(
    "text", ["a", "a/b/c", "../b", "a/..", "a//b", "a--b/c", "a/b@", "a/b@../../x", "a b/c", "~/b"]
)
def test_what_is_no_name_of_a_hub(text: str) -> None:
    assert HubName.parse(text) is None


def test_the_cache_is_read_as_other_programs_leave_it(hub: Hub, tmp_path: Path) -> None:
    from huggingface_hub import snapshot_download

    with seen(tmp_path, hub.address, HF_HUB_DISABLE_XET="1"):
        theirs = Path(snapshot_download(NAME, allow_patterns=["*.json"]))
    hub.asked.clear()
    hub.sent.clear()
    with seen(tmp_path, hub.address, HF_HUB_OFFLINE="1"), pytest.raises(CheckpointError) as error:
        find_model(NAME)
    assert f"{theirs} lacks model.safetensors, and HF_HUB_OFFLINE keeps" in str(error.value)
    assert hub.asked == []
    assert find_model(NAME) == theirs and set(hub.sent) == FILES - {"config.json", "tokenizer.json"}
    with seen(tmp_path, hub.address, HF_HUB_OFFLINE="1"), pytest.raises(CheckpointError, match=f"{NAME}@{COMMIT}"):
        find_model(f"{NAME}@v1")
    assert find_model(f"{NAME}@{COMMIT}") == theirs
    own = theirs.parents[1].rename(tmp_path / cached(tmp_path).name)
    with seen(tmp_path, "http://127.0.0.1:9", HF_HUB_CACHE=str(own.parent)):
        assert find_model(NAME).parents[1] == own
    for vocabulary in ("tokenizer.json", "sentencepiece.bpe.model"):
        os.unlink(own / "snapshots" / COMMIT / vocabulary)
    with seen(tmp_path, "http://127.0.0.1:9", HF_HUB_CACHE=str(own.parent), HF_HUB_OFFLINE="1"):
        refused("lacks tokenizer.json")


def test_another_commit_is_fetched_beside_and_shards_with_their_index(hub: Hub, folder: Path, tmp_path: Path) -> None:
    split = tmp_path / "split"
    shutil.copytree(folder, split, ignore=shutil.ignore_patterns("onnx", "*.bin"))
    whole = split / "model.safetensors"
    whole.rename(split / "model-00001-of-00001.safetensors")
    places = {
        name: "model-00001-of-00001.safetensors" for name in json.loads(_header(folder)) if name != "__metadata__"
    }
    (split / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    hub.folders[NAME] = split
    here = Ranker.load(folder).score(["w1 w2"], ["w9 w1"])
    assert Ranker.load(NAME).score(["w1 w2"], ["w9 w1"]) == here
    assert {"model.safetensors.index.json", "model-00001-of-00001.safetensors"} < set(hub.sent)
    (find_model(NAME) / "model-00001-of-00001.safetensors").unlink()
    hub.asked.clear()
    hub.sent.clear()
    assert find_model(NAME).is_dir() and len(hub.sent) == 0  # linked again to what is on the disk


def _header(folder: Path) -> bytes:
    data = (folder / "model.safetensors").read_bytes()
    return data[8 : 8 + int.from_bytes(data[:8], "little")]


def test_a_broken_transfer_goes_on_where_it_stopped(
    hub: Hub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants, file_download

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 64)
    # huggingface_hub 1 and later waits a second before each of its own retries.
    monkeypatch.setattr(file_download, "time", SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None}))
    hub.truncate, hub.truncated = 1000, 1
    assert (find_model(NAME) / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    shutil.rmtree(cached(tmp_path))
    hub.truncate, hub.truncated = 0, 1000  # as long as any byte comes, huggingface_hub 1 and later goes on
    with pytest.raises(CheckpointError, match="the transfer stopped; run again to go on from there"):
        find_model(NAME)
    assert not (cached(tmp_path) / "refs").exists()  # nothing that looks like a model
    hub.truncated = 0
    assert {path.name for path in find_model(NAME).iterdir()} == FILES
    assert not list(cached(tmp_path).rglob("*.incomplete"))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"token": "right"}, "not in Hugging Face's cache .*, and not at .*401.*if it is private, set HF_TOKEN"),
        ({"token": "right", "gated": True}, "is gated; accept its conditions on that page, and set HF_TOKEN"),
        ({"status": 404}, r"not at http://127\.0\.0\.1:\d+ \(404\); check the spelling"),
        ({"status": 429, "headers": {"Retry-After": "7"}}, "fewer requests .*run again in 7 seconds, or set HF_TOKEN"),
        ({"status": 429}, "run again later"),
        ({"status": 503}, "answered 503; run again later, or set HF_ENDPOINT"),
        ({"status": 200}, "did not answer as the hub does"),
        ({"status": -1}, "cannot be reached .*give a folder|the transfer stopped; run again"),
    ],
)
def test_each_failure_says_what_to_do(hub: Hub, tmp_path: Path, settings: dict[str, object], message: str) -> None:
    for name, value in settings.items():
        setattr(hub, name, value)
    with pytest.raises(CheckpointError, match=message):
        find_model(NAME)
    assert len(hub.asked) == 1 and not cached(tmp_path).exists()


def test_a_token_is_sent_and_a_wrong_one_named(hub: Hub, tmp_path: Path) -> None:
    hub.token = "right"
    with seen(tmp_path, hub.address, HF_TOKEN="wrong"):
        refused("the token in HF_TOKEN is not accepted (401)")
    with seen(tmp_path, hub.address, HF_TOKEN="right"):
        assert find_model(NAME).is_dir()


def test_what_is_no_model_here_is_refused_before_its_weights(
    hub: Hub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CheckpointError, match="has no revision v9; give a branch, a tag or a commit"):
        find_model(f"{NAME}@v9")
    with pytest.raises(CheckpointError, match=r"BAAI/none: is no folder here .* not at .* check the spelling"):
        find_model("BAAI/none")
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    (other / "config.json").write_text(json.dumps({"model_type": "llama"}))
    hub.folders[NAME] = other
    with pytest.raises(CheckpointError, match="model_type is 'llama'"):
        find_model(NAME)
    shutil.copy(folder / "config.json", other)
    (other / "model.safetensors").unlink()
    hub.commit = "f" * 40
    with pytest.raises(CheckpointError, match=f"pytorch_model.bin alone, a pickle; {PICKLES_VARIABLE}=1 fetches it"):
        find_model(NAME)
    monkeypatch.setenv(PICKLES_VARIABLE, "1")
    assert (find_model(NAME) / "pytorch_model.bin").is_file()
    (other / "pytorch_model.bin").unlink()
    hub.commit = "e" * 40
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors, so that it is no model"):
        find_model(f"{NAME}@v1")


def test_without_a_network_one_line_says_where_it_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.tsv").write_text("w1\tw2\n")
    with seen(tmp_path, "http://127.0.0.1:9"):
        assert main(["predict", "--model", NAME, "--input", "pairs.tsv"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    for part in (f"error: {NAME}: is no folder here", f"cache {tmp_path}/hf/hub, and http://127.0.0.1:9 cannot be"):
        assert part in line
    assert "HF_ENDPOINT names a mirror" in line
    with seen(tmp_path, "http://127.0.0.1:9", HF_HUB_OFFLINE="1"):
        refused("HF_HUB_OFFLINE keeps it from being fetched")


def test_a_name_server_that_never_answers_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    ends = threading.Event()

    def _never(*_: object, **__: object) -> None:
        ends.wait()
        raise OSError("too late")

    monkeypatch.setattr(socket, "create_connection", _never)
    with seen(tmp_path, "https://hub.invalid"):
        refused("no answer in 1.5 seconds; HF_HUB_ETAG_TIMEOUT sets more")
    ends.set()
