"""Pairs to ids: segments, truncation, saving; by hand, and equal to PaddleNLP's tokenizers."""

from __future__ import annotations

import dataclasses
import filecmp
import json
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paddle_ranker.encoding.columns import EncodedPairs
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.encoding.tokenizers.builtin import Tokenizer
from paddle_ranker.encoding.tokenizers.interface import BERT_SHAPE
from paddle_ranker.errors import CheckpointError, UsageError
from tests.tokenizer_cases import NASTY_TEXTS, SPECIAL

LETTERS = "abcdefgh"


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    """A model folder whose vocabulary is the five special tokens and a..h with the ids 5..12."""
    (tmp_path / "vocab.txt").write_text("".join(f"{token}\n" for token in [*SPECIAL, *LETTERS]))
    return tmp_path


def one_by_one(first: int, second: int, budget: int) -> tuple[int, int]:
    while first + second > budget:
        if first > second:
            first -= 1
        else:
            second -= 1
    return first, second


@pytest.mark.unit
def test_a_pair_by_hand(folder: Path) -> None:
    encoder = PairEncoder.from_folder(folder, 16)
    pairs = encoder.encode(["a b", "", "A"], ["c", "d [CLS]", ""])
    assert [pairs[i].tolist() for i in range(3)] == [[1, 5, 6, 2, 7, 2], [1, 2, 8, 4, 4, 4, 2], [1, 5, 2, 2]]
    assert pairs.second_starts.tolist() == [4, 2, 3]
    assert pairs.lengths.tolist() == [6, 7, 4]
    assert pairs.lengths_of([2, 0, 2]).tolist() == [4, 6, 4] and pairs.lengths_of([]).tolist() == []
    dtypes = [array.dtype.name for array in (pairs.ids, pairs.offsets, pairs.second_starts)]
    assert dtypes == ["int32", "int64", "int32"]
    assert encoder.truncated == 0


@pytest.mark.unit
def test_what_an_encoder_knows_and_refuses(folder: Path) -> None:
    encoder = PairEncoder.from_folder(folder, 16)
    ids = (encoder.pad_id, encoder.cls_id, encoder.sep_id, encoder.mask_id, encoder.unk_id)
    assert ids == (0, 1, 2, 3, 4)
    assert (encoder.vocab_size, encoder.max_seq_length, encoder.backend) == (13, 16, "builtin")
    with pytest.raises(UsageError, match="2 queries and 1 titles"):
        encoder.encode(["a", "b"], ["c"])
    with pytest.raises(UsageError, match="max_seq_length 4: must be at least 5"):
        PairEncoder.from_folder(folder, 4)
    encoder = PairEncoder.from_folder(folder, 5)
    assert encoder.encode(["a b"], ["c d e"])[0].tolist() == [1, 5, 2, 7, 2]
    pairs = encoder.encode([], [])
    assert len(pairs) == 0 and len(EncodedPairs.concat([])) == 0
    assert [array.shape for array in pairs.pad([]).values()] == [(0, 0), (0, 0)]
    # Texts alone are whole and without special tokens.
    assert [ids.tolist() for ids in encoder.encode_texts(["a b c d", "", "h"])] == [[5, 6, 7, 8], [], [12]]
    assert encoder.encode_texts([]) == [] and encoder.truncated == 1
    (folder / "vocab.txt").write_text("[PAD]\n[CLS]\n[SEP]\n[UNK]\na\n")  # without a mask, until it is asked for
    encoder = PairEncoder.from_folder(folder, 8)
    assert encoder.encode(["a"], ["a"])[0].tolist() == [1, 4, 2, 4, 2]
    with pytest.raises(CheckpointError, match=r"no \[MASK\]"):
        _ = encoder.mask_id


@pytest.mark.unit
def test_truncation_by_hand(folder: Path) -> None:
    encoder = PairEncoder.from_folder(folder, 8)  # five tokens of text
    pairs = encoder.encode(["a b c d e f", "a", "a b c d e f", "a b"], ["a b c d e f", "a b c d e f", "a", "a b c"])
    assert [pairs[i].tolist() for i in range(4)] == [
        [1, 5, 6, 7, 2, 5, 6, 2],
        [1, 5, 2, 5, 6, 7, 8, 2],
        [1, 5, 6, 7, 8, 2, 5, 2],
        [1, 5, 6, 2, 5, 6, 7, 2],
    ]
    assert encoder.truncated == 3
    encoder.encode(["a b c"], ["a b c"])
    assert encoder.truncated == 4


@pytest.mark.unit
@pytest.mark.parametrize("length", [8, 100])
def test_of_a_long_text_no_more_words_are_looked_up_than_its_row_needs(
    folder: Path, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ids are those of the whole text, which is looked up where it is not truncated."""
    draw = random.Random(length)
    texts = [" ".join(draw.choices(LETTERS, k=count)) for count in (5000, 64, 65, 0, 200, length - 3, length - 2)]
    queries, titles = (list(side) for side in zip(*((one, other) for one in texts for other in texts)))
    encoder = PairEncoder.from_folder(folder, length)
    whole = encoder.encode(queries, titles, truncate=False)
    looked_up: list[str] = []
    assert isinstance(encoder._tokenizer, Tokenizer)
    find = encoder._tokenizer._ids_of_word

    def look_up(word: str) -> bytes:
        looked_up.append(word)
        return find(word)

    monkeypatch.setattr(encoder._tokenizer, "_ids_of_word", look_up)
    pairs, counts = encoder.encode(queries, titles), whole.second_starts - 2
    assert len(looked_up) <= len(texts) * (length + 64)
    for number, second in enumerate(whole.lengths - counts - 3):
        ids, kept = whole[number].tolist(), one_by_one(int(counts[number]), int(second), length - 3)
        titles_ids = ids[counts[number] + 2 :]
        assert pairs[number].tolist() == [1, *ids[1 : 1 + kept[0]], 2, *titles_ids[: kept[1]], 2]
    assert encoder.truncated == int((whole.lengths > length).sum())
    singles, lengths = encoder.encode_single(texts), []
    assert [singles[i].tolist() for i in range(len(texts))] == [
        [1, *ids[: length - 2].tolist(), 2] for ids in encoder.encode_texts(texts)
    ]
    encoder.encode(queries, titles, check=lambda counted, most: lengths.extend((counted > most).tolist()))
    assert lengths == (whole.lengths > length).tolist()


@pytest.mark.unit
def test_truncation_equals_removing_one_token_at_a_time() -> None:
    for budget in range(2, 12):
        first, second = (axis.ravel() for axis in np.meshgrid(np.arange(25), np.arange(25)))
        kept = np.stack(BERT_SHAPE.truncated(first, second, budget), axis=1)
        assert kept.tolist() == [list(one_by_one(a, b, budget)) for a, b in zip(first.tolist(), second.tolist())]
        assert (kept[first > 0, 0] > 0).all() and (kept[second > 0, 1] > 0).all()  # no side is emptied


@pytest.mark.unit
def test_padding_by_hand(folder: Path) -> None:
    pairs = PairEncoder.from_folder(folder, 16).encode(["a b", "", "a"], ["c", "d", "b c d"])
    input_ids, token_type_ids = dataclasses.replace(pairs, pad_id=99).pad([2, 1]).values()
    assert input_ids.tolist() == [[1, 5, 2, 6, 7, 8, 2], [1, 2, 8, 2, 99, 99, 99]]
    assert token_type_ids.tolist() == [[0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 0, 0, 0]]
    assert input_ids.dtype == token_type_ids.dtype == np.int64


@pytest.mark.unit
def test_take_and_concat_equal_encoding_again(folder: Path) -> None:
    generator = random.Random(5)
    texts = [" ".join(generator.choices(LETTERS, k=generator.randint(0, 9))) for _ in range(60)]
    encoder = PairEncoder.from_folder(folder, 12)
    queries, titles = texts[:30], texts[30:]
    whole = encoder.encode(queries, titles)
    chosen = [generator.randrange(30) for _ in range(50)]
    assert_equal_pairs(whole.take(chosen), encoder.encode([queries[i] for i in chosen], [titles[i] for i in chosen]))
    assert_equal_pairs(whole.take([]), encoder.encode([], []))
    parts = [encoder.encode(queries[i : i + 7], titles[i : i + 7]) for i in range(0, 30, 7)]
    assert_equal_pairs(EncodedPairs.concat(parts), whole)
    with pytest.raises(IndexError):
        _ = whole[30]


@pytest.mark.unit
def test_threads_share_an_encoder_and_its_count(folder: Path) -> None:
    encoder = PairEncoder.from_folder(folder, 6)
    texts = ["a b c"] * 50, ["d e f"] * 50
    expected = encoder.encode(*texts)
    with ThreadPoolExecutor(8) as pool:
        for result in pool.map(lambda _: encoder.encode(*texts), range(8)):
            assert_equal_pairs(result, expected)
    assert encoder.truncated == 9 * 50


@pytest.mark.unit
def test_a_saved_folder_is_the_same_encoder(folder: Path, tmp_path: Path) -> None:
    (folder / "vocab.txt").write_bytes("[PAD]\r\n[CLS]\r\n[SEP]\r\n[UNK]\r\n<m>\r\nÉ\r\n中\r\na".encode())
    config = {"do_lower_case": False, "strip_accents": False, "mask_token": "<m>", "model_max_length": 77}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    new = tmp_path / "new" / "folder"
    PairEncoder.from_folder(folder, 16).save(new)
    assert filecmp.cmp(folder / "vocab.txt", new / "vocab.txt", shallow=False)
    saved = json.loads((new / "tokenizer_config.json").read_text())
    assert {name: saved[name] for name in config} == config
    assert json.loads((new / "special_tokens_map.json").read_text())["mask_token"] == "<m>"
    for encoder in (PairEncoder.from_folder(folder, 16), PairEncoder.from_folder(new, 16)):
        assert encoder.mask_id == 4
        assert encoder.encode(["É中A"], ["a"])[0].tolist() == [1, 5, 6, 3, 2, 7, 2]


def assert_equal_pairs(pairs: EncodedPairs, expected: EncodedPairs) -> None:
    np.testing.assert_array_equal(pairs.ids, expected.ids)
    np.testing.assert_array_equal(pairs.offsets, expected.offsets)
    np.testing.assert_array_equal(pairs.second_starts, expected.second_starts)


def assert_equal_to_paddlenlp(pairs: EncodedPairs, reference: Any) -> None:
    assert [pairs[i].tolist() for i in range(len(pairs))] == reference["input_ids"]
    for i, token_type_ids in enumerate(reference["token_type_ids"]):
        assert pairs.second_starts[i] == len(token_type_ids) - sum(token_type_ids)
        assert token_type_ids == sorted(token_type_ids)


# PaddleNLP's tokenizers take special tokens out of a text; here they are text.
PLAIN_NASTY_TEXTS = [text for text in NASTY_TEXTS if "[CLS]" not in text]
PAIRS = (PLAIN_NASTY_TEXTS * 2, PLAIN_NASTY_TEXTS + PLAIN_NASTY_TEXTS[5:] + PLAIN_NASTY_TEXTS[:5])


@pytest.mark.thorough(keep=3)
@pytest.mark.parity
@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("ErnieTokenizer", {}),
        ("ErnieTokenizer", {"do_lower_case": False}),
        ("BertTokenizer", {}),
        ("BertTokenizer", {"do_lower_case": False, "strip_accents": True}),
        ("BertTokenizer", {"strip_accents": False}),
        ("BertTokenizer", {"tokenize_chinese_chars": False}),
    ],
)
def test_paddlenlp_loads_a_saved_folder_and_gives_equal_ids(tmp_path: Path, name: str, config: dict[str, Any]) -> None:
    transformers = pytest.importorskip("paddlenlp.transformers")
    characters = sorted({char for text in NASTY_TEXTS for char in text + text.lower() if char.isprintable()})
    tokens = [*SPECIAL, "机", "器", "note", "##10", "$", *characters, *(f"##{char}" for char in characters), "$"]
    source = tmp_path / "source"
    source.mkdir()
    (source / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    (source / "tokenizer_config.json").write_text(json.dumps(config))
    encoder = PairEncoder.from_folder(source, 64)
    encoder.save(tmp_path / "saved")
    tokenizer = getattr(transformers, name).from_pretrained(str(tmp_path / "saved"))
    reference = tokenizer(*PAIRS, max_length=64, truncation="longest_first")
    assert_equal_to_paddlenlp(encoder.encode(*PAIRS), reference)
    assert encoder.encode(["$"], ["$"])[0].tolist() == [1, len(tokens) - 1, 2, len(tokens) - 1, 2]


@pytest.mark.real_data
@pytest.mark.parity
def test_ids_equal_paddlenlp_on_real_rows(tmp_path: Path, real_data: Path) -> None:
    transformers = pytest.importorskip("paddlenlp.transformers")
    (tmp_path / "vocab.txt").write_bytes((real_data / "vocab" / "ernie-3.0-vocab.txt").read_bytes())
    lines = (real_data / "qbqtc" / "train.tsv").read_text(encoding="utf-8").split("\n")[1:-1]
    queries, titles = (list(column) for column in zip(*(line.split("\t")[:2] for line in lines)))
    assert len(queries) == 14_992
    tokenizer = transformers.ErnieTokenizer.from_pretrained(str(tmp_path))
    encoder = PairEncoder.from_folder(tmp_path, 64)
    reference = tokenizer(queries, titles, max_length=64, truncation="longest_first")
    assert_equal_to_paddlenlp(encoder.encode(queries, titles), reference)
    assert encoder.vocab_size == 39_980
    assert tokenizer("$")["input_ids"] == [1, 18_005, 2]
    assert encoder.encode_texts(["$"])[0].tolist() == [18_005]


@pytest.mark.parity
def test_the_benchmark_counts_rows_with_other_ids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("paddlenlp")
    from benchmarks.tokenizers import main

    (tmp_path / "vocab.txt").write_text("".join(f"{token}\n" for token in [*SPECIAL, "a", "b", "note", "##10", "＋"]))
    (tmp_path / "pairs.tsv").write_text("a\ta b\nnote10＋a\tb\nc\td\n")
    arguments = ["--file", str(tmp_path / "pairs.tsv"), "--vocab", str(tmp_path / "vocab.txt"), "--repetitions", "1"]
    assert main([*arguments, "--batch_size", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "3 pairs in batches of 2" in lines[0]
    differing = {line[:54].strip(): line.split("x  ")[1] for line in lines[2:]}
    assert differing["PairEncoder, backend builtin"] == "0 of 3"
    assert main([*arguments[:2], "--vocab", str(tmp_path / "none.txt")]) == 2
