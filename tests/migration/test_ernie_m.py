"""ERNIE-M by PaddleNLP's names: the same ids, scores and vectors as PaddleNLP's own classes, after training too."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import paddle
import pytest

from paddle_ranker import Ranker
from paddle_ranker.__main__ import main
from paddle_ranker.encoding.tokenizers.tokenizer_folder import read_tokenizer
from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.hugging_face.folder import folder_pair_encoder
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.paddlenlp_names import published_models
from paddle_ranker.model.parameters import load_arrays
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from tests.conftest import Call
from tests.migration.published import SAFE, SHAPE, classifier, transformers

pytestmark = pytest.mark.parity

NAME = "ernie-m-base"
HAS_ONNX = not paddle.__version__.startswith("2.")
CORPUS = [
    "深度学习2021年，老年人护理教育研究", "hello world of pieces", "农业水稻病害诊断 in 2022, ok?",
    "the cafe déjà vu １２３ ＡＢＣ", "経済 カタカナ ひらがな", "привет мир",
    "日本語 the the world hello",
]  # fmt: skip
QUERIES = ["深度学习", "hello world", "老年人 2021"]
TITLES = ["学习2021年，教育", "the world, ok?", "病害诊断" * 12]
ODD = "深度学2021年 ,，。?!１２ＡＢhelo wrd\u3000\u00a0\t\n\r\x00\x1f\u200bé e\u0301ｶﾞ가á🙂ﬁ½²③Ⅷ《》【】"
ODD += "▁0123456789[]abc<unk></s>\ufeff\u2028İſ"
TEXTS = ["", " ", "2021", "第3章3.14", "x1y2", "1深2", "▁", "▁▁", "[UNK", "<unk>", "</s>深", "a" * 3000, "ＡＢＣ１２３"]


class Made(NamedTuple):
    """A model that PaddleNLP wrote, its network and its tokenizer."""

    folder: Path
    network: Any
    tokenizer: Any


@pytest.fixture(scope="module")
def ernie_m(tmp_path_factory: pytest.TempPathFactory) -> Made:
    import sentencepiece

    place = tmp_path_factory.mktemp("ernie_m")
    how: dict[str, Any] = {"vocab_size": 130, "hard_vocab_limit": False, "character_coverage": 0.98, "minloglevel": 2}
    trainer = sentencepiece.SentencePieceTrainer
    trainer.Train(sentence_iterator=iter(CORPUS * 3), model_prefix=str(place / "sp"), model_type="unigram", **how)
    pieces = sentencepiece.SentencePieceProcessor()
    pieces.Load(str(place / "sp.model"))
    words = [pieces.IdToPiece(number) for number in range(3, pieces.GetPieceSize())]
    # The ids of special tokens are those of the published vocabulary; some ideographs are in this file alone.
    words = [
        "[CLS]",
        "[PAD]",
        "[SEP]",
        "[UNK]",
        *words,
        *(char for char in "深度学习年老人" if char not in words),
        "[MASK]",
    ]
    (place / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    tokenizer = transformers.ErnieMTokenizer(str(place / "vocab.txt"), str(place / "sp.model"))
    shape = {**SHAPE, "vocab_size": len(words)}  # whose intermediate_size PaddleNLP's network does not take
    network = classifier("ErnieM", shape=shape)
    folder = place / "paddlenlp" / "models" / NAME
    network.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return Made(folder, network, transformers.ErnieMTokenizer.from_pretrained(str(folder)))


def wanted(made: Made, queries: list[str], titles: list[str]) -> np.ndarray:
    """Return PaddleNLP's probabilities, of a pair at a time."""
    rows = [
        made.tokenizer(text=query, text_pair=title, max_length=62, truncation=True)
        for query, title in zip(queries, titles)
    ]
    logits = np.concatenate([made.network(paddle.to_tensor([row["input_ids"]])).numpy() for row in rows])
    return np.asarray(1 / (1 + np.exp(logits[:, 0] - logits[:, 1])))


def test_texts_get_paddlenlps_ids(ernie_m: Made) -> None:
    draw = random.Random(0)
    texts = TEXTS + ["".join(draw.choice(ODD) for _ in range(draw.randint(0, 25))) for _ in range(2000)]
    ours = read_tokenizer(ernie_m.folder).tokenizer()
    flat, lengths = ours.encode(texts)
    rows = np.split(flat, np.cumsum(lengths)[:-1])
    for text, row, ends in zip(texts, rows, ours.ends(texts)):
        assert row.tolist() == ernie_m.tokenizer(text)["input_ids"][1:-1], text
        assert len(ends) == len(row) and np.all(np.diff([0, *ends, len(text)]) >= 0), text
    assert ours.ends(["深度 hello2021年"])[0].tolist() == [1, 2, 8, 11, 12, 13]  # 202 and 1


def test_pairs_are_cut_and_closed_as_in_paddlenlp(ernie_m: Made) -> None:
    encoder = folder_pair_encoder(ernie_m.folder, 11)
    for query, title in [
        ("深度学习年", "年老人深度学"),
        ("年", "hello world of pieces 深度"),
        ("深度学习年老人深", "年"),
    ]:
        encoded = encoder.encode([query], [title])
        theirs = ernie_m.tokenizer(text=query, text_pair=title, max_length=11, truncation="longest_first")
        assert encoded.ids.tolist() == theirs["input_ids"]


def test_every_form_scores_as_paddlenlp(ernie_m: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = wanted(ernie_m, QUERIES, TITLES)
    assert np.ptp(scores) > 0.001
    safe = tmp_path / "safe"
    ernie_m.network.save_pretrained(str(safe), **SAFE)
    ernie_m.tokenizer.save_pretrained(str(safe))
    assert main(["convert", str(safe), str(tmp_path / "paddle"), "--to", "paddle"]) == 0
    line = ["export", "--model", str(safe), "--output", str(tmp_path / "exported"), *["--onnx"] * HAS_ONNX]
    assert main(line) == 0
    # The files as PaddleNLP fetches them.
    fetched, models = tmp_path / "home" / "models" / NAME, ernie_m.folder.parents[1]
    fetched.mkdir(parents=True)
    for file, name in (
        ("config.json", "config.json"), ("model_state.pdparams", "ernie_m_base.pdparams"),
        ("vocab.txt", "ernie_m.vocab.txt"), ("sentencepiece.bpe.model", "ernie_m.sentencepiece.bpe.model"),
    ):  # fmt: skip
        shutil.copy(ernie_m.folder / file, fetched / name)
    monkeypatch.setenv("PADDLE_RANKER_CACHE", str(tmp_path / "cache"))
    for home, source in (
        (models, NAME), (tmp_path / "home", NAME), (models, str(ernie_m.folder / "model_state.pdparams")),
        (models, str(safe)), (models, str(tmp_path / "paddle")), (models, str(tmp_path / "exported")),
    ):  # fmt: skip
        monkeypatch.setenv("PPNLP_HOME", str(home))
        np.testing.assert_allclose(Ranker.load(source).score(QUERIES, TITLES), scores, atol=1e-5, err_msg=source)
    if HAS_ONNX:
        onnx = Ranker.load(tmp_path / "exported", engine="onnx")
        np.testing.assert_allclose(onnx.score(QUERIES, TITLES), scores, atol=1e-5)


def test_vectors_are_paddlenlps(ernie_m: Made, tmp_path: Path) -> None:
    encoder = ernie_m.network.ernie_m
    encoder.save_pretrained(str(tmp_path))
    ernie_m.tokenizer.save_pretrained(str(tmp_path))
    vectors = Tower.open(tmp_path, LoadOptions(pooling="first", normalize=False)).vectors(TITLES)
    states = [encoder(paddle.to_tensor([ernie_m.tokenizer(title)["input_ids"]]))[0] for title in TITLES]
    np.testing.assert_allclose(vectors, np.stack([state[0, 0].numpy() for state in states]), atol=1e-5)


def test_a_training_changes_paddlenlps_parameters(
    ernie_m: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [f"{query}\t{title}\t{number}" for query in QUERIES for number, title in enumerate(TITLES[:2])]
    Path("labelled.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    line = "train-ce --train labelled.tsv --test labelled.tsv --epochs 1 --batch_size 4 --device cpu --output trained"
    line += " --max_seq_length 62 --lexical_features false --match_embeddings false"
    status, _, errors = call(main, *line.split(), "--model", str(ernie_m.folder))
    assert status == 0, errors
    file = next(Path("trained").rglob("model_state.pdparams"))
    arrays = load_arrays(file)
    trained = transformers.ErnieMForSequenceClassification(ernie_m.network.config)
    weight, bias = arrays["head.weight"], arrays["head.bias"]
    encoder = {name.replace("encoder.", "ernie_m.", 1): array for name, array in arrays.items() if "head" not in name}
    head = {"weight": np.concatenate([0 * weight, weight], 1), "bias": np.concatenate([0 * bias, bias])}
    trained.set_state_dict({**encoder, **{f"classifier.{name}": array for name, array in head.items()}})
    trained.eval()
    scores = Ranker.load(file.parent).score(QUERIES, TITLES)
    np.testing.assert_allclose(scores, wanted(ernie_m._replace(network=trained), QUERIES, TITLES), atol=1e-5)
    assert np.abs(scores - wanted(ernie_m, QUERIES, TITLES)).max() > 1e-5


def test_lacking_pieces_are_named(ernie_m: Made, tmp_path: Path) -> None:
    folder = shutil.copytree(ernie_m.folder, tmp_path / "m")
    (folder / "sentencepiece.bpe.model").write_bytes(b"\x0a\x05damaged")
    with pytest.raises(CheckpointError, match=r"sentencepiece\.bpe\.model: not a SentencePiece model"):
        Ranker.load(folder)
    (folder / "sentencepiece.bpe.model").unlink()
    with pytest.raises(CheckpointError, match=r"has no sentencepiece\.bpe\.model: copy it"):
        Ranker.load(folder)


def test_the_published_tables_are_read() -> None:
    base, large = (published_models()[f"ernie-m-{size}"] for size in ("base", "large"))
    assert (base.config.intermediate_size, large.config.intermediate_size) == (3072, 4096)
    assert base.config.longest_pair == 512 and base.config.layer_norm_eps == 1e-5
    assert [*base.vocabularies] == ["vocab.txt", "sentencepiece.bpe.model"]
