"""Words that PaddleNLP's `add_tokens` adds are found as PaddleNLP finds them, and trainings give them embeddings."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, Callable

import numpy as np
import paddle
import pytest

from paddle_ranker import Ranker
from paddle_ranker.__main__ import main
from paddle_ranker.encoding.tokenizers.tokenizer_folder import read_tokenizer
from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.parameters import load_arrays
from tests.conftest import Call
from tests.migration.published import SHAPE, classifier, transformers
from tests.tiny import VOCABULARY, change_json, write_tokenizer

pytestmark = pytest.mark.parity

WORDS = ["深度学习", "FooBar", "x-1", "深度", "水稻病"]
QUERIES, TITLES = ["深度学习", "FOOBAR 农业", "水稻病害"], ["神经网络", "a foobarx x-1", "深度水稻病害诊断"]


def added(folder: Path, **settings: Any) -> Any:
    """Return PaddleNLP's tokenizer with the words, in whose process the trained model would have been made."""
    write_tokenizer(folder)
    tokenizer = transformers.ErnieTokenizer(str(folder / "vocab.txt"), **settings)
    assert tokenizer.add_tokens(WORDS) == len(WORDS)
    return tokenizer


def resized(folder: Path) -> tuple[Any, Any]:
    """Write a model whose embeddings were resized for the words; return it with its tokenizer."""
    tokenizer, model = added(folder), classifier(shape={**SHAPE, "vocab_size": len(VOCABULARY)})
    model.resize_token_embeddings(len(tokenizer))
    model.eval()
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return model, tokenizer


@pytest.mark.parametrize("settings", [{}, {"do_lower_case": False}], ids=str)
def test_texts_get_paddlenlps_ids(settings: dict[str, Any], tmp_path: Path) -> None:
    tokenizer = added(tmp_path, **settings)
    tokenizer.save_pretrained(str(tmp_path))
    draw, parts = (
        random.Random(1),
        [*WORDS, "foobar", "FOO", "x-", "1", "深", "水稻", " ", "a", "bc", ",", "İ", "é", "[UNK"],
    )
    texts = ["", *("".join(draw.choice(parts) for _ in range(draw.randint(1, 9))) for _ in range(1000))]
    ours = read_tokenizer(tmp_path).tokenizer()
    flat, lengths = ours.encode(texts)
    rows = np.split(flat, np.cumsum(lengths)[:-1])
    assert any(np.any(row >= len(VOCABULARY)) for row in rows)
    for text, row, ends in zip(texts, rows, ours.ends(texts)):
        assert row.tolist() == tokenizer(text)["input_ids"][1:-1], text
        assert len(ends) == len(row), text


def test_a_resized_checkpoint_scores_as_in_paddlenlp(tmp_path: Path) -> None:
    model, tokenizer = resized(tmp_path / "model")
    rows = [tokenizer(text=query, text_pair=title) for query, title in zip(QUERIES, TITLES)]
    inputs = [{name: paddle.to_tensor([values]) for name, values in dict(row).items()} for row in rows]
    logits = np.concatenate([model(**row).numpy() for row in inputs])
    scores = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
    np.testing.assert_allclose(Ranker.load(tmp_path / "model").score(QUERIES, TITLES), scores, atol=1e-5)
    assert main(["export", "--model", str(tmp_path / "model"), "--output", str(tmp_path / "exported")]) == 0
    np.testing.assert_allclose(Ranker.load(tmp_path / "exported").score(QUERIES, TITLES), scores, atol=1e-5)


def in_vocabulary(folder: Path) -> None:
    with (folder / "vocab.txt").open("a", encoding="utf-8") as stream:
        stream.write("foo\nbar\n")


def beside_it(folder: Path) -> None:
    number = len(VOCABULARY)
    (folder / "added_tokens.json").write_text(json.dumps({"foo": number, "bar": number + 1}), encoding="utf-8")


@pytest.mark.parametrize("put", [in_vocabulary, beside_it])
@pytest.mark.parametrize("command", ["train-ce", "train-pairwise", "train-batch-neg"])
def test_a_training_gives_words_embeddings(
    command: str, put: Callable[[Path], None], tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = classifier(shape={**SHAPE, "vocab_size": len(VOCABULARY)})
    source = tmp_path / "model"
    model.ernie.save_pretrained(str(source))
    write_tokenizer(source)
    put(source)
    rows = {
        "train-ce": [f"{query}\t{title}\t{number % 2}" for query in QUERIES for number, title in enumerate(TITLES)],
        "train-pairwise": [f"foo {query}\tbar\t{title}" for query, title in zip(QUERIES, TITLES)],
        "train-batch-neg": [f"foo {query}\t{title}" for query, title in zip(QUERIES, TITLES)],
    }
    Path("rows.tsv").write_text("\n".join(rows[command]) + "\n", encoding="utf-8")
    Path("test.tsv").write_text("\n".join(rows["train-ce"]) + "\n", encoding="utf-8")
    line = "--train rows.tsv --epochs 1 --batch_size 3 --device cpu --output out --max_seq_length 32"
    line += "" if command == "train-batch-neg" else " --test test.tsv"
    status, _, errors = call(main, command, "--model", str(source), *line.split())
    assert status == 0, errors
    assert "has 2 tokens above the 97 word embeddings (foo, bar): their embeddings begin at random" in errors
    file = next(Path("out").rglob("model_state.pdparams"))
    ids = read_tokenizer(file.parent).tokenizer().encode(["foo bar"])[0].tolist()
    assert ids == [97, 98] == transformers.ErnieTokenizer.from_pretrained(str(file.parent))("foo bar")["input_ids"][1:3]
    words = load_arrays(file)["encoder.embeddings.word_embeddings.weight"]
    assert words.shape == (99, 16) and np.abs(words[97:]).max() > 0
    assert json.loads((file.parent / "config.json").read_text())["vocab_size"] == 99


def test_words_that_nothing_has_learnt_are_not_scored(tmp_path: Path) -> None:
    classifier(shape={**SHAPE, "vocab_size": len(VOCABULARY)}).save_pretrained(str(tmp_path))
    write_tokenizer(tmp_path)
    in_vocabulary(tmp_path)
    with pytest.raises(CheckpointError, match="or has words that were added since: a training from here gives them"):
        Ranker.load(tmp_path)


def test_ids_that_do_not_go_on_are_refused(tmp_path: Path) -> None:
    resized(tmp_path)
    change_json(tmp_path / "added_tokens.json", more=10**12)
    with pytest.raises(CheckpointError, match="the ids of added tokens are not 97, 98 and so on"):
        read_tokenizer(tmp_path)


def test_words_are_not_lost_in_transformers_format(tmp_path: Path, call: Call) -> None:
    resized(tmp_path / "model")
    status, _, errors = call(main, "convert", str(tmp_path / "model"), str(tmp_path / "new"), "--to", "hf")
    assert status == 1 and "has words beyond vocab.txt (深度学习, foobar" in errors
