"""Convert a transformers folder's WordPiece tokenizer into our files, and write ours so that transformers gets our ids.

Our vocabulary is `vocab.txt`, and the rules of splitting are in `tokenizer_config.json`. A transformers folder has
these files, or all of it in `tokenizer.json` (the format of the tokenizers library), or both.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

from paddle_ranker.encoding.tokenizers.base import ModelTokenizer
from paddle_ranker.encoding.tokenizers.builtin import CONTINUATION, MAX_WORD_CHARACTERS
from paddle_ranker.encoding.tokenizers.folder import (
    ADDED_TOKENS_FILE,
    CONFIG_FILE,
    SPECIAL_TOKENS_FILE,
    VOCABULARY_FILE,
    TokenizerFiles,
    read_settings,
)
from paddle_ranker.encoding.tokenizers.text_rules import CJK_RANGES, SYMBOLS_BY_NAME, TextRules
from paddle_ranker.encoding.unicode.table import INVISIBLE, MARK, SYMBOL, UNASSIGNED, unicode_table
from paddle_ranker.encoding.vocabulary import write_vocabulary
from paddle_ranker.errors import CheckpointError, DependencyError, quoted
from paddle_ranker.storage.untrusted import Unchecked, UncheckedObject, read_file

TOKENIZER_FILE = "tokenizer.json"
# Its normalizer's settings -> tokenizer_config.json's.
_SETTINGS = {
    "lowercase": "do_lower_case",
    "strip_accents": "strip_accents",
    "handle_chinese_chars": "tokenize_chinese_chars",
}
_KEPT = (*_SETTINGS.values(), "do_basic_tokenize", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_KEPT += ("added_tokens_decoder",)
_JAPANESE = {"word_tokenizer_type": "basic", "subword_tokenizer_type": "wordpiece"}  # MeCab, say, comes before BERT's
# Canonical decompositions of Unicode 13 and later; the library knows those of 12.
_YOUNG_DECOMPOSITIONS = {"\U00011938": "\U00011935\U00011930"}
_SPACES = (0x09, 0x0A, 0x0D)  # control characters that are not dropped
_SURROGATES = (0xD800, 0xDFFF)  # no text of the library holds any, and no pattern may
_REPLACEMENT = (0xFFFD, 0xFFFD)  # dropped as well

_Range = tuple[int, int]  # of code points, with the last


def bring_tokenizer(source: Path, target: Path) -> UncheckedObject:
    """Write `source`'s tokenizer into the folder `target` as PaddleNLP's and our files; return its settings.

    Raises `CheckpointError` if the tokenizer is not WordPiece, or splits text in another way than BERT's.
    """
    settings, described = (read_settings(source / name, "copy it again") for name in (CONFIG_FILE, TOKENIZER_FILE))
    for name, done in _JAPANESE.items():
        if settings.get(name) not in (None, done):
            raise CheckpointError(
                f"{source / CONFIG_FILE}: {name} is {quoted(settings[name])}; only {quoted(done)} is done here"
            )
    if (source / VOCABULARY_FILE).is_file():
        (target / VOCABULARY_FILE).write_bytes(read_file(source / VOCABULARY_FILE))
    elif described:
        write_vocabulary(target, _vocabulary(described, source / TOKENIZER_FILE))
    else:
        raise CheckpointError(f"{source}: has neither {VOCABULARY_FILE} nor {TOKENIZER_FILE}; copy the folder again")
    if described and not (
        (source / VOCABULARY_FILE).is_file() and any(settings.get(name) is not None for name in _SETTINGS.values())
    ):
        settings = {**_normalizer_settings(described, source / TOKENIZER_FILE), **settings}
    kept = {name: settings[name] for name in _KEPT if settings.get(name) is not None}
    kept["tokenizer_class"] = "BertTokenizer"  # PaddleNLP knows no Fast ones
    truncation = described.get("truncation")
    in_library = truncation.get("direction") if isinstance(truncation, dict) else None
    kept["truncation_side"] = str(settings.get("truncation_side") or in_library or "right").lower()
    (target / CONFIG_FILE).write_text(json.dumps(kept, ensure_ascii=False), encoding="utf-8")
    for name in (SPECIAL_TOKENS_FILE, ADDED_TOKENS_FILE):
        if (source / name).is_file():
            (target / name).write_bytes(read_file(source / name))
    TokenizerFiles.read(target).write(target)  # checks them; what is written says all that the defaults left unsaid
    (target / ADDED_TOKENS_FILE).unlink(missing_ok=True)  # nothing beyond vocab.txt, or it would have been refused
    return settings


def write_tokenizer(files: ModelTokenizer, target: Path, max_length: int, *, with_types: bool = True) -> None:
    """Write a tokenizer that gives transformers our ids: `tokenizer.json` and the files that belong to it.

    Args:
        max_length: tokens of the longest pair or text, at which sentence-transformers truncates, too.
        with_types: whether the encoder has a type of its own for the second text of a pair.
    """
    inputs = ["input_ids", *(["token_type_ids"] if with_types else []), "attention_mask"]
    if not isinstance(files, TokenizerFiles):  # it came from there
        files.write(target)
        stated = {**read_settings(target / CONFIG_FILE), "model_max_length": max_length}
        if not with_types:
            stated["model_input_names"] = inputs
        (target / CONFIG_FILE).write_text(json.dumps(stated, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        return
    # transformers would add a special token that the vocabulary lacks, under an id without an embedding.
    special = {role: token for role, token in files.special_tokens.items() if token in files.token_to_id}
    files = replace(files, special_tokens=special)
    files.write(target)
    _library_tokenizer(files).save(str(target / TOKENIZER_FILE))
    settings = {
        **special,
        "do_lower_case": files.rules.do_lower_case,
        "strip_accents": files.rules.strip_accents,
        "tokenize_chinese_chars": files.rules.tokenize_chinese_chars,
        "model_max_length": max_length,
        # The plain class takes tokenizer.json as it is; BertTokenizer would put its own splitting in place of ours.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": inputs,
        "truncation_side": "left" if files.template().keeps_end else "right",
        "split_special_tokens": True,  # "[SEP]" typed in a text is text
    }
    (target / CONFIG_FILE).write_text(json.dumps(settings, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _library_tokenizer(files: TokenizerFiles) -> Unchecked:
    try:
        from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    except ImportError as error:
        raise DependencyError(f"writing {TOKENIZER_FILE} needs tokenizers ({error}): pip install tokenizers") from None
    special, rules = files.special_tokens, files.rules
    by_id = {token_id: token for token, token_id in files.token_to_id.items()}
    # A token that stands twice leaves a hole, of which the library would warn.
    vocabulary = {by_id.get(token_id, _filler(token_id)): token_id for token_id in range(files.vocab_size)}
    wordpiece: Unchecked = models.WordPiece
    tokenizer = Tokenizer(
        wordpiece(vocabulary, unk_token=special["unk_token"], max_input_chars_per_word=MAX_WORD_CHARACTERS)
    )
    patterns = _Patterns.of(rules)
    # By our own table of characters: the library's is another one, and does not isolate symbols.
    steps = [normalizers.Replace(Regex(patterns.dropped), "")]
    if rules.do_lower_case:  # first: a capital's small letter may be one with an accent
        steps.append(normalizers.Lowercase())
    if rules.strips_accents:
        young = [normalizers.Replace(char, parts) for char, parts in _YOUNG_DECOMPOSITIONS.items()]
        steps += [normalizers.NFD(), *young, normalizers.Replace(Regex(patterns.accents), "")]
    bert = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=rules.tokenize_chinese_chars,
        strip_accents=False,
        lowercase=rules.do_lower_case,
    )
    tokenizer.normalizer = normalizers.Sequence([*steps, bert])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(patterns.isolated), "isolated"), pre_tokenizers.WhitespaceSplit()]
    )
    cls, sep = special["cls_token"], special["sep_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(token, files.token_to_id[token]) for token in (cls, sep)],
    )
    tokenizer.decoder = decoders.WordPiece(prefix=CONTINUATION)
    tokens = dict.fromkeys(special.values())
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
    return tokenizer


def _vocabulary(described: UncheckedObject, path: Path) -> list[str]:
    """Return the tokens of a `tokenizer.json` in the order of their ids."""
    model: UncheckedObject = described.get("model") or {}
    # Files of before the library named models have no type; only WordPiece has this setting.
    kind = model.get("type") or ("WordPiece" if "max_input_chars_per_word" in model else "unknown")
    if kind != "WordPiece":
        raise CheckpointError(
            f"{path}: its tokenizer is of the kind {kind}; only WordPiece is done here, so this model needs its "
            f"{kind} tokenizer, which is missing"
        )
    prefix, longest = model.get("continuing_subword_prefix", CONTINUATION), model.get("max_input_chars_per_word", 100)
    if prefix != CONTINUATION or longest != MAX_WORD_CHARACTERS:
        raise CheckpointError(
            f"{path}: its WordPiece marks pieces by {quoted(prefix)} and gives up on words over {longest} characters; "
            f"only {quoted(CONTINUATION)} and {MAX_WORD_CHARACTERS} are done here"
        )
    by_id: dict[int, str] = {}
    ids = model.get("vocab")
    added = {token.get("content"): token.get("id") for token in described.get("added_tokens") or []}
    for token, token_id in {**(ids if isinstance(ids, dict) else {}), **added}.items():
        if not isinstance(token, str) or type(token_id) is not int or token_id < 0:
            raise CheckpointError(f"{path}: the token {quoted(token)} has the id {quoted(token_id)}: copy it again")
        if by_id.setdefault(token_id, token) != token:
            raise CheckpointError(
                f"{path}: {quoted(by_id[token_id])} and {quoted(token)} have the id {token_id}: copy it again"
            )
    if not by_id or max(by_id) > 4 * len(by_id):
        raise CheckpointError(f"{path}: holds no usable vocabulary ({len(by_id):,} tokens): copy it again")
    return [by_id.get(token_id, _filler(token_id)) for token_id in range(max(by_id) + 1)]


def _filler(token_id: int) -> str:
    """Return a token for an id without one. No text matches it, since the tokenizer splits at brackets."""
    return f"[id {token_id} has no token]"


def _normalizer_settings(described: UncheckedObject, path: Path) -> UncheckedObject:
    normalizer: Optional[UncheckedObject] = described.get("normalizer")
    if normalizer and normalizer.get("type") == "Sequence":
        return _settings_of_ours(normalizer, path)
    if not normalizer or normalizer.get("type") != "BertNormalizer" or normalizer.get("clean_text") is False:
        kind = normalizer.get("type") if normalizer else "none"
        raise CheckpointError(f"{path}: its normalizer is {kind}; only BERT's (BertNormalizer) is done here")
    return {ours: normalizer[theirs] for theirs, ours in _SETTINGS.items() if normalizer.get(theirs) is not None}


def _settings_of_ours(sequence: UncheckedObject, path: Path) -> UncheckedObject:
    """Return the settings of a normalizer that `write_tokenizer` wrote; raises `CheckpointError` for any other."""
    steps: list[UncheckedObject] = sequence.get("normalizers") or []
    kinds = [step.get("type") for step in steps]
    strips = "NFD" in kinds
    lowers = bool(steps) and bool(steps[-1].get("lowercase"))
    patterns = _Patterns.of(TextRules(do_lower_case=lowers, strip_accents=strips))
    found = [step["pattern"] for step in steps if step.get("type") == "Replace"]
    ours = [{"Regex": patterns.dropped}]
    if strips:
        ours += [*({"String": young} for young in _YOUNG_DECOMPOSITIONS), {"Regex": patterns.accents}]
    if found != ours or kinds[-1] != "BertNormalizer":
        raise CheckpointError(f"{path}: its normalizer is a Sequence; only BERT's (BertNormalizer) is done here")
    return {
        "do_lower_case": lowers,
        "strip_accents": strips,
        "tokenize_chinese_chars": bool(steps[-1].get("handle_chinese_chars")),
    }


@dataclass(frozen=True)
class _Patterns:
    """Our rules of splitting as character classes of the tokenizers library, over all code points.

    `dropped` are always removed, `accents` only if the rules strip accents; `isolated` become tokens by themselves.
    """

    dropped: str
    accents: str
    isolated: str

    @classmethod
    def of(cls, rules: TextRules) -> _Patterns:
        """Return the character classes for `rules`."""
        ranges: dict[str, list[_Range]] = {}
        for kind, first, last in unicode_table().runs():
            ranges.setdefault(kind, []).append((first, last))
        gone = [*_without_spaces(ranges[INVISIBLE]), *ranges[UNASSIGNED], _REPLACEMENT]
        alone = [*ranges[SYMBOL], *((ord(char), ord(char)) for char in SYMBOLS_BY_NAME)]
        if rules.tokenize_chinese_chars:
            alone += CJK_RANGES
        return cls(_class(gone), _class(ranges[MARK]), _class(alone))


def _without_spaces(ranges: Iterable[_Range]) -> list[_Range]:
    """Return the ranges without spaces and surrogates."""
    found: list[_Range] = []
    for first, last in ranges:
        kept_before = first
        for hole_first, hole_last in (*((code, code) for code in _SPACES), _SURROGATES):
            if kept_before <= hole_first <= last:
                found += [(kept_before, hole_first - 1)] if kept_before < hole_first else []
                kept_before = hole_last + 1
        found += [(kept_before, last)] if kept_before <= last else []
    return found


def _class(ranges: Iterable[_Range]) -> str:
    """Return a character class of Oniguruma's, which the library reads."""
    return "[" + "".join(f"\\x{{{first:x}}}-\\x{{{last:x}}}" for first, last in sorted(ranges)) + "]"
