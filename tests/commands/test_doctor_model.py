"""`doctor --model`: what each kind of folder is, that it opens, and that what is said to work with it does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Optional

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file, save_file

from paddle_ranker.__main__ import main
from paddle_ranker.commands.command_registry import COMMANDS
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from tests.hub_server import hub_environment, hub_server
from tests.model.test_families import write_folder
from tests.test_kept_folders import unpack
from tests.tiny import change_json, write_encoder, write_tower

pytestmark = pytest.mark.parity

TRAININGS = ["train-pairwise", "train-ce", "train-batch-neg"]
OLD_PADDLE = paddle.__version__.startswith("2.")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of every kind that the toolkit writes or takes."""
    folder = tmp_path_factory.mktemp("folders")
    unpack(folder)
    write_encoder(folder / "starter")
    write_tower(folder / "tower")
    write_folder(folder / "hf", "modernbert")
    write_folder(folder / "hf encoder", "deberta-v3")
    change_json(folder / "hf encoder" / "config.json", architectures=["DebertaV2Model"])
    shutil.copytree(folder / "starter", folder / "masked")
    (folder / "masked" / "pretraining.json").write_text("{}", encoding="utf-8")
    return folder


def examined(folder: object, capsys: pytest.CaptureFixture[str], status: int = 0) -> dict[str, Any]:
    assert main(["doctor", "--model", str(folder), "--json"]) == status, capsys.readouterr()
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["ok"] == (not found["problem"]) == (status == 0)
    known = {command for line in found["works_with"].values() for command in line.split(", ")} & set(COMMANDS)
    return {**found, "facts": dict(found["facts"]), "commands": known}


@pytest.mark.parametrize(
    "name, counts_as, slot, commands, others",
    [
        ("pairwise", {"ranker", "encoder"}, "model", ["predict", "calibrate", "blend", *TRAININGS], ["quantize"]),
        ("cross_encoder", {"ranker", "encoder"}, "model", ["evaluate", "distill", "export", *TRAININGS], ["fill-mask"]),
        ("blend", {"ranker", "trained ranker"}, "model", ["rank", "calibrate", "export"], ["blend", *TRAININGS]),
        ("export", {"ranker", "exported model"}, "model", ["predict", "quantize"], ["export", *TRAININGS]),
        (
            "entailment/checkpoint",
            {"trained model"},
            "entailment_model",
            ["predict", "export"],
            ["calibrate", "convert"],
        ),
        ("entailment/static", set(), "entailment_model", ["predict"], ["export", "export-serving", *TRAININGS]),
        ("starter", {"encoder", "tower"}, "tower", ["pretrain", "index", *TRAININGS], ["predict", "fill-mask"]),
        ("masked", {"masked language model"}, "tower", ["fill-mask", "pretrain", *TRAININGS], ["predict", "export"]),
        ("tower", {"tower", "trained model"}, "tower", ["index", "encode", "convert", *TRAININGS], ["rank", "blend"]),
        ("hf", {"ranker", "encoder"}, "model", ["predict", "export", "convert", *TRAININGS], ["quantize", "pretrain"]),
        ("hf encoder", {"encoder", "tower"}, "tower", ["convert", "index", *TRAININGS], ["predict", "pretrain"]),
    ],
)
def test_every_kind_of_folder(
    folders: Path,
    name: str,
    counts_as: set[str],
    slot: Optional[str],
    commands: list[str],
    others: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    if OLD_PADDLE and list((folders / name).glob("*.pdiparams")) and not list((folders / name).glob("*.pdmodel")):
        assert "Paddle 2" in examined(folders / name, capsys, status=1)["problem"]
        return
    found = examined(folders / name, capsys)
    assert counts_as <= set(found["counts_as"])
    assert [line for line in found["works_with"] if line.startswith("serve ")] == [f"serve --{slot}"]
    assert set(commands) <= found["commands"] and not found["commands"] & set(others)
    assert found["facts"]["opens"] and found["facts"]["files"]


def test_the_facts_of_a_model_of_transformers(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = examined(folders / "hf", capsys)["facts"]
    assert facts["encoder"] == "modernbert, 4 layers, 16 wide, 96 word pieces"
    assert facts["head"] == "1 class, a logit" and facts["tokenizer"] == "90 ids, tokenizers"
    assert "at most 8,192 tokens" in facts["a pair"] and facts["found at"] == str(folders / "hf")
    assert main(["doctor", "--model", str(folders / "hf")]) == 0
    printed = capsys.readouterr().out
    assert "works with\n  --engine dygraph" in printed and printed.endswith("\nopens\n")
    assert main(["info", str(folders / "hf")]) == 0
    assert f"encoder: {facts['encoder']}\n" in capsys.readouterr().out
    # A ranker that works as a tower, as the report says.
    assert Tower.open(folders / "hf").vectors(["w1"]).shape == (1, 16)


def test_what_is_wrong_is_said_and_the_status_is_1(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = {name: Path(shutil.copytree(folders / "hf", tmp_path / name)) for name in ("cut", "nan", "mute", "other")}
    cut, numbers = (broken[name] / "model.safetensors" for name in ("cut", "nan"))
    cut.write_bytes(cut.read_bytes()[:-100])
    save_file({name: np.full_like(array, np.nan) for name, array in load_file(numbers).items()}, numbers)
    (broken["mute"] / "tokenizer.json").unlink()
    change_json(broken["other"] / "config.json", model_type="llama")
    (tmp_path / "empty").mkdir()
    for folder, fragment in (
        (broken["cut"], "damaged or not a safetensors file"),
        (broken["nan"], "logit is not a finite number"),
        (broken["mute"], "has no tokenizer.json"),
        (broken["other"], "model_type is 'llama'"),
        (tmp_path / "empty", "is an empty folder"),
        (folders, "did you mean"),
        (tmp_path / "nowhere", "there is no such model folder"),
    ):
        found = examined(folder, capsys, status=1)
        assert fragment in found["problem"] and not found["works_with"]


def test_a_name_is_found_as_every_command_finds_it(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with hub_server() as hub, hub_environment(tmp_path, hub.address, monkeypatch):
        hub.folders["some/reranker"] = folders / "hf"
        found = examined("some/reranker", capsys)
        assert found["facts"]["found at"].startswith(f"{tmp_path}/hf/hub/models--some--reranker/snapshots/")
        assert main(["info", "some/reranker"]) == 0
        assert "is not there" not in capsys.readouterr().out
        hub.status = 429
        assert "(429); run again" in examined("some/other", capsys, status=1)["problem"]


def test_info_says_all_that_a_folder_states(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each field of the info file that holds something stands in a line of its own, whichever kind it is of."""
    write_tower(folders / "lexical", lexical_size=3, nested_sizes=(2, 4))
    assert main(["info", str(folders / "lexical")]) == 0
    lines = capsys.readouterr().out.splitlines()
    for line in (
        "size: 8", "lexical_size: 3", "nested_sizes: 2, 4", "pooling: mean", "output_layer: yes", "towers: 1",
        "query_prompt: 深度", "text_prompt: a ", "normalize: yes", "similarity: cosine",
    ):  # fmt: skip
        assert line in lines
    for name, file in (("cross_encoder", "ranker"), ("blend", "ranker"), ("entailment/checkpoint", "entailment")):
        stated = json.loads((folders / name / f"{file}.json").read_text(encoding="utf-8"))
        assert main(["info", str(folders / name)]) == 0
        said = {line.partition(": ")[0] for line in capsys.readouterr().out.splitlines()[1:]}
        holds = {key for key, value in stated.items() if value is False or value}
        assert holds - {"format_version", "export"} <= said
