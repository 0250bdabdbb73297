"""Any encoder as a tower: folders of sentence-transformers in and out, old checkpoints, names, bare encoders."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest

from paddle_ranker import runtime
from paddle_ranker.commands.convert import main as convert
from paddle_ranker.commands.index import main as index
from paddle_ranker.commands.info import main as info
from paddle_ranker.commands.serve import main as serve
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.errors import CheckpointError, UsageError
from paddle_ranker.model.encoder_loading import read_checkpoint
from paddle_ranker.model.hugging_face.sentences import read_sentences
from paddle_ranker.model.hugging_face.weights import read_weights
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.parameters import load_arrays, save_arrays
from paddle_ranker.model.tower import TowerInfo
from paddle_ranker.model.tower_network import TowerModel, save_query_tower, save_tower, start_tower
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from paddle_ranker.scoring.engines.dygraph import DygraphEngine
from recall.train_batch_neg import TrainBatchNegOptions
from recall.training import start_tower_training
from tests.model.reranker_cases import TORCH, Step, dense, write_steps
from tests.model.test_families import write_folder
from tests.numpy_bert import Array, sentence_vectors
from tests.tiny import change_json, write_encoder, write_ranker

pytestmark = pytest.mark.parity
# Ragged, an empty one, a special token typed, and one that 512 tokens do not hold.
TEXTS = ["深度学习", "", "a [SEP] b", "语言文化差异研究", "x", "农业水稻" * 200, "老年人护理教育" * 9]
WIDE = {"max_position_embeddings": 512}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder") / "e", model_type="bert", **WIDE)


@pytest.fixture(scope="module")
def hugging_face(encoder: Path) -> Path:
    target = encoder.parent / "hf"
    assert convert([str(encoder), str(target), "--to", "hf"]) == 0
    return target


def read(folder: Path) -> Any:
    return read_weights(folder)[1]


def expected(folder: Path, length: int = 512, prompt: str = "") -> Array:
    """Return the vectors of `TEXTS` by the folder's own steps, of the ids that texts have here."""
    tokens = PairEncoder.from_folder(folder, length).encode_single([prompt + text for text in TEXTS])
    return sentence_vectors(folder, [tokens[row].astype(np.int64) for row in range(len(TEXTS))], read)


def sentences(source: Path, folder: Path, steps: Sequence[Step], length: int = 0, **settings: Any) -> Path:
    """Copy a transformers folder, and make it one of sentence-transformers."""
    shutil.copytree(source, folder)
    write_steps(folder, steps, {"max_seq_length": length} if length else {}, **settings)
    return folder


NORMALIZE: Step = ("Normalize", {})
TANH, RELU = f"{TORCH}.activation.Tanh", f"{TORCH}.activation.ReLU"
PROMPTS: dict[str, Any] = {"prompts": {"query": "语言:", "document": "深"}, "similarity_fn_name": "dot"}


def pooled(mode: object) -> Step:
    return "Pooling", {"pooling_mode": mode}


# Steps, the length, settings, and the pooling by its name here.
CASES: list[tuple[list[Step], int, dict[str, Any], str]] = [
    ([("Pooling", {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}), NORMALIZE], 0, {}, "mean"),
    ([pooled("cls")], 128, {}, "first"),
    ([pooled(["max"]), dense(16, 5, bias=False), NORMALIZE], 0, {}, "max"),
    ([pooled("mean"), dense(16, 5, TANH)], 0, {}, "mean"),
    ([pooled("cls"), dense(16, 16, TANH), dense(16, 7), NORMALIZE], 0, PROMPTS, "pooler"),
]


@pytest.mark.parametrize(("steps", "length", "settings", "name"), CASES)
def test_a_folder_of_sentence_transformers_has_equal_vectors_in_and_out(
    hugging_face: Path, tmp_path: Path, steps: list[Step], length: int, settings: dict[str, Any], name: str
) -> None:
    source = sentences(hugging_face, tmp_path / "st", steps, length, **settings)
    prompts = settings.get("prompts", {"document": "", "query": ""})
    wanted, queries = (expected(source, length or 512, prompts[side]) for side in ("document", "query"))
    # As a tower of ours, and from there as a folder of the library's again.
    ours, again = tmp_path / "ours", tmp_path / "again"
    assert convert([str(source), str(ours), "--to", "tower"]) == 0
    assert convert([str(ours), str(again), "--to", "sentence-transformers"]) == 0
    for folder in (source, ours, again):
        tower = Tower.open(folder)
        np.testing.assert_allclose(tower.vectors(TEXTS), wanted, atol=1e-5, err_msg=str(folder))
        np.testing.assert_allclose(tower.query_vectors(TEXTS), queries, atol=1e-5, err_msg=str(folder))
    stated = TowerInfo.read(ours)
    assert stated is not None and stated.pooling == name
    assert stated.similarity == settings.get("similarity_fn_name", "cosine")
    np.testing.assert_allclose(expected(again, length or 512, prompts["document"]), wanted, atol=1e-5)


@pytest.mark.parametrize(("steps", "length", "settings", "name"), CASES[1:4])
def test_vectors_are_as_short_as_truncate_dim_says(
    hugging_face: Path, tmp_path: Path, steps: list[Step], length: int, settings: dict[str, Any], name: str
) -> None:
    """`SentenceTransformer(folder).encode` cuts after all steps, and does not normalise again."""
    source = sentences(hugging_face, tmp_path / "st", steps, length, truncate_dim=3, **settings)
    wanted = expected(source, length or 512)[:, :3]
    found = read_sentences(source).info
    assert (found.size, found.pooling, found.normalize) == (3, name, False)
    ours, again = tmp_path / "ours", tmp_path / "again"
    assert convert([str(source), str(ours), "--to", "tower"]) == 0
    assert convert([str(ours), str(again), "--to", "sentence-transformers"]) == 0
    for folder in (source, ours, again):
        np.testing.assert_allclose(Tower.open(folder).vectors(TEXTS), wanted, atol=1e-5, err_msg=str(folder))
    np.testing.assert_allclose(expected(again, length or 512)[:, :3], wanted, atol=1e-5)


@pytest.mark.parametrize("case", ["electra", "deberta-v3", "modernbert"])
def test_a_dense_layer_is_no_pooler_where_the_family_has_another(tmp_path: Path, case: str) -> None:
    """Of the families of which the pooler is more than a linear layer and tanh."""
    theirs = write_folder(tmp_path / "hf", case)
    plain = sentences(theirs, tmp_path / "plain", [pooled("cls")])
    source = sentences(theirs, tmp_path / "st", [pooled("cls"), dense(16, 16, TANH), NORMALIZE])
    texts = ["w1 w2", "w7", "w3 w4 w5"]
    layer = read(source / "2_Dense")
    wanted = np.tanh(Tower.open(plain).vectors(texts) @ layer["linear.weight"].T + layer["linear.bias"])
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    ours, again = tmp_path / "ours", tmp_path / "again"
    assert convert([str(source), str(ours), "--to", "tower"]) == 0
    assert convert([str(ours), str(again), "--to", "sentence-transformers"]) == 0
    for folder in (source, ours, again):
        np.testing.assert_allclose(Tower.open(folder).vectors(texts), wanted, atol=1e-5, err_msg=str(folder))


def test_vectors_of_a_pooler_that_sentence_transformers_has_no_step_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_folder(tmp_path / "hf", "electra")
    line = [str(source), str(tmp_path / "st"), "--to", "sentence-transformers", "--pooling"]
    assert convert([*line, "pooler"]) == 1
    assert "the pooler of electra, which sentence-transformers has no step for" in capsys.readouterr().err
    assert convert([*line, "first"]) == 0


def test_a_folder_that_says_nothing_is_pooled_as_asked_and_else_by_the_mean(
    hugging_face: Path, encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = expected(hugging_face)
    np.testing.assert_allclose(Tower.open(hugging_face).vectors(TEXTS), wanted, atol=1e-5)
    assert "does not say how its vectors are made" in capsys.readouterr().err
    normal = Tower.open(encoder, LoadOptions(normalize=True)).vectors(TEXTS)
    np.testing.assert_allclose(normal, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), atol=1e-5)
    searched = Tower.open(encoder, for_search=True)
    np.testing.assert_allclose(searched.query_vectors(TEXTS), normal, atol=1e-6)
    for pooling in ("first", "max", "pooler"):
        capsys.readouterr()
        found = Tower.open(encoder, LoadOptions(pooling=pooling)).vectors(TEXTS)
        assert np.abs(found - wanted).max() > 0.01 and "does not say" not in capsys.readouterr().err
    assert Tower.open(write_ranker(tmp_path / "ranker")).vectors(TEXTS).shape == (len(TEXTS), 16)
    # Folders of e5 do not name their prompts; a tower keeps those that it was given.
    prompts = ["--query_prompt", "语言:", "--text_prompt", "深"]
    assert convert([str(hugging_face), str(tmp_path / "t"), "--to", "tower", "--pooling", "mean", *prompts]) == 0
    tower = Tower.open(tmp_path / "t")
    np.testing.assert_allclose(tower.query_vectors(TEXTS), expected(hugging_face, prompt="语言:"), atol=1e-5)
    np.testing.assert_allclose(tower.vectors(TEXTS), expected(hugging_face, prompt="深"), atol=1e-5)
    with pytest.raises(UsageError, match="says mean"):
        Tower.open(tmp_path / "t", LoadOptions(pooling="max"))


@pytest.mark.parametrize("size", [None, 6])
def test_checkpoints_of_the_published_recall_scripts(encoder: Path, tmp_path: Path, size: Optional[int]) -> None:
    arrays = load_arrays(encoder / "model_state.pdparams")
    old = {f"ptm.{name}": array for name, array in arrays.items()}
    if size:
        old["emb_reduce_linear.weight"] = np.random.RandomState(1).randn(16, size).astype("float32")
        old["emb_reduce_linear.bias"] = np.arange(size, dtype="float32")
    folder = Path(shutil.copytree(encoder, tmp_path / "model_40"))
    save_arrays(old, folder / "model_state.pdparams")
    (tmp_path / "shape").mkdir()
    (folder / "config.json").rename(tmp_path / "shape" / "config.json")  # the scripts write none
    options = LoadOptions(model_name=str(tmp_path / "shape"))
    found = Tower.open(folder / "model_state.pdparams", options).vectors(TEXTS)

    plain = Tower.open(encoder, LoadOptions(pooling="pooler")).vectors(TEXTS).astype(np.float64)
    wanted = plain @ old["emb_reduce_linear.weight"] + old["emb_reduce_linear.bias"] if size else plain
    np.testing.assert_allclose(found, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), atol=1e-5)


def test_two_towers_are_two_folders_of_sentence_transformers(
    encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    info = TowerInfo(20, 16, pooling="mean", query_prompt="语言:", towers=2)
    texts, queries = (
        start_tower(read_checkpoint(folder), info)[0]
        for folder in (encoder, write_encoder(tmp_path / "other", seed=2, model_type="bert", **WIDE))
    )
    ours, theirs, again = tmp_path / "ours", tmp_path / "theirs", tmp_path / "again"
    ours.mkdir()
    save_tower(ours, texts, info)
    save_query_tower(ours, queries, info)
    assert convert([str(ours), str(theirs), "--to", "sentence-transformers"]) == 0
    assert f"{theirs}/query: the tower of queries" in capsys.readouterr().out
    assert convert([str(theirs), str(again), "--to", "tower"]) == 0
    of_texts, of_queries = expected(theirs, 20), expected(theirs / "query", 20, "语言:")
    assert np.abs(of_texts - of_queries).max() > 0.01
    for folder in (ours, theirs, again):
        tower = Tower.open(folder)
        np.testing.assert_allclose(tower.vectors(TEXTS), of_texts, atol=1e-5)
        np.testing.assert_allclose(tower.query_vectors(TEXTS), of_queries, atol=1e-5)


@pytest.mark.usefixtures("same_process")
def test_an_index_and_a_server_take_a_name_and_keep_how_its_vectors_are_made(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "rocketqa-zh-nano-query-encoder"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PADDLE_RANKER_CACHE", "cache")
    shutil.copytree(encoder, tmp_path / "cache" / "models" / name)
    texts = ["深度学习", "语言文化差异研究", "老年人护理"]
    (tmp_path / "texts.txt").write_text("\n".join(texts), encoding="utf-8")
    line = ["--corpus", "texts.txt", "--tower", name, "--device", "cpu"]
    assert index(["build", *line, "--output", "index"]) == 0
    assert capsys.readouterr().err.count("as RocketQA takes it") == 1
    wanted = Tower.open(name).vectors(texts)
    np.testing.assert_array_equal(wanted, Tower.open(encoder, LoadOptions(pooling="first")).vectors(texts))
    np.testing.assert_array_equal(wanted, Tower.open(name, for_search=True).vectors(texts))  # by products, not cosines
    with Collection.open("index") as collection:
        hits = collection.snapshot().search("vectors", wanted[:1], 3)[0]  # by products with the first token's states
        by_id = {document.id: document.text for document in collection.snapshot().documents()}
        assert {by_id[id]: score for id, score in zip(hits.ids, hits.scores)} == pytest.approx(
            {text: float(vector @ wanted[0]) for text, vector in zip(texts, wanted)}, rel=1e-5
        )
    assert index(["add", "index", *line]) == 0 and index(["build", *line, "--output", "index"]) == 0
    line[3] = str(write_ranker(tmp_path / "other"))
    assert index(["add", "index", *line]) == 2
    assert "was built with another tower" in capsys.readouterr().err
    line[3] = "no-such-encoder"
    assert index(["build", *line, "--output", "another"]) == 1
    assert "no-such-encoder" in capsys.readouterr().err and not Path("another").exists()

    served: list[Path] = []
    monkeypatch.setattr("paddle_ranker.serving.process.server.run", lambda config: served.append(config.tower))
    assert serve(["--tower", name]) == 0 and served == [Path("cache/models") / name]
    assert serve(["--model", "no-such-model"]) == 2 and "there is no such folder" in capsys.readouterr().err


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.usefixtures("same_process")
def test_a_training_from_a_sentence_transformers_folder_starts_with_its_vectors(
    hugging_face: Path, tmp_path: Path, normalize: bool
) -> None:
    steps = [pooled("max"), dense(16, 5, TANH), *([NORMALIZE] if normalize else [])]
    source = sentences(hugging_face, tmp_path / "st", steps, 20, **PROMPTS)

    def started(**given: Any) -> TowerModel:
        paths: dict[str, Any] = {
            "train_set_file": "none.tsv",
            "model_name_or_path": str(source),
            "save_dir": str(tmp_path / "out"),
        }
        return start_tower_training(TrainBatchNegOptions(**paths, device="cpu", **given)).model

    opened = Tower.open(source)
    for given in ({}, {"output_emb_size": 5}):
        model = started(**given)
        model.network.eval()
        trained = Tower(DygraphEngine(model.network, model.signature), model.row_encoder)
        np.testing.assert_array_equal(trained.vectors(TEXTS), opened.vectors(TEXTS))
        np.testing.assert_array_equal(trained.query_vectors(TEXTS), opened.query_vectors(TEXTS))
        assert (model.info.max_seq_length, model.info.normalize) == (20, normalize)
    told = started(pooling="mean", normalize=not normalize, query_prompt="", output_emb_size=0).info
    assert (told.pooling, told.normalize, told.query_prompt, told.text_prompt) == ("mean", not normalize, "", "深")
    assert not told.output_layer and told.size == 16


@pytest.mark.parametrize("pooling", ["mean", "pooler"])
def test_a_tower_without_use_for_a_pooler_says_nothing_of_a_new_one(encoder: Path, pooling: str) -> None:
    checkpoint = read_checkpoint(encoder)
    arrays = {name: array for name, array in checkpoint.arrays.items() if ".pooler." not in name}
    checkpoint = dataclasses.replace(checkpoint, arrays=arrays)
    _, new = start_tower(checkpoint, TowerInfo(32, 16, pooling=pooling))
    assert new == (["encoder.pooler.dense"] if pooling == "pooler" else [])


@pytest.mark.parametrize(
    ("steps", "settings", "why"),
    [
        ([pooled("weightedmean")], {}, "weightedmean"),
        ([pooled(["mean", "max"])], {}, "mean, max|mean.*max"),
        ([pooled("mean"), dense(16, 5, RELU)], {}, "relu"),
        ([pooled("mean"), dense(16, 5, f"{TORCH}.activation.Mish")], {}, "Mish"),
        ([pooled("mean"), dense(16, 9, TANH), dense(9, 5, TANH)], {}, "2 dense layers"),
        ([pooled("mean")], {"similarity_fn_name": "euclidean"}, "euclidean"),
        ([("Pooling", {"pooling_mode": "mean", "include_prompt": False})], PROMPTS, "include_prompt"),
    ],
)
def test_steps_that_are_not_done_here_are_refused(
    hugging_face: Path, tmp_path: Path, steps: list[Step], settings: dict[str, Any], why: str
) -> None:
    with pytest.raises(CheckpointError, match=why):
        Tower.open(sentences(hugging_face, tmp_path / "st", steps, **settings))


@pytest.mark.parametrize(
    ("prompts", "default", "query", "text", "unused"),
    [
        ({"query": "q: ", "document": ""}, "query", "q: ", "", ""),  # as the library saves them since its version 5
        ({"query": "", "document": "", "other": "o: "}, "other", "", "", "other"),
        ({"document": "d: "}, "document", "", "d: ", ""),
        ({"query": "q: ", "passage": "p: "}, None, "q: ", "", "passage"),
        ({"passage": "p: "}, "passage", "", "", "passage"),
        ({"corpus": "c: ", "other": "o: "}, None, "", "", "corpus, other"),
    ],
)
def test_prompts_precede_what_the_library_puts_them_before(
    hugging_face: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    prompts: dict[str, str],
    default: Optional[str],
    query: str,
    text: str,
    unused: str,
) -> None:
    """`encode_query` and `encode_document` of sentence-transformers 6.2.0 gave the vectors of these."""
    settings: dict[str, Any] = {"prompts": prompts, "default_prompt_name": default}
    found = read_sentences(sentences(hugging_face, tmp_path / "st", [pooled("mean")], **settings)).info
    assert (found.query_prompt, found.text_prompt) == (query, text)
    noted = capsys.readouterr().err
    assert (f"its prompts {unused} precede neither" in noted) if unused else not noted


@pytest.mark.parametrize("kind", ["vocab.txt", "tokenizer.json"])
def test_texts_are_put_in_small_letters(
    hugging_face: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = sentences(hugging_face, tmp_path / "st", [pooled("mean")])
    small = Tower.open(source).vectors(["abc x"])
    if kind == "vocab.txt":
        (source / "tokenizer.json").unlink()
        change_json(source / "tokenizer_config.json", do_lower_case=False, tokenizer_class="BertTokenizer")
    else:
        change_json(source / "tokenizer.json", normalizer=None, pre_tokenizer={"type": "BertPreTokenizer"})
    assert np.abs(Tower.open(source).vectors(["ABC x"]) - small).max() > 1e-3
    change_json(source / "sentence_bert_config.json", do_lower_case=True)
    np.testing.assert_allclose(Tower.open(source).vectors(["ABC x"]), small, atol=1e-6)
    assert info([str(source)]) == 0 and "tower" in capsys.readouterr().out
    (source / "modules.json").write_text('[{"path": "../..", "type": "sentence_transformers.models.Transformer"}]')
    with pytest.raises(CheckpointError):
        Tower.open(source)


def test_a_program_that_opens_a_tower_need_not_prepare_for_paddle(
    encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, int]] = []
    monkeypatch.setattr(runtime, "prepare", lambda **given: asked.append(given))
    Tower.open(encoder)
    assert asked == [{"threads": 0}]
