"""`CrossEncoder`s of sentence-transformers: heads of steps, prompts, and what their files may say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paddle_ranker import Ranker
from paddle_ranker.commands.convert import ConvertOptions, convert
from paddle_ranker.commands.doctor import main as doctor
from paddle_ranker.errors import CheckpointError
from paddle_ranker.export.static_graph import export_model
from paddle_ranker.model.builtin_kinds import KINDS
from paddle_ranker.model.info import RankerInfo
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import RANKER, identify, load_model
from paddle_ranker.model.ranker_folder import Fresh, load_single, save_ranker, start_ranker
from paddle_ranker.paddle_serving.clients.scoring_client import load_pair_encoder
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from tests.model.reranker_cases import CASES, FILE, FIND, GELU, PAIRS, SIZE, dense, last, pooling, write
from tests.tiny import change_json

pytestmark = pytest.mark.parity
SAID = json.loads(FILE.read_text(encoding="utf-8"))
QUERIES, TITLES = zip(*PAIRS)
LENGTH = LoadOptions(max_seq_length=64)  # that trainings begin with unless they are told


def logits(folder: Path) -> np.ndarray:
    probabilities = Ranker.load(folder).score(QUERIES, TITLES)
    return np.log(probabilities) - np.log1p(-probabilities)


@pytest.mark.thorough(keep=4)
@pytest.mark.parametrize("case", CASES)
def test_scores_are_those_of_the_library_here_converted_and_exported(tmp_path: Path, case: str) -> None:
    source, ours, exported = write(tmp_path / "st", case), tmp_path / "ours", tmp_path / "exported"
    convert(ConvertOptions(source=str(source), target=str(ours)))
    export_model(load_model(ours, RANKER), exported)
    ids = load_model(source, RANKER).row_encoder.encode(QUERIES, TITLES)
    for folder in (source, ours, exported):
        np.testing.assert_allclose(logits(folder), SAID[case], atol=2e-5, err_msg=str(folder))
        assert identify(folder).kind is KINDS["cross_encoder"]
        found = load_pair_encoder(folder).encode(QUERIES, TITLES)  # of a client
        np.testing.assert_array_equal(found.pad(np.arange(4))["input_ids"], ids.pad(np.arange(4))["input_ids"])


@pytest.mark.parametrize("case", ["head, prompt", "first, two layers, norm, prompt"])
def test_a_training_goes_on_with_prompt_and_steps(tmp_path: Path, case: str) -> None:
    model = start_ranker(write(tmp_path / "st", case), Fresh("cross_encoder", match_embeddings=False), LENGTH)
    assert (model.new_parts, model.info.query_prompt) == ([], "find ")
    (tmp_path / "trained").mkdir()
    save_ranker(tmp_path / "trained", model.network, model.row_encoder, model.info)
    np.testing.assert_allclose(logits(tmp_path / "trained"), SAID[case], atol=2e-5)


def test_a_prompt_goes_back(tmp_path: Path) -> None:
    source, ours, back = (tmp_path / name for name in ("st", "ours", "back"))
    convert(ConvertOptions(source=str(write(source, "head, prompt")), target=str(ours)))
    convert(ConvertOptions(source=str(ours), target=str(back), to="hf"))
    (back / "ranker.json").unlink()  # as sentence-transformers reads it
    np.testing.assert_allclose(logits(back), SAID["head, prompt"], atol=2e-5)
    convert(ConvertOptions(source=str(write(tmp_path / "mean", "mean")), target=str(tmp_path / "steps")))
    with pytest.raises(CheckpointError, match="pools the states of all tokens"):
        convert(ConvertOptions(source=str(tmp_path / "steps"), target=str(tmp_path / "none"), to="hf"))


@pytest.mark.parametrize(
    ("steps", "settings", "problem"),
    [
        ([], {"activation_fn": f"torch.nn.modules.activation.{'Softplus'}"}, "activation_fn is"),
        ([], {**FIND, "default_prompt_name": "query"}, "default_prompt_name is 'query', which prompts lack"),
        ([pooling("mean"), dense(SIZE, 3, module_output_name="scores")], {}, "makes 3 numbers of a pair"),
        ([pooling("mean"), dense(SIZE, 1)], {}, "called 'sentence_embedding'"),
        ([pooling("weightedmean"), last(SIZE)], {}, "pools by .*weightedmean"),
        ([pooling(["mean", "max"]), last(2 * SIZE)], {}, "pools by"),
        ([pooling("mean"), last(SIZE, "torch.nn.modules.activation.Mish")], {}, "Mish"),
        ([pooling("mean"), dense(SIZE, 8, GELU, use_residual=True), last(8)], {}, "a residual"),
        ([pooling("mean"), dense(SIZE, 8, module_input_name="token_embeddings"), last(8)], {}, "tokens to read"),
        ([("LogitScore", {"true_token_id": 1})], {}, "is a reranker whose steps are Transformer, LogitScore"),
        ([pooling("mean"), last(SIZE)], {"model_type": "MultiVectorEncoder"}, "parameters missing: head.weight"),
    ],
)
def test_what_is_not_done_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: Any, settings: dict[str, Any], problem: str
) -> None:
    monkeypatch.setitem(CASES, "another", (steps, settings))
    with pytest.raises(CheckpointError, match=problem):
        load_single(write(tmp_path / "st", "another"))


def test_a_reranker_is_no_tower_and_a_tower_no_reranker(tmp_path: Path) -> None:
    source = write(tmp_path / "st", "mean")
    with pytest.raises(CheckpointError, match=r"is a CrossEncoder, no SentenceTransformer \(model_type\); predict"):
        Tower.open(source)
    change_json(source / "config_sentence_transformers.json", model_type="SparseEncoder")
    with pytest.raises(CheckpointError, match="is a SparseEncoder"):
        Tower.open(source)


@pytest.mark.parametrize(
    ("file", "place"),
    [
        ("modules.json", "1."), ("config_sentence_transformers.json", ""), ("sentence_bert_config.json", ""),
        ("1_Pooling/config.json", ""), ("2_Dense/config.json", ""), ("tokenizer_config.json", ""),
        ("special_tokens_map.json", ""),
    ],
)  # fmt: skip
def test_unknown_keys_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, place: str) -> None:
    path = write(tmp_path / "st", "mean") / file
    values = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    (values[1] if place else values)["unheard_of"] = 1
    path.write_text(json.dumps(values), encoding="utf-8")
    load_single(tmp_path / "st")
    assert capsys.readouterr().err.count(f"{path}: unknown here and not used: {place}unheard_of") == 1


def test_older_and_damaged_info(tmp_path: Path) -> None:
    info = RankerInfo("cross_encoder", 8, False, query_prompt="a", pooling="mean", steps=(("gelu", 3), ("linear", 1)))
    (tmp_path / "ranker.json").write_text(info.to_json(), encoding="utf-8")
    read = RankerInfo.read(tmp_path)
    assert read is not None and read.steps == info.steps and read.to_json() == info.to_json()
    change_json(tmp_path / "ranker.json", steps=3)
    with pytest.raises(CheckpointError, match="steps is 3, expected a list"):
        RankerInfo.read(tmp_path)


def test_the_template_that_doctor_shows_has_the_prompt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor(["--model", str(write(tmp_path / "st", "head, prompt"))]) == 0
    assert "[CLS] 'find ' query [SEP] title [SEP]" in capsys.readouterr().out
