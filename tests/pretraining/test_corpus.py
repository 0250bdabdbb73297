"""Files to documents, documents to tokens on the disk, tokens to sequences."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from paddle_ranker.errors import CheckpointError, DataError
from pretraining.corpus import Corpus
from pretraining.packing import Sequences, pack
from pretraining.token_store import TokenStore
from tests.pretraining_runs import store_of
from tests.tiny import VOCABULARY

pytestmark = pytest.mark.unit

WIKI = " = One = \n\nfirst\n = = Part = = \nsecond\n\n = Two = \nthird\n"
IDS = {token: number for number, token in enumerate(VOCABULARY)}
SPECIAL = (1, 2, 0)  # [CLS], [SEP], [PAD]


def documents(path: Path, rule: str = "lines") -> list[list[str]]:
    found: list[list[str]] = []
    for begins, text in Corpus([str(path)], rule):
        if begins:
            found.append([])
        found[-1].append(text)
    return found


def test_what_parts_documents(tmp_path: Path) -> None:
    path = tmp_path / "wiki.txt"
    path.write_text(WIKI, encoding="utf-8")
    one = [" = One = ", "first", " = = Part = = ", "second"]
    two = [" = Two = ", "third"]
    assert documents(path) == [[line] for line in one + two]
    assert documents(path, "titles") == [one, two]
    assert documents(path, "blank_lines") == [one[:1], one[1:], two]


def test_every_format_gives_the_same_texts(tmp_path: Path) -> None:
    texts = ["深度 学习", 'a "b', "NA"]
    (tmp_path / "a.txt").write_text("\ufeff" + "\r\n".join(texts), encoding="utf-8")
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress("\n\n".join(texts).encode()))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (tmp_path / "a.tsv").write_text("id\ttext\n" + "".join(f"1\t{text}\n" for text in texts), encoding="utf-8")
    (tmp_path / "a.csv").write_text("\n".join(texts), encoding="utf-8")
    for name in ("a.txt", "a.txt.gz", "a.jsonl", "a.tsv", "a.csv"):
        assert documents(tmp_path / name) == [[text] for text in texts], name
    tabbed = tmp_path / "b.txt"
    tabbed.write_text('{"text": 1}\tb\n', encoding="utf-8")  # a .txt file is text whatever it holds
    assert documents(tabbed) == [['{"text": 1}\tb']]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no text; leave it out"),
        (b"\n \n\n", "holds no text"),
        ("gut für uns\n".encode() + b"\xff\xfebad\n", "line 2: byte 0xff at position 1 is not UTF-8"),
        (b"PK\x03\x04", "a zip archive"),
        (b"PAR1", "Parquet data, expected text"),
        (b"a\0b\n", "line 1: a NUL byte"),
        (b"\x1f\x8b\x08\x00damaged", "damaged or cut short"),
    ],
)
def test_files_that_are_no_text_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{path}.*{message}"):
        list(Corpus([str(path)]))


def test_bad_lines_may_be_left_out_and_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes("gut für\n".encode() + b"\xffbad\nfine\n")
    corpus = Corpus([str(path)], skip_bad_rows=True)
    assert [text for _, text in corpus] == ["gut für", "fine"]
    assert corpus.report().startswith(f"2 documents; skipped 1 lines ({path}, line 2: byte 0xff")
    with pytest.raises(DataError, match="no such file"):
        list(Corpus([str(tmp_path / "absent.txt")]))


def test_tokens_are_made_once_and_anew_for_other_content_or_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(tmp_path, "abc 深度\n\n学\n")
    assert store.facts["documents"] == 2 and store.facts["tokens"] == 6 and store.facts["unknown"] == 0
    assert store.ids.tolist() == [IDS[t] for t in ("a", "##b", "##c", "深", "度", "学")]
    assert store.starts.tolist() == [True, False, False, True, True, True]
    assert store.offsets.tolist() == [0, 5, 6] and store.ids.dtype == np.uint16
    monkeypatch.setattr(Corpus, "__iter__", lambda self: pytest.fail("read again"))
    again = store_of(tmp_path, "abc 深度\n\n学\n")
    assert again.ids.tolist() == store.ids.tolist()
    monkeypatch.undo()
    assert store_of(tmp_path, "学\n学\n").ids.tolist() == [IDS["学"]] * 2
    assert len(list((tmp_path / "cache").glob("tokens_*"))) == 2
    store_of(tmp_path, "学\n学\n", documents="blank_lines")
    assert len(list((tmp_path / "cache").glob("tokens_*"))) == 3


def test_a_text_without_a_token_is_refused_and_damage_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the files hold no token"):
        store_of(tmp_path, "\u200b\n")
    store_of(tmp_path, "a\nb\n")
    (folder,) = (tmp_path / "cache").glob("tokens_*")
    (folder / "ids.bin").write_bytes(b"\0\0")
    with pytest.raises(CheckpointError, match=r"damaged \(ids.bin holds 1 values, not 2\); remove it"):
        store_of(tmp_path, "a\nb\n")


def test_chinese_words_are_jiebas_and_stay_aligned(tmp_path: Path) -> None:
    pytest.importorskip("jieba")
    # 深度, 学习 and 研究 are words of its dictionary; 龘 is unknown to the tiny vocabulary, abc is three pieces.
    store = store_of(tmp_path, "深度学习 abc 研究龘,学习\n", whole_words=True)
    tokens = ["深", "度", "学", "习", "a", "##b", "##c", "研", "究", "[UNK]", ",", "学", "习"]
    assert store.ids.tolist() == [IDS[token] for token in tokens]
    assert [tokens[i] for i in np.flatnonzero(store.starts)] == ["深", "学", "a", "研", "[UNK]", ",", "学"]


def rows(sequences: Sequences, indices: list[int]) -> list[str]:
    ids, _ = sequences.batch(np.array(indices))
    return [" ".join(VOCABULARY[i] for i in row) for row in ids]


def test_packing_by_hand(tmp_path: Path) -> None:
    store = store_of(tmp_path, "深度学习\n语言\nabcdefgh ijk xyz\n文化\n")
    sequences = pack(store, np.arange(4), 12, SPECIAL, packing="pack")
    # 12 tokens: [CLS], then documents with [SEP] each. The third has 14 tokens: the remaining room, 2, is below the
    # shortest piece, so it begins the second sequence, and is cut where a word begins.
    assert rows(sequences, [0, 1, 2]) == [
        "[CLS] 深 度 学 习 [SEP] 语 言 [SEP] [PAD] [PAD]",
        "[CLS] a ##b ##c ##d ##e ##f ##g ##h [SEP] [PAD]",
        "[CLS] i ##j ##k x ##y ##z [SEP] 文 化 [SEP]",
    ]
    assert sequences.all_lengths.tolist() == [9, 10, 11] and len(sequences) == 3
    _, starts = sequences.batch(np.array([2]))
    assert starts[0].tolist() == [True, True, False, False, True, False, False, True, True, True, True]
    assert rows(sequences, [2, 0])[1] == "[CLS] 深 度 学 习 [SEP] 语 言 [SEP] [PAD] [PAD]"


def test_truncation_by_hand(tmp_path: Path) -> None:
    store = store_of(tmp_path, "深度学习\nabcdefgh\n语\n")
    sequences = pack(store, np.array([2, 0, 1]), 5, SPECIAL, packing="truncate")
    assert rows(sequences, [0, 1, 2]) == ["[CLS] 语 [SEP] [PAD] [PAD]", "[CLS] 深 度 学 [SEP]", "[CLS] a ##b ##c [SEP]"]


@pytest.mark.parametrize("length", [8, 33, 200])
def test_packing_loses_no_token_and_joins_documents_in_order(tmp_path: Path, length: int) -> None:
    random = np.random.RandomState(1)
    words = ["".join(random.choice(list("abcdefghij"), random.randint(1, 9))) for _ in range(800)]
    ends = np.sort(random.choice(np.arange(1, 800), 49, replace=False))
    store = store_of(tmp_path, "\n".join(" ".join(part) for part in np.split(words, ends)))
    order = random.permutation(len(store))
    sequences = pack(store, order, length, SPECIAL, packing="pack")
    ids, _ = sequences.batch(np.arange(len(sequences)))
    assert ids.shape[1] <= length and (ids[:, 0] == 1).all()
    flat = ids.reshape(-1)
    expected = np.concatenate([store.ids[store.offsets[i] : store.offsets[i + 1]] for i in order])
    np.testing.assert_array_equal(flat[~np.isin(flat, SPECIAL)], expected)
    # [SEP] stands at every document's end, and where a document continues in the next sequence.
    ends = np.cumsum([store.offsets[i + 1] - store.offsets[i] for i in order])
    before = np.cumsum(~np.isin(flat, SPECIAL))
    assert set(ends) <= set(before[flat == 2])
    if length > 20:  # words have at most nine pieces: most sequences are nearly full
        assert np.median(sequences.all_lengths) >= length - 9


def make_store(ids: list[int], offsets: list[int]) -> TokenStore:
    return TokenStore(np.array(ids, np.uint16), np.zeros(len(ids), bool), np.array(offsets), {})


def test_a_word_longer_than_a_sequence_is_cut_all_the_same() -> None:
    sequences = pack(make_store([7] * 100, [0, 100]), np.array([0]), 22, SPECIAL, packing="pack")
    assert sequences.all_lengths.tolist() == [22] * 5
    _, starts = sequences.batch(np.array([1]))
    assert np.flatnonzero(starts[0]).tolist() == [0, 1, 21]  # a continued document begins a new word
