"""Wrong folders, through the commands: each says what a folder is and which command takes it."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from cross_encoder import predict
from ernie_matching import evaluate, export_model, predict_pairwise, train_pairwise
from multimodal_entailment import export_model as export_entailment
from multimodal_entailment import predict as predict_entailment
from paddle_ranker.commands import (
    blend,
    calibrate,
    compare,
    convert,
    distill,
    info,
    quantize,
    rank,
    serve,
)
from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.model_folder import RANKER, identify
from paddle_ranker.paddle_serving import export_serving
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo
from paddle_ranker.scoring.loading import open_model
from pretraining import fill_mask, train_mlm
from tests.conftest import Call
from tests.tiny import change_json, write_encoder, write_ranker, write_tokenizer

pytestmark = pytest.mark.parity

KEPT = Path(__file__).parents[1] / "kept"
Main = Callable[[Sequence[str]], int]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder of each kind, and small files to go with them."""
    root = tmp_path_factory.mktemp("folders")
    write_encoder(root / "starter")
    write_ranker(root / "ranker")
    write_tokenizer(root / "tokenizer")
    write_ranker(root / "run" / "best")
    (root / "empty").mkdir()
    with Collection.create(root / "index", IndexInfo(WordsInfo("bigram"), None)) as collection:
        collection.writer.add([Document("a", "水稻")])
    write_ranker(root / "index" / "tower")
    for name in ("entailment", "export"):
        with tarfile.open(KEPT / f"{name}.tar.xz") as archive:
            archive.extractall(root / "kept")
    for source, name in (("entailment/checkpoint", "entailment"), ("entailment/static", "entailment_export")):
        (root / "kept" / source).rename(root / name)
    (root / "kept" / "export").rename(root / "export")
    (root / "transformers").mkdir()
    (root / "transformers" / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": 97}))
    (root / "transformers" / "model.safetensors").write_bytes(b"")
    (root / "pairs.tsv").write_text("深度\t学习\n", encoding="utf-8")
    (root / "dev.tsv").write_text("深度\t学习\t1\n深度\t水稻\t0\n农业\t水稻\t1\n农业\t学习\t0\n", encoding="utf-8")
    (root / "triples.tsv").write_text("深度\t学习\t水稻\n", encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("name", "what", "use"),
    [
        ("starter", "an encoder", "--model FOLDER"),
        ("ranker", "a trained ranker", "export"),
        ("tokenizer", "a tokenizer without a model", "pretrain --tokenizer"),
        ("run", "a folder of several models", "did you mean FOLDER/best?"),
        ("index", "a search index", "search-serve and mine take it as --index FOLDER"),
        ("empty", "an empty folder", "check the path"),
        ("entailment", "a model of pairs of posts", "predict, evaluate and export"),
        ("entailment_export", "a model of pairs of posts", "--entailment_model"),
        ("export", "an exported ranker", "serve"),
        ("transformers", "Hugging Face's transformers", "paddle-ranker convert FOLDER TARGET"),
        ("pairs.tsv", "a file", "the path of a folder"),
        ("nowhere", "not there", "check the path"),
    ],
)
def test_kinds_of_folders(folders: Path, name: str, what: str, use: str) -> None:
    found = identify(folders / name)
    assert what in found.what and use.replace("FOLDER", str(folders / name)) in found.use


TO_SCORE = {
    "starter": "an encoder without a ranking head",
    "entailment": "a model of pairs of posts",
    "entailment_export": "a model of pairs of posts",
    "transformers": "a model folder of Hugging Face's transformers, not a",
    "run": "a folder of several models, not a",
    "index": "a search index, not a",
    "empty": "an empty folder, not a",
}


@pytest.mark.parametrize("name", TO_SCORE)
def test_what_scores_names_another_kind(folders: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match=f"{name}: is {TO_SCORE[name]}"):
        open_model(folders / name, RANKER)


CPU = "--device cpu"
TRAIN = f"--train_file triples.tsv --test_file dev.tsv --save_dir out {CPU}"
COMMANDS: tuple[tuple[Main, str, str, str], ...] = (
    (predict_pairwise.main, f"--params_path FOLDER --input_file pairs.tsv {CPU}", "entailment", "of pairs of posts"),
    (predict_pairwise.main, f"--params_path FOLDER --input_file pairs.tsv {CPU}", "dev.tsv", "not a parameter file"),
    (predict.main, f"--params_path FOLDER --test_set pairs.tsv {CPU}", "transformers", "Hugging Face's transformers"),
    (evaluate.main, f"--init_from_ckpt FOLDER --test_file dev.tsv {CPU}", "index", "is a search index"),
    (compare.main, f"FOLDER --test_file dev.tsv {CPU}", "run", "did you mean"),
    (rank.main, f"--params_path FOLDER --input_file pairs.tsv {CPU}", "starter", "is an encoder without"),
    (distill.main, f"FOLDER pairs.tsv taught.tsv {CPU}", "empty", "is an empty folder"),
    (export_model.main, "--params_path FOLDER --output_path out", "export", "is an exported ranker"),
    (calibrate.main, f"FOLDER dev.tsv {CPU}", "export", "is an exported ranker"),
    (blend.main, f"FOLDER dev.tsv out --other ranker {CPU}", "transformers", "paddle-ranker convert FOLDER TARGET"),
    (train_pairwise.main, f"--init_from_ckpt FOLDER {TRAIN}", "export", "is an exported ranker, not a ranker or an en"),
    (quantize.main, "FOLDER --calibration_file pairs.tsv --eval_file dev.tsv", "ranker", "export --model FOLDER"),
    (quantize.main, "FOLDER --calibration_file pairs.tsv --eval_file dev.tsv", "entailment_export", "not an exported"),
    (export_serving.main, "--dirname FOLDER", "starter", "it is an encoder"),
    (convert.main, "FOLDER converted", "export", "is an exported ranker, not a model of transformers"),
    (convert.main, "FOLDER converted --to hf", "entailment", "is a model of pairs of posts"),
    (fill_mask.main, f"深[MASK] --model FOLDER {CPU}", "export", "not a masked language model"),
    (train_mlm.main, f"--init_from FOLDER --train_files pairs.tsv --save_dir out {CPU}", "export", "exported ranker"),
    (
        predict_entailment.main,
        f"--model FOLDER --input_file dev.tsv {CPU}",
        "starter",
        "ranking head (a starter, or a pretrained model), not a model of pairs of posts",
    ),
    (export_entailment.main, "--model FOLDER", "ranker", "is a trained ranker, not a model of pairs of posts"),
    (serve.main, "--model FOLDER --port 0", "transformers", "Hugging Face's transformers"),
)


@pytest.mark.parametrize(("command", "line", "name", "expected"), COMMANDS)
def test_commands_name_the_kind(
    folders: Path,
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
    command: Main,
    line: str,
    name: str,
    expected: str,
) -> None:
    monkeypatch.chdir(folders)
    status, _, said = call(command, *line.replace("FOLDER", str(folders / name)).split())
    assert status == 1 and "unexpected" not in said and said.count("error:") == 1
    assert expected.replace("FOLDER", str(folders / name)) in said and "head.weight" not in said


@pytest.mark.parametrize(
    "changes", [{"quantization_config": {"bits": 4}}, {"is_decoder": True}, {"model_type": "llama"}], ids=str
)
def test_a_model_that_is_not_read_is_not_said_to_be_trained(
    folders: Path, tmp_path: Path, call: Call, changes: dict[str, Any]
) -> None:
    folder = Path(shutil.copytree(folders / "transformers", tmp_path / "model"))
    change_json(folder / "config.json", **changes)
    _, printed, said = call(info.main, folder)
    assert "training takes it" not in printed + said and f"{next(iter(changes))} is" in printed
