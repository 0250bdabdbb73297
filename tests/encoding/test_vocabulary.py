"""A vocabulary made from texts: as worked out by hand, and the same every time."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.encoding.vocabulary import (
    SPECIAL_TOKENS,
    common_characters,
    train_wordpiece_vocabulary,
    write_vocabulary,
)
from paddle_ranker.errors import DataError, DependencyError, UsageError
from tests.conftest import run_python

pytest.importorskip("tokenizers")
pytestmark = pytest.mark.unit


def test_merges_by_hand() -> None:
    texts = ["ab " * 5, "ABC abc，abc", "ef cd " * 4, "gi gh " * 2, "xy"]
    tokens = train_wordpiece_vocabulary(texts, vocab_size=100)
    # a+b 8 times; c+d and e+f 4 times each; ab+c 3 times; g+h and g+i twice each; nothing else twice. Of equals, the
    # pair of the first character comes first, then that of the first piece.
    characters = [*"abcdefghixy，", "##b", "##c", "##d", "##f", "##h", "##i", "##y"]
    assert tokens == [*SPECIAL_TOKENS, *characters, "ab", "cd", "ef", "abc", "gh", "gi"]
    assert train_wordpiece_vocabulary(texts, vocab_size=26) == tokens[:26]


def test_words_are_split_as_the_encoder_splits_them() -> None:
    tokens = train_wordpiece_vocabulary(["中文中文中文", "x＋y x＋y", "É É", "\u200bq" + "w" * 101], vocab_size=50)
    assert tokens == [*SPECIAL_TOKENS, "e", "x", "y", "中", "文", "＋"]
    assert "É" in train_wordpiece_vocabulary(["É É"], vocab_size=50, lowercase=False)


def test_characters_are_in_it_whether_or_not_a_text_holds_them() -> None:
    tokens = train_wordpiece_vocabulary(["ab 中"], vocab_size=50, characters="中国B9b")
    # An ideograph is a word of its own, so nothing of it goes on.
    assert tokens == [*SPECIAL_TOKENS, "9", "a", "b", "中", "国", "##9", "##b"]
    common = common_characters()
    assert len(common) == len(set(common)) == 62 + 6763
    assert common.startswith("abc") and common[62:64] == "啊阿" and common[-1] == "齄"


def test_the_same_texts_give_the_same_vocabulary() -> None:
    code = (
        "import random, hashlib; from paddle_ranker.encoding.vocabulary import train_wordpiece_vocabulary as train;"
        "g = random.Random(1);"
        "texts = [' '.join(''.join(g.choices('abcdefghij', k=g.randint(1, 8))) for _ in range(20)) for _ in range(99)];"
        "print(hashlib.sha256(repr(train(texts, 400)).encode()).hexdigest())"
    )
    ways = (("0", "1"), ("1", "2"), ("random", "4"))
    assert len({run_python(code, PYTHONHASHSEED=seed, RAYON_NUM_THREADS=threads) for seed, threads in ways}) == 1


def test_unusable_requests_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for texts in ([], ["", " \u200b"]):
        with pytest.raises(DataError, match="hold no word"):
            train_wordpiece_vocabulary(texts, 100)
    with pytest.raises(UsageError, match=r"9 tokens \(5 special, 3 characters, 1 characters.*at least 9"):
        train_wordpiece_vocabulary(["ab 中"], 8)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(DependencyError, match="pip install tokenizers"):
        train_wordpiece_vocabulary(["ab ab"], 100)


def test_a_written_vocabulary_encodes(tmp_path: Path) -> None:
    tokens = train_wordpiece_vocabulary(["search ranking", "search 中"], 60)
    assert write_vocabulary(tmp_path / "model", tokens) == tmp_path / "model" / "vocab.txt"
    encoder = PairEncoder.from_folder(tmp_path / "model", 16)
    assert (encoder.pad_id, encoder.cls_id, encoder.sep_id, encoder.mask_id, encoder.unk_id) == (0, 1, 2, 3, 4)
    pair = encoder.encode(["Search"], ["中?"])[0].tolist()
    assert pair == [1, tokens.index("search"), 2, tokens.index("中"), 4, 2]


@pytest.mark.parametrize("tokens", [["a", "b", "a"], ["a", ""], ["a\n"], ["\r"]])
def test_a_vocabulary_that_cannot_be_read_back_is_refused(tmp_path: Path, tokens: list[str]) -> None:
    with pytest.raises(DataError):
        write_vocabulary(tmp_path, tokens)
    assert not (tmp_path / "vocab.txt").exists()
