"""A name is a model for every command: PaddleNLP's, RocketQA's, folders and files of PaddleNLP in each dress.

PaddleNLP makes every model in the test, small, and PaddleNLP's cache holds them under the published names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from paddle_ranker import Ranker
from paddle_ranker.__main__ import main
from paddle_ranker.errors import CheckpointError
from paddle_ranker.model import paddlenlp_names, pretrained
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import RANKER, identify, load_model
from paddle_ranker.model.paddlenlp_names import known_name, published_models
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from tests.conftest import Call
from tests.migration.published import (
    CROSS,
    PARA,
    QUERIES,
    QUERY,
    SAFE,
    SHAPE,
    TITLES,
    Made,
    classifier,
    encoded,
    transformers,
    write,
)
from tests.tiny import write_tokenizer

pytestmark = pytest.mark.parity

SOURCES: dict[str, Callable[[Path], object]] = {
    "PaddleNLP's name": lambda place: CROSS,
    "RocketQA's name": lambda place: "zh_dureader_ce",
    "folder": lambda place: place / "paddlenlp" / "models" / CROSS,
    "parameter file": lambda place: place / "paddlenlp" / "models" / CROSS / "model_state.pdparams",
    "safetensors": lambda place: place / "safe",
    "safetensors' file": lambda place: place / "safe" / "model.safetensors",
    "split safetensors": lambda place: place / "split",
}


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_scores_as_paddlenlp(source: str, made: Made, at: Path) -> None:
    ranker = Ranker.load(str(SOURCES[source](at)))
    np.testing.assert_allclose(ranker.score(QUERIES, TITLES), made.probabilities, atol=1e-5)
    assert np.ptp(made.probabilities) > 0.001


# Commands to the end, with the name in the place of {}; test_model_options.py looks at all options.
COMMANDS = (
    "predict --model {} --input pairs.tsv",
    "predict --params_path {} --test_set pairs.tsv",
    "rank {} --input pairs.tsv",
    "evaluate --init_from_ckpt {} --test labelled.tsv",
    "compare {} other={} --test labelled.tsv --resamples 100",
    "cascade {} {} --test labelled.tsv",
    "distill {} triples.tsv made.tsv",
    "calibrate {} labelled.tsv --output calibrated",
    "blend {} labelled.tsv blended --with rocketqa-zh-dureader-para-encoder",
    "info {}",
    "doctor --model {}",
    "export --model {} --output exported",
    "train-ce --train labelled.tsv --test labelled.tsv --epochs 1 --batch_size 4 --model {} --output trained",
    "train-ce --train labelled.tsv --test labelled.tsv --epochs 1 --batch_size 4 --init_from_ckpt {} --output trained",
    "train-pairwise --train triples.tsv --test labelled.tsv --epochs 1 --model {} --output trained",
    "train-pairwise --train triples.tsv --test labelled.tsv --epochs 1 --similarity {} --model {} --output trained",
    "encode --model {} --input texts.tsv --output vectors.npy",
    "index build --corpus texts.tsv --tower {} --output index",
    "mine --queries triples.tsv --corpus texts.tsv --ranker {} --output mined.tsv",
)


@pytest.mark.thorough(keep=14)
@pytest.mark.parametrize("line", COMMANDS)
@pytest.mark.parametrize("source", ["RocketQA's name", "safetensors"])
def test_commands_take_a_name_and_safetensors(line: str, source: str, at: Path, call: Call) -> None:
    model = str(SOURCES[source](at))
    typed = [word.replace("{}", model) for word in line.split()]
    takes_device = not line.startswith(("info", "doctor", "export"))
    status, _, errors = call(main, *typed, *(["--device", "cpu"] if takes_device else []))
    # The ranker has scored when `mine` finds nothing in so small a corpus.
    assert status == 0 or (line.startswith("mine") and "not one negative was found" in errors), errors


def test_a_server_takes_a_name(at: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from paddle_ranker.commands.serve import main as serve

    found: list[object] = []
    monkeypatch.setattr("paddle_ranker.serving.process.server.run", lambda config: found.append(config.model))
    assert serve(["--model", "zh_dureader_ce"]) == 0
    assert found == [at / "paddlenlp" / "models" / CROSS]


def test_rocketqas_dual_encoder_is_two_towers(made: Made, at: Path) -> None:
    tower = Tower.open("zh_dureader_de")
    np.testing.assert_allclose(tower.vectors(TITLES), made.vectors[PARA], atol=1e-5)
    np.testing.assert_allclose(tower.query_vectors(QUERIES), made.vectors[QUERY], atol=1e-5)


@pytest.mark.parametrize(
    "name, said",
    [
        ("ernie-3.0-mdium-zh", "did you mean ernie-3.0-medium-zh"),
        ("rocketqa-nono-cross-encoder", "did you mean rocketqa-nano-cross-encoder"),
        ("zh_dureader_ce_v2", "RocketQA's and not published by PaddleNLP"),
        ("ernie-m-bse", "did you mean ernie-m-base"),
    ],
)
def test_misspelt_names_are_explained(name: str, said: str, at: Path) -> None:
    with pytest.raises(CheckpointError, match=said):
        load_model(name, RANKER)
    with pytest.raises(CheckpointError, match=said):
        pretrained.resolve_model(name)


def test_offline_the_message_names_files_addresses_and_folders(at: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = "http://127.0.0.1:9"
    files = ("model_state.pdparams", "vocab.txt")
    monkeypatch.setattr(pretrained, "_addresses", lambda name: {file: f"{nobody}/{file}" for file in files})
    with pytest.raises(CheckpointError) as raised:
        load_model("rocketqa-nano-cross-encoder", RANKER)
    for part in (*files, *(f"{nobody}/{file}" for file in files), str(at / "paddlenlp" / "models"), "/cache/models/"):
        assert part in str(raised.value)


def test_the_tables_are_those_of_paddlenlp() -> None:
    from paddlenlp.transformers.ernie import configuration as ernie

    for name, values in ernie.ERNIE_PRETRAINED_INIT_CONFIGURATION.items():
        found = published_models()[name]
        assert dataclasses.asdict(found.config).items() >= {
            (key, value) for key, value in values.items() if key in ("hidden_size", "vocab_size", "hidden_act")
        }
        assert found.parameters == ernie.ERNIE_PRETRAINED_RESOURCE_FILES_MAP["model_state"].get(name)
        tokenizer = transformers.ErnieTokenizer
        assert found.vocabularies.get("vocab.txt") == tokenizer.pretrained_resource_files_map["vocab_file"].get(name)
    assert known_name("roberta-wwm-ext") == "hfl/roberta-wwm-ext"
    rocketqa = {*paddlenlp_names._CROSS_ENCODERS.values(), *sum(paddlenlp_names.DUAL_ENCODERS.values(), ())}
    assert rocketqa <= set(published_models())


@pytest.mark.parametrize(
    "family, name",
    [
        ("Ernie", "ernie-1.0"), ("ErnieGram", "ernie-gram-zh"), ("ErnieM", "ernie-m-large"),
        ("Bert", "bert-base-chinese"), ("Roberta", "hfl/roberta-wwm-ext-large"),
    ],
)  # fmt: skip
def test_norms_have_the_epsilon_of_paddlenlps_network(family: str, name: str) -> None:
    config_class = getattr(transformers, f"{family}Config")
    stated = {key: value for key, value in config_class.pretrained_init_configuration[name].items() if "eps" in key}
    network = getattr(transformers, f"{family}Model")(config_class(**SHAPE, **stated))
    norms = [layer._epsilon for layer in network.sublayers() if isinstance(layer, paddle.nn.LayerNorm)]
    assert norms == [published_models()[name].config.layer_norm_eps] * len(norms) and len(norms) == 5


def test_roberta_wwm_by_name_computes_what_paddlenlp_computes(at: Path, tmp_path: Path) -> None:
    model = classifier("Roberta", type_vocab_size=2, pad_token_id=0)
    home = tmp_path / "paddlenlp" / "models" / "hfl" / "roberta-wwm-ext"
    write(model, home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PPNLP_HOME", str(tmp_path / "paddlenlp"))
        ranker = Ranker.load("roberta-wwm-ext")
    rows = encoded(home, QUERIES, TITLES)
    logits = np.concatenate([model(**row).numpy() for row in rows])
    wanted = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
    np.testing.assert_allclose(ranker.score(QUERIES, TITLES), wanted, atol=1e-5)


def _bare(folder: Path, name: str, prefix: str, **head: Any) -> Path:
    """Write parameters of a published shape, in one layer's worth of memory: zeros, and no configuration."""
    from paddle_ranker.model.encoder_loading import unfilled

    state = unfilled(published_models()[name].config).state_dict()
    arrays = {f"{prefix}{key}": np.zeros(value.shape, np.float32) for key, value in state.items()}
    write_tokenizer(folder, published_models()[name].config.vocab_size)
    paddle.save({**arrays, **head}, str(folder / "model_state.pdparams"))
    return folder


def test_bare_parameters_are_taken_by_their_shape(
    at: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = {"similarity.weight": np.zeros((312, 2), np.float32), "similarity.bias": np.array([0, 1], np.float32)}
    bare = _bare(tmp_path / "bare", "ernie-3.0-nano-zh", "ptm.", **head) / "model_state.pdparams"
    from ernie_matching import evaluate, predict_pairwise

    for command, line in (
        (predict_pairwise, ["--params_path", bare, "--input_file", "pairs.tsv"]),
        (evaluate, ["--init_from_ckpt", bare, "--test_file", "labelled.tsv"]),
    ):
        status, _, errors = call(command.main, *line, "--device", "cpu")
        is_first = command is predict_pairwise  # a process prints each note once
        assert status == 0 and is_first == ("taken as ernie-3.0-nano-zh, by the shape" in errors), errors
    with pytest.raises(CheckpointError, match=r"of a model of 4 layers, 312 wide, .*: ernie-3\.0-nano-zh fits"):
        load_model(bare, RANKER, LoadOptions(model_name="ernie-3.0-medium-zh"))


def test_shapes_of_several_models_are_asked_for(at: Path, tmp_path: Path) -> None:
    head = {"similarity.weight": np.zeros((768, 2), np.float32), "similarity.bias": np.zeros(2, np.float32)}
    bare = _bare(tmp_path / "bare", "hfl/rbt6", "ptm.", **head)
    with pytest.raises(CheckpointError, match=r"compute differently \(uer/.*, hfl/rbt6\).*--model_name_or_path"):
        load_model(bare, RANKER)


def test_a_bare_tower_is_said_to_be_a_tower(at: Path, tmp_path: Path, call: Call) -> None:
    layer = {
        "emb_reduce_linear.weight": np.zeros((312, 8), np.float32),
        "emb_reduce_linear.bias": np.ones(8, np.float32),
    }
    bare = _bare(tmp_path / "bare", "ernie-3.0-nano-zh", "ptm.", **layer)
    assert identify(bare).what.startswith("a tower")
    status, _, errors = call(main, "rank", bare, "--input", "pairs.tsv", "--device", "cpu")
    assert status == 1 and "is a tower" in errors
    status, printed, errors = call(main, "predict", bare, "--input", "pairs.tsv", "--device", "cpu")
    assert status == 0 and len(printed.splitlines()) == len(QUERIES), errors


def test_classes_are_scored_by_their_names(at: Path, tmp_path: Path) -> None:
    scores = []
    for labels in ({0: "entailment", 1: "contradiction"}, {0: "contradiction", 1: "entailment"}):
        folder = write(classifier(id2label=labels), tmp_path / labels[0])
        scores.append(np.array(Ranker.load(folder).score(QUERIES, TITLES)))
    np.testing.assert_allclose(scores[0] + scores[1], 1, atol=1e-6)


@pytest.mark.parametrize("family", ["Ernie", "Roberta"])
@pytest.mark.parametrize("how", [{}, SAFE], ids=["pdparams", "safetensors"])
def test_a_head_of_three_classes_is_refused_with_their_names_and_trained_anew(
    family: str, how: dict[str, Any], at: Path, tmp_path: Path, call: Call
) -> None:
    three = write(classifier(family, classes=3, id2label={0: "no", 1: "yes", 2: "neutral"}), tmp_path / "three", **how)
    with pytest.raises(CheckpointError, match=r"not a ranker \(its head tells 3 classes apart: no, yes, neutral\)"):
        Ranker.load(three)
    line = "train-ce --train labelled.tsv --test labelled.tsv --epochs 1 --batch_size 64 --device cpu --output trained"
    status, _, errors = call(main, *line.split(), "--model", str(three))
    assert status == 0, errors
    assert Tower.open(three).vectors(TITLES).shape == (len(TITLES), 16)


@pytest.mark.parametrize("target", ["paddle", "hf"])
def test_safetensors_are_converted(target: str, made: Made, at: Path, tmp_path: Path) -> None:
    assert main(["convert", str(at / "safe"), str(tmp_path / "new"), "--to", target]) == 0
    scores = Ranker.load(tmp_path / "new").score(QUERIES, TITLES)
    np.testing.assert_allclose(scores, made.probabilities, atol=1e-5)
