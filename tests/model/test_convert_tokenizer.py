"""The tokenizer of a transformers folder: its settings survive, and what is written gives our ids."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Optional

import pytest
from tokenizers import Tokenizer, processors

from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.encoding.tokenizers.text_rules import TextRules, WordSplitter
from paddle_ranker.encoding.tokenizers.tokenizer_folder import TokenizerFiles
from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.families import brought_tokenizer, family_of
from paddle_ranker.model.hugging_face.library_tokenizer import bring_tokenizer
from paddle_ranker.model.hugging_face.tokenizer import library_tokenizer, write_tokenizer
from tests.tiny import PAIRS, VOCABULARY, change_json

pytestmark = pytest.mark.unit

WORDPIECE = {
    "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
}  # fmt: skip
NORMALIZER = {
    "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": False, "strip_accents": False,
    "lowercase": False,
}  # fmt: skip
TEXTS = [
    *(text for pair in PAIRS for text in pair),
    "note１０＋使用 20℃ a²b µm 🙂x ÀÉ naïve ΑΣ",
    "[SEP] and [MASK] [UNK]",
    "x\u00ady\u200bz \u3000 tab\tend",
]


def source_folder(folder: Path, *, settings: Any = None, tokenizer: Any = None, vocab: bool = True) -> Path:
    folder.mkdir()
    if vocab:
        (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    for name, content in (("tokenizer_config.json", settings), ("tokenizer.json", tokenizer)):
        if content is not None:
            (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


def brought(source: Path, target: Path) -> TokenizerFiles:
    target.mkdir()
    bring_tokenizer(source, target)
    return TokenizerFiles.read(target)


def written(files: TokenizerFiles, folder: Path) -> Path:
    folder.mkdir()
    write_tokenizer(files, folder, 64)
    return folder


def described(**model: Any) -> dict[str, Any]:
    vocab = {token: i for i, token in enumerate(VOCABULARY)}
    parts = {"normalizer": NORMALIZER, "pre_tokenizer": {"type": "BertPreTokenizer"}, "added_tokens": []}
    return {"model": {**WORDPIECE, "vocab": vocab, **model}, **parts}


@pytest.mark.parametrize("do_lower_case", [False, True])
@pytest.mark.parametrize("strip_accents", [None, False, True])
@pytest.mark.parametrize("tokenize_chinese_chars", [False, True])
def test_the_settings_survive(
    tmp_path: Path, do_lower_case: bool, strip_accents: Optional[bool], tokenize_chinese_chars: bool
) -> None:
    rules: dict[str, Any] = {
        "do_lower_case": do_lower_case,
        "strip_accents": strip_accents,
        "tokenize_chinese_chars": tokenize_chinese_chars,
    }
    settings = {
        **rules,
        "tokenizer_class": "BertTokenizerFast",
        "unk_token": {"content": "[UNK]", "lstrip": False},
        "added_tokens_decoder": {"0": {"content": "[PAD]", "special": True}},
    }
    files = brought(source_folder(tmp_path / "hf", settings=settings), tmp_path / "ours")
    assert files.rules == TextRules(**rules, of_bert=True)
    assert (files.config["tokenizer_class"], files.special_tokens["unk_token"]) == ("BertTokenizer", "[UNK]")
    assert files.vocabulary == (tmp_path / "hf" / "vocab.txt").read_bytes()
    assert brought(written(files, tmp_path / "back"), tmp_path / "again").rules == files.rules


@pytest.mark.parametrize(
    ("settings", "direction", "kept"),
    [
        ({}, None, "a a"),
        ({"truncation_side": "left"}, None, "b b"),
        ({}, "Left", "b b"),  # of a tokenizer that was told so after it was opened
        ({"truncation_side": "right"}, "Left", "a a"),
    ],
)
@pytest.mark.parametrize("model_type", ["bert", "electra"])
def test_long_texts_lose_the_side_that_the_folder_says(
    tmp_path: Path, model_type: str, settings: dict[str, Any], direction: Optional[str], kept: str
) -> None:
    source = source_folder(tmp_path / "hf", settings=settings, vocab=False)
    library = library_tokenizer(TokenizerFiles.read(source_folder(tmp_path / "words")))
    if direction:
        library.enable_truncation(5, direction=direction.lower())
    library.save(str(source / "tokenizer.json"))
    assert direction is None or f'"direction": "{direction}"' in (source / "tokenizer.json").read_text(encoding="utf-8")
    files = brought_tokenizer(source, family_of(model_type))
    for number in range(2):  # and written and brought back
        ids = PairEncoder(files, 5).encode_single(["a a a b b b", kept])
        assert ids[0].tolist()[1:3] == ids[1].tolist()[1:3], number
        (tmp_path / f"back{number}").mkdir()
        write_tokenizer(files, tmp_path / f"back{number}", 64)
        files = brought_tokenizer(tmp_path / f"back{number}", family_of(model_type))


@pytest.mark.parametrize(
    ("settings", "rules"),
    [  # of transformers 5.23
        (None, TextRules(of_bert=True)),  # BERT's class looks at its own settings alone, and has defaults
        ({"do_lower_case": False}, TextRules(do_lower_case=False, of_bert=True)),
        ({"tokenizer_class": "ErnieTokenizer"}, TextRules()),
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, TextRules(False, False, False, of_bert=True)),
    ],
)
def test_a_vocabulary_from_tokenizer_json_alone(tmp_path: Path, settings: Any, rules: TextRules) -> None:
    ends = [("[CLS]", 1), ("[SEP]", 2)]
    template = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]", ends)
    tokenizer = {**described(), "version": "1.0", "post_processor": json.loads(template.__getstate__())}
    source = source_folder(tmp_path / "hf", tokenizer=tokenizer, vocab=False, settings=settings)
    files = brought(source, tmp_path / "ours")
    assert files.vocabulary.decode().splitlines() == VOCABULARY
    assert files.rules == rules and files.template().longer_keeps_more == rules.of_bert


def test_a_gap_among_the_ids_is_filled_with_what_no_text_holds(tmp_path: Path) -> None:
    vocab = {token: i + (i > 30) for i, token in enumerate(VOCABULARY)}
    source = source_folder(tmp_path / "hf", tokenizer=described(vocab=vocab), vocab=False)
    files = brought(source, tmp_path / "ours")
    assert files.vocab_size == len(VOCABULARY) + 1
    filler = next(token for token, i in files.token_to_id.items() if i == 31)
    assert filler not in VOCABULARY
    encoder = PairEncoder(files, 64)
    assert 31 not in encoder.encode_texts([filler])[0].tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pre_tokenizer": {"type": "Whitespace"}}, "pre_tokenizer is Whitespace"),
        ({"model": {**WORDPIECE, "continuing_subword_prefix": "@@", "vocab": {"a": 0}}}, "'@@'"),
        ({"model": {**WORDPIECE, "max_input_chars_per_word": 50, "vocab": {"a": 0}}}, "over 50"),
        ({"model": {**WORDPIECE, "vocab": {"a": 0, "b": 0}}}, "'a' and 'b' have the id 0"),
        ({"model": {**WORDPIECE, "vocab": {"a": "x"}}}, "has the id 'x'"),
        ({"model": {**WORDPIECE, "vocab": {"a": 10**9}}}, "no usable vocabulary"),
        ({"model": {**WORDPIECE, "vocab": {}}}, "no usable vocabulary"),
        ({"normalizer": {"type": "NFKC"}}, "normalizer is NFKC"),
        ({"normalizer": None}, "normalizer is none"),
    ],
)
def test_another_kind_of_tokenizer(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    source = source_folder(tmp_path / "hf", tokenizer={**described(), **changes}, vocab=False)
    with pytest.raises(CheckpointError, match=message):
        brought(source, tmp_path / "ours")


@pytest.mark.parametrize("model_type", ["bert", "electra"])
@pytest.mark.parametrize("name", ["word_tokenizer_type", "subword_tokenizer_type"])
def test_words_of_a_morphological_analyser_are_refused(tmp_path: Path, model_type: str, name: str) -> None:
    """`vocab.txt` of a Japanese BERT looks as any other's, and its texts were split into other words."""
    source = source_folder(tmp_path / "hf", settings={name: "mecab"})
    with pytest.raises(CheckpointError, match=f"{name} is 'mecab'; only '[a-z]+' is done here"):
        family_of(model_type).bring_tokenizer(source, tmp_path)


def test_a_token_beyond_the_vocabulary_is_found_in_texts(tmp_path: Path) -> None:
    source = source_folder(tmp_path / "hf")
    (source / "added_tokens.json").write_text(json.dumps({"[NEW]": len(VOCABULARY)}))
    encoder = PairEncoder(brought_tokenizer(source, family_of("bert")), 64)
    assert encoder.encode_texts(["a [NEW]b"])[0].tolist() == [5, len(VOCABULARY), 6]
    (source / "added_tokens.json").write_text(json.dumps({"[NEW]": len(VOCABULARY) + 1}))
    with pytest.raises(CheckpointError, match=r"'\[NEW\]' has the id"):
        brought_tokenizer(source, family_of("bert"))


def words_by_library(library: Any, text: str) -> list[str]:
    normalized = library.normalizer.normalize_str(text)
    return [word for word, _ in library.pre_tokenizer.pre_tokenize_str(normalized)]


def differing_characters(codes: Iterable[int], folder: Path) -> list[str]:
    """Return the code points that the written tokenizer splits otherwise than ours, by ERNIE's rules."""
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    files = TokenizerFiles.read(folder)
    library, splitter = library_tokenizer(files), WordSplitter(files.rules)
    known = [code for code in codes if not 0xD800 <= code < 0xE000]
    differing = []
    for start in range(0, len(known), 1024):
        part = known[start : start + 1024]
        dropped = f"a{''.join(map(chr, part))}b"  # most characters are, and need no words of their own each
        if words_by_library(library, dropped) == splitter.split(dropped) == ["ab"]:
            continue
        texts = {code: f"{chr(code)} a{chr(code)}b" for code in part}
        differing += [code for code, text in texts.items() if words_by_library(library, text) != splitter.split(text)]
    return list(map(hex, differing))


@pytest.mark.parametrize("rules", [{}, {"word_rules": "bert"}])
@pytest.mark.parametrize("do_lower_case", [False, True])
def test_the_written_tokenizer_gives_our_ids(tmp_path: Path, do_lower_case: bool, rules: dict[str, str]) -> None:
    files = TokenizerFiles.read(source_folder(tmp_path / "hf", settings={"do_lower_case": do_lower_case, **rules}))
    back = written(files, tmp_path / "back")
    theirs = Tokenizer.from_file(str(back / "tokenizer.json"))
    theirs.encode_special_tokens = True  # what split_special_tokens asks transformers to do
    ours = PairEncoder(files, 200)
    for text in TEXTS:
        encoded = theirs.encode(text, "a b")
        ids, types = ours.encode([text], ["a b"]).pad([0]).values()
        assert encoded.ids == ids[0].tolist() and encoded.type_ids == types[0].tolist(), text
    settings = json.loads((back / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert (settings["model_max_length"], settings["split_special_tokens"]) == (64, True)
    assert not {"do_lower_case", "strip_accents", "tokenize_chinese_chars"} & settings.keys()  # of BertTokenizer


def test_the_written_tokenizer_splits_rare_characters_as_ours(tmp_path: Path) -> None:
    assert differing_characters(range(0x3500), tmp_path) == []
    for first, last in ((0xFA00, 0x10000), (0x10780, 0x107C0), (0x11930, 0x11940), (0x1E000, 0x20010)):
        assert differing_characters(range(first, last), tmp_path) == []
    for code in (0x2B820, 0x2CEA1, 0x2EBF0, 0x30000, 0xE0001, 0xF0000, 0x111C9, 0xE000, 0xD7FF):
        assert differing_characters(range(code, code + 1), tmp_path) == []
    files = TokenizerFiles.read(tmp_path)
    library, splitter, generator = library_tokenizer(files), WordSplitter(files.rules), random.Random(5)
    for _ in range(500):
        text = "".join(generator.choices("aΣİ中豈，＋ \t\n\u0301\u0323≠\u200b🫠🫨\u1734Ⱟe\u0300ﬁÅ\U00011938", k=9))
        assert words_by_library(library, text) == splitter.split(text), ascii(text)


@pytest.mark.slow
def test_the_written_tokenizer_splits_every_character_as_ours(tmp_path: Path) -> None:
    assert differing_characters(range(sys.maxunicode + 1), tmp_path) == []


def test_what_transformers_saves_again_comes_back(tmp_path: Path) -> None:
    # It writes tokenizer.json and tokenizer_config.json, without vocab.txt and without our settings.
    files = TokenizerFiles.read(source_folder(tmp_path / "hf", settings={"do_lower_case": True}))
    back = written(files, tmp_path / "back")
    (back / "vocab.txt").unlink()
    (back / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    again = brought(back, tmp_path / "again")
    assert (again.rules.do_lower_case, again.rules.strips_accents, again.vocabulary) == (True, True, files.vocabulary)
    normalizer = json.loads((back / "tokenizer.json").read_text(encoding="utf-8"))["normalizer"]
    normalizer["normalizers"][0]["pattern"] = {"Regex": "[a-z]"}
    change_json(back / "tokenizer.json", normalizer=normalizer)
    (tmp_path / "another").mkdir()
    bring_tokenizer(back, tmp_path / "another")
    assert not (tmp_path / "another" / "vocab.txt").exists()  # it is another tokenizer, which the library runs


def test_a_token_that_is_missing_and_tokens_that_stand_twice(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = source_folder(tmp_path / "hf")
    tokens = [token for token in VOCABULARY if token != "[MASK]"] + ["a", "z"]
    (source / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    back = written(TokenizerFiles.read(source), tmp_path / "back")
    theirs = Tokenizer.from_file(str(back / "tokenizer.json"))
    assert theirs.encode("a z", add_special_tokens=False).ids == [len(tokens) - 2, len(tokens) - 1]
    assert capfd.readouterr().err == ""  # the library warns of holes on its own
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        assert "[MASK]" not in (back / name).read_text(encoding="utf-8")
