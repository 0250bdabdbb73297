"""Words and word pieces: worked out by hand, and equal to PaddleNLP's Python classes for every character there is."""

from __future__ import annotations

import json
import random
import sys
import unicodedata
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, Optional

import pytest
from tokenizers import normalizers, pre_tokenizers

from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.encoding.tokenizers.builtin import WordPiece
from paddle_ranker.encoding.tokenizers.text_rules import TextRules, WordSplitter
from paddle_ranker.encoding.tokenizers.tokenizer_folder import TokenizerFiles
from paddle_ranker.errors import CheckpointError
from paddle_ranker.unicode.character_kinds import kind_of_category, unicode_table
from tests.conftest import run_python
from tests.serving_cases import calls_of
from tests.tokenizer_cases import NASTY_TEXTS, SPECIAL
from tests.tokenizer_oracles import PaddlePython

# Blocks whose characters are all treated alike: ideographs, syllables, private use, unassigned.
UNIFORM = (
    (0x3500, 0x4DB0), (0x4E10, 0x9F00), (0xAC10, 0xD700), (0xE010, 0xF8F0), (0x17010, 0x18C00), (0x20010, 0x2A6D0),
    (0x2A710, 0x2FA00), (0x30010, 0x32300), (0x32410, 0xE0000), (0xE0200, 0x10FFF0),
)  # fmt: skip


@cache
def characters(every: bool = True) -> list[str]:
    """Return the characters that Python knows as the toolkit's table does: of uniform blocks all, or each 61st."""
    kind, codes = unicode_table().kind, set(range(sys.maxunicode + 1))
    if not every:
        for first, last in UNIFORM:
            codes.difference_update(code for code in range(first, last) if code % 61)
    known = map(chr, sorted(codes))
    return [char for char in known if kind(char) == kind_of_category(unicodedata.category(char))]


def make_files(folder: Path, tokens: Sequence[str], config: Any = None) -> TokenizerFiles:
    (folder / "vocab.txt").write_bytes("".join(f"{token}\n" for token in tokens).encode())
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return TokenizerFiles.read(folder)


def rows_of(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    ids, lengths = tokenizer.encode(texts)
    iterator = iter(ids.tolist())
    return [[next(iterator) for _ in range(length)] for length in lengths.tolist()]


@pytest.mark.unit
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("机器 Learning", ["机", "器", "learning"]),
        ("Note10＋使用", ["note10", "＋", "使", "用"]),
        ("a\x00b\x1fc\u200bd", ["abcd"]),  # control and format characters vanish, they do not separate
        ("a\u2028b\u00a0c\u3000d", ["a", "b", "c", "d"]),
        ("É e\u0301", ["e", "e"]),
        ("ΟΔΟΣ", ["οδοσ"]),  # σ, not ς: lowercased one character at a time
        ("İI", ["ii"]),
        ("x≠y", ["x", "=", "y"]),  # decomposes to = and an accent
        ("豈", ["\u8c48"]),  # a compatibility ideograph: isolated, then decomposed
        ("[CLS]", ["[", "cls", "]"]),
        ("\ud800a\udfff", ["a"]),
        ("\ue000\u0378", []),  # private use, unassigned
        ("m\u00b2 \u3007", ["m", "\u00b2", "\u3007"]),
        # Two kept marks of classes 224 and 216 trade places in canonical order.
        ("a\u302e\U0001d165", ["a\U0001d165\u302e"]),
    ],
)
def test_words_by_hand(text: str, words: list[str]) -> None:
    assert WordSplitter().split(text) == words


@pytest.mark.unit
@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (TextRules(do_lower_case=False), ["É", "中", "Ab"]),
        (TextRules(do_lower_case=False, strip_accents=True), ["E", "中", "Ab"]),
        (TextRules(strip_accents=False), ["é", "中", "ab"]),
        (TextRules(tokenize_chinese_chars=False), ["e", "中ab"]),
    ],
)
def test_rules_have_an_effect(rules: TextRules, words: list[str]) -> None:
    assert WordSplitter(rules).split("É 中Ab") == words


@pytest.mark.unit
@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("strip", [None, False, True])
def test_words_of_bert_are_those_of_the_library(lower: bool, strip: Optional[bool]) -> None:
    library = normalizers.BertNormalizer(True, True, strip, lower), pre_tokenizers.BertPreTokenizer()
    splitter = WordSplitter(TextRules(lower, strip, of_bert=True))
    marks = [chr(code) for code in range(sys.maxunicode + 1) if unicode_table().combining(chr(code))]
    generator = random.Random(5)
    rare = [*"aΣİ中豈，＋ \t≠\u200b🫠°£ßẞ한\u1734\U00011938\uffff\ufdd1\ufffd\x1c\x85", *marks]
    texts = ["".join(generator.choices(rare, k=9)) for _ in range(3_000)]
    texts += [f"a{char}b {char}" for char in characters(every=False)[::7] if not "\ud800" <= char < "\ue000"]
    for text in texts:
        wanted = [word for word, _ in library[1].pre_tokenize_str(library[0].normalize_str(text))]
        assert splitter.split(text) == wanted, ascii(text)
    assert splitter.split("25°C £50 a\ud800b") == (["25°c", "£50", "ab"] if lower else ["25°C", "£50", "ab"])


@pytest.mark.unit
def test_wordpiece_by_hand() -> None:
    tokens = ["[UNK]", "un", "##aff", "##able", "##a", "una", "a", "##ff"]
    wordpiece = WordPiece({token: i for i, token in enumerate(tokens)}, unk_id=0)
    assert wordpiece.ids("una") == [5]
    assert wordpiece.ids("unaffable") == [5, 7, 3]  # una + ##ff + ##able: the longest piece first
    assert wordpiece.ids("unx") == [0]  # the whole word is unknown where any part is
    assert wordpiece.ids("a" * 100) == [6] + [4] * 99
    assert wordpiece.ids("a" * 101) == [0]


@pytest.mark.unit
@pytest.mark.parametrize("end", ["", "\u6df1"])  # of a word that has pieces, and of one that ends in none
def test_a_word_takes_few_look_ups_though_tokens_are_long(end: str) -> None:
    generator, tokens = random.Random(5), ["[UNK]", *"abcd", *(f"##{letter}" for letter in "abcd")]
    tokens += ["internationalization", "##institutionalization"]
    tokens += {"".join(generator.choices("abcd", k=3)) for _ in range(30)}
    wordpiece = WordPiece({token: i for i, token in enumerate(tokens)}, unk_id=0)
    words = ["".join(generator.choices("abcd", k=99)) + end for _ in range(20)]
    assert calls_of(lambda: [wordpiece.ids(word) for word in words]) <= 6 * 20 * 100


@pytest.mark.unit
def test_word_pieces_are_the_longest_ones() -> None:
    """Equal to pieces found by trying every length, longest first, with tokens that are beginnings of others or not."""
    generator = random.Random(6)
    for _ in range(200):
        tokens = {"".join(generator.choices("ab", k=generator.randint(1, 6))) for _ in range(8)}
        tokens |= {f"##{token}" for token in generator.sample(sorted(tokens), min(6, len(tokens)))}
        ids = {token: i for i, token in enumerate(sorted(tokens), 1)}
        wordpiece = WordPiece(ids, unk_id=0)
        for word in ("".join(generator.choices("ab", k=generator.randint(1, 9))) for _ in range(10)):
            assert wordpiece.ids(word) == longest_first(ids, word), (ids, word)


def longest_first(token_to_id: dict[str, int], word: str) -> list[int]:
    found: list[int] = []
    while word:
        prefix = "##" if found else ""
        lengths = [length for length in range(len(word), 0, -1) if prefix + word[:length] in token_to_id]
        if not lengths:
            return [0]
        found.append(token_to_id[prefix + word[: lengths[0]]])
        word = word[lengths[0] :]
    return found


@pytest.mark.unit
def test_a_vocabulary_of_crlf_unicode_separators_and_a_token_twice(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes("[PAD]\r\n[CLS]\r\n[SEP]\r\n[UNK]\r\n\u2028\r\n$\r\n\r\na\n$\nlast".encode())
    files = TokenizerFiles.read(tmp_path)
    special = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3}
    assert files.token_to_id == {**special, "\u2028": 4, "$": 8, "": 6, "a": 7, "last": 9}  # the last of two wins
    assert files.vocab_size == 10


USUAL = b"[PAD]\n[CLS]\n[SEP]\n[UNK]\n"


@pytest.mark.unit
@pytest.mark.parametrize(
    ("vocabulary", "config", "message"),
    [
        (None, None, "is not there"),
        (b"[PAD]\n\xff\n", None, "line 2: not UTF-8"),
        (b"[PAD]\n[CLS]\n[UNK]\n", None, r"no \[SEP\]"),
        (USUAL, b"{", "is not JSON"),
        (USUAL, b"[]", "holds a list"),
        (USUAL, b'{"do_lower_case": "yes"}', "do_lower_case is 'yes'"),
        (USUAL, b'{"do_basic_tokenize": false}', "do_basic_tokenize"),
        (USUAL, b'{"unk_token": 5}', "unk_token is 5"),
        (USUAL, b'{"added_tokens_decoder": {"3": "[UNK]", "5": "<x>"}}', "adds the token '<x>'"),
    ],
)
def test_unusable_files_are_named(tmp_path: Path, vocabulary: Any, config: Any, message: str) -> None:
    for name, content in (("vocab.txt", vocabulary), ("tokenizer_config.json", config)):
        if content is not None:
            (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        TokenizerFiles.read(tmp_path)


@pytest.mark.unit
def test_special_tokens_come_from_either_file(tmp_path: Path) -> None:
    (tmp_path / "special_tokens_map.json").write_text('{"unk_token": {"content": "<unk>"}, "pad_token": "<p>"}')
    files = make_files(tmp_path, ["<pad>", "[CLS]", "[SEP]", "<unk>"], {"pad_token": "<pad>"})
    assert files.special_tokens["unk_token"] == "<unk>"
    assert files.special_tokens["pad_token"] == "<pad>"  # tokenizer_config.json has the last word


def kind_of(char: str) -> str:
    return f"U+{ord(char):04X} {unicodedata.name(char, '')} ({unicodedata.category(char)})"


@pytest.mark.unit
def test_every_character_costs_the_same(tmp_path: Path) -> None:
    """No character, dropped or kept, takes a call of its own once it was seen; names the worst."""
    make_files(tmp_path, [*SPECIAL, *"abc"])
    encoder = PairEncoder.from_folder(tmp_path, 16)
    codes = set(range(sys.maxunicode + 1))
    for first, last in UNIFORM:
        codes.difference_update(code for code in range(first, last) if code % 61)
    chars = [chr(code) for code in sorted(codes)]
    texts = ["".join(chars[start : start + 4096]) + "\u302e\u302f" for start in range(0, len(chars), 4096)]

    def calls(text: str) -> int:
        return calls_of(lambda: encoder.encode_texts([text]))

    encoder.encode_texts(texts)  # what is seen first is worked out
    most = calls("a" * 4096) + 128  # one for 32 characters
    worst = max(texts, key=calls)
    if calls(worst) > most:
        char = max(worst, key=lambda char: calls(64 * char))
        raise AssertionError(f"{kind_of(char)} takes {calls(64 * char)} calls for 64")
    for char in ("\u0300", "\x7f", "\u200b", "\u0378", "\ue000", "\u302e", "\u0901", "深", "é", "!", "😀"):
        for beside in ("", " ", "\u302e", "\u0901\u302f"):
            assert calls((char + beside) * 2000) <= most, (kind_of(char), beside)


@pytest.mark.unit
def test_the_tokenizer_imports_no_heavy_package() -> None:
    heavy = "('paddle', 'paddlenlp', 'tokenizers', 'fast_tokenizer')"
    code = f"import sys, paddle_ranker.encoding.pair_encoder; print([n for n in {heavy} if n in sys.modules])"
    assert run_python(code) == "[]\n"


@pytest.mark.unit
def test_ids_by_hand(tmp_path: Path) -> None:
    tokens = [*SPECIAL, "[", "]", "cls", "机", "note", "##10", "＋", "д", "##д", "##x", "w"]
    tokenizer = make_files(tmp_path, tokens).tokenizer()
    texts = ["Note10＋机", "", "[CLS]", "机器", "д" * 100, "д" * 101, "w x ##10", "10"]
    expected = [[9, 10, 11, 8], [], [5, 7, 6], [8, 4], [12] + [13] * 99, [4], [15, 4, 4, 4, 4], [4]]
    assert rows_of(tokenizer, texts) == expected
    assert rows_of(tokenizer, []) == []


@pytest.mark.unit
def test_threads_can_share_a_tokenizer(tmp_path: Path) -> None:
    files = make_files(tmp_path, [*SPECIAL, *"abcdefgh", *(f"##{c}" for c in "abcdefgh")])
    generator = random.Random(3)
    texts = [" ".join("".join(generator.choices("abcdefghi", k=5)) for _ in range(8)) for _ in range(400)]
    expected = rows_of(files.tokenizer(), texts)
    tokenizer = files.tokenizer()
    with ThreadPoolExecutor(6) as pool:
        parts = [pool.submit(rows_of, tokenizer, texts[i : i + 20]) for _ in range(6) for i in range(0, 400, 20)]
    assert [row for part in parts for row in part.result()] == expected * 6


RULES = [
    TextRules(),
    TextRules(do_lower_case=False),
    TextRules(do_lower_case=False, strip_accents=True),
    TextRules(strip_accents=False),
    TextRules(tokenize_chinese_chars=False),
]


def reference_words(rules: TextRules, text: str) -> list[str]:
    transformers = pytest.importorskip("paddlenlp.transformers")
    basic = transformers.BasicTokenizer(
        do_lower_case=rules.do_lower_case,
        strip_accents=rules.strip_accents,
        tokenize_chinese_chars=rules.tokenize_chinese_chars,
    )
    lowered = "".join(char.lower() for char in text) if rules.do_lower_case else text
    words: list[str] = basic.tokenize(lowered)
    return words


@pytest.mark.parity
@pytest.mark.parametrize(
    ("rules", "every"),
    [*((rules, False) for rules in RULES), pytest.param(RULES[0], True, marks=pytest.mark.slow)],
    ids=str,
)
def test_words_equal_paddlenlp_for_every_character(rules: TextRules, every: bool) -> None:
    splitter, chars = WordSplitter(rules), characters(every)
    assert len(chars) > 98_000
    differing = [text for text in NASTY_TEXTS if splitter.split(text) != reference_words(rules, text)]
    for start in range(0, len(chars), 1024):
        part = chars[start : start + 1024]
        dropped = f"a{''.join(part)}b"  # most characters are, and need no word of their own each
        if splitter.split(dropped) == reference_words(rules, dropped) == ["ab"]:
            continue
        text = " ".join(f"{char} a{char}b" for char in part)
        if splitter.split(text) != reference_words(rules, text):
            differing.append(hex(ord(chars[start])))
    assert differing == []


@pytest.mark.parity
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_ids_equal_paddlenlp_for_every_character(tmp_path: Path, every: bool) -> None:
    """Every character is a piece, so that no difference hides behind the unknown token."""
    pytest.importorskip("paddlenlp")
    splitter = WordSplitter()  # dropped characters are the words' business (the test above): a few stand for all
    kept = [char for char in characters(every) if splitter.split(char)] + ["\u0301", "\x00", "\ue000"]
    pieces = sorted({char for kept_char in kept for word in splitter.split(kept_char) for char in word} | {*"ab"})
    files = make_files(tmp_path, [*SPECIAL, *pieces, *(f"##{char}" for char in pieces)])
    texts = [" ".join(f"{char} a{char}b" for char in kept[i : i + 256]) for i in range(0, len(kept), 256)]
    expected = rows_of(PaddlePython(files), [*texts, *NASTY_TEXTS])
    assert max(map(max, expected[: len(texts)])) > len(pieces)
    found = rows_of(files.tokenizer(), [*texts, *NASTY_TEXTS])
    assert [i for i, row in enumerate(found) if row != expected[i]] == []
