"""Wrong folders, through the commands: each says what a folder is and which command takes it."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from cross_encoder import predict
from ernie_matching import evaluate, export_model, predict_pairwise, train_pairwise
from multimodal_entailment import export_model as export_entailment
from multimodal_entailment import predict as predict_entailment
from paddle_ranker.commands import blend, calibrate, compare, convert, distill, export_serving, quantize, rank, serve
from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.recognised import recognise, refusal
from paddle_ranker.scoring.loading import open_ranker
from pretraining import fill_mask, train_mlm
from tests.tiny import write_encoder, write_ranker, write_tokenizer

pytestmark = pytest.mark.parity

KEPT = Path(__file__).parents[1] / "kept"
Main = Callable[[Sequence[str]], int]
CPU = ["--device", "cpu"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder of each kind, and small files to go with them."""
    root = tmp_path_factory.mktemp("folders")
    write_encoder(root / "starter")
    write_ranker(root / "ranker")
    write_tokenizer(root / "tokenizer")
    write_ranker(root / "run" / "best")
    (root / "empty").mkdir()
    for name in ("entailment", "export"):
        with tarfile.open(KEPT / f"{name}.tar.xz") as archive:
            archive.extractall(root / "kept")
    (root / "kept" / "entailment" / "checkpoint").rename(root / "entailment")
    (root / "kept" / "entailment" / "static").rename(root / "entailment_export")
    (root / "kept" / "export").rename(root / "export")
    (root / "transformers").mkdir()
    (root / "transformers" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (root / "transformers" / "model.safetensors").write_bytes(b"")
    (root / "pairs.tsv").write_text("深度\t学习\n", encoding="utf-8")
    (root / "dev.tsv").write_text("深度\t学习\t1\n深度\t水稻\t0\n农业\t水稻\t1\n农业\t学习\t0\n", encoding="utf-8")
    (root / "triples.tsv").write_text("深度\t学习\t水稻\n", encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("name", "what", "use"),
    [
        ("starter", "an encoder", "--model_name_or_path"),
        ("ranker", "a trained ranker", "export"),
        ("tokenizer", "a tokenizer without a model", "train_mlm.py --tokenizer"),
        ("run", "a folder of several models", "did you mean FOLDER/best?"),
        ("empty", "an empty folder", "check the path"),
        ("entailment", "a model of pairs of posts", "multimodal_entailment/predict.py"),
        ("entailment_export", "a model of pairs of posts", "--entailment_model"),
        ("export", "an exported ranker", "serve"),
        ("transformers", "Hugging Face's transformers", "python -m paddle_ranker convert FOLDER TARGET"),
        ("pairs.tsv", "a file", "the path of a folder"),
        ("nowhere", "not there", "check the path"),
    ],
)
def test_kinds_of_folders(folders: Path, name: str, what: str, use: str) -> None:
    found = recognise(folders / name)
    assert what in found.what and use.replace("FOLDER", str(folders / name)) in found.use


TO_SCORE = {
    "starter": "an encoder without a ranking head (a starter, or a pretrained model), not a trained ranker; train",
    "entailment": "a model of pairs of posts (entailment), not a ranker; multimodal_entailment/predict.py",
    "entailment_export": "a model of pairs of posts (entailment), not a ranker; multimodal_entailment/predict.py",
    "transformers": "a model folder of Hugging Face's transformers, not a ranker (there is no model_state.pdparams",
    "run": "a folder of several models, not a ranker (there is no model_state.pdparams in it); did you mean",
    "empty": "an empty folder, not a ranker",
}
SCORING: tuple[tuple[Main, str], ...] = (
    (predict_pairwise.main, "--params_path FOLDER --input_file pairs.tsv"),
    (predict.main, "--params_path FOLDER --test_set pairs.tsv"),
    (evaluate.main, "--init_from_ckpt FOLDER --test_file dev.tsv"),
    (compare.main, "FOLDER --test_file dev.tsv"),
    (rank.main, "--params_path FOLDER --input_file pairs.tsv"),
    (distill.main, "FOLDER pairs.tsv taught.tsv"),
)


@pytest.mark.parametrize("name", TO_SCORE)
@pytest.mark.parametrize("command", range(len(SCORING)))
def test_what_scores_names_another_kind(
    folders: Path, command: int, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main, line = SCORING[command]
    assert f"{name}: is {TO_SCORE[name]}" in failed(main, line, folders, name, monkeypatch, capsys)


TRAINED = "not a trained ranker (there is no model_state.pdparams in it); prediction, evaluation, rank, compare and"
OTHERS: tuple[tuple[Main, str, str, str], ...] = (
    (export_model.main, "--params_path FOLDER --output_path out", "export", f"is an exported ranker, {TRAINED}"),
    (export_model.main, "--params_path FOLDER --output_path out", "starter", "is an encoder without a ranking head"),
    (export_model.main, "--params_path FOLDER --output_path out", "entailment", "is a model of pairs of posts"),
    (calibrate.main, "FOLDER dev.tsv", "export", f"is an exported ranker, {TRAINED}"),
    (blend.main, "FOLDER dev.tsv out --other ranker", "transformers", "python -m paddle_ranker convert FOLDER TARGET"),
    (
        train_pairwise.main,
        "--init_from_ckpt FOLDER --train_file triples.tsv --test_file dev.tsv --save_dir out",
        "export",
        "is an exported ranker, not a ranker or an encoder to train",
    ),
    (
        train_pairwise.main,
        "--model_name_or_path FOLDER --train_file triples.tsv --test_file dev.tsv --save_dir out",
        "transformers",
        "python -m paddle_ranker convert FOLDER TARGET",
    ),
    (
        quantize.main,
        "--model_dir FOLDER --calibration_file pairs.tsv --eval_file dev.tsv",
        "ranker",
        "there is no static model in it; make it with: python -m paddle_ranker export --params_path FOLDER",
    ),
    (
        quantize.main,
        "--model_dir FOLDER --calibration_file pairs.tsv --eval_file dev.tsv",
        "entailment_export",
        "is a model of pairs of posts (entailment), not an exported ranker",
    ),
    (export_serving.main, "--dirname FOLDER", "starter", "it is an encoder"),
    (convert.main, "FOLDER converted", "export", "to convert: it is an exported ranker; prediction, evaluation"),
    (
        convert.main,
        "FOLDER converted --to hf",
        "entailment",
        "is a model of pairs of posts (entailment), not a ranker or",
    ),
    (fill_mask.main, "深[MASK] --model FOLDER", "export", "is an exported ranker, not a masked language model"),
    (
        train_mlm.main,
        "--init_from FOLDER --train_files pairs.tsv --save_dir out",
        "transformers",
        "python -m paddle_ranker convert FOLDER TARGET",
    ),
    (predict_entailment.main, "--model FOLDER --input_file dev.tsv", "starter", "(entailment.json): it is an encoder"),
    (export_entailment.main, "--model FOLDER", "ranker", "holds no model of pairs of posts (entailment.json): it is a"),
    (predict_pairwise.main, "--params_path FOLDER --input_file pairs.tsv", "dev.tsv", "is not a parameter file; give"),
)


@pytest.mark.parametrize("case", range(len(OTHERS)))
def test_other_commands_name_the_kind_too(
    folders: Path, case: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main, line, name, expected = OTHERS[case]
    said = failed(main, line, folders, name, monkeypatch, capsys)
    assert expected.replace("FOLDER", str(folders / name)) in said and "head.weight" not in said


@pytest.mark.parametrize("name", ["entailment", "transformers", "starter"])
def test_a_server_names_the_kind(
    folders: Path, name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CheckpointError, match=f"{name}: is an? "):
        open_ranker(folders / name)
    assert serve.main(["--model", str(folders / name), "--port", "0"]) == 1
    assert f"{name}: is {TO_SCORE[name]}" in capfd.readouterr().err


def test_what_is_not_there_is_not_said_to_lack_a_file(folders: Path) -> None:
    assert str(refusal(folders / "nowhere", "a ranker", "there is no x in it")) == (
        f"{folders / 'nowhere'}: is not there; check the path"
    )


def failed(main: Main, line: str, folders: Path, name: str, monkeypatch: Any, capsys: Any) -> str:
    """Run a command with FOLDER for a folder's path; return what it says in its one line of an error."""
    monkeypatch.chdir(folders)
    words = [str(folders / name) if word == "FOLDER" else word for word in line.split()]
    takes_device = main not in (
        export_model.main,
        quantize.main,
        export_serving.main,
        convert.main,
        export_entailment.main,
    )
    assert main([*words, *(CPU if takes_device else [])]) == 1
    said = capsys.readouterr().err
    assert "unexpected" not in said and said.count("error:") == 1
    return str(said)
