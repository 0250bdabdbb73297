"""The tokenizer of a transformers folder: its settings survive, and what is written gives our ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Optional

import pytest
from tokenizers import Tokenizer

from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.encoding.tokenizers.folder import TokenizerFiles
from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.hugging_face.tokenizer import bring_tokenizer, write_tokenizer
from tests.tiny import PAIRS, VOCABULARY

pytestmark = pytest.mark.unit

WORDPIECE = {
    "type": "WordPiece",
    "unk_token": "[UNK]",
    "continuing_subword_prefix": "##",
    "max_input_chars_per_word": 100,
}
NORMALIZER = {
    "type": "BertNormalizer",
    "clean_text": True,
    "handle_chinese_chars": False,
    "strip_accents": False,
    "lowercase": False,
}
TEXTS = [
    *(text for pair in PAIRS for text in pair),
    "note１０＋使用 20℃ a²b µm 🙂x ÀÉ naïve ΑΣ",
    "[SEP] and [MASK] [UNK]",
    "x\u00ady\u200bz \u3000 tab\tend",
]


def source_folder(
    folder: Path,
    *,
    settings: Optional[dict[str, Any]] = None,
    tokenizer: Optional[dict[str, Any]] = None,
    vocab: bool = True,
) -> Path:
    folder.mkdir()
    if vocab:
        (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    if settings is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    if tokenizer is not None:
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    return folder


def brought(source: Path, target: Path) -> TokenizerFiles:
    target.mkdir()
    bring_tokenizer(source, target)
    return TokenizerFiles.read(target)


def described(**model: Any) -> dict[str, Any]:
    vocab = {token: i for i, token in enumerate(VOCABULARY)}
    return {"model": {**WORDPIECE, "vocab": vocab, **model}, "normalizer": NORMALIZER, "added_tokens": []}


@pytest.mark.parametrize("do_lower_case", [False, True])
@pytest.mark.parametrize("strip_accents", [None, False, True])
@pytest.mark.parametrize("tokenize_chinese_chars", [False, True])
def test_the_settings_survive(
    tmp_path: Path, do_lower_case: bool, strip_accents: Optional[bool], tokenize_chinese_chars: bool
) -> None:
    settings = {
        "do_lower_case": do_lower_case,
        "strip_accents": strip_accents,
        "tokenize_chinese_chars": tokenize_chinese_chars,
        "tokenizer_class": "BertTokenizerFast",
        "unk_token": {"content": "[UNK]", "lstrip": False},
        "added_tokens_decoder": {"0": {"content": "[PAD]"}},
    }
    files = brought(source_folder(tmp_path / "hf", settings=settings), tmp_path / "ours")
    assert (files.rules.do_lower_case, files.rules.strip_accents) == (do_lower_case, strip_accents)
    assert files.rules.tokenize_chinese_chars is tokenize_chinese_chars
    assert (files.config["tokenizer_class"], files.special_tokens["unk_token"]) == ("BertTokenizer", "[UNK]")
    assert files.vocabulary == (tmp_path / "hf" / "vocab.txt").read_bytes()
    (tmp_path / "back").mkdir()
    write_tokenizer(files, tmp_path / "back", 64)
    assert brought(tmp_path / "back", tmp_path / "again").rules == files.rules


def test_a_vocabulary_from_tokenizer_json_alone(tmp_path: Path) -> None:
    files = brought(source_folder(tmp_path / "hf", tokenizer=described(), vocab=False), tmp_path / "ours")
    assert files.vocabulary.decode().splitlines() == VOCABULARY
    assert (files.rules.do_lower_case, files.rules.strip_accents, files.rules.tokenize_chinese_chars) == (False,) * 3


def test_what_tokenizer_config_says_counts_more(tmp_path: Path) -> None:
    source = source_folder(tmp_path / "hf", tokenizer=described(), vocab=False, settings={"do_lower_case": True})
    rules = brought(source, tmp_path / "ours").rules
    assert (rules.do_lower_case, rules.strip_accents, rules.tokenize_chinese_chars) == (True, False, False)


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
        ({"model": {"type": "BPE", "vocab": {}, "merges": []}}, "kind BPE; only WordPiece"),
        ({"model": {"type": "Unigram", "vocab": []}}, "kind Unigram"),
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


def test_a_token_beyond_the_vocabulary_is_refused(tmp_path: Path) -> None:
    source = source_folder(tmp_path / "hf")
    (source / "added_tokens.json").write_text(json.dumps({"[NEW]": len(VOCABULARY)}))
    with pytest.raises(CheckpointError, match=r"adds the token '\[NEW\]'"):
        brought(source, tmp_path / "ours")


@pytest.mark.parametrize("do_lower_case", [False, True])
def test_the_written_tokenizer_gives_our_ids(tmp_path: Path, do_lower_case: bool) -> None:
    files = brought(source_folder(tmp_path / "hf", settings={"do_lower_case": do_lower_case}), tmp_path / "ours")
    (tmp_path / "back").mkdir()
    write_tokenizer(files, tmp_path / "back", 64)
    theirs = Tokenizer.from_file(str(tmp_path / "back" / "tokenizer.json"))
    theirs.encode_special_tokens = True  # what split_special_tokens asks transformers to do
    ours = PairEncoder(files, 200)
    for text in TEXTS:
        encoded, pair = theirs.encode(text, "a b"), ours.encode([text], ["a b"])
        ids, types = pair.pad([0]).values()
        assert encoded.ids == ids[0].tolist(), text
        assert encoded.type_ids == types[0].tolist(), text
    settings = json.loads((tmp_path / "back" / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert (settings["model_max_length"], settings["split_special_tokens"]) == (64, True)


def test_no_special_token_beyond_the_vocabulary_is_written(tmp_path: Path) -> None:
    source = source_folder(tmp_path / "hf")
    tokens = [token for token in VOCABULARY if token != "[MASK]"]
    (source / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    (tmp_path / "back").mkdir()
    write_tokenizer(TokenizerFiles.read(source), tmp_path / "back", 64)
    assert Tokenizer.from_file(str(tmp_path / "back" / "tokenizer.json")).get_vocab_size() == len(tokens)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        assert "[MASK]" not in (tmp_path / "back" / name).read_text(encoding="utf-8")


def test_a_token_that_stands_twice(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = source_folder(tmp_path / "hf")
    (source / "vocab.txt").write_text("\n".join([*VOCABULARY, "a", "z"]) + "\n", encoding="utf-8")
    files = TokenizerFiles.read(source)
    (tmp_path / "back").mkdir()
    write_tokenizer(files, tmp_path / "back", 64)
    theirs = Tokenizer.from_file(str(tmp_path / "back" / "tokenizer.json"))
    assert theirs.encode("a z", add_special_tokens=False).ids == [len(VOCABULARY), len(VOCABULARY) + 1]
    assert capfd.readouterr().err == ""  # the library warns of holes on its own
