"""Static models of the published scripts: scored as they are, and made rankers again.

PaddleNLP's networks are exported in the test by the Paddle that runs it: by `paddle.jit.save`, by
`paddle.static.save_inference_model`, and rewritten as `__model__` with one file of parameters, or one for each.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple, Union

import numpy as np
import paddle
import pytest

from paddle_ranker import Ranker
from paddle_ranker.__main__ import main
from paddle_ranker.encoding.tokenizers.tokenizer_folder import read_tokenizer
from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.model_folder import identify
from paddle_ranker.model.pretrained import vocabulary_folder
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from tests.conftest import Call
from tests.tiny import VOCABULARY, write_tokenizer

transformers = pytest.importorskip("paddlenlp.transformers")
pytestmark = pytest.mark.parity

SHAPE = {
    "vocab_size": len(VOCABULARY), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 32, "max_position_embeddings": 64, "type_vocab_size": 4,
}  # fmt: skip
QUERIES = ["深度学习", "深度学习", "农业水稻病害"]
TITLES = ["神经网络", "农业水稻", "水稻病害诊断, a b"]
WRITES_OLD = paddle.__version__.startswith("2.")


class Scores(paddle.nn.Layer):
    """Network of a published script: an encoder, and what follows its pooled state."""

    def __init__(self, kind: str):
        super().__init__()
        family = NAMES.get(kind, ERNIE)[1]
        config = getattr(transformers, f"{family}Config")(**SHAPE)
        self.ptm, self.kind = getattr(transformers, f"{family}Model")(config), kind
        self.head = paddle.nn.Linear(16, 2 if kind in ("classes", "softmax") else 1)

    def forward(self, input_ids: Any, token_type_ids: Any) -> Any:
        _, pooled = self.ptm(input_ids, token_type_ids)
        if self.kind == "vector":
            return paddle.nn.functional.normalize(pooled, axis=-1)
        logits = self.head(pooled)
        if self.kind == "softmax":
            return paddle.nn.functional.softmax(logits)
        return paddle.nn.functional.sigmoid(logits) if self.kind == "probability" else logits


KINDS = {  # file of the published script, and what the toolkit says of it
    "probability": ("inference.predict", "returns a probability"),
    "classes": ("inference", "returns two logits"),
    "softmax": ("inference", "returns two probabilities"),
    "logit": ("inference", "returns one logit"),
    "vector": ("inference.get_pooled_embedding", "returns a vector"),
    "BERT": ("inference.predict", "returns one logit"),
    "RoBERTa": ("inference", "returns one logit"),
}
# Published name, with which PaddleNLP's cache has the tokenizer and configuration, and PaddleNLP's name of the classes
ERNIE = ("ernie-3.0-nano-zh", "Ernie")
NAMES = {"BERT": ("bert-base-chinese", "Bert"), "RoBERTa": ("hfl/roberta-wwm-ext", "Roberta")}


class Made(NamedTuple):
    """Exports by kind, what PaddleNLP's network computes by kind, and the model with the tokenizer."""

    folders: dict[str, Path]
    computed: dict[str, np.ndarray]
    named: Path


def _rows(folder: Path, queries: list[str], titles: list[Any]) -> list[list[Any]]:
    tokenizer = transformers.ErnieTokenizer(str(folder / "vocab.txt"))
    encoded = [tokenizer(text=query, text_pair=title) for query, title in zip(queries, titles)]
    return [[paddle.to_tensor([row[name]]) for name in ("input_ids", "token_type_ids")] for row in encoded]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    place = tmp_path_factory.mktemp("static")
    models = place / "paddlenlp" / "models"
    for name, family in (ERNIE, *NAMES.values()):
        write_tokenizer(models / name)
        config = {**SHAPE, "model_type": family.lower()}
        (models / name / "config.json").write_text(json.dumps(config), encoding="utf-8")
    named = models / ERNIE[0]
    folders, computed = {}, {}
    for seed, (kind, (prefix, _)) in enumerate(KINDS.items()):
        paddle.seed(seed)
        network = Scores(kind)
        draw = np.random.RandomState(seed)
        for parameter in network.parameters():
            parameter.set_value(0.4 * draw.standard_normal(parameter.shape).astype("float32"))
        network.eval()
        alone = kind == "vector"
        rows = _rows(named, TITLES if alone else QUERIES, [None] * 3 if alone else TITLES)
        computed[kind] = np.concatenate([network(*row).numpy() for row in rows]).astype(np.float64)
        spec = [paddle.static.InputSpec([None, None], "int64", name) for name in ("input_ids", "token_type_ids")]
        folders[kind] = place / kind
        paddle.jit.save(paddle.jit.to_static(network, input_spec=spec, full_graph=True), str(folders[kind] / prefix))
    return Made(folders, computed, named)


@pytest.fixture(autouse=True)
def cache(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PPNLP_HOME", str(made.named.parent.parent))
    monkeypatch.setenv("PADDLE_RANKER_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    rows = [f"{query}\t{title}" for query, title in zip(QUERIES, TITLES)]
    Path("pairs.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    Path("texts.tsv").write_text("\n".join(TITLES) + "\n", encoding="utf-8")


def _probabilities(kind: str, computed: np.ndarray) -> np.ndarray:
    if kind == "classes":
        return 1 / (1 + np.exp(computed[:, 0] - computed[:, 1]))
    return {"softmax": computed[:, -1], "probability": computed[:, 0]}.get(kind, 1 / (1 + np.exp(-computed[:, 0])))


def _scores(source: Path, kind: str, named: Union[str, Path], wanted: np.ndarray) -> None:
    if kind == "vector":
        from paddle_ranker.model.load_options import LoadOptions

        vectors = Tower.open(source, LoadOptions(model_name=str(named))).vectors(TITLES)
        np.testing.assert_allclose(vectors, wanted, atol=1e-5)
    else:
        scores = Ranker.load(source, model_name=str(named)).score(QUERIES, TITLES)
        np.testing.assert_allclose(scores, _probabilities(kind, wanted), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_static_model_scores_as_paddlenlp(kind: str, made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    _scores(made.folders[kind], kind, NAMES.get(kind, ERNIE)[0], made.computed[kind])
    assert KINDS[kind][1] in capsys.readouterr().err


@pytest.mark.skipif(not WRITES_OLD, reason="Paddle 3 writes no __model__: the complete stack makes them")
@pytest.mark.parametrize("form", ["__params__", "a file each", "serving"])
@pytest.mark.parametrize("kind", ["probability", "classes", "vector"])
def test_old_forms_score_alike(kind: str, form: str, made: Made, tmp_path: Path) -> None:
    folder, prefix = made.folders[kind], KINDS[kind][0]
    old = tmp_path / "old"
    old.mkdir()
    shutil.copyfile(folder / f"{prefix}.pdmodel", old / "__model__")
    if form != "a file each":
        shutil.copyfile(folder / f"{prefix}.pdiparams", old / "__params__")
    else:
        from paddle_ranker.model.foreign.static_program import static_mode

        with static_mode(), paddle.static.scope_guard(paddle.static.Scope()):
            executor = paddle.static.Executor(paddle.CPUPlace())
            program, _, _ = paddle.static.load_inference_model(str(folder / prefix), executor)
            paddle.static.io.save_vars(
                executor,
                str(old),
                program,
                predicate=lambda each: each.persistable and each.name not in ("feed", "fetch"),
            )
    if form == "serving":
        (old / "serving_server_conf.prototxt").write_text("feed_var {}\n")
    _scores(old, kind, made.named, made.computed[kind])


def test_the_graph_by_hand_computes_the_same(made: Made) -> None:
    from paddle import inference

    folder = made.folders["classes"]
    program = next(path for path in folder.iterdir() if path.suffix in (".json", ".pdmodel"))
    predictor = inference.create_predictor(inference.Config(str(program), str(folder / "inference.pdiparams")))
    logits = []
    for row in _rows(made.named, QUERIES, TITLES):
        for name, tensor in zip(("input_ids", "token_type_ids"), row):
            predictor.get_input_handle(name).copy_from_cpu(tensor.numpy())
        predictor.run()
        logits.append(predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu())
    _scores(folder, "classes", made.named, np.concatenate(logits).astype(np.float64))


COMMANDS = (
    ("classes", "predict --model {} --input pairs.tsv --device cpu"),
    ("probability", "rank {} --input pairs.tsv --device cpu"),
    ("probability", "info {}"),
    ("classes", "doctor --model {}"),
    ("classes", "export-serving --model {}"),
    ("probability", "export-serving --dirname {} --params_filename inference.predict.pdiparams"),
    ("vector", "encode --model {} --input texts.tsv --output vectors.npy --device cpu"),
    ("vector", "index build --corpus texts.tsv --tower {} --output index --device cpu"),
)


@pytest.mark.parametrize("kind, line", COMMANDS)
def test_every_command_takes_a_static_model(kind: str, line: str, made: Made, call: Call) -> None:
    words = line.replace("{}", str(made.folders[kind])).split()
    status, _, errors = call(main, *words, "--model_name_or_path", str(made.named))
    assert status == 0, errors
    if kind != "vector":
        status, printed, errors = call(main, *words)
        assert "--model_name_or_path NAME" in printed + errors


def test_the_seeds_scripts_take_a_static_model(made: Made, call: Call) -> None:
    from deploy.python.predict import main as predict

    name = ["--model_name_or_path", str(made.named)]
    status, printed, errors = call(
        predict, "--model_dir", made.folders["probability"], "--input_file", "pairs.tsv", "--device", "cpu", *name
    )
    assert status == 0 and len(printed.splitlines()) == len(QUERIES), errors


def test_a_server_takes_a_static_model(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    from paddle_ranker.commands.serve import main as serve

    found: list[Any] = []
    monkeypatch.setattr("paddle_ranker.serving.process.server.run", lambda config: found.append(config.model))
    assert serve(["--model", str(made.folders["classes"]), "--model_name_or_path", str(made.named)]) == 0
    assert identify(found[0]).is_exported


@pytest.mark.parametrize("beside", [False, True])
def test_a_vocabulary_is_enough(beside: bool, made: Made, tmp_path: Path) -> None:
    folder = shutil.copytree(made.folders["classes"], tmp_path / "copy")
    vocabulary = shutil.copyfile(made.named / "vocab.txt", folder / "vocab.txt" if beside else tmp_path / "words.txt")
    ranker = Ranker.load(folder) if beside else Ranker.load(folder, model_name=str(vocabulary))
    wanted = _probabilities("classes", made.computed["classes"])
    np.testing.assert_allclose(ranker.score(QUERIES, TITLES), wanted, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_static_model_becomes_a_model_that_trains_on(kind: str, made: Made, call: Call) -> None:
    words = [made.folders[kind], "new", "--model_name_or_path", NAMES.get(kind, ERNIE)[0]]
    status, printed, errors = call(main, "convert", *words)
    assert status == 0 and "on 100 texts: largest difference" in printed, errors
    assert identify(Path("new")).form == "trained"
    _scores(Path("new"), kind, made.named, made.computed[kind])


@pytest.mark.parametrize("name", [ERNIE[0], *(name for name, _ in NAMES.values())])
def test_a_vocabulary_in_the_cache_is_a_tokenizer(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PPNLP_HOME", str(tmp_path))
    folder = tmp_path / "models" / name
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    tokenizer: Any = read_tokenizer(vocabulary_folder(name))
    assert tokenizer.rules.do_lower_case == (name != "bert-base-chinese")


@pytest.mark.parametrize("kind", ["classes", "probability"])
def test_a_recovered_ranker_trains_on(kind: str, made: Made, call: Call) -> None:
    assert call(main, "convert", made.folders[kind], "new", "--model_name_or_path", ERNIE[0])[0] == 0
    rows = [f"{query}\t{title}\t{number % 2}" for number, (query, title) in enumerate(zip(QUERIES, TITLES))]
    Path("labelled.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    line = "train-ce --train labelled.tsv --test labelled.tsv --epochs 1 --output trained --device cpu --model new"
    status, _, errors = call(main, *line.split())
    assert status == 0, errors


@pytest.mark.parametrize(
    "changes, said", [({"num_attention_heads": 4}, "differs by"), ({"vocab_size": 98}, "word pieces")]
)
def test_another_architecture_is_refused(
    changes: dict[str, int], said: str, made: Made, tmp_path: Path, call: Call
) -> None:
    other = shutil.copytree(made.named, tmp_path / "other")
    (other / "config.json").write_text(json.dumps({**SHAPE, "model_type": "ernie", **changes}), encoding="utf-8")
    status, _, errors = call(main, "convert", made.folders["classes"], "new", "--model_name_or_path", other)
    assert status == 1 and said in errors
    assert not Path("new").exists()


def test_damaged_and_foreign_files_are_refused(made: Made, tmp_path: Path) -> None:
    folder = shutil.copytree(made.folders["classes"], tmp_path / "copy")
    parameters = folder / "inference.pdiparams"
    parameters.write_bytes(parameters.read_bytes()[:-100])
    with pytest.raises(CheckpointError):
        Ranker.load(folder, model_name=str(made.named))
    both = shutil.copytree(made.folders["classes"], tmp_path / "both")
    shutil.copytree(made.folders["vector"], both, dirs_exist_ok=True)
    with pytest.raises(CheckpointError, match="several static models"):
        Ranker.load(both, model_name=str(made.named))
