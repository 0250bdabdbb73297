"""Model folders from elsewhere: pipes, devices, holes and absurd dimensions are refused before they cost anything."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.exported import open_exported
from paddle_ranker.model.model_folder import RANKER, load_model
from paddle_ranker.storage.untrusted import memory_bytes
from tests.export_cases import write_case
from tests.serving_cases import SECONDS
from tests.tiny import CONFIG, change_json

pytestmark = pytest.mark.unit
FILES = ("vocab.txt", "tokenizer_config.json", "special_tokens_map.json", "config.json", "model_state.pdparams")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_case(tmp_path_factory.mktemp("whole") / "ranker")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "ranker"))


def refusal(load: Any, *arguments: Any) -> str:
    """Return why something was not loaded; fail where it was, or nothing came of it."""
    found: list[Any] = []

    def work() -> None:
        try:
            found.append(load(*arguments))
        except CheckpointError as error:
            found.append(str(error))

    thread = threading.Thread(target=work, daemon=True)  # which may hang
    thread.start()
    thread.join(SECONDS)
    assert found and isinstance(found[0], str), found or "it hangs"
    return str(found[0])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("what", ["pipe", "device", "hole"])
def test_what_is_no_regular_file_is_not_read(folder: Path, name: str, what: str) -> None:
    if what == "hole":
        with (folder / name).open("r+b") as stream:
            stream.truncate(memory_bytes() + 1)
        assert f"{name}: has {memory_bytes() + 1:,} bytes" in refusal(load_model, folder, RANKER)
        return
    (folder / name).unlink()
    if what == "pipe":
        os.mkfifo(folder / name)
    else:
        (folder / name).symlink_to("/dev/zero")
    assert name in refusal(load_model, folder, RANKER)


def test_a_folder_in_hugging_face_s_cache_is_read(folder: Path, tmp_path: Path) -> None:
    repository = tmp_path / "models--own--ranker"
    snapshot = repository / "snapshots" / "0123abc"
    (repository / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(repository / "blobs" / f"{number}")
        (snapshot / path.name).symlink_to(Path("..", "..", "blobs", f"{number}"))
    assert load_model(snapshot, RANKER).network is not None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_hidden_layers", 10**9), ("num_hidden_layers", 1000), ("vocab_size", 10**12),
        ("max_position_embeddings", 10**10), ("intermediate_size", 10**10), ("type_vocab_size", 10**10),
        ("hidden_size", 2 * 10**9),
    ],
)  # fmt: skip
def test_dimensions_beyond_the_parameter_file_are_refused(folder: Path, exports: Any, name: str, value: int) -> None:
    change_json(folder / "config.json", **{name: value})
    assert "they are not of one model" in refusal(load_model, folder, RANKER)
    if value < 10**6:
        return  # an exported graph is not made from its configuration
    output = exports.copy("plain", folder.parent / "output")
    change_json(output / "config.json", **{name: value})
    assert "they are not of one model" in refusal(open_exported, output, RANKER)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_attention_heads", 0), ("num_hidden_layers", -1), ("hidden_size", 16.5), ("vocab_size", "97"),
        ("num_hidden_layers", True), ("layer_norm_eps", float("inf")), ("hidden_dropout_prob", [0.1]),
    ],
)  # fmt: skip
def test_dimensions_that_are_no_numbers_are_refused(folder: Path, name: str, value: Any) -> None:
    change_json(folder / "config.json", **{name: value})
    assert f"{name} is " in refusal(load_model, folder, RANKER)


def test_the_least_number_of_parameters_is_no_more_than_there_are(whole: Path) -> None:
    network = load_model(whole, RANKER).network
    there = sum(int(tensor.size) for tensor in network.state_dict().values())
    assert 0.9 * there < CONFIG.estimated_parameters <= there
    CONFIG.require_fits(there, len(network.state_dict()))
    with pytest.raises(CheckpointError, match="1,000,000 layers"):
        EncoderConfig(10, 1, 10**6, 1, 1).require_fits(10**7, 100)
